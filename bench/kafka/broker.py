"""The broker: one real Kafka (KRaft) from the servers of the tests, with a JVM fit for load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JVM = ("-Xms512m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:-UsePerfData")


@contextmanager
def one_broker() -> Iterator[Any]:
    """Run one broker for as long as the measurements take; see `servers.kafka.KafkaBroker`."""
    sys.path.insert(0, str(ROOT / "tests"))
    from servers.jars import fetched
    from servers.kafka import kafka_broker

    fetched("kafka")
    with kafka_broker({"log.segment.bytes": str(1 << 30)}, jvm=JVM) as broker:
        yield broker
