"""The replica protocol: what another system must be able to do, so that tables of a store can be kept there.

A `Replica` describes where tables go and connects to nothing; `open` gives a `ReplicaWriter`. For each table
the target holds a `Cursor`, changed together with the rows. A writer takes a *generation* by compare-and-set
on that cursor; whoever took an older one is refused from then on. Rows carry `_version`, which is
generation * 2**40 + epoch: a row never replaces one with a greater version, so writing twice, or late, is the
same as writing once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import duckdb
import pyarrow as pa

from headrace.errors import RefusedError
from headrace.sql.plan import NamedColumn
from headrace.store.changes import Position
from headrace.store.outside import RowFile

__all__ = [
    "GENERATION",
    "REFUSED_MAX",
    "Chunk",
    "Cursor",
    "NamedColumn",
    "Position",
    "Refusal",
    "Replica",
    "ReplicaWriter",
    "TableShape",
    "Task",
    "TogetherWriter",
    "fenced",
    "refusal_of",
    "refusals_among",
    "version_of",
    "write_chunks",
]

GENERATION = 2**40
"""A store may commit so many epochs before its versions would reach into the next generation."""
REFUSED_MAX = 1_000
"""When a target refuses more rows of a chunk, the table is wrong and not the rows: the replica stops."""


def version_of(generation: int, epoch: int) -> int:
    """Return the version of a row."""
    return generation * GENERATION + epoch


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """What a table looks like in a target.

    columns   in order, with DuckDB's type names; lists and structs are JSON text if the replica says
              `json_nested`. `_key` VARCHAR is among them when no declared columns tell rows apart, and
              `_revision` INTEGER in append mode
    key       the columns that tell rows apart, which may be NULL; empty: rows are only ever added
    """

    name: str
    columns: tuple[NamedColumn, ...]
    key: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """How far a table was copied, as the target remembers it.

    store_id     whose rows they are
    replica      the replica of the profile that wrote it
    generation   of the writer that may write
    position     what is durable in the target
    begun        the store's epoch at which this copying began from nothing
    sweep_below  when the copying has come to the store's end, rows with a version below are taken out;
                 0: none are
    rounds       how often the copying began anew over rows that were there
    kept_below   rows with a version below were there before this copying, and no sweep takes them out
    """

    store_id: str
    replica: str
    generation: int
    position: Position
    begun: int = 0
    sweep_below: int = 0
    rounds: int = 0
    kept_below: int = 0

    def facts(self) -> dict[str, Any]:
        """Return this cursor as JSON has it."""
        return asdict(self)

    @staticmethod
    def of(facts: Mapping[str, Any]) -> Cursor:
        """Return the cursor that `facts` gave."""
        return Cursor(**{**facts, "position": Position(**facts["position"])})

    @property
    def row(self) -> list[Any]:
        """This cursor as a target with columns has it: its fields in order, those of the position, too."""
        at = self.position
        return [
            self.store_id, self.replica, self.generation, at.epoch, at.through, at.after, self.begun,
            self.sweep_below, self.rounds, self.kept_below,
        ]  # fmt: skip

    @staticmethod
    def of_row(row: Sequence[Any]) -> Cursor:
        """Return the cursor that `row` gave; what a row does not say, being older than its column, is 0."""
        store_id, replica, generation, epoch, through, after, begun, sweep_below, rounds, kept_below = row
        return Cursor(
            store_id=store_id,
            replica=replica,
            generation=generation,
            position=Position(epoch, through, after),
            begun=begun,
            sweep_below=sweep_below,
            rounds=rounds or 0,
            kept_below=kept_below or 0,
        )

    def same_writer(self, other: Cursor | None) -> bool:
        """Return whether the other one is of the same store and generation."""
        return other is not None and (self.store_id, self.generation) == (other.store_id, other.generation)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Changes of one table, written together with the cursor, or not at all.

    removed      keys of rows that left the table, and `_version`: a row of that key goes, unless its version
                 is greater. It comes before the rows
    rows         rows that are new or changed: the shape's columns, then `_version` BIGINT. No two with a key
    cursor       what the target says once this is durable
    files        rows that executors have written, staged beside the target (see `staged`): they come into it
                 as they are. Then there are no `rows`. Only targets that are made of files are given any
    sweep_below  when not 0: at the end, rows of the table with a version below go, except those with a
                 version below the cursor's `kept_below`
    """

    table: TableShape
    rows: pa.Table
    removed: pa.Table
    cursor: Cursor
    sweep_below: int = 0
    files: tuple[RowFile, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A row that the target does not take. `key` is JSON text: by which columns to find it in the store."""

    table: str
    key: str
    version: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a writer is opened for. `set_aside` keeps refused rows; called before the chunk is durable.

    `store_id` says whose rows will be written, and that store is open in this process alone; "": not known.
    """

    replica: str
    pipeline: str
    tables: tuple[TableShape, ...]
    set_aside: Callable[[Sequence[Refusal]], None]
    store_id: str = ""


class ReplicaWriter(Protocol):
    """An open target. One thread uses it, except that `interrupt` may be called from another one.

    Every call may raise TransientError when trying again with a new writer may help, and RefusedError when an
    operator must act; after either, the writer is closed.
    """

    def cursors(self) -> Mapping[str, Cursor]:
        """Return the cursors that the target holds of the task's tables; a table without one is new."""

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """Put `cursor` in the place of `seen`, durably, if that is still there; then this writer may write.

        Raises RefusedError (`fenced`) when somebody else has changed it.
        """

    def write(self, chunk: Chunk) -> None:
        """Make `chunk` and its cursor durable and visible, or raise; nothing may stay in a buffer.

        Called again with the same chunk after a crash: twice must leave what once leaves. A row that the
        target does not take is set aside, and the others are written. Raises RefusedError (`fenced`) when
        the target's cursor has another generation than the chunk's.
        """

    def interrupt(self) -> None:
        """Let a call that is under way in another thread end soon, by whatever error."""

    def close(self) -> None:
        """Give the connection back. Never raises; twice is harmless."""


@runtime_checkable
class TogetherWriter(ReplicaWriter, Protocol):
    """A writer to which chunks of several tables may be given at once. A writer need not be one.

    For targets where a request costs more than the few rows in it; see `write_chunks`.
    """

    def write_together(self, chunks: Sequence[Chunk]) -> None:
        """Do what `write` does for each chunk, of which no two are of one table.

        When it raises, or a crash ends it, a table stands before its chunk or behind it, as its cursor says;
        one table may do the one and another the other. Each of them may come again, in another company or
        alone.
        """


@runtime_checkable
class Replica(Protocol):
    """The description of a replica: frozen, comparable, connects only in `open`.

    `json_nested` says whether lists and structs come as JSON text.
    """

    @property
    def json_nested(self) -> bool:
        """Whether lists and structs come as JSON text."""

    def open(self, task: Task) -> ReplicaWriter:
        """Connect; make what is missing of the task's tables in the target, and check what is there.

        A column that is new is added; one of another type is a RefusedError that says what to do.
        """


def write_chunks(writer: ReplicaWriter, chunks: Sequence[Chunk]) -> None:
    """Write chunks, no two of one table: together if the writer can, else one by one."""
    if len(chunks) > 1 and isinstance(writer, TogetherWriter):
        writer.write_together(chunks)
    else:
        for chunk in chunks:
            writer.write(chunk)


def fenced(*tables: str) -> RefusedError:
    """Return the error of a writer that somebody else has replaced in these tables, one or several."""
    names = ", ".join(f"'{table}'" for table in tables)
    return RefusedError(
        f"another process has taken over the replica's {'table' if len(tables) == 1 else 'tables'} {names}",
        fix="stop one of the two; `headrace replicas resume` lets this one take it back",
    )


def refusal_of(shape: TableShape, rows: pa.Table, index: int, reason: str) -> Refusal:
    """Return the refusal of a row of a chunk."""
    return refusals_among(shape, rows, {index: reason})[0]


def refusals_among(shape: TableShape, rows: pa.Table, odd: Mapping[int, str]) -> list[Refusal]:
    """Return the refusals of rows of a chunk, by the reason of each, in their order."""
    known = rows.select(list(shape.key) or [column.name for column in shape.columns])
    facts, others = dict[int, Mapping[str, Any]](), list[int]()
    for index in odd:
        try:
            facts[index] = known.slice(index, 1).to_pylist()[0]
        except (OverflowError, ValueError):  # an instant that Python cannot hold, and a text can
            others.append(index)
    if others:
        facts.update(zip(others, _texts(known.take(pa.array(others))), strict=True))
    return [
        Refusal(
            shape.name,
            json.dumps(facts[index], default=str, ensure_ascii=False),
            rows.column("_version")[index].as_py(),
            odd[index],
        )
        for index in sorted(odd)
    ]


def _texts(known: pa.Table) -> list[Mapping[str, Any]]:
    """Return rows with the texts of their values."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("known", known)
        found = connection.execute("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM known").fetchall()
    return [dict(zip(known.column_names, texts, strict=True)) for texts in found]
