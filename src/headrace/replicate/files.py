"""Tables as files of changes: `TABLE.ndjson` or `TABLE.csv`, a line for each row that changed or went.

For people, for `tail -f`, and as the smallest replica there is. A line of JSON is
`{"op": "put", "version": 5, "row": {…}}`, `{"op": "remove", "version": 6, "key": {…}}` or
`{"op": "sweep", "below": 7}`; the last line of a key holds. A sweep may say from which version on rows go:
`"from": 3`, in CSV `sweep from 3`. There, `_op` and `_version` are the first two columns: of a row that went,
the key follows, of a sweep, nothing does. The cursor stands in `TABLE.cursor.json`, with the length that the
file had: what is behind that length was not finished, and is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.folders import deleted, folder_failures, locked, make_folder, write_json
from headrace.replicate.options import CommonOptions, setting
from headrace.replicate.plain import changes_of, csv_changes, csv_head, sound
from headrace.replicate.protocol import Chunk, Cursor, ReplicaWriter, TableShape, Task, fenced

__all__ = ["FilesReplica", "read_files"]

_DIGITS_MAX = 4_000


@dataclass(frozen=True, kw_only=True)
class FilesReplica(CommonOptions):
    """Keeps tables as files of changes in a folder. Touches nothing before `open`."""

    path: str = setting("path", "", "the folder, made when it is absent", required=True)
    format: str = setting(
        "one of",
        "ndjson",
        "ndjson: a line of JSON for each change; csv: a line of CSV, for tables whose columns stay",
        choices={"ndjson": "", "csv": ""},
    )

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        if not self.path:
            raise ProfileError(f"replica '{task.replica}' has no path", fix='write path = "tables/"')
        return _FilesWriter(Path(self.path), self.format == "csv", task)


class _FilesWriter:
    def __init__(self, folder: Path, csv: bool, task: Task) -> None:
        self._folder = folder
        self._csv = csv
        self._task = task
        with folder_failures(folder):
            make_folder(folder)
            for shape in task.tables:
                self._check(shape)

    def _check(self, shape: TableShape) -> None:
        """Write down the columns of a table; columns may come, and none may become another one."""
        path = self._folder / f"{shape.name}.schema.json"
        wanted = {column.name: column.type for column in shape.columns}
        there: dict[str, Any] = {"columns": wanted, "key": list(shape.key)}
        if path.exists():
            there = json.loads(path.read_text())
        for name, kind in wanted.items():
            if there["columns"].get(name, kind) != kind:
                raise RefusedError(
                    f"column '{name}' of {path} is {there['columns'][name]}, and the table gives {kind}",
                    fix=f"move {path} and the files beside it away; `headrace replicas rebuild` fills them",
                )
        if there["key"] != list(shape.key):
            raise RefusedError(
                f"{path} tells rows apart by {there['key']}, and the table by {list(shape.key)}",
                fix=f"move {path} and the files beside it away; `headrace replicas rebuild` fills them",
            )
        if self._csv and list(there["columns"]) != list(wanted):
            raise RefusedError(
                f"{path} has the columns {', '.join(there['columns'])}, and the table {', '.join(wanted)}",
                fix=f"move {path} and the files beside it away: a file of CSV keeps the columns that it "
                'began with; or use format = "ndjson"',
            )
        write_json(path, {"columns": {**there["columns"], **wanted}, "key": list(shape.key)})

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        with folder_failures(self._folder):
            found = {shape.name: self._cursor(shape.name) for shape in self._task.tables}
        return {name: cursor for name, (cursor, _) in found.items() if cursor is not None}

    def _cursor(self, table: str) -> tuple[Cursor | None, int]:
        path = self._folder / f"{table}.cursor.json"
        if not path.exists():
            return None, 0
        facts = json.loads(path.read_text())
        length = facts.pop("length")
        return Cursor.of(facts), length

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        with folder_failures(self._folder), locked(self._folder / f"{table}.lock"):
            there, length = self._cursor(table)
            if there != seen:
                raise fenced(table)
            self._save(table, cursor, length)

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table = chunk.table.name
        with folder_failures(self._folder), locked(self._folder / f"{table}.lock"):
            there, length = self._cursor(table)
            if there == chunk.cursor:
                return
            if there is None:
                raise deleted(self._folder / f"{table}.cursor.json")
            if not chunk.cursor.same_writer(there):
                raise fenced(table)
            chunk = sound(chunk, self._task.set_aside)
            path = self._folder / f"{table}.{'csv' if self._csv else 'ndjson'}"
            with path.open("ab") as file:
                if file.tell() < length:
                    raise RefusedError(
                        f"{path} is shorter than it was: somebody has cut it, or taken it away",
                        fix="bring it back; or move it and the files beside it away, and resume: it is "
                        "written anew",
                    )
                file.truncate(length)
                if self._csv and not length:
                    file.write(csv_head(chunk.table).encode() + b"\n")
                lines = csv_changes(chunk) if self._csv else changes_of(chunk)
                file.writelines(line.encode() + b"\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
                length = file.tell()
            self._save(table, chunk.cursor, length)

    def _save(self, table: str, cursor: Cursor, length: int) -> None:
        write_json(self._folder / f"{table}.cursor.json", {**cursor.facts(), "length": length})

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""

    def close(self) -> None:
        """See `ReplicaWriter`."""


def _number(digits: str) -> int | Decimal:
    """Return a whole number; Python makes none of more digits than it has a limit for."""
    return int(digits) if len(digits) < _DIGITS_MAX else Decimal(digits)


def read_files(folder: Path, table: str) -> list[dict[str, Any]]:
    """Return the rows that the files of a table hold now: every line applied, in order."""
    key = json.loads((folder / f"{table}.schema.json").read_text())["key"]
    facts = folder / f"{table}.cursor.json"
    path = folder / f"{table}.ndjson"
    if not path.exists() or not facts.exists():
        return []
    rows: dict[Any, tuple[int, dict[str, Any]]] = {}
    for number, line in enumerate(path.read_bytes()[: json.loads(facts.read_text())["length"]].splitlines()):
        change = json.loads(line, parse_int=_number)
        if change["op"] == "sweep":
            swept = range(change.get("from", 0), change["below"])
            rows = {k: row for k, row in rows.items() if row[0] not in swept}
            continue
        row = change.get("row", change.get("key"))
        known = json.dumps([row.get(name) for name in key]) if key else number
        if known in rows and rows[known][0] > change["version"]:
            continue
        rows.pop(known, None)
        if change["op"] == "put":
            rows[known] = (change["version"], row)
    return [row for _, row in rows.values()]
