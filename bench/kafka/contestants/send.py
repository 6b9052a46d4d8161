"""An open-loop sender: every record has a moment at which it is due, and nobody is waited for.

What is sent late because machine or broker were busy was still due at its moment, so a latency that is
counted from there holds the waiting, too. The moments follow from the steps alone: `[[rate, seconds], …]`
from a start in the future. Prints the start, and at the end what was sent and how late the last record was.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from zlib import crc32

import numpy as np
from bench.kafka.contestants.marks import TASK
from bench.kafka.data import PARTITIONS, producer_settings
from confluent_kafka import Producer

from headrace.blueprints.commerce.generator import CommerceGenerator

MADE_PER_S = 60_000.0  # records that are surely prepared in a second on a quiet machine
PIECE = 20_000


def due(steps: list[list[float]]) -> np.ndarray:
    """Return when each record is due, in seconds after the start."""
    moments, begin = [], 0.0
    for rate, seconds in steps:
        moments.append(begin + np.arange(round(rate * seconds)) / rate)
        begin += seconds
    return np.concatenate(moments)


def prepare(moments: np.ndarray, start: float) -> tuple[list[dict], np.ndarray]:
    """Return the records in order, and the partition of each."""
    rate = len(moments) / max(moments[-1], 1e-3)
    generator = CommerceGenerator(seed=int(start) % 1000, user_skew=0.5, malformed_share=0.0)
    records: list[dict] = []
    for first in range(0, len(moments), PIECE):
        at = datetime.fromtimestamp(start + moments[first], UTC)
        table = generator.batch(at, min(PIECE, len(moments) - first), rate=rate)
        pairs = zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True)
        records += [{"key": key, "value": value} for key, value in pairs]
    partitions = np.array([crc32(record["key"]) % PARTITIONS for record in records], np.int8)
    return records, partitions


def send(records: list[dict], moments: np.ndarray, start: float) -> float:
    """Send each record when it is due or as soon as possible after that; return how late the last one was."""
    settings = producer_settings(TASK["brokers"]) | {
        "linger.ms": 1, "queue.buffering.max.messages": 10_000_000,
        "queue.buffering.max.kbytes": 2_097_151, "batch.size": 262_144,
    }  # fmt: skip
    producer, topic, sent = Producer(settings), TASK["topic"], 0
    producer.list_topics(topic, timeout=10)
    while sent < len(records):
        now = time.time() - start
        ready = min(int(np.searchsorted(moments, now, side="right")), sent + 5000)
        if ready == sent:
            time.sleep(min(max(moments[sent] - now, 0.0002), 0.001))
            continue
        if producer.produce_batch(topic, records[sent:ready]) != ready - sent:
            raise SystemExit("the sender's queue is full")
        sent = ready
        producer.poll(0)
    late = time.time() - start - float(moments[-1])
    if producer.flush(120):
        raise SystemExit("records were not acknowledged")
    return late


def main() -> None:
    """Prepare, tell the start, send, tell the end."""
    moments = due(TASK["steps"])
    start = time.time() + 2.0 + len(moments) / MADE_PER_S
    records, partitions = prepare(moments, start)
    for record, partition in zip(records, partitions.tolist(), strict=True):
        record["partition"] = partition
    np.savez(TASK["out"], due=moments + start, partition=partitions)
    ready = time.time()
    if ready > start:
        raise SystemExit(f"{len(moments)} records took {ready - start:.1f} s too long to prepare")
    print(json.dumps({"start": start}), flush=True)
    late = send(records, moments, start)
    print(json.dumps({"late_s": round(late, 3), "sent": len(records)}), flush=True)
    sys.stdout.flush()


main()
