"""What can be asked of a store, running or stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headrace.errors import RefusedError, TransientError
from headrace.store.database import connect, prepare_session
from headrace.store.instants import instant_of
from headrace.store.ledger import Ledger, StoreStatus, TableStatus, ledger_of, partitions_of
from headrace.store.names import quoted, state_name
from headrace.store.outside import outside_of, rows_outside
from headrace.store.progress import Progress
from headrace.store.queries import run_query

__all__ = [
    "LETTER_ACCEPTED",
    "LETTER_BYTES",
    "LETTER_RECORD",
    "ReadStore",
    "StoreReading",
    "open_store_readonly",
]

Address = tuple[str, str, int, int]
"""Stream, lane, partition, offset."""

# A letter of the redrive lane stands for the record that its header names; in the main lane, that header is a
# stranger's.
LETTER_RECORD = """
    CASE WHEN lane = 'main' THEN concat(partition, ':', "offset") ELSE coalesce(
        TRY(decode(list_filter(headers, lambda h: h."key" = 'headrace.address')[1]."value")),
        concat(lane, ':', partition, ':', "offset")) END"""
"""The record of its stream that a dead letter stands for, as SQL over `dead_letters`: tries have the same."""

_WAITING = f"""(
    FROM dead_letters SEMI JOIN (
        FROM (
            SELECT stream, lane, partition, "offset", epoch, {LETTER_RECORD} AS record FROM dead_letters
            QUALIFY row_number() OVER (
                PARTITION BY stream, record
                ORDER BY epoch DESC, lane = 'main', partition DESC, "offset" DESC) = 1
        ) latest
        ANTI JOIN _headrace.redriven r
        ON r.stream = latest.stream AND concat(r.partition, ':', r."offset") = latest.record
    ) USING (stream, lane, partition, "offset"))"""
LETTER_BYTES = (
    'CAST(coalesce(octet_length("key"), 0) + coalesce(octet_length("value"), 0) + '
    'coalesce(list_sum(list_transform(headers, lambda h: octet_length(h."value"))), 0) AS BIGINT)'
)
"""The size of a dead letter's key, value and headers, as SQL."""

LETTER_ACCEPTED = f"""concat(stream, ':', {LETTER_RECORD}) IN (
    SELECT concat(r.stream, ':', r.partition, ':', r."offset") FROM _headrace.redriven r)"""
"""Whether the record of a dead letter, given back, was accepted since, as SQL over `dead_letters`."""

_ADDRESSES = 'STRUCT(stream VARCHAR, lane VARCHAR, partition INTEGER, "offset" BIGINT)[]'

_LOOK_S = 0.05
_CROWDED_LOOKS_MAX = 40
_CLOSE_LOOKS_MAX = 200
"""So often is a reader interrupted who does not give his cursor back; then the engine goes on regardless."""

_Reason = tuple[str, str]
_CROWDED: _Reason = (
    "the query was stopped: the pipeline needed its memory",
    "ask for less: filter by a key or a time, and leave out what collects many rows in one",
)


