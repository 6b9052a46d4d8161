"""Writes chunks into Cassandra: rows with timestamps of ours, then the cursor by compare-and-set.

Cassandra has no transactions over partitions, so a chunk may be seen half written for a moment; what makes a
repeat harmless is that the write with the greatest timestamp wins. A generation of writers gets a span of
timestamps above every one before: its rows win over whatever a process that was thought dead still sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from cassandra import ConsistencyLevel
from cassandra.concurrent import execute_concurrent
from cassandra.query import BatchStatement, BatchType

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.cassandra.connection import connect, ensure_keyspace
from headrace.replicate.cassandra.failures import is_of_a_row, reason_of, typed, typed_failures
from headrace.replicate.cassandra.schema import (
    CURSORS,
    ID,
    VERSION,
    Layout,
    cursor_table,
    ensure_table,
    layouts_of,
    quoted,
)
from headrace.replicate.cassandra.values import bound_column, finer_than_millis, row_ids
from headrace.replicate.protocol import (
    GENERATION,
    REFUSED_MAX,
    Chunk,
    Cursor,
    Refusal,
    Task,
    fenced,
    refusal_of,
)

if TYPE_CHECKING:
    from headrace.replicate.cassandra import CassandraReplica

__all__ = ["CassandraWriter"]

_COLUMNS = "store_id, replica, generation, epoch, through, after, begun, sweep_below, rounds, kept_below"
_TIMES = "timestamp_zero, timestamp_last"
_RESERVED_EPOCHS = 1_000
_ALONE_MAX = 10
_BATCH_BYTES = 4_000  # a server warns of batches above 5 KiB and refuses them above 50 KiB
_BATCH_ROWS_MAX = 50
_BATCH_PARTITIONS_MAX = 10  # a server warns of batches over more of them


@dataclass(frozen=True)
class _Held:
    """A cursor as the target holds it, and the timestamps of its generation (see `schema.cursor_table`)."""

    cursor: Cursor
    zero: int
    last: int


@dataclass(frozen=True)
class _Row:
    """One write: what its statement binds, the partition it goes to, and where it came from."""

    values: tuple[Any, ...]
    partition: tuple[Any, ...]
    index: int


class CassandraWriter:
    """An open connection; see `ReplicaWriter`."""

    def __init__(self, replica: CassandraReplica, task: Task) -> None:
        self._task = task
        self._keyspace = replica.keyspace
        self._concurrency = replica.concurrency
        self._text = replica.columns == "text"
        self._layouts = layouts_of(task.tables, replica.keys or {}, text=self._text, replica=task.replica)
        self._prepared: dict[str, Any] = {}
        self._cursors = f"{quoted(replica.keyspace)}.{quoted(CURSORS)}"
        with typed_failures():
            self._cluster, self._session = connect(replica, task.replica)
        try:
            with typed_failures():
                ensure_keyspace(self._session, replica)
                self._ensure_cursors()
                for layout in self._layouts.values():
                    if ensure_table(self._session, self._keyspace, layout):
                        # A cursor without its table tells of rows that are gone: the copying begins anew.
                        gone = f"DELETE FROM {self._cursors} WHERE table_name = ? IF EXISTS"
                        self._run(gone, [layout.shape.name])
        except BaseException:
            self.close()
            raise

    def _ensure_cursors(self) -> None:
        rows = self._session.execute(
            "SELECT column_name FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s",
            (self._keyspace, CURSORS),
        )
        there = {row.column_name for row in rows}
        if not there:
            self._session.execute(cursor_table(self._keyspace))
            return
        for name in ("rounds", "kept_below"):  # it did not always have them
            if name not in there:
                self._session.execute(f"ALTER TABLE {self._cursors} ADD {name} bigint")

    # --- cursors

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        with typed_failures():
            found = {shape.name: self._held(shape.name) for shape in self._task.tables}
        return {name: held.cursor for name, held in found.items() if held is not None}

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        with typed_failures():
            held = self._held(table)
            if (held is None) != (seen is None):
                raise fenced(table)
            # Above every timestamp before, also where a clock was ahead or the store was set back.
            first = max(time.time_ns() // 1000, held.last + 1 if held is not None else 0)
            zero = first - 2 * cursor.position.epoch
            times = [zero, _timestamp(zero, cursor.position.epoch + _RESERVED_EPOCHS)]
            values = [*cursor.row, *times, _now()]
            if held is None or seen is None:
                statement = (
                    f"INSERT INTO {self._cursors} (table_name, {_COLUMNS}, {_TIMES}, written_at) "
                    f"VALUES ({', '.join(['?'] * 14)}) IF NOT EXISTS"
                )
                done = self._run(statement, [table, *values])
            else:
                sets = ", ".join(f"{name} = ?" for name in f"{_COLUMNS}, {_TIMES}, written_at".split(", "))
                statement = (
                    f"UPDATE {self._cursors} SET {sets} WHERE table_name = ? "
                    "IF store_id = ? AND generation = ? AND timestamp_last = ?"
                )
                done = self._run(statement, [*values, table, seen.store_id, seen.generation, held.last])
            if not done.was_applied:
                raise fenced(table)

    def _held(self, table: str) -> _Held | None:
        statement = self._statement(f"SELECT {_COLUMNS}, {_TIMES} FROM {self._cursors} WHERE table_name = ?")
        bound = statement.bind([table])
        bound.consistency_level = ConsistencyLevel.SERIAL  # sees a compare-and-set that is half done
        row = self._session.execute(bound).one()
        return None if row is None else _held_of(row)

    def _set_cursor(self, table: str, cursor: Cursor, *, zero: int, last: int) -> None:
        sets = ", ".join(f"{name} = ?" for name in f"{_COLUMNS}, {_TIMES}, written_at".split(", "))
        done = self._run(
            f"UPDATE {self._cursors} SET {sets} WHERE table_name = ? IF store_id = ? AND generation = ?",
            [*cursor.row, zero, last, _now(), table, cursor.store_id, cursor.generation],
        )
        if not done.was_applied:
            raise fenced(table)

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table = chunk.table.name
        with typed_failures():
            held = self._held(table)
            if held is not None and held.cursor == chunk.cursor:
                return  # this very chunk: its answer was lost on the way
            if held is None or not chunk.cursor.same_writer(held.cursor):
                raise fenced(table)
            last = self._reserve(held, chunk)
            layout, refusals = self._layouts[table], list[Refusal]()
            if chunk.removed.num_rows:
                self._remove(layout, chunk, held.zero)
            if chunk.rows.num_rows:
                self._put(layout, chunk, held.zero, refusals)
            if chunk.sweep_below:
                self._sweep(layout, chunk.sweep_below, chunk.cursor.kept_below)
            if refusals:
                self._task.set_aside(refusals)
            self._set_cursor(table, chunk.cursor, zero=held.zero, last=last)

    def _reserve(self, held: _Held, chunk: Chunk) -> int:
        """Write down the timestamps that this chunk uses, before they are used; return the last of them."""
        versions = [pa.compute.max(part.column(VERSION)).as_py() for part in (chunk.rows, chunk.removed)]
        epochs = [_epoch(version, chunk.cursor) for version in versions if version is not None]
        highest = max([chunk.cursor.position.through, *epochs])
        if _timestamp(held.zero, highest) <= held.last:
            return held.last
        last = _timestamp(held.zero, highest + _RESERVED_EPOCHS)
        self._set_cursor(chunk.table.name, held.cursor, zero=held.zero, last=last)
        return last

    def _put(self, layout: Layout, chunk: Chunk, zero: int, refusals: list[Refusal]) -> None:
        names = ", ".join(quoted(name) for name, _ in layout.columns)
        marks = ", ".join("?" for _ in layout.columns)
        statement = self._statement(
            f"INSERT INTO {quoted(self._keyspace)}.{quoted(layout.name)} ({names}) VALUES ({marks}) "
            "USING TIMESTAMP ?"
        )
        rows = chunk.rows
        versions = rows.column(VERSION).to_pylist()
        columns = {
            name: versions if name == VERSION else bound_column(rows.column(name), kind)
            for name, kind in layout.columns
            if name != ID
        }
        if not layout.shape.key:
            columns = {ID: row_ids(list(columns.values()), versions), **columns}
        self._refuse_null_keys(layout, columns)
        stamps = [_timestamp(zero, _epoch(version, chunk.cursor)) for version in versions]
        bad = dict(self._cut_keys(layout, rows))
        made = self._rows(layout, columns, stamps, bad)
        for index, error in self._send(statement, layout, made, rows):
            bad[index] = reason_of(error)
        for index, reason in sorted(bad.items()):
            refusals.append(refusal_of(layout.shape, rows, index, reason))
        # Not one row of several is right when the table was dropped or altered meanwhile.
        all_of_them = len(refusals) == rows.num_rows > _ALONE_MAX
        if all_of_them or len(refusals) > REFUSED_MAX:
            raise RefusedError(
                f"Cassandra refuses {len(refusals)} of {rows.num_rows} rows of '{layout.shape.name}': "
                f"{refusals[-1].reason}",
                fix="correct the table in the target, then `headrace replicas resume`",
            )

    def _remove(self, layout: Layout, chunk: Chunk, zero: int) -> None:
        removed = chunk.removed
        kinds = dict(layout.columns)
        columns = {name: bound_column(removed.column(name), kinds[name]) for name in layout.key}
        versions = removed.column(VERSION).to_pylist()
        # Below the rows of its epoch: a row that left and came again in one epoch is there.
        stamps = [_timestamp(zero, _epoch(version, chunk.cursor)) - 1 for version in versions]
        nulls = {i for column in columns.values() for i, value in enumerate(column) if value is None}
        # A key that is NULL was never written, and neither was one that would be cut to another row's.
        nulls |= {index for index, _ in self._cut_keys(layout, removed)}
        rows = self._rows(layout, columns, stamps, nulls, stamp_first=True)
        list(self._send(self._deletion(layout), layout, rows, removed))

    def _deletion(self, layout: Layout) -> Any:
        where = " AND ".join(f"{quoted(name)} = ?" for name in layout.key)
        full = f"{quoted(self._keyspace)}.{quoted(layout.name)}"
        return self._statement(f"DELETE FROM {full} USING TIMESTAMP ? WHERE {where}")

    def _sweep(self, layout: Layout, below: int, first: int) -> None:
        """Take out rows with a version from `first` to `below`, without that one.

        Each at its own timestamp: a newer row of its key stays.
        """
        full = f"{quoted(self._keyspace)}.{quoted(layout.name)}"
        listed = ", ".join(quoted(name) for name in layout.key)
        found = self._session.execute(
            self._statement(f"SELECT {listed}, {quoted(VERSION)}, WRITETIME({quoted(VERSION)}) FROM {full}")
        )
        deletion, width = self._deletion(layout), len(layout.key)
        while True:
            # A page is fetched here, never while statements run: the driver would take it from the
            # thread that has to receive it, and wait for ever.
            deletions = [
                deletion.bind([row[width + 1], *row[:width]])
                for row in found.current_rows
                if row[width] is not None and first <= row[width] < below
            ]
            for _, error in self._execute(((each, ()) for each in deletions), self._concurrency):
                raise typed(error) from None
            if not found.has_more_pages:
                return
            found.fetch_next_page()

    # --- sending

    def _refuse_null_keys(self, layout: Layout, columns: Mapping[str, Sequence[Any]]) -> None:
        for name in layout.key:
            if None in columns[name]:
                table = layout.shape.name
                raise ProfileError(
                    f"replica '{self._task.replica}': column '{name}' of the key of '{table}' is NULL in a "
                    "row, and Cassandra takes no NULL in a primary key",
                    fix=f"write COALESCE({name}, '…') AS {name} in the SQL of '{table}', or leave the table "
                    "out (tables = …)",
                )

    def _cut_keys(self, layout: Layout, rows: pa.Table) -> Iterator[tuple[int, str]]:
        """Give rows whose key Cassandra would cut: two of them could become one."""
        kinds = dict(layout.columns)
        for name in layout.key:
            if name != ID and kinds[name] == "timestamp":
                for index, finer in enumerate(finer_than_millis(rows.column(name))):
                    if finer:
                        yield index, f"'{name}' is part of the key and finer than milliseconds: date_trunc it"

    def _rows(
        self,
        layout: Layout,
        columns: Mapping[str, Sequence[Any]],
        stamps: Sequence[int],
        without: Iterable[int],
        *,
        stamp_first: bool = False,
    ) -> Iterator[_Row]:
        left_out = set(without)
        names = list(columns)
        at = [names.index(name) for name in layout.partition]
        for index, (stamp, *values) in enumerate(zip(stamps, *columns.values(), strict=True)):
            if index not in left_out:
                bound = (stamp, *values) if stamp_first else (*values, stamp)
                yield _Row(bound, tuple(values[i] for i in at), index)

    def _send(
        self, statement: Any, layout: Layout, rows: Iterable[_Row], given: pa.Table
    ) -> Iterator[tuple[int, Exception]]:
        """Write rows; give the index of each that is refused, and why.

        Rows of a partition go together. Where each is a partition of its own, rows that lie on the same nodes
        do: a request costs the driver and the server more than what is in it.
        """
        refused: list[tuple[int, Exception]] = []

        def bound() -> Iterator[tuple[Any, _Row]]:
            for row in rows:
                try:
                    made = statement.bind(row.values)
                except Exception as error:  # noqa: BLE001 - the driver raises whatever a value's type raises
                    refused.append((row.index, error))
                else:
                    yield made, row

        size = max(1, _BATCH_BYTES * given.num_rows // max(1, given.nbytes))
        if layout.clustering:
            size, at_once = min(size, _BATCH_ROWS_MAX), self._concurrency
            batches = _batches(bound(), lambda _, row: row.partition, size)
        else:
            size = min(size, _BATCH_PARTITIONS_MAX)
            at_once = max(1, self._concurrency // size)
            batches = _batches(bound(), self._nodes_of(), size)
        again: list[_Row] = []
        for those, error in self._execute(batches, at_once):
            if len(those) == 1:
                yield those[0].index, error
            else:
                again += those
        alone = ((statement.bind(row.values), (row,)) for row in again)
        for (row,), error in self._execute(alone, self._concurrency):
            yield row.index, error
        yield from refused

    def _nodes_of(self) -> Callable[[Any, _Row], Hashable]:
        """Return what tells on which nodes a row lies; where the driver does not know, each is alone."""
        metadata = self._cluster.metadata
        if len(metadata.all_hosts()) == 1:
            return lambda statement, row: None

        def nodes(statement: Any, row: _Row) -> Hashable:
            return frozenset(metadata.get_replicas(self._keyspace, statement.routing_key)) or row.partition

        return nodes

    def _execute(
        self, work: Iterable[tuple[Any, tuple[_Row, ...]]], at_once: int
    ) -> Iterator[tuple[tuple[_Row, ...], Exception]]:
        """Run statements side by side; give what is refused for what is in it. Raises everything else."""
        sent: list[tuple[_Row, ...]] = []

        def statements() -> Iterator[tuple[Any, None]]:
            for statement, those in work:
                sent.append(those)
                yield statement, None

        results = execute_concurrent(
            self._session, statements(), concurrency=at_once, raise_on_first_error=False
        )
        for those, (done, error) in zip(sent, results, strict=True):
            if not done:
                if not is_of_a_row(error):
                    raise typed(error) from None
                yield those, error

    def _statement(self, cql: str) -> Any:
        if cql not in self._prepared:
            statement = self._session.prepare(cql)
            statement.is_idempotent = " IF " not in cql
            self._prepared[cql] = statement
        return self._prepared[cql]

    def _run(self, cql: str, values: Sequence[Any]) -> Any:
        return self._session.execute(self._statement(cql), values)

    # --- the end

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""
        self.close()

    def close(self) -> None:
        """See `ReplicaWriter`."""
        with suppress(Exception):
            self._cluster.shutdown()


def _batches(
    bound: Iterable[tuple[Any, _Row]], place: Callable[[Any, _Row], Hashable], size: int
) -> Iterator[tuple[Any, tuple[_Row, ...]]]:
    """Give batches of `size` rows whose `place` is the same, and what is in each."""
    groups: dict[Hashable, list[tuple[Any, _Row]]] = {}
    for statement, row in bound:
        key = place(statement, row)
        group = groups.setdefault(key, [])
        group.append((statement, row))
        if len(group) == size:
            yield _batch(groups.pop(key))
    for group in groups.values():
        yield _batch(group)


def _batch(group: Sequence[tuple[Any, _Row]]) -> tuple[Any, tuple[_Row, ...]]:
    if len(group) == 1:
        statement, row = group[0]
        return statement, (row,)
    batch = BatchStatement(BatchType.UNLOGGED)
    for statement, _ in group:
        batch.add(statement)
    batch.is_idempotent = True
    return batch, tuple(row for _, row in group)


def _timestamp(zero: int, epoch: int) -> int:
    return zero + 2 * epoch + 1


def _epoch(version: int, cursor: Cursor) -> int:
    return version - cursor.generation * GENERATION


def _now() -> datetime:
    return datetime.now(UTC)


def _held_of(row: Sequence[Any]) -> _Held:
    *facts, zero, last = row
    return _Held(Cursor.of_row(facts), zero, last)
