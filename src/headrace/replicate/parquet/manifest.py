"""The manifest of a table of Parquet files: which files it is made of, and how far it was copied.

It is the commit: what it does not list is not there. Format, a JSON object:

    commit      counts up with every change
    cursor      how far the table was copied; absent before a writer took it
    partition   the column of which date and hour make the folders; null: no folders
    key         the columns that tell rows apart
    columns     name -> Arrow's type, as text
    overlaps    whether rows may come that are there already, under an older version
    files       path inside the table's folder -> what is known of the file
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from headrace.replicate.columns import folder_name
from headrace.replicate.folders import write_json
from headrace.replicate.protocol import Cursor

__all__ = [
    "BOOKS",
    "DataFile",
    "Manifest",
    "books_of",
    "data_of",
    "filled_again",
    "listed_files",
    "manifest_of",
    "read_manifest",
]

BOOKS = "_headrace"
"""The folder beside the tables' folders that holds manifests and what is not finished."""


@dataclass(frozen=True)
class DataFile:
    """A file that is listed.

    lowest, highest  the smallest and the greatest `_version` in it
    commit           that brought its rows
    """

    rows: int
    bytes: int
    lowest: int
    highest: int
    commit: int


@dataclass(frozen=True)
class Manifest:
    """See the module's text."""

    partition: str | None
    key: tuple[str, ...]
    columns: dict[str, str]
    commit: int = 0
    cursor: Cursor | None = None
    overlaps: bool = False
    files: dict[str, DataFile] = field(default_factory=dict)

    def following(self, **changes: Any) -> Manifest:
        """Return the next one, with changes."""
        return replace(self, commit=self.commit + 1, **changes)

    def replaced(self, files: dict[str, DataFile]) -> Manifest:
        """Return this one with other files."""
        return replace(self, files=files)

    def folders(self) -> dict[str, set[str]]:
        """Return the names of the files in each folder."""
        found: dict[str, set[str]] = {}
        for path in self.files:
            found.setdefault(str(PurePosixPath(path).parent), set()).add(PurePosixPath(path).name)
        return found

    def facts(self) -> dict[str, Any]:
        """Return this one as JSON has it."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Put this one in the place of the one before, whole or not at all."""
        write_json(path, self.facts())


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest in a file; None when there is none."""
    if not path.exists():
        return None
    return manifest_of(path.read_text())


def manifest_of(text: str | bytes) -> Manifest:
    """Return the manifest that a text is."""
    facts = json.loads(text)
    cursor = facts["cursor"]
    if cursor is not None:
        cursor = Cursor.of(cursor)
    files = {name: DataFile(**each) for name, each in facts["files"].items()}
    return Manifest(**{**facts, "cursor": cursor, "files": files, "key": tuple(facts["key"])})


def data_of(folder: Path, table: str) -> Path:
    """Return the folder that holds a table's files, and nothing else."""
    return folder / folder_name(table)


def books_of(folder: Path, table: str) -> Path:
    """Return the folder of a table's manifest, lock and unfinished files."""
    return folder / BOOKS / folder_name(table)


def filled_again(folder: Path, table: str, how: str) -> str:
    """Return `how` a table is filled again; of one whose rows executors have written, what to do instead.

    Their files wait beside the manifest (see `staged`), and are nowhere else.
    """
    if any(books_of(folder, table).glob("rows-*")):
        return "declare the table under another name: it is computed from the log, and this one stays"
    return how


def listed_files(folder: Path, table: str) -> list[Path]:
    """Return the files that a table is made of, as its manifest says; none when it was not copied yet."""
    manifest = read_manifest(books_of(folder, table) / "manifest.json")
    return [data_of(folder, table) / name for name in manifest.files] if manifest else []
