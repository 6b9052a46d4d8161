"""The files of a table as objects of S3, where nothing can be moved: the manifest alone says what counts.

Objects are written where readers look, under names that no other writer makes; then the manifest is put in
the place of the one that was read, if it is still that one (If-Match), and that is the commit. What a commit
will bring and take away is written down before (`pending/`), so that whoever takes the table next deletes
what a crash has left: those of these objects that the manifest does not list, and no others.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.replicate.columns import LakeOptions, folder_name
from headrace.replicate.folders import folder_failures
from headrace.replicate.parquet.bucket import Bucket, Found
from headrace.replicate.parquet.manifest import BOOKS, DataFile, Manifest, manifest_of
from headrace.replicate.parquet.workspace import Workspace, clear_workspaces
from headrace.replicate.protocol import fenced

__all__ = ["ObjectTree", "object_trees"]

_PENDING = re.compile(r".*/pending/c(\d+)-[0-9a-f]+\.json")
_FORGOTTEN = 10_000
"""So many commits later nobody waits any more for a writer that may only be asleep."""


def object_trees(options: LakeOptions, tables: Iterable[str]) -> Mapping[str, ObjectTree]:
    """Open the place of each table in a bucket. Raises RefusedError where no commit would be safe."""
    bucket = Bucket(options)
    try:
        with bucket.failures():
            bucket.require_conditions()
        clear_workspaces(bucket.place)
    except BaseException:
        bucket.close()
        raise
    return {name: ObjectTree(bucket, name) for name in tables}


class ObjectTree:
    """The objects of one table; see `TableFiles`."""

    def __init__(self, bucket: Bucket, table: str) -> None:
        self.table = table
        self.mark = f"-{uuid.uuid4().hex[:12]}"
        self._bucket = bucket
        self._data = folder_name(table)
        self._books = f"{BOOKS}/{self._data}"
        self._manifest = f"{self._books}/manifest.json"
        self.data = bucket.address(self._data)
        self.books = bucket.address(self._books)
        self._there: Manifest | None = None
        self._tag: str | None = None
        self._staged: Workspace | None = None

    @contextmanager
    def failures(self) -> Iterator[None]:
        """See `TableFiles`."""
        with self._bucket.failures(), folder_failures(Path(tempfile.gettempdir())):
            yield

    @contextmanager
    def held(self) -> Iterator[Manifest | None]:
        """See `TableFiles`. Nobody is kept out: who was first to commit is told by the manifest."""
        found = self._bucket.read(self._manifest)
        self._there = None if found is None else self._manifest_in(found)
        self._tag = None if found is None else found.tag
        if found is None:
            self._refuse_unlisted()
        try:
            yield self._there
        finally:
            self._unstage()

    def _manifest_in(self, found: Found) -> Manifest:
        try:
            return manifest_of(found.body)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise RefusedError(
                f"{self.books}/manifest.json is not as it was written: somebody else has changed it",
                fix=f"bring it back, as it was; or {self._written_anew()}",
            ) from None

    def _written_anew(self) -> str:
        return f"move {self.data} and {self.books} away and restart: the table is written anew"

    def _refuse_unlisted(self) -> None:
        found = next((key for key in self._bucket.keys(f"{self._data}/") if _is_data(key)), None)
        if found is not None:
            raise RefusedError(
                f"{self._bucket.address(found)} is there, and {self.books}/manifest.json, which lists the "
                "table's files, is not",
                fix=f"bring the manifest back, or move {self.data} away: the table is written anew",
            )

    def stage(self, commit: int) -> Path:
        """See `TableFiles`."""
        self._unstage()
        self._staged = Workspace(self._bucket.place)
        return self._staged.path

    def _unstage(self) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            staged.close()

    def keep(self, staged: Path, names: Iterable[str]) -> None:
        """See `TableFiles`. No folder is exchanged here."""

    def commit(self, manifest: Manifest) -> None:
        """See `TableFiles`."""
        assert self._staged is not None and self._there is not None  # noqa: S101 - `stage`, in `held`
        top = self._staged.path
        coming = {path.relative_to(top).as_posix(): path for path in top.rglob("*") if path.is_file()}
        going = self._there.files.keys() - manifest.files.keys()
        pending = f"{self._books}/pending/c{manifest.commit:08d}{self.mark}.json"
        if coming or going:
            self._bucket.put(pending, json.dumps(sorted({*coming, *going})).encode())
        for name, path in sorted(coming.items()):
            self._bucket.put_file(f"{self._data}/{name}", path)
        if not self._replaced(manifest, marked=bool(coming)):
            self._withdraw(coming, pending)
            raise self._overtaken(manifest)
        if coming or going:
            self._let_go(going)
            self._bucket.delete(pending)

    def _withdraw(self, coming: Collection[str], pending: str) -> None:
        """Delete the objects of a commit that was refused; it may have been made, and another one upon it."""
        there = self._bucket.read(self._manifest)
        files = coming if there is None else self._manifest_in(there).files
        left = [name for name in coming if name not in files]
        self._let_go(left)
        if left:
            self._bucket.delete(pending)

    def _let_go(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            self._bucket.delete(f"{self._data}/{name}")

    def save(self, manifest: Manifest) -> None:
        """See `TableFiles`."""
        if not self._replaced(manifest, marked=False):
            raise self._overtaken(manifest)

    def _replaced(self, manifest: Manifest, *, marked: bool) -> bool:
        """Put a manifest in the place of the one that was read; `marked`: it lists objects of this writer."""
        body = json.dumps(manifest.facts()).encode()
        tag = self._bucket.replace(self._manifest, body, self._tag)
        if tag is None:
            # What stands between here and the server may have put it twice, and the second one was refused.
            # Without names of its own objects in it, the same bytes may be another writer's.
            found = self._bucket.read(self._manifest) if marked else None
            if found is None or found.body != body:
                return False
            tag = found.tag
        self._there, self._tag = manifest, tag
        return True

    def _overtaken(self, manifest: Manifest) -> HeadraceError:
        if self._tag is not None and self._bucket.read(self._manifest) is None:
            return self.gone()
        if self._there is not None and manifest.cursor != self._there.cursor:
            return fenced(self.table)
        what = f"another process has changed {self.books}/manifest.json"
        return TransientError(what, fix="it is tried again")

    def check(self, manifest: Manifest, folders: Collection[str] | None = None) -> dict[str, DataFile]:
        """See `TableFiles`."""
        listed, gone = manifest.folders(), set()
        there = self._names(folders)
        for name in listed if folders is None else folders:
            found, wanted = there.get(name, set()), listed.get(name, set())
            if found and found != wanted and (odd := self._odd(name, found, wanted)):
                raise RefusedError(
                    f"{self.data}/{odd}: somebody else has changed the table's files",
                    fix=f"put it right; or {self._written_anew()}",
                )
            gone |= set() if found else {name}
        return {path: facts for path, facts in manifest.files.items() if _folder(path) not in gone}

    def _odd(self, folder: str, found: set[str], wanted: set[str]) -> str:
        """Return what is wrong with a folder; "" when only what writers have written down is there, too."""
        if missing := wanted - found:
            return f"{_joined(folder, min(missing))} is gone"
        known = {name for names in self._pending().values() for name in names}
        others = {_joined(folder, name) for name in found - wanted} - known
        return f"{min(others)} is not listed in the manifest" if others else ""

    def _names(self, folders: Collection[str] | None) -> dict[str, set[str]]:
        """Return the names of the files in each folder that has any."""
        found: dict[str, set[str]] = {}
        for below in [""] if folders is None else [_joined(folder, "") for folder in folders]:
            for key in self._bucket.keys(f"{self._data}/{below}"):
                if _is_data(key):
                    name = key.removeprefix(f"{self._data}/")
                    found.setdefault(_folder(name), set()).add(PurePosixPath(name).name)
        return found

    def _pending(self) -> dict[str, list[str]]:
        """Return what commits that may not be through have written down, by the objects' keys."""
        found = {}
        for key in self._bucket.keys(f"{self._books}/pending/"):
            if _PENDING.fullmatch(key) and (told := self._bucket.read(key)) is not None:
                found[key] = json.loads(told.body)
        return found

    def clear(self, manifest: Manifest) -> None:
        """See `TableFiles`. A commit with a later number is of a writer who has the table since.

        What a writer has written down stays: it may be asleep, and its objects come when it wakes up.
        """
        pending = self._pending()
        there = set(self._bucket.keys(f"{self._data}/")) if pending else set()
        for key, names in pending.items():
            told = _PENDING.fullmatch(key)
            number = manifest.commit + 1 if told is None else int(told[1])
            if number <= manifest.commit:
                self._let_go(
                    name for name in names if name not in manifest.files and f"{self._data}/{name}" in there
                )
            if number <= manifest.commit - _FORGOTTEN:
                self._bucket.delete(key)

    def source(self, name: str) -> pa.Buffer:
        """See `TableFiles`."""
        found = self._bucket.read(f"{self._data}/{name}")
        if found is not None:
            body, what = pa.py_buffer(found.body), "is no whole Parquet file"
            with suppress(pa.ArrowException, OSError), pq.ParquetFile(body):
                return body
        else:
            what = "is gone"
        raise RefusedError(
            f"{self.data}/{name} {what}: somebody else has changed the table's files",
            fix=f"bring it back, as it was; or {self._written_anew()}",
        )

    def anew(self, how: str) -> str:
        """See `TableFiles`. Executors write nothing here."""
        return how

    def gone(self) -> RefusedError:
        """See `TableFiles`."""
        return RefusedError(
            f"{self.books}/manifest.json is gone: somebody has deleted it while the replica wrote there",
            fix="bring it back, as it was; or take the table's objects away, too, and `headrace replicas "
            "resume`: a table that is gone is filled anew",
        )

    def close(self) -> None:
        """See `TableFiles`."""
        self._unstage()
        self._bucket.close()


def _is_data(key: str) -> bool:
    return key.endswith(".parquet")


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"
