"""What the writer asks of the place that holds a table's files, be it a disk or an object store."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from headrace.errors import RefusedError
from headrace.replicate.parquet.datafiles import Source
from headrace.replicate.parquet.manifest import DataFile, Manifest

__all__ = ["TableFiles"]


class TableFiles(Protocol):
    """The files of one table and its manifest, which is the commit.

    table  its name
    mark   what names of its files end with: "" where nobody else can write under the same name meanwhile
    data   where readers look, in words
    books  where manifest and unfinished work are, in words
    """

    @property
    def table(self) -> str:
        """See above."""

    @property
    def mark(self) -> str:
        """See above."""

    @property
    def data(self) -> Path | str:
        """See above."""

    @property
    def books(self) -> Path | str:
        """See above."""

    def failures(self) -> AbstractContextManager[None]:
        """Say who must act when the place says no. Around every other call."""

    def held(self) -> AbstractContextManager[Manifest | None]:
        """Give the table's manifest, None when there is none yet; what follows in the block is about it.

        Raises RefusedError when there are files, and no manifest that tells of them.
        """

    def stage(self, commit: int) -> Path:
        """Return an empty folder of this machine in which the files of a commit are made."""

    def keep(self, staged: Path, names: Iterable[str]) -> None:
        """Take note that files stay in a folder from which others go."""

    def commit(self, manifest: Manifest) -> None:
        """Make `manifest`, and what was staged for it, the table, durably; files that it does not list go.

        Raises RefusedError (`fenced`) when the manifest is not the one that is held any more.
        """

    def save(self, manifest: Manifest) -> None:
        """Put a manifest without new files in the place of the one that is held; see `commit`."""

    def check(self, manifest: Manifest, folders: Collection[str] | None = None) -> dict[str, DataFile]:
        """Return the files that are listed, without those of folders that somebody has taken away.

        With `folders`, only those are looked at, also where the table has no file in them. Raises
        RefusedError for a folder in which a file is missing, or one that is not listed.
        """

    def clear(self, manifest: Manifest) -> None:
        """Let go of what writers before left unfinished; after the table was taken."""

    def source(self, name: str) -> Source:
        """Return a file of the table, to be read."""

    def anew(self, how: str) -> str:
        """Return `how` the table is filled again, or what to do where it cannot be."""

    def gone(self) -> RefusedError:
        """Return the error of a manifest that was there, and is not any more."""

    def close(self) -> None:
        """Give back what is held open. Twice is harmless."""
