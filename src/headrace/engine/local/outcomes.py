"""Gives every record of a batch its outcome: what the row stage said.

Less duplicates and what came too late to redrive.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.compute import TableWriter
from headrace.engine.local.reader import Batch
from headrace.log.arrays import Mask
from headrace.rows.outcomes import distinct
from headrace.rows.result import Outcome
from headrace.store.duplicates import Decision, RememberedKeys
from headrace.store.names import quoted
from headrace.store.progress import LaneProgress, Progress

__all__ = [
    "Decided",
    "accepted_again",
    "decide",
    "minutes_of",
    "outcomes_before",
    "refused_since",
    "write_taken",
]

_ADDRESS = b"headrace.address"
_PLACE = re.compile(rb"([0-9]{1,10}):([0-9]{1,19})")
_DEAD = ("partition", "offset")
_LATE = ("_partition", "_offset")
_SAMPLE_ROWS = 20


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
    *,
    main: Decided | None = None,
) -> Decided:
    """Return the outcomes of a batch's timely rows; looks only, and writes nothing.

    `main` is what was decided in the same epoch for the main lane of the stream: it comes before the redrive
    lane.
    """
    assert batch.result is not None  # noqa: S101 - the caller has records
    timely = batch.result.timely
    none = np.zeros(timely.num_rows, dtype=np.bool_)
    duplicate, expired, addresses = none, none, list[tuple[int, int]]()
    decision = None
    if batch.lane == "redrive" and timely.num_rows:
        expired = _expired(timely, progress, writers)
        decision, addresses = _redriven(connection, batch, keys, expired, main)
        duplicate, expired = decision.duplicate, expired & ~decision.duplicate
    elif keys is not None and timely.num_rows:
        decision = keys.decide(timely)
        duplicate = decision.duplicate
    taken = duplicate | expired
    accepted = timely.filter(pa.array(~taken)) if taken.any() else timely
    return Decided(batch, accepted, duplicate, expired, decision, addresses)


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
    """Return the rows of a batch that were accepted when it was read first; looks only.

    A record that was set aside stays so, also when the pipeline of today would accept it: its outcome is
    told already, and the redrive lane gives it back.
    """
    assert batch.result is not None  # noqa: S101 - the caller has records
    timely = batch.result.timely
    taken, aside = outcomes_before(connection, batch.stream, batch.lane, timely)
    gone = taken | aside
    return timely.filter(pa.array(~gone)) if gone.any() else timely


def refused_since(connection: Any, batch: Batch) -> int:
    """Return how many records of a batch were accepted when it was read first, and are refused now.

    Looks only. They are dead letters or late by the pipeline of today, and have no such place in the store.
    """
    assert batch.result is not None  # noqa: S101 - the caller has records
    dead, late = batch.result.dead.select(_DEAD), batch.result.late.select(_LATE)
    refused = pa.concat_tables([dead.rename_columns(_LATE), late], promote_options="permissive")
    taken, aside = outcomes_before(connection, batch.stream, batch.lane, refused)
    return int(np.count_nonzero(~(taken | aside)))


def outcomes_before(connection: Any, stream: str, lane: str, rows: pa.Table) -> tuple[Mask, Mask]:
    """Return which rows were copies or expired when they were read first, and which were set aside.

    Looks only. Rows have `_partition` and `_offset`; those of neither were accepted, if they are timely.
    """
    taken, aside = np.zeros((2, rows.num_rows), dtype=np.bool_)
    if not rows.num_rows:
        return taken, aside
    numbers = pa.array(np.arange(rows.num_rows), pa.int64())
    connection.register("_rows_met", rows.select(["_partition", "_offset"]).append_column("_i", numbers))
    places = 'SELECT partition, "offset" FROM _headrace.taken WHERE stream = $1 AND lane = $2'
    for mask, sql in ((taken, places), (aside, _set_aside_sql(connection, stream, lane))):
        found = connection.execute(
            f"SELECT r._i FROM _rows_met r SEMI JOIN ({sql}) t "
            'ON t.partition = r._partition AND t."offset" = r._offset',
            [stream, lane],
        ).fetchall()
        mask[[number for (number,) in found]] = True
    connection.unregister("_rows_met")
    return taken, aside


def _redriven(
    connection: Any, batch: Batch, keys: RememberedKeys | None, expired: Mask, main: Decided | None
) -> tuple[Decision, list[tuple[int, int]]]:
    """Return which redriven rows are duplicates, and the addresses that are accepted with the others.

    Rows are looked at one after the other in the order of the lane, because what one does depends on those
    before it: an address is taken by the first row of it that is accepted, and by no other. A row whose
    address was not set aside (no dead letter, not late) stands for a record that counts already: a duplicate.
    """
    assert batch.result is not None  # noqa: S101 - the caller has records
    timely = batch.result.timely
    addresses = _addresses_of(batch, timely)
    free = _set_aside(connection, batch.stream, addresses, main)
    values: list[tuple[str | None, int | None]] = [(None, None)] * timely.num_rows
    if keys is not None:
        values = keys.look_up(timely, None if main is None else main.accepted)
    times = timely.column("_event_time").cast(pa.int64()).to_pylist()
    contents = timely.column("_content_hash").to_pylist() if keys is not None else [None] * timely.num_rows
    duplicate, conflicting = np.zeros((2, timely.num_rows), dtype=np.bool_)
    accepted: list[tuple[int, int]] = []
    fresh: dict[tuple[int, str], int] = {}
    for row in np.argsort(timely.column("_offset").to_numpy(), kind="stable").tolist():
        address, (value, known) = addresses[row], values[row]
        if address is not None and address not in free:
            duplicate[row] = True
            continue
        if expired[row]:
            continue
        if value is not None:
            known = fresh.get((times[row], value), known)
            if known is not None:
                duplicate[row], conflicting[row] = True, known != contents[row]
                continue
            fresh[times[row], value] = contents[row]
        if address is not None:
            free.discard(address)
            accepted.append(address)
    return Decision(duplicate, conflicting, _sample(timely, values, duplicate, conflicting)), accepted


def _sample(
    timely: pa.Table, values: list[tuple[str | None, int | None]], duplicate: Mask, conflicting: Mask
) -> pa.Table | None:
    chosen = np.flatnonzero(duplicate)[:_SAMPLE_ROWS]
    if not len(chosen):
        return None
    sample: pa.Table = timely.select(["_partition", "_offset", "_event_time"]).take(pa.array(chosen))
    sample = sample.append_column("_value", pa.array([values[row][0] for row in chosen], pa.string()))
    return sample.append_column("conflicting", pa.array(conflicting[chosen]))


def _addresses_of(batch: Batch, timely: pa.Table) -> list[tuple[int, int] | None]:
    """Return the address that each row stands for; None where it names none."""
    records = batch.slice.records
    places = zip(records.column("partition").to_pylist(), records.column("offset").to_pylist(), strict=True)
    stands_for = dict(zip(places, map(_address, records.column("headers").to_pylist()), strict=True))
    mine = zip(timely.column("_partition").to_pylist(), timely.column("_offset").to_pylist(), strict=True)
    return [stands_for[place] for place in mine]


def _set_aside(
    connection: Any, stream: str, addresses: list[tuple[int, int] | None], main: Decided | None
) -> set[tuple[int, int]]:
    """Return which addresses have a dead letter or a late row and were not accepted by the redrive lane."""
    given = {address for address in addresses if address is not None}
    if not given:
        return set()
    wanted = pa.table(
        [pa.array([n for n, _ in given], pa.int32()), pa.array([at for _, at in given], pa.int64())],
        names=["partition", "offset"],
    )
    connection.register("_addresses", wanted)
    found = connection.execute(
        'SELECT partition, "offset" FROM _addresses SEMI JOIN '
        f'({_set_aside_sql(connection, stream, "main")}) USING (partition, "offset")',
        [stream, "main"],
    ).fetchall()
    taken = connection.execute(
        'SELECT partition, "offset" FROM _addresses SEMI JOIN '
        '(SELECT partition, "offset" FROM _headrace.redriven WHERE stream = $1) USING (partition, "offset")',
        [stream],
    ).fetchall()
    connection.unregister("_addresses")
    free = set(found)
    if main is not None and main.batch.result is not None:
        for table, names in ((main.batch.result.dead, _DEAD), (main.batch.result.late, _LATE)):
            places = (table.column(name).to_pylist() for name in names)
            free |= given & set(zip(*places, strict=True))
    return free - set(taken)


def _set_aside_sql(connection: Any, stream: str, lane: str) -> str:
    """Return a SELECT of the addresses of a lane ($1, $2) that have a dead letter or a late row."""
    parts = ['SELECT partition, "offset" FROM _headrace.dead_letters WHERE stream = $1 AND lane = $2']
    if lane == "main":  # no other lane has late rows; those of earlier columns lie in relations of their own
        named = f"late_{stream}"
        late = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = '_state' "
            "AND (table_name = $1 OR starts_with(table_name, $1 || '__until_')) ORDER BY 1",
            [named],
        ).fetchall()
        parts += [f"SELECT _partition, _offset FROM _state.{quoted(name)}" for (name,) in late]
    return " UNION ALL ".join(parts)


def _address(headers: list[dict[str, Any]] | None) -> tuple[int, int] | None:
    """Return the address that a redriven record stands for; None when it names none that a log can have."""
    for header in headers or ():
        if header["key"] == _ADDRESS.decode() and header["value"]:
            named = _PLACE.fullmatch(header["value"])
            if named is not None and int(named[1]) < 2**31 and int(named[2]) < 2**63:
                return int(named[1]), int(named[2])
    return None


def _expired(timely: pa.Table, progress: Progress, writers: list[TableWriter]) -> Mask:
    """Return which rows belong only to windows that a table has retired: it is in all its tables or none."""
    expired = np.zeros(timely.num_rows, dtype=np.bool_)
    times = timely.column("_event_time").cast(pa.int64())
    for writer in writers:
        retired = progress.tables[writer.plan.name].retired_through
        if retired is not None:
            expired |= writer.last_end(times).to_numpy() <= retired
    return expired


def minutes_of(column: pa.ChunkedArray) -> dict[int, int]:
    """Return how many instants of a column lie in each minute, by the minute's start in microseconds."""
    if not len(column):
        return {}
    minutes, minute_of = distinct(column.cast(pa.int64()).to_numpy() // 60_000_000)
    return dict(zip((minutes * 60_000_000).tolist(), np.bincount(minute_of).tolist(), strict=True))
