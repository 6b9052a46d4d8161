"""The files of a table on the disk: made aside, committed by the manifest, then moved to where readers look.

A reader that takes every file of the table's folder never sees rows that are not committed, and never a row
twice: files that only come are moved one by one, and where files go, the folder is exchanged as a whole for
one that was made beside it (Linux's `renameat2`; elsewhere by two renames). A move that a crash cut off is
made by whoever opens the table next.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath

from headrace.errors import RefusedError
from headrace.replicate.folders import deleted, folder_failures, locked, make_folder, sync
from headrace.replicate.parquet.manifest import (
    DataFile,
    Manifest,
    books_of,
    data_of,
    filled_again,
    read_manifest,
)

__all__ = ["Tree"]

_AT_FDCWD = -100
_EXCHANGE = 2
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


class Tree:
    """The folders of one table; see `TableFiles`."""

    mark = ""  # the lock sees to it that nobody else makes files meanwhile

    def __init__(self, folder: Path, table: str) -> None:
        self.table = table
        self._folder = folder
        self.data = data_of(folder, table)
        self.books = books_of(folder, table)
        self._manifest = self.books / "manifest.json"
        self._staged = self.books / "staged"
        for each in (self.data, self._staged):
            make_folder(each)

    def failures(self) -> AbstractContextManager[None]:
        """See `TableFiles`."""
        return folder_failures(self._folder)

    @contextmanager
    def held(self) -> Iterator[Manifest | None]:
        """Hold the table's lock, and give its manifest, of which every file is in its place."""
        with locked(self.books / "lock"):
            manifest = read_manifest(self._manifest)
            if manifest is None:
                self._refuse_unlisted()
            else:
                self._settle(manifest)
            yield manifest

    def _refuse_unlisted(self) -> None:
        """Raise RefusedError when there are files, and nothing that says which of them are the table."""
        found = next(self.data.rglob("*.parquet"), None)
        if found is not None:
            raise RefusedError(
                f"{found} is there, and {self._manifest}, which lists the table's files, is not",
                fix=f"bring the manifest back, or {self._written_anew(f'move {self.data} away')}",
            )

    def _written_anew(self, how: str) -> str:
        return self.anew(f"{how}: the table is written anew")

    def anew(self, how: str) -> str:
        """See `TableFiles`."""
        return filled_again(self._folder, self.table, how)

    def gone(self) -> RefusedError:
        """See `TableFiles`."""
        return deleted(self._manifest)

    def source(self, name: str) -> Path:
        """See `TableFiles`."""
        return self.data / name

    def clear(self, manifest: Manifest) -> None:
        """See `TableFiles`. Whoever stages files next does it."""

    def close(self) -> None:
        """See `TableFiles`."""

    def stage(self, commit: int) -> Path:
        """Return an empty folder for the files of a commit; what older ones left behind goes."""
        for left in self._staged.iterdir():
            shutil.rmtree(left)
        made = self._staged / str(commit)
        made.mkdir()
        return made

    def commit(self, manifest: Manifest) -> None:
        """Make `manifest`, and what was staged for it, the table. The caller holds the lock."""
        staged = self._staged / str(manifest.commit)
        for folder, _, names in os.walk(staged):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))
        sync(self._staged)
        manifest.save(self._manifest)
        self._settle(manifest)

    def _settle(self, manifest: Manifest) -> None:
        """Move what is staged for the last commit to its place, unless that is done."""
        staged = self._staged / str(manifest.commit)
        wanted = manifest.folders()
        deep = 0 if manifest.partition is None else 2
        for at, _, _ in os.walk(staged):
            name = Path(at).relative_to(staged)
            if len(name.parts) == deep:
                self._settle_folder(staged / name, self.data / name, wanted.get(str(name), set()))

    def check(self, manifest: Manifest, folders: Collection[str] | None = None) -> dict[str, DataFile]:
        """Return the files that are listed, without those of folders that somebody has taken away.

        With `folders`, only those are looked at, also where the table has no file in them. Raises
        RefusedError for a folder in which a file is missing, or one that is not listed.
        """
        gone, listed = set(), manifest.folders()
        for name in listed if folders is None else folders:
            there, wanted = _names(self.data / name), listed.get(name, set())
            if there and there != wanted:
                what = "is gone" if wanted - there else "is not listed in the manifest"
                odd = self.data / name / min((wanted - there) or (there - wanted))
                raise RefusedError(
                    f"{odd} {what}: somebody else has changed the table's files",
                    fix="put it right; or "
                    + self._written_anew(f"move {self.data} and {self.books} away and restart"),
                )
            gone |= set() if there else {name}
        return {path: facts for path, facts in manifest.files.items() if _folder(path) not in gone}

    def save(self, manifest: Manifest) -> None:
        """Put a manifest of the same files in the place of the last one. The caller holds the lock."""
        manifest.save(self._manifest)

    def _settle_folder(self, staged: Path, place: Path, wanted: set[str]) -> None:
        there, ready = _names(place), _names(staged)
        if there - wanted and ready == wanted:
            _exchange(staged, place)
            sync(place)
            sync(staged.parent)
            _sync_up(place, self.data)
        elif moved := (wanted - there) & ready:
            # Also where somebody has taken other files of the folder away, of which `check` tells.
            make_folder(place)
            for name in sorted(moved):
                (staged / name).replace(place / name)
            sync(place)
            _sync_up(place, self.data)

    def keep(self, staged: Path, names: Iterable[str]) -> None:
        """Take files of the table over into a folder that will be exchanged for theirs."""
        for name in names:
            kept = staged / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.data / name, kept)


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {each.name for each in folder.iterdir() if each.name.endswith(".parquet")}


def _sync_up(folder: Path, top: Path) -> None:
    """Make the names of new folders durable."""
    while folder != top.parent:
        folder = folder.parent
        sync(folder)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places, at once where the system can."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNABLE:
            raise OSError(code, os.strerror(code), str(other))
    aside = one.with_name(one.name + ".out")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