class StoreReading:
    """Queries, ledger, status and dead letters. Every call ends its transaction before it returns."""

    def __init__(self, path: Path, connection: Any) -> None:
        self.path = path
        self._root = connection
        self._root_lock = threading.Condition()
        self._given: dict[Any, _Reason | None] = {}  # who reads, and why he was interrupted
        self._crowded = 0
        self._closed: _Reason | None = None

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """Give a cursor for the block. Raises TransientError when nobody may read, or meanwhile no more."""
        with self._root_lock:
            _refuse(self._closed or (_CROWDED if self._crowded else None))
            cursor = self._root.cursor()
            self._given[cursor] = None
        try:
            prepare_session(cursor)
            yield cursor
        except (duckdb.Error, OSError, RefusedError, TransientError):
            _refuse(self._given[cursor])
            raise
        finally:
            with self._root_lock:
                cursor.close()
                del self._given[cursor]
                self._root_lock.notify_all()

    def _interrupt(self, reason: _Reason, *, looks_max: int) -> None:
        """Interrupt all who read, until they have given their cursors back; the lock is held."""
        for _ in range(looks_max):
            if not self._given:
                return
            for cursor in self._given:
                self._given[cursor] = reason
                cursor.interrupt()
            self._root_lock.wait(_LOOK_S)  # who is between two statements is interrupted in the next

    @contextmanager
    def without_readers(self) -> Iterator[None]:
        """Interrupt all who read, and refuse others until the block ends: the engine needs their memory."""
        with self._root_lock:
            self._crowded += 1
        try:
            with self._root_lock:
                self._interrupt(_CROWDED, looks_max=_CROWDED_LOOKS_MAX)
            yield
        finally:
            with self._root_lock:
                self._crowded -= 1

    def _close_root(self) -> None:
        # DuckDB refuses to close a connection while one of its cursors is busy, and then keeps the file.
        with self._root_lock:
            self._closed = (
                f"the store {self.path} was closed before it had answered",
                "ask again: the pipeline stopped",
            )
            self._interrupt(self._closed, looks_max=_CLOSE_LOOKS_MAX)
            with suppress(duckdb.Error):
                self._root.close()

    def _fetch(self, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            rows: list[tuple[Any, ...]] = cursor.execute(sql, parameters or []).fetchall()
            return rows

    def _progress(self) -> Progress:
        return Progress.from_json(self._fetch("SELECT body FROM _headrace.progress")[0][0])

    def _meta(self) -> dict[str, str]:
        return dict(self._fetch("SELECT name, value FROM _headrace.meta"))

    def query(self, sql: str, *, rows_max: int | None = None, seconds_max: float = 5.0) -> pa.Table:
        """Run one SELECT beside the writer and return its rows (see `queries.run_query`)."""
        with self._cursor() as cursor:
            return run_query(cursor, sql, rows_max=rows_max, seconds_max=seconds_max)

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        """Give a cursor that reads one state of the store until the block ends (see `store.changes`).

        A block that waits for anything but the store makes the engine's epochs slower, all the while.
        """
        with self._cursor() as cursor:
            try:
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                yield cursor
            finally:
                with suppress(duckdb.Error):  # a query that failed may have ended the transaction by itself
                    cursor.execute("ROLLBACK")

    def ledger(self) -> Ledger:
        """Return what became of every record, as of the last committed epoch."""
        return ledger_of(self._progress())

    def status(self) -> StoreStatus:
        """Return where the store stands, as of the last committed epoch."""
        return self.status_and_ledger()[0]

    def status_and_ledger(self) -> tuple[StoreStatus, Ledger]:
        """Return where the store stands and what became of every record, both as of the same epoch."""
        with self.snapshot() as cursor:
            body = cursor.execute("SELECT body FROM _headrace.progress").fetchall()[0][0]
            meta = dict(cursor.execute("SELECT name, value FROM _headrace.meta").fetchall())
            progress = Progress.from_json(body)
            counts = ", ".join(f"(SELECT count(*) FROM {state_name(name)})" for name in progress.tables)
            counted = cursor.execute(f"SELECT {counts}").fetchall()[0] if counts else ()
            rows = dict(zip(progress.tables, counted, strict=True))
            for name in outside_of(meta):
                if name in rows:
                    rows[name] += rows_outside(cursor, name)
        return self._status_of(progress, meta, rows), ledger_of(progress)

    def _status_of(self, progress: Progress, meta: Mapping[str, str], rows: Mapping[str, int]) -> StoreStatus:
        tables = [
            TableStatus(
                name, meta.get(f"kind:{name}", ""), rows[name], instant_of(table.closed_through),
                instant_of(table.retired_through), instant_of(table.partial_since),
                instant_of(table.lost_before), table.corrections, table.removed, table.rebuild is not None,
            )
            for name, table in progress.tables.items()
        ]  # fmt: skip
        views = [name for place, kind in meta.items() if kind == "view" and (name := _table_in(place))]
        nothing = (None, None, None, None, None, 0, 0, False)
        tables += [TableStatus(name, "view", *nothing) for name in sorted(views)]
        size = self.path.stat().st_size
        with suppress(FileNotFoundError):  # a checkpoint takes it away, at any moment
            size += self.path.with_name(self.path.name + ".wal").stat().st_size
        return StoreStatus(meta["store_id"], progress.epoch, partitions_of(progress), tuple(tables), size)

    def dead_letters(
        self,
        *,
        stream: str | None = None,
        outcome: str | None = None,
        rule: str | None = None,
        limit: int = 100,
        after: Address | None = None,
        addresses: Sequence[Address] | None = None,
        waiting: bool = False,
        first_rule: str | None = None,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return dead letters in the order of their addresses.

        At most `limit`, behind the address `after`; with `addresses`, of those only. `waiting` leaves out
        letters of records that were accepted since, and all but the latest of a record. `rule` is one of
        those that a record broke, `first_rule` the first of them (empty: none). `columns`: all, or these, of
        which `bytes` is the size of key, value and headers, and `accepted` whether the record, given back,
        was accepted since.
        """
        conditions: list[str] = ["true"]
        values: list[object] = []
        for column, wanted in (("stream", stream), ("outcome", outcome)):
            if wanted is not None:
                conditions.append(f"{column} = ?")
                values.append(wanted)
        if rule is not None:
            conditions.append("list_contains(list_transform(reasons, lambda r: r.rule), ?)")
            values.append(rule)
        if first_rule is not None:
            conditions.append("coalesce(reasons[1].rule, '') = ?")
            values.append(first_rule)
        if after is not None:
            conditions.append('(stream, lane, partition, "offset") > (?, ?, ?, ?)')
            values.extend(after)
        if addresses is not None:
            fields = (
                'struct_pack(stream := stream, lane := lane, partition := partition, "offset" := "offset")'
            )
            # The offsets alone leave out most letters, at a fraction of what it costs to compare addresses.
            conditions.append('"offset" IN (SELECT unnest(?::BIGINT[]))')
            values.append([offset for _, _, _, offset in addresses])
            conditions.append(f"{fields} IN (SELECT unnest(?::{_ADDRESSES}))")
            values.append(
                [dict(zip(("stream", "lane", "partition", "offset"), a, strict=True)) for a in addresses]
            )
        with self._cursor() as cursor:
            table: pa.Table = cursor.sql(
                f"SELECT {', '.join(map(_of_letter, columns)) or '*'} "
                f"FROM {_WAITING if waiting else 'dead_letters'} WHERE {' AND '.join(conditions)} "
                f'ORDER BY stream, lane, partition, "offset" LIMIT {int(limit)}',
                params=values,
            ).to_arrow_table()
            return table


def _of_letter(column: str) -> str:
    computed = {"bytes": LETTER_BYTES, "accepted": LETTER_ACCEPTED}
    return f"{computed[column]} AS {column}" if column in computed else quoted(column)


def _table_in(place: str) -> str:
    """Return the table that a place of the store's facts tells the class of; nothing for other facts."""
    return place.removeprefix("kind:") if place.startswith("kind:") else ""


class ReadStore(StoreReading):
    """The store of a stopped pipeline."""

    def close(self) -> None:
        """Give the file back."""
        self._close_root()


def open_store_readonly(path: Path) -> ReadStore:
    """Open the store of a stopped pipeline for reading.

    Raises RefusedError when a pipeline is running on it.
    """
    return ReadStore(path, connect(path, read_only=True))


def _refuse(reason: _Reason | None) -> None:
    if reason is not None:
        raise TransientError(reason[0], fix=reason[1])
