"""Rows that executors write as Parquet files of a target, staged beside it until the replica takes them in.

A file is staged under a name that no other attempt has, and durable before it is told of. The store's list
says which files count; whoever takes one into the target links it there, commits, and only then lets go of
the staged one. So a crash between any two of these leaves the file in one place at least, and what no epoch
names is taken away when the next run begins.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import RefusedError
from headrace.replicate.columns import LakeOptions, arrow_schema, folder_name, time_column
from headrace.replicate.delta.instants import beyond
from headrace.replicate.fitting import held
from headrace.replicate.folders import folder_failures, make_folder, sync
from headrace.replicate.parquet.datafiles import COMPRESSION, folders_of
from headrace.replicate.parquet.manifest import BOOKS
from headrace.replicate.protocol import REFUSED_MAX, Refusal, TableShape, refusals_among, version_of
from headrace.replicate.shapes import shape_of
from headrace.sql.plan import TablePlan
from headrace.store.outside import RowFile

__all__ = [
    "FIRST_GENERATION",
    "RowsStage",
    "left_behind",
    "put_staged",
    "refusals_of",
    "staged_at",
    "take_away",
]

FIRST_GENERATION = 1
"""Executors do not know the generation of whoever will take their files; rows of such a table have this."""
_NAME = re.compile(r"e(\d{10,})-[0-9a-f]{32}\.parquet")
_OTHER_NAME = "declare the table under another name, under which it is computed from the log,"
_UNLINKABLE = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def staged_at(folder: Path, table: str, store_id: str) -> Path:
    """Return the folder in which files of a table wait; each store has its own."""
    return folder / BOOKS / folder_name(table) / f"rows-{store_id}"


@dataclass(frozen=True)
class RowsStage:
    """Where executors write the rows of one table; it is sent to them. Touches nothing before it is used.

    schema     of the files, with `_version`
    partition  the column of which date and hour make the target's folders; None: there are none
    calendar   whether the target holds dates of the years 1 to 9999 only, as Delta does
    """

    place: Path
    shape: TableShape
    schema: pa.Schema
    partition: str | None
    calendar: bool

    @staticmethod
    def of(table: TablePlan, options: LakeOptions, folder: Path, store_id: str) -> RowsStage:
        """Return the stage of a table for a replica that keeps its tables in `folder`."""
        shape = shape_of(table, options)
        delta = options.kind == "delta"
        return RowsStage(
            staged_at(folder.absolute(), table.name, store_id),
            shape,
            arrow_schema(shape, signed=delta),
            time_column(shape, options.partition_by),
            delta,
        )

    def prepare(self, listed: Collection[str]) -> None:
        """Make the folder, and take away files that no committed epoch names; before anything is written."""
        with folder_failures(self.place):
            make_folder(self.place)
            for file in self.place.iterdir():
                if file.name not in listed:
                    file.unlink(missing_ok=True)

    def write(self, rows: pa.Table, epoch: int) -> tuple[RowFile, ...]:
        """Write rows of an epoch, durably, a file for each of the target's folders; return what to list.

        A row with a value that the files cannot hold is set aside: listed as refused. Raises RefusedError
        where the folder is another one than the driver's, where such rows are many, and for a type that no
        file can hold.
        """
        if not self.place.is_dir():
            raise _not_shared(self.place)
        version = pa.scalar(version_of(FIRST_GENERATION, epoch), pa.int64())
        rows = rows.append_column("_version", pa.repeat(version, rows.num_rows))
        try:
            rows, refused = self._held(rows)
            found = [RowFile("", ".", epoch, 0, 0, refused)] if refused else []
            with folder_failures(self.place):
                for folder, some in folders_of(rows, self.partition):
                    name = f"e{epoch:010d}-{uuid.uuid4().hex}.parquet"
                    pq.write_table(some, self.place / name, compression=COMPRESSION)
                    sync(self.place / name)
                    size = (self.place / name).stat().st_size
                    found.append(RowFile(name, folder, epoch, some.num_rows, size))
                sync(self.place)
        except pa.ArrowException as error:  # whose text holds the value
            raise RefusedError(
                f"the files of table '{self.shape.name}' cannot hold one of its values "
                f"({type(error).__name__})",
                fix=f"{_OTHER_NAME} with a CAST in its SQL, or leave it out of spark.rows_by_executors",
            ) from None
        return tuple(found)

    def require(self, files: Iterable[RowFile]) -> None:
        """Raise RefusedError unless this process sees each of the files whole: then all of them share it.

        And when more rows of an epoch were set aside than a replica sets aside at once, whichever tasks they
        were in.
        """
        files = list(files)
        reasons = [reason for file in files for _, reason in file.refused]
        if len(reasons) > REFUSED_MAX:
            raise self._too_many(len(reasons), reasons[0])
        with folder_failures(self.place):
            there = {one.name: one.stat().st_size for one in os.scandir(self.place)}
        for file in files:
            if file.name and there.get(file.name) != file.bytes:
                raise _not_shared(self.place)

    def _held(self, rows: pa.Table) -> tuple[pa.Table, tuple[tuple[str, str], ...]]:
        """Return the rows that the files can hold, in their types, and key and reason of the others."""
        fit, odd = held(rows, self.schema, beyond(rows, self.partition) if self.calendar else {})
        if len(odd) > REFUSED_MAX:
            raise self._too_many(len(odd), next(iter(odd.values())))
        refused = refusals_among(self.shape, rows, odd) if odd else []
        return fit, tuple((each.key, each.reason) for each in refused)

    def _too_many(self, rows: int, reason: str) -> RefusedError:
        return RefusedError(
            f"the files of table '{self.shape.name}' cannot hold {rows} rows of one epoch: {reason}",
            fix=f"{_OTHER_NAME} with CAST(… AS VARCHAR), or NULL for such values, in its SQL",
        )


def _not_shared(place: Path) -> RefusedError:
    return RefusedError(
        f"executors and driver do not see the same folder {place}",
        fix="rows are written by executors into a folder that all machines share, at one path: name such a "
        "one as the replica's path, or leave the table out of spark.rows_by_executors",
    )


def refusals_of(table: str, files: Iterable[RowFile]) -> list[Refusal]:
    """Return the rows that the target cannot hold."""
    return [
        Refusal(table, key, version_of(FIRST_GENERATION, file.epoch), reason)
        for file in files
        for key, reason in file.refused
    ]


def put_staged(staged: Path, place: Path, size: int) -> None:
    """Let a staged file of `size` bytes lie at `place` as well, durably; twice is once.

    Only the names of folders above the one that it lies in are left to the caller where they were there
    before. Raises RefusedError when the file is in neither place.
    """
    make_folder(place.parent)
    if not (place.exists() and place.stat().st_size == size):
        if not staged.exists():
            raise RefusedError(
                f"{staged} is gone, and it held rows that are nowhere else",
                fix="bring it back; or give the table another name: it is computed from the log",
            )
        place.unlink(missing_ok=True)
        _link(staged, place)
    with suppress(PermissionError):  # another user's: then it is as old as it is
        os.utime(place)  # who sweeps old files out of the target must not take it before it is committed
    sync(place.parent)  # also of one that was there: a crash may have come before it


def _link(staged: Path, place: Path) -> None:
    with suppress(PermissionError):
        os.utime(staged)
    try:
        os.link(staged, place)
    except OSError as error:
        if error.errno not in _UNLINKABLE:
            raise
        beside = place.with_name(f".{place.name}.new")
        shutil.copyfile(staged, beside)
        sync(beside)
        beside.replace(place)


def left_behind(folder: Path, through: int) -> list[Path]:
    """Return staged files of epochs up to `through`: whether the target has their rows, they do not say.

    Most often there are none. A crash may have come before they were taken away; or they are of a store that
    was set back, and went through these epochs once more.
    """
    if not folder.is_dir():
        return []
    with folder_failures(folder):
        return [
            file
            for file in folder.iterdir()
            if (named := _NAME.fullmatch(file.name)) is not None and int(named[1]) <= through
        ]


def take_away(files: Iterable[Path]) -> None:
    """Let go of staged files whose rows the target has, durably."""
    for file in files:
        with folder_failures(file.parent):
            file.unlink(missing_ok=True)
