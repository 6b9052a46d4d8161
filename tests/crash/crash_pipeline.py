"""The pipeline that gets killed, its records, and what the oracle says about them."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import canonical
import pyarrow as pa
from batch_oracle import answer
from oracle_aggregates import aggregate, count_rows
from oracle_model import Arrival, Grouped, Plain, Rule, Stream, Window
from oracle_values import decimal, instant, integer, text
from oracle_words import column, columns, same, windowed

import headrace as hr
from headrace.log import Log, open_embedded_log

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARTITIONS = 3

pipeline = hr.Pipeline("killed")
pipeline.stream(
    "events",
    schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, user VARCHAR NOT NULL, n INT, amount DECIMAL(10,2)",
    event_time="seen",
    allowed_lateness="2 minutes",
    unique="id",
    expect={"small": "n IS NULL OR n < 1000"},
)
pipeline.table(
    "minutes",
    """
    SELECT window_start, window_end, count(*) AS events, sum(amount) AS total, count(DISTINCT "user") AS users
    FROM events GROUP BY window(seen, '1 minute')
    """,
)
pipeline.table(
    "visits",
    """
    SELECT "user", window_start, window_end, count(*) AS events, max(n) AS most
    FROM events GROUP BY session_window(seen, '20 seconds'), "user"
    """,
)
pipeline.table("totals", 'SELECT "user", count(*) AS events, sum(n) AS total FROM events GROUP BY "user"')
pipeline.table("clean", "SELECT id, seen, n FROM events WHERE n > 900")

STREAM = Stream(
    "events",
    columns(id_required=text, seen_required=instant, user_required=text, n=integer, amount=decimal(10, 2)),
    event_time="seen",
    allowed_lateness=timedelta(minutes=2),
    unique=("id",),
    expect={"small": Rule(lambda row: row["n"] is None or row["n"] < 1000)},
)
TABLES = {
    "minutes": Grouped(
        "events",
        {**windowed, **same("events", "total", "users")},
        {
            "events": count_rows(),
            "total": aggregate("sum", column("amount")),
            "users": aggregate("count_distinct", column("user")),
        },
        window=Window(timedelta(minutes=1)),
    ),
    "visits": Grouped(
        "events",
        {**same("user"), **windowed, **same("events", "most")},
        {"events": count_rows(), "most": aggregate("max", column("n"))},
        keys=same("user"),
        window=Window(timedelta(seconds=20), session=True),
    ),
    "totals": Grouped(
        "events",
        same("user", "events", "total"),
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        keys=same("user"),
    ),
    "clean": Plain(
        "events", same("id", "seen", "n"), where=lambda row: None if row["n"] is None else row["n"] > 900
    ),
}


def arrivals(count: int, *, seed: int = 0) -> list[Arrival]:
    """Ten minutes of records: disorder, copies, late ones, future ones, rejected and malformed ones."""
    chance = random.Random(seed)
    found: list[Arrival] = []
    ends = [0] * PARTITIONS
    for number in range(count):
        record_time = START + timedelta(minutes=10) * number / count
        if found and chance.random() < 0.05:
            value = chance.choice(found[-200:]).value
        else:
            value = _value(chance, number, record_time)
        partition = chance.randrange(PARTITIONS)
        found.append(Arrival("events", partition, ends[partition], record_time, value))
        ends[partition] += 1
    return found


def _value(chance: random.Random, number: int, record_time: datetime) -> bytes:
    if chance.random() < 0.01:
        return b'{"id": '
    lag = chance.choice((0, 0, 0, 1, 5, 30, 110, 200, -90))
    return json.dumps(
        {
            "id": f"e{number}",
            "seen": (record_time - timedelta(seconds=lag)).isoformat(),
            "user": f"u{min(chance.randrange(60), chance.randrange(60))}",
            "n": chance.choice((None, chance.randrange(1010))),
            "amount": chance.randrange(100_000) / 100,
        }
    ).encode()


def append(folder: Path, found: list[Arrival]) -> None:
    """Fill the log in `folder` with `found`."""
    log = open_embedded_log(folder / "log.db", "events", partitions=PARTITIONS, clock=lambda: START)
    append_all(log, found)
    log.close()


def append_all(log: Log, found: list[Arrival]) -> None:
    """Append `found` in their order, a thousand records a batch."""
    for start in range(0, len(found), 1000):
        log.append(append_table(found[start : start + 1000]))


def append_table(found: list[Arrival]) -> pa.Table:
    """What a log takes, with the partitions and record times of `found`."""
    return pa.table(
        {
            "partition": pa.array([one.partition for one in found], pa.int32()),
            "record_time": pa.array([one.record_time for one in found], pa.timestamp("us", "UTC")),
            "value": pa.array([one.value for one in found], pa.binary()),
        }
    )


def expected(found: list[Arrival]) -> dict[str, Any]:
    """What the oracle says of `found`, in the form of `given`."""
    answered = answer([STREAM], TABLES, found)
    return {
        "outcomes": dict(sorted(answered.outcomes("events").items())),
        "tables": {name: canonical.rows(answered.tables[name]) for name in TABLES},
    }


def given(test: Any) -> dict[str, Any]:
    """What an opened `PipelineTest` of this pipeline holds."""
    assert test.ledger().balanced
    return {
        "outcomes": dict(sorted(test.outcomes("events").items())),
        "tables": {name: canonical.rows(test.table(name)) for name in TABLES},
    }
