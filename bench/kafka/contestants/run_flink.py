"""Flink SQL: parallelism 2, two-phase aggregation, window function TUMBLE; it ends where the topic ends.

The watermark follows the record time: what counts is never more than 5 minutes before it, so nothing that
counts is late for Flink either, and what does not count moves no window.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from marks import TASK, begin, end
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

KEY = TASK["key"]
OUT = Path(TASK["out"])


def environment() -> TableEnvironment:
    settings = Configuration()
    for name, value in {
        "parallelism.default": "2",
        "pipeline.jars": ";".join(f"file://{jar}" for jar in TASK["jars"]),
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
        "table.optimizer.agg-phase-strategy": "TWO_PHASE",
        "taskmanager.numberOfTaskSlots": "2",
        "taskmanager.memory.process.size": "1728m",
        "state.backend.type": "hashmap",
        "execution.checkpointing.interval": "10 s",
        "execution.checkpointing.dir": f"file://{OUT}/checkpoints",
    }.items():
        settings.set_string(name, value)
    return TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(settings).build()
    )


def run(flink: TableEnvironment, name: str, stream: dict) -> Path:
    """Count and add up a topic from start to end into files."""
    place = OUT / name
    flink.execute_sql(f"""
        CREATE TEMPORARY TABLE {name} (
            event_type STRING, user_id STRING, `timestamp` STRING, total_amount DECIMAL(12, 2),
            record_time TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
            event_time AS TO_TIMESTAMP_LTZ(
                SUBSTRING(`timestamp` FROM 1 FOR 23), 'yyyy-MM-dd''T''HH:mm:ss.SSS', 'UTC'),
            WATERMARK FOR event_time AS record_time - INTERVAL '6' MINUTE
        ) WITH (
            'connector' = 'kafka', 'topic' = '{stream["topic"]}', 'format' = 'json',
            'properties.bootstrap.servers' = '{TASK["brokers"]}', 'properties.group.id' = 'flink-{name}',
            'properties.max.poll.records' = '5000', 'scan.startup.mode' = 'earliest-offset',
            'scan.bounded.mode' = 'latest-offset'
        )""")
    flink.execute_sql(f"""
        CREATE TEMPORARY TABLE {name}_result (
            window_ms BIGINT, name STRING, events BIGINT, cents BIGINT
        ) WITH ('connector' = 'filesystem', 'path' = 'file://{place}', 'format' = 'csv')""")
    flink.execute_sql(f"""
        CREATE TEMPORARY VIEW {name}_accepted AS SELECT * FROM {name}
        WHERE event_time >= record_time - INTERVAL '5' MINUTE
          AND event_time <= record_time + INTERVAL '1' MINUTE""")
    flink.execute_sql(f"""
        INSERT INTO {name}_result
        SELECT CAST(TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', window_start) AS BIGINT) * 1000,
               {KEY}, count(*), CAST(COALESCE(sum(total_amount), 0) * 100 AS BIGINT)
        FROM TABLE(TUMBLE(TABLE {name}_accepted, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
        GROUP BY window_start, window_end, {KEY}""").wait()
    return place


table_environment = environment()
run(table_environment, "warm", TASK["warm"])
begin()
files = run(table_environment, "measured", TASK["stream"])
end(parallelism=2, state="hashmap")
with (OUT / "result.csv").open("wb") as whole:
    for file in sorted(each for each in files.rglob("*") if each.is_file() and "_SUCCESS" not in each.name):
        whole.write(file.read_bytes())
shutil.rmtree(files)
