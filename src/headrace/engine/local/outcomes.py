"""Gives every record of a batch its outcome: what the row stage said.

Less duplicates and what came too late to redrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.compute import TableWriter
from headrace.engine.local.reader import Batch
from headrace.rows.result import Outcome
from headrace.store.duplicates import Decision, RememberedKeys
from headrace.store.progress import LaneProgress, Progress

__all__ = ["Decided", "accepted_again", "decide", "minutes_of", "write_taken"]

_ADDRESS = b"headrace.address"

Mask = npt.NDArray[np.bool_]


@dataclass
class Decided:
    """A batch with the outcomes of its timely rows: `outcomes` names one for each.

    And `accepted` are the rows.
    """

    batch: Batch
    accepted: pa.Table
    duplicate: Mask
    expired: Mask
    decision: Decision | None
    addresses: list[tuple[int, int]]

    def count(self, places: dict[int, LaneProgress]) -> None:
        """Add the outcomes of the batch to the counts of its lane."""
        result = self.batch.result
        if result is None:
            return
        timely = result.timely.column("_partition").to_numpy()
        taken = self.duplicate | self.expired
        conflicting = self.decision.conflicting if self.decision is not None else None
        dead = result.dead.column("partition").to_numpy()
        late = result.late.column("_partition").to_numpy()
        names = pc.dictionary_encode(result.dead.column("outcome")).combine_chunks() if len(dead) else None
        for partition, place in places.items():
            mine = timely == partition
            place.count(Outcome.ACCEPTED, int(np.count_nonzero(mine & ~taken)))
            place.count(Outcome.DUPLICATE, int(np.count_nonzero(mine & self.duplicate)))
            place.count(Outcome.EXPIRED, int(np.count_nonzero(mine & self.expired)))
            place.count(Outcome.LATE, int(np.count_nonzero(late == partition)))
            if conflicting is not None:
                place.conflicting += int(np.count_nonzero(mine & conflicting))
            if names is not None:
                codes = names.indices.to_numpy()[dead == partition]
                for code, name in enumerate(names.dictionary.to_pylist()):
                    place.count(Outcome(name), int(np.count_nonzero(codes == code)))


def decide(
    connection: Any,
    batch: Batch,
    keys: RememberedKeys | None,
    progress: Progress,
    writers: list[TableWriter],
) -> Decided:
    """Return the outcomes of a batch's timely rows; looks only, and writes nothing."""
    assert batch.result is not None  # noqa: S101 - the caller has records
    timely = batch.result.timely
    none = np.zeros(timely.num_rows, dtype=np.bool_)
    duplicate, expired, addresses = none, none, list[tuple[int, int]]()
    if batch.lane == "redrive":
        duplicate, addresses = _accepted_before(connection, batch.stream, batch, timely)
        expired = _expired(timely, progress, writers) & ~duplicate
    decision = None
    open_rows = ~(duplicate | expired)
    if keys is not None and timely.num_rows:
        looked = timely if open_rows.all() else timely.filter(pa.array(open_rows))
        found = keys.decide(looked)
        if found.any:
            wide, conflicting = none.copy(), none.copy()
            wide[open_rows], conflicting[open_rows] = found.duplicate, found.conflicting
            duplicate = duplicate | wide
            decision = Decision(wide, conflicting, found.sample)
    taken = duplicate | expired
    accepted = timely.filter(pa.array(~taken)) if taken.any() else timely
    kept = [address for address, gone in zip(addresses, taken, strict=True) if not gone] if addresses else []
    return Decided(batch, accepted, duplicate, expired, decision, [a for a in kept if a[0] >= 0])


def write_taken(connection: Any, decided: Decided) -> None:
    """Write down which timely rows were not accepted, inside a transaction.

    What decided it does not last: remembered values are forgotten, windows retire. A rebuild asks here.
    """
    taken = decided.duplicate | decided.expired
    if not taken.any():
        return
    batch = decided.batch
    assert batch.result is not None  # noqa: S101 - only batches with records are decided
    rows = batch.result.timely.select(["_partition", "_offset"]).filter(pa.array(taken))
    connection.register("_taken", rows)
    connection.execute(
        "INSERT INTO _headrace.taken SELECT ?, ?, _partition, _offset FROM _taken", [batch.stream, batch.lane]
    )
    connection.unregister("_taken")


def accepted_again(connection: Any, batch: Batch) -> pa.Table:
    """Return the rows of a batch that were accepted when it was read first; looks only."""
    assert batch.result is not None  # noqa: S101 - the caller has records
    timely = batch.result.timely
    if not timely.num_rows:
        return timely
    numbers = pa.array(np.arange(timely.num_rows), pa.int64())
    connection.register("_timely", timely.select(["_partition", "_offset"]).append_column("_i", numbers))
    found = connection.execute(
        "SELECT r._i FROM _timely r "
        "SEMI JOIN (SELECT * FROM _headrace.taken WHERE stream = ? AND lane = ?) t "
        'ON t.partition = r._partition AND t."offset" = r._offset',
        [batch.stream, batch.lane],
    ).fetchall()
    connection.unregister("_timely")
    if not found:
        return timely
    kept = np.ones(timely.num_rows, dtype=np.bool_)
    kept[[number for (number,) in found]] = False
    return timely.filter(pa.array(kept))


def _accepted_before(
    connection: Any, name: str, batch: Batch, timely: pa.Table
) -> tuple[Mask, list[tuple[int, int]]]:
    """Return which redriven rows stand for an address that was accepted before.

    And the address of each row.
    """
    records = batch.slice.records
    places = zip(records.column("partition").to_pylist(), records.column("offset").to_pylist(), strict=True)
    stands_for = dict(zip(places, map(_address, records.column("headers").to_pylist()), strict=True))
    mine = zip(timely.column("_partition").to_pylist(), timely.column("_offset").to_pylist(), strict=True)
    addresses = [stands_for[place] for place in mine]
    seen = set(
        connection.execute(
            'SELECT partition, "offset" FROM _headrace.redriven WHERE stream = ?', [name]
        ).fetchall()
    )
    taken = np.zeros(len(addresses), dtype=np.bool_)
    for row, address in enumerate(addresses):
        taken[row] = address in seen
        if address[0] >= 0:
            seen.add(address)
    return taken, addresses


def _address(headers: list[dict[str, Any]] | None) -> tuple[int, int]:
    """Return the address that a redriven record stands for; (-1, -1) when it names none."""
    for header in headers or ():
        if header["key"] == _ADDRESS.decode() and header["value"]:
            partition, _, offset = header["value"].partition(b":")
            if partition.isdigit() and offset.isdigit():
                return int(partition), int(offset)
    return -1, -1


def _expired(timely: pa.Table, progress: Progress, writers: list[TableWriter]) -> Mask:
    """Return which rows belong to windows that a table has retired: a row is in all its tables.

    Or in none.
    """
    expired = np.zeros(timely.num_rows, dtype=np.bool_)
    times = timely.column("_event_time").cast(pa.int64())
    for writer in writers:
        retired = progress.tables[writer.plan.name].retired_through
        if retired is not None:
            expired |= writer.last_end(times).to_numpy() <= retired
    return expired


def minutes_of(column: pa.ChunkedArray) -> dict[int, int]:
    """Return how many instants of a column lie in each minute, by the minute's start in microseconds."""
    minutes, counts = np.unique(column.cast(pa.int64()).to_numpy() // 60_000_000, return_counts=True)
    return dict(zip((minutes * 60_000_000).tolist(), counts.tolist(), strict=True))
