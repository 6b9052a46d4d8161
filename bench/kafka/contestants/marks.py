"""What every contestant shares: its task, the marks that it prints, how it writes its result.

Runs in the environments of the peers: only the standard library is imported here.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TASK: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].startswith("{") else {}
CHUNK = 5000
LATENESS_MS, TOLERANCE_MS, MINUTE_MS = 300_000, 60_000, 60_000
_began = 0.0


def begin() -> None:
    """Say that the measured part begins now."""
    global _began  # noqa: PLW0603 - one measurement a process
    print("##begin", flush=True)
    _began = time.perf_counter()


def passed() -> float:
    """Return the seconds since the measured part began."""
    return time.perf_counter() - _began


def end(**facts: Any) -> None:
    """Say that the measured part ended; `facts` are kept with the result."""
    seconds = time.perf_counter() - _began
    print("##end " + json.dumps({"seconds": seconds, **facts}), flush=True)


def event_ms(text: str) -> int:
    """Return an event time in ms since the epoch; a text without a zone is UTC."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1000)


def counts_at(at: int, record_time: int) -> bool:
    """Say whether a record counts: neither late nor of the future."""
    return record_time - LATENESS_MS <= at <= record_time + TOLERANCE_MS


def cents(amount: float | None) -> int:
    """Return money as a whole number, so that sums are exact."""
    return round(amount * 100) if amount is not None else 0


def write(rows: Iterable[tuple[int, str, int, int]]) -> None:
    """Write the result: window's start in ms, key, count, cents."""
    with (Path(TASK["out"]) / "result.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def consumer_settings(group: str) -> dict[str, Any]:
    """Return how confluent-kafka consumes here: large queue, no pause when it is full for a moment."""
    return {
        "bootstrap.servers": TASK["brokers"],
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 200_000,
        "queued.max.messages.kbytes": 131_072,
        "fetch.message.max.bytes": 4_194_304,
    }


def batches(stream: dict[str, Any], group: str) -> Iterator[list[Any]]:
    """Give the records of a topic from start to end, in lists. Only for environments with confluent-kafka."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(consumer_settings(group))
    consumer.assign([TopicPartition(stream["topic"], int(each), 0) for each in stream["ends"]])
    left, came = stream["events"], time.monotonic()
    while left:
        # consume() waits until the list is full; a long wait would be part of the last list's time.
        messages = consumer.consume(min(CHUNK, left), timeout=0.05)
        if messages:
            left, came = left - len(messages), time.monotonic()
            yield messages
        elif time.monotonic() > came + 10:
            raise SystemExit(f"{left} records of {stream['topic']} did not come")
    consumer.close()
