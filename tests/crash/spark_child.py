"""A driver on Spark that kills itself, as `kill -9` does, after a chosen step of a chosen micro-batch.

Arguments: the folder of the store, the topic, its brokers, the step, how often it is passed before, and
Spark's settings as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store


def main(folder: str, topic: str, brokers: str, last: str, passes: str, conf: str) -> None:
    from crash_pipeline import pipeline

    left = int(passes)

    def on_step(step: str) -> None:
        nonlocal left
        if step == last:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    log = open_kafka_log(KafkaSettings(brokers=brokers, topic=topic, record_time="header"), "events")
    plan = plan_pipeline(pipeline)
    store = Store.open(Path(folder) / "store.duckdb", plan, identities={"events": log.identity})
    settings = SparkSettings(conf=json.loads(conf), batch_rows_max=1000)
    SparkEngine(plan, {"events": log}, store, spark=settings, on_step=on_step).run(threading.Event())


if __name__ == "__main__":
    tests = Path(__file__).parents[1]
    sys.path[:0] = [str(tests), str(tests / "crash"), str(tests / "oracle")]
    main(*sys.argv[1:])
