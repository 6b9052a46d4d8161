"""A registry that is away holds up the stream that needs it, and no other one."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from registry_support import RunningRegistry, encoded, field, record_schema

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.log import open_embedded_log
from headrace.log.backoff import Waiting
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.framing import RegistryFraming, StreamFormat
from headrace.log.registry.wire import frame
from headrace.sql import plan_pipeline
from headrace.store import Store
from servers.guard import wait_until

SCHEMA = record_schema(field("n", "long"))


def test_a_registry_that_is_away_holds_up_its_own_stream_alone(
    registry: RunningRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    number = client.register("framed-value", "AVRO", json.dumps(SCHEMA))
    values = {"plain": b'{"n": 1}', "framed": frame(number, encoded(SCHEMA, {"n": 1}))}
    pipeline = hr.Pipeline("two")
    for name in values:
        pipeline.stream(name, schema="n BIGINT NOT NULL")
        pipeline.table(f"total_{name}", f"SELECT count(*) AS records FROM {name}")
    plan = plan_pipeline(pipeline)
    counted = dict.fromkeys(values, 0)
    waits: list[Waiting | None] = []
    stop = threading.Event()

    def count(report: Any) -> None:
        for name, records in report.records.items():
            counted[name] += records

    def send(name: str, records: int) -> None:
        logs[name].append(pa.table({"value": pa.array([values[name]] * records, pa.binary())}))

    def reached(**wanted: int) -> bool:
        return all(counted[name] >= records for name, records in wanted.items())

    with ExitStack() as undo:
        logs = {name: open_embedded_log(tmp_path / "log.db", name, durable=False) for name in values}
        identities = {name: log.identity for name, log in logs.items()}
        store = Store.open(tmp_path / "store.duckdb", plan, identities=identities)
        form = StreamFormat(plan.streams["framed"].stream, "avro", "framed-value")
        own = RegistryClient(client.url)
        framing = RegistryFraming(own, form)
        engine = LocalEngine(plan, logs, store, framings={"framed": framing})
        for each in (*logs.values(), store, framing, engine):
            undo.callback(each.close)
        run = threading.Thread(
            target=engine.run, args=(stop,), kwargs={"on_epoch": count, "on_waiting": waits.append}
        )
        client.close()
        registry.stop()
        run.start()
        undo.callback(run.join, 30)
        undo.callback(stop.set)
        send("framed", 3)
        wait_until(lambda: bool(waits), what="the run says that it waits")
        for turn in range(1, 4):
            send("plain", 10)
            wait_until(lambda turn=turn: reached(plain=10 * turn), what=f"{10 * turn} records are counted")
        assert counted["framed"] == 0
        assert "does not answer" in str(waits[0])
        registry.start()
        wait_until(lambda: reached(framed=3), what="the framed records are counted")
        send("framed", 4)
        wait_until(lambda: reached(framed=7), what="what came later is counted")
        assert waits[-1] is None
    assert counted == {"plain": 30, "framed": 7}
