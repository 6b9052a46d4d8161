"""The row parts and partial aggregates of tables, on the executors, by the code of the local engine.

A micro-batch's rows come as Arrow, a part of a range at a time; each gives what it changes in every table of
its stream. The driver adds the parts up (see `combining`) and merges them into the store.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from headrace.engine.local.compute import Delta, TableWriter
from headrace.engine.local.engine import table_writer
from headrace.engine.local.queries import Queries
from headrace.engine.local.tables import compute_tables
from headrace.engine.spark.jobs import Wanted
from headrace.engine.spark.outside import Stage
from headrace.engine.spark.positions import lane_of
from headrace.engine.spark.wire import dumped, loaded, packed, unpacked
from headrace.errors import HeadraceError
from headrace.rows.carried import casts, restored
from headrace.rows.functions import register_functions
from headrace.sql.plan import TableClass
from headrace.store.database import prepare_session
from headrace.store.names import quoted
from headrace.store.progress import TableProgress

if TYPE_CHECKING:
    from pyspark.core.broadcast import Broadcast
    from pyspark.sql import Row

__all__ = [
    "CHANGE",
    "COUNTS",
    "FACTS",
    "Change",
    "Computed",
    "Orders",
    "Taken",
    "change_of",
    "compute",
    "fresh_progress",
]

FACTS, CHANGE = "facts", "change"
COUNTS = ("accepted", "kept", "filtered", "failed", "corrections")
"""What a part adds to a table's progress."""

Computed = tuple[str, str, bytes]
"""FACTS or CHANGE, the place, and what was found there."""

Taken = Mapping[str, Mapping[int, tuple[int, ...]]]
"""By place and partition, the offsets of timely rows that are in no table: copies, and what is expired."""


@dataclass(frozen=True)
class Orders:
    """What executors have to know of one micro-batch.

    tables   how far tables are closed and retired
    wanted   by place, the tables to compute; what is not named is left alone
    version  grows when a reference table changed
    epoch    that the micro-batch will be
    """

    tables: Mapping[str, TableProgress]
    taken: Taken
    wanted: Wanted
    version: int
    epoch: int


@dataclass
class Change:
    """What one part of a range changes in one table, and adds to its counts."""

    table: str
    delta: Delta
    counts: Mapping[str, int]


def fresh_progress(table: TableProgress) -> TableProgress:
    """Return what a part must know of a table: its bounds, and no counts."""
    bounds = {name: getattr(table, name) for name in ("closed_through", "retired_through", "floor")}
    return TableProgress(table.fingerprint, **bounds)


def compute(
    task: Broadcast[bytes], references: Broadcast[dict[str, bytes]], orders: Orders
) -> Callable[[Iterable[Row]], Iterable[Computed]]:
    """Return what Spark runs over the rows of the data source; `facts` pass through.

    `task` is the pickled `Task`, `references` are packed relations by the name of the reference.
    """

    def work(rows: Iterable[Row]) -> Iterator[Computed]:
        for row in rows:
            if getattr(row, "facts", None):
                yield FACTS, row["place"], bytes(row["facts"])
            if row["rows"] and row["place"] in orders.wanted:
                try:
                    tables = _tables(task.value)
                    tables.refer(references, orders.version)
                    for change in tables.changes(row["place"], unpacked(row["rows"]), orders):
                        yield CHANGE, row["place"], change
                except HeadraceError as error:
                    yield FACTS, "", dumped({"error": error})

    return work


def change_of(data: bytes) -> Change:
    """Return the change that an executor wrote."""
    found = loaded(data)
    sides = {name: unpacked(values) for name, values in found["sides"].items()}
    return Change(found["table"], Delta(found["rows"], sides, **found["delta"]), found["counts"])


class _Tables:
    """The tables of a run in a process of an executor: a DuckDB instance in memory, and what computes."""

    def __init__(self, data: bytes) -> None:
        task = pickle.loads(data)  # noqa: S301 - written by this run's own driver
        self.run: str = task.run
        self._version = -1
        config: dict[str, Any] = {"threads": "1", "preserve_insertion_order": "false"}
        self._connection = duckdb.connect(":memory:", config=config)
        prepare_session(self._connection)
        functions = {f.name: f for stream in task.plan.streams.values() for f in stream.functions}
        register_functions(self._connection, functions.values())
        self._connection.execute("SET enable_external_access = false")
        self._queries = Queries(self._connection)
        self._stages: Mapping[str, Stage] = task.outside
        self._writers: dict[str, TableWriter] = {
            table.name: table_writer(table, task.engine)
            for table in task.plan.tables
            if table.kind is not TableClass.VIEW
        }

    def refer(self, references: Broadcast[dict[str, bytes]], version: int) -> None:
        """Put reference tables in place, as they are since `version`."""
        if version == self._version:
            return
        for name, data in references.value.items():
            rows = unpacked(data)
            self._connection.register("_reference", rows)
            self._connection.execute(
                f"CREATE OR REPLACE TABLE {quoted(f'_reference_{name}')} AS "
                f"{restored('_reference', casts(rows.schema))}"
            )
            self._connection.unregister("_reference")
        self._version = version

    def changes(self, place: str, timely: pa.Table, orders: Orders) -> Iterator[bytes]:
        """Give what the accepted ones of `timely` change, pickled."""
        _, lane = lane_of(place)
        accepted = _without(timely, orders.taken.get(place, {}))
        mine = {name: self._writers[name] for name in orders.wanted[place]}
        tables = {name: fresh_progress(orders.tables[name]) for name in mine}
        for name, found in compute_tables(self._queries, mine, tables, accepted, lane):
            delta = found
            if name in self._stages and delta.rows.num_rows:
                files = self._stages[name].write(delta.rows, orders.epoch)
                delta = replace(delta, rows=delta.rows.slice(0, 0), files=files)
            counts = {count: getattr(tables[name], count) for count in COUNTS}
            yield dumped(
                {
                    "table": name,
                    "counts": counts,
                    "delta": {
                        one.name: getattr(delta, one.name)
                        for one in fields(delta)
                        if one.name not in ("rows", "sides")
                    },
                    "rows": delta.rows,
                    "sides": {side: packed(values) for side, values in delta.sides.items()},
                }
            )


_OPENED: dict[int, _Tables] = {}


def _tables(data: bytes) -> _Tables:
    key = hash(data)
    if key not in _OPENED:
        _OPENED.clear()  # Spark uses a process again for another run
        _OPENED[key] = _Tables(data)
    return _OPENED[key]


def _without(timely: pa.Table, taken: Mapping[int, tuple[int, ...]]) -> pa.Table:
    if not taken:
        return timely
    partitions, offsets = timely.column("_partition"), timely.column("_offset")
    gone = None
    for partition, known in taken.items():
        mine = pa.compute.and_(
            pa.compute.equal(partitions, partition), pa.compute.is_in(offsets, pa.array(known, pa.int64()))
        )
        gone = mine if gone is None else pa.compute.or_(gone, mine)
    return timely.filter(pa.compute.invert(gone))
