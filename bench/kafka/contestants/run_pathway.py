"""Pathway: two threads, tumbling windows by event time, read from the start to what is there."""

from __future__ import annotations

import os

os.environ["PATHWAY_THREADS"] = "2"

import pathway as pw
from marks import MINUTE_MS, TASK, begin, end, write

KEY = TASK["key"]


class Row(pw.Schema):
    """What is decoded of a record."""

    event_type: str
    user_id: str
    timestamp: str
    total_amount: float | None = pw.column_definition(default_value=None)


def run(stream: dict) -> dict:
    """Count and add up a topic from start to end."""
    pw.internals.parse_graph.G.clear()
    settings = {"bootstrap.servers": TASK["brokers"], "group.id": f"pathway-{stream['topic']}",
                "auto.offset.reset": "earliest", "enable.auto.commit": "false", "fetch.queue.backoff.ms": "5",
                "queued.min.messages": "200000"}  # fmt: skip
    rows = pw.io.kafka.read(
        settings, stream["topic"], schema=Row, format="json", mode="static", with_metadata=True,
        autocommit_duration_ms=1000,
    )  # fmt: skip
    rows = rows.select(
        key=rows[KEY],
        text=rows.timestamp.str.slice(0, 23),
        cents=pw.if_else(rows.total_amount.is_none(), 0.0, pw.coalesce(rows.total_amount, 0.0) * 100.0),
        record_time=pw.unwrap(rows._metadata["timestamp_millis"].as_int()),
    )
    rows = rows.select(
        rows.key, rows.record_time, cents=pw.cast(int, rows.cents.num.round(0)),
        at=rows.text.dt.strptime("%Y-%m-%dT%H:%M:%S.%3f").dt.timestamp(unit="ms"),
    )  # fmt: skip
    rows = rows.select(rows.key, rows.cents, rows.record_time, at=pw.cast(int, rows.at.num.round(0)))
    rows = rows.filter((rows.at >= rows.record_time - 300_000) & (rows.at <= rows.record_time + 60_000))
    rows = rows.select(rows.key, rows.cents, window=rows.at // MINUTE_MS * MINUTE_MS)
    result = rows.groupby(rows.window, rows.key).reduce(
        rows.window, rows.key, events=pw.reducers.count(), cents=pw.reducers.sum(rows.cents)
    )
    groups: dict = {}

    def take(key: object, row: dict, time: int, is_addition: bool) -> None:
        if is_addition:
            groups[row["window"], row["key"]] = (row["events"], row["cents"])

    pw.io.subscribe(result, on_change=take)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    return groups


run(TASK["warm"])
begin()
found = run(TASK["stream"])
end(threads=2)
write((window, key, count, total) for (window, key), (count, total) in found.items())
