"""Which records are copies of accepted ones: remembered unique values, behind a filter in memory.

A copy has the same unique value and the same event time, so record times of two copies that both pass the
time checks lie within `allowed_lateness` + `future_tolerance` of each other. What is remembered follows from
that:

- A value is forgotten when its event time is older than the frontier less both lengths. What is read in the
  order of record time, or at most the tolerance behind it, finds every copy.
- While something older than that is read (history loaded beside a running engine, a clock that stepped back
  by more than the tolerance) nothing is forgotten: from the first such record until the end of the partition
  was reached without a load in progress, and until the frontier has then moved by both lengths.
- Values that came by the redrive lane are never forgotten: a redriven record may be of any age.

So the result does not depend on where batches are cut. The limit: a record that comes behind the frontier is
not compared with values that were forgotten before the first of its kind came. Whoever loads the same history
twice, or history that the engine has read before, loads it into another stream or begins with a new store.

Values stand in time order, without an index; a look-up touches the time range of its batch only, and only for
candidates that the filter lets through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.log.arrays import Mask
from headrace.store.names import quoted

__all__ = ["Decision", "RememberedKeys"]

_BITS_OF_KEY = 12
_CAPACITY_LEAST = 1 << 18
_SAMPLE_ROWS = 20

Hashes = npt.NDArray[np.uint64]


class _Filter:
    """A blocked Bloom filter over 64-bit hashes: three bits in one word.

    Says 'surely new' or 'perhaps known'.
    """

    def __init__(self, capacity: int) -> None:
        words = max(1 << 10, capacity * _BITS_OF_KEY // 64)
        self._words = np.zeros(words, dtype=np.uint64)
        self.capacity = capacity
        self.filled = 0

    def _places(self, hashes: Hashes) -> tuple[npt.NDArray[np.intp], Hashes]:
        # DuckDB's hash is good in all its bits, yet grouping by it leaves runs of equal high bits in a
        # partition.
        mixed = hashes * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        six = np.uint64(63)
        one = np.uint64(1)
        bits = (one << (mixed & six)) | (one << ((mixed >> np.uint64(6)) & six))
        bits |= one << ((mixed >> np.uint64(12)) & six)
        return ((mixed >> np.uint64(18)) % np.uint64(len(self._words))).astype(np.intp), bits

    def add(self, hashes: Hashes) -> None:
        places, bits = self._places(hashes)
        np.bitwise_or.at(self._words, places, bits)
        self.filled += len(hashes)

    def may_hold(self, hashes: Hashes) -> Mask:
        places, bits = self._places(hashes)
        held: Mask = (self._words[places] & bits) == bits
        return held


@dataclass(frozen=True)
class Decision:
    """For every row of a batch whether it is a copy.

    How many of these have other content; a sample of them.
    """

    duplicate: Mask
    conflicting: Mask
    sample: pa.Table | None

    @property
    def any(self) -> bool:
        """Whether there is a copy at all."""
        return self.sample is not None


class RememberedKeys:
    """The unique values of one stream that a copy may still arrive for.

    Its relation holds event_time, key_hash, content_hash and value (the unique values as one text); a second
    one, made here, holds the same of what was redriven.
    `decide` looks only; `remember` and `forget` write inside the transaction of an epoch. The filter may
    know more than the relation after a transaction that failed: that costs a look-up, never an answer.
    """

    def __init__(self, connection: Any, relation: str, unique: tuple[str, ...]) -> None:
        self._connection = connection
        self._relation = relation
        self._redriven = relation.removesuffix('"') + '__redriven"'
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._redriven} (event_time TIMESTAMPTZ, key_hash UBIGINT, "
            "content_hash UBIGINT, value VARCHAR)"
        )
        columns = [quoted(name) for name in unique]
        if len(columns) == 1:
            self._value = f"CAST({columns[0]} AS VARCHAR)"
        else:
            texts = ", ".join(f"CAST({column} AS VARCHAR)" for column in columns)
            self._value = f"CAST(to_json([{texts}]) AS VARCHAR)"
        self._unique = list(unique)
        self._filter = self._filled()
        self._forgotten: int | None = None

    def _filled(self) -> _Filter:
        every = f"(SELECT key_hash FROM {self._relation} UNION ALL SELECT key_hash FROM {self._redriven})"
        count = self._connection.execute(f"SELECT count(*) FROM {every}").fetchall()[0][0]
        made = _Filter(max(_CAPACITY_LEAST, 2 * count))
        if count:
            for batch in self._connection.sql(f"SELECT key_hash FROM {every}").to_arrow_reader(500_000):
                made.add(batch.column(0).to_numpy())
        return made

    def _known(self) -> str:
        """Return the query of all remembered values whose event time is one of those of "_candidates"."""
        least, greatest = (f"(SELECT {of}(_event_time) FROM _candidates)" for of in ("min", "max"))
        return " UNION ALL ".join(
            f"SELECT event_time, key_hash, content_hash, value FROM {relation} "
            f"WHERE event_time BETWEEN {least} AND {greatest}"
            for relation in (self._relation, self._redriven)
        )

    def decide(self, timely: pa.Table) -> Decision:
        """Say which rows of `timely` (see `RowResult`) are copies: of a remembered row.

        Or of one before in it.
        """
        rows = timely.num_rows
        none = np.zeros(rows, dtype=np.bool_)
        hashes, known = _hashes_of(timely)
        candidates = self._filter.may_hold(hashes)
        candidates |= _repeated(hashes)
        candidates &= known
        chosen = np.flatnonzero(candidates)
        if not len(chosen):
            return Decision(none, none, None)
        found = self._compare(timely, chosen)
        if not found.num_rows:
            return Decision(none, none, None)
        duplicate, conflicting = none.copy(), none.copy()
        places = found.column("_i").to_numpy()
        duplicate[places] = True
        conflicting[places[found.column("conflicting").to_numpy(zero_copy_only=False)]] = True
        return Decision(duplicate, conflicting, found.slice(0, _SAMPLE_ROWS))

    def _compare(self, timely: pa.Table, chosen: npt.NDArray[np.intp]) -> pa.Table:
        wanted = [*dict.fromkeys(self._unique), "_event_time", "_record_time", "_partition", "_offset"]
        subset = timely.select([*wanted, "_key_hash", "_content_hash"]).take(pa.array(chosen))
        self._connection.register("_candidates", subset.append_column("_i", pa.array(chosen, pa.int64())))
        # Only one row in (record time, partition, offset) order is the first of its kind in the batch.
        found: pa.Table = self._connection.sql(f"""
            WITH c AS (
                SELECT *, {self._value} AS _value,
                       row_number() OVER first AS _number, first_value(_content_hash) OVER first AS _content
                FROM _candidates
                WINDOW first AS (PARTITION BY _key_hash, _event_time, {self._value}
                                 ORDER BY _record_time, _partition, _offset))
            SELECT c._i, c._partition, c._offset, c._event_time, c._value,
                   c._content_hash <> coalesce(k.content_hash, c._content) AS conflicting
            FROM c LEFT JOIN ({self._known()}) k
              ON k.key_hash = c._key_hash AND k.event_time = c._event_time AND k.value = c._value
            WHERE c._number > 1 OR k.value IS NOT NULL
        """).to_arrow_table()
        self._connection.unregister("_candidates")
        return found

    def look_up(self, rows: pa.Table, beside: pa.Table | None) -> list[tuple[str | None, int | None]]:
        """Return for each row its unique values as one text, and the content hash of a remembered copy.

        The text is None where a unique value is NULL. `beside` are rows accepted in this epoch already.
        """
        wanted = [*dict.fromkeys(self._unique), "_event_time", "_key_hash", "_content_hash"]
        number = pa.array(np.arange(rows.num_rows), pa.int64())
        self._connection.register("_candidates", rows.select(wanted).append_column("_i", number))
        others = rows.slice(0, 0) if beside is None else beside
        self._connection.register("_beside", others.select(wanted))
        found: list[tuple[str | None, int | None]] = self._connection.execute(f"""
            SELECT any_value(CASE WHEN c._key_hash IS NOT NULL THEN c._value END), any_value(k.content_hash)
            FROM (SELECT *, {self._value} AS _value FROM _candidates) c LEFT JOIN (
                {self._known()}
                UNION ALL SELECT _event_time, _key_hash, _content_hash, {self._value} FROM _beside) k
              ON k.key_hash = c._key_hash AND k.event_time = c._event_time AND k.value = c._value
            GROUP BY c._i ORDER BY c._i
        """).fetchall()
        self._connection.unregister("_candidates")
        self._connection.unregister("_beside")
        return found

    def remember(self, accepted: pa.Table, *, redriven: bool = False) -> None:
        """Write the values of accepted rows, inside a transaction; those of redriven ones for ever."""
        hashes, known = _hashes_of(accepted)
        if not known.any():
            return
        if self._filter.filled + len(hashes) > self._filter.capacity:
            self._filter = self._filled()
        self._filter.add(hashes[known])
        wanted = [*dict.fromkeys(self._unique), "_event_time", "_key_hash", "_content_hash"]
        relation = self._redriven if redriven else self._relation
        self._connection.register("_accepted", accepted.select(wanted))
        self._connection.execute(
            f"INSERT INTO {relation} SELECT _event_time, _key_hash, _content_hash, {self._value} "
            "FROM _accepted WHERE _key_hash IS NOT NULL ORDER BY _event_time"
        )

    def forget(self, before: int, *, step: int) -> None:
        """Take out values with an event time before `before`; does nothing until that moved on by `step`."""
        if self._forgotten is not None and before < self._forgotten + step:
            return
        self._forgotten = before
        self._connection.execute(
            f"DELETE FROM {self._relation} WHERE event_time < make_timestamptz({before})"
        )


def _hashes_of(rows: pa.Table) -> tuple[Hashes, Mask]:
    column = rows.column("_key_hash")
    if column.null_count:
        known = column.is_valid().to_numpy(zero_copy_only=False)
        return column.fill_null(0).to_numpy(zero_copy_only=False), known
    return column.to_numpy(), np.ones(rows.num_rows, dtype=np.bool_)


def _repeated(hashes: Hashes) -> Mask:
    """Return which hashes come more than once."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    same = ordered[1:] == ordered[:-1]
    repeated = np.zeros(len(hashes), dtype=np.bool_)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return repeated
