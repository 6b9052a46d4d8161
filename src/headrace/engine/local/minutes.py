"""Outcomes, their reasons, and checks of rules by minute of record time; how the system tables stay small.

An epoch only appends to them, because a merge costs ten times what an append does. Readers add the rows
up, and every so many epochs the rows of one minute are folded into one.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.outcomes import Decided, minutes_of
from headrace.engine.local.queries import Queries
from headrace.rows.result import Outcome

__all__ = ["fold", "write_minutes"]

FOLD_EVERY = 512
_EPOCHS_KEPT = 1_000_000
_SAMPLES_KEPT = 100_000
_SCHEMA = pa.schema(
    [
        ("stream", pa.string()),
        ("minute", pa.timestamp("us", "UTC")),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("records", pa.int64()),
        ("warned", pa.int64()),
        ("rejected", pa.int64()),
    ]
)


def write_minutes(queries: Queries, decided: Decided) -> None:
    """Append what became of a batch's records, inside a transaction."""
    result, stream = decided.batch.result, decided.batch.stream
    assert result is not None  # noqa: S101 - only batches with records are decided
    counts: dict[tuple[str, int], int] = {}

    def add(outcome: str, times: pa.ChunkedArray) -> None:
        for minute, records in minutes_of(times).items():
            counts[outcome, minute] = counts.get((outcome, minute), 0) + records

    add(Outcome.ACCEPTED.value, decided.accepted.column("_record_time"))
    add(Outcome.LATE.value, result.late.column("_record_time"))
    for outcome, mask in ((Outcome.DUPLICATE, decided.duplicate), (Outcome.EXPIRED, decided.expired)):
        if mask.any():
            add(outcome.value, result.timely.column("_record_time").filter(pa.array(mask)))
    reasons: dict[tuple[str, int, str], int] = {}
    if result.dead.num_rows:
        for name in set(result.dead.column("outcome").to_pylist()):
            mine = result.dead.filter(pc.equal(result.dead.column("outcome"), name))
            add(name, mine.column("record_time"))
        reasons = _first_reasons(result.dead)
    rows = [(stream, minute, "outcome", name, n, 0, 0) for (name, minute), n in counts.items()]
    rows += [(stream, minute, outcome, why, n, 0, 0) for (outcome, minute, why), n in reasons.items()]
    if result.rules.num_rows:
        minutes = result.rules.column("minute").cast(pa.int64()).to_pylist()
        columns = [
            result.rules.column(name).to_pylist() for name in ("rule", "checked", "warned", "rejected")
        ]
        rows += [(stream, minute, "rule", *facts) for minute, *facts in zip(minutes, *columns, strict=True)]
    if rows:
        arrays = [
            pa.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
        ]
        queries.put("_minutes", pa.Table.from_arrays(arrays, schema=_SCHEMA))
        queries.write("INSERT INTO _headrace.minutes SELECT * FROM _minutes")


def _first_reasons(dead: pa.Table) -> dict[tuple[str, int, str], int]:
    """Return how many dead letters have an outcome, a minute and a first reason.

    The first one only: so a record counts once, and the reasons of an outcome add up to it.
    """
    found: dict[tuple[str, int, str], int] = {}
    first = pc.struct_field(pc.list_element(dead.column("reasons").combine_chunks(), 0), "rule")
    reasons = pa.table({"outcome": dead.column("outcome"), "why": first, "at": dead.column("record_time")})
    for group in reasons.group_by(["outcome", "why"]).aggregate([]).to_pylist():
        same = pc.and_(pc.equal(reasons["outcome"], group["outcome"]), pc.equal(reasons["why"], group["why"]))
        for minute, records in minutes_of(reasons.filter(same).column("at")).items():
            found[group["outcome"], minute, group["why"]] = records
    return found


def fold(connection: Any, epoch: int) -> None:
    """Make one row of the rows of each minute, and let go of old epochs and samples, inside a transaction."""
    if epoch % FOLD_EVERY:
        return
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _folded AS SELECT stream, minute, kind, name, "
        "CAST(sum(records) AS BIGINT) AS records, CAST(sum(warned) AS BIGINT) AS warned, "
        "CAST(sum(rejected) AS BIGINT) AS rejected FROM _headrace.minutes GROUP BY ALL HAVING count(*) > 1"
    )
    connection.execute(
        "DELETE FROM _headrace.minutes AS m USING _folded AS f "
        "WHERE m.stream = f.stream AND m.minute = f.minute AND m.kind = f.kind AND m.name = f.name"
    )
    connection.execute("INSERT INTO _headrace.minutes SELECT * FROM _folded")
    connection.execute("DROP TABLE temp._folded")
    connection.execute(f"DELETE FROM _headrace.epochs WHERE epoch <= {epoch - _EPOCHS_KEPT}")
    for samples in ("duplicates", "failed_rows"):
        connection.execute(f"DELETE FROM _headrace.{samples} WHERE epoch <= {epoch - _SAMPLES_KEPT}")
