"""Traces and lineage reach real receivers over the wire; one that is away, or refuses, is in nobody's way."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pyarrow as pa
import pytest

from headrace.engine.local.settings import EpochReport
from headrace.errors import InternalError, ProfileError, RefusedError
from headrace.log import APPEND_SCHEMA
from headrace.operate import Runtime, load_project, open_log
from headrace.operate.datasets import steps_of
from headrace.operate.journal import Journal
from headrace.operate.profiles import read_profile
from headrace.operate.telemetry import Telemetry
from headrace.sql import plan_pipeline
from servers.guard import wait_until

pytest.importorskip("openlineage.client", reason="headrace[telemetry] is not installed")
from headrace.observe.forwarding import Forwarding
from headrace.observe.lineage import About, Data, Lineage, LineageEvents, Step
from headrace.observe.traces import EpochTraces, Traces

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
pipeline.table("doubled", "SELECT 2 * n AS n FROM counted")
"""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "sesame-of-the-receiver"
IN_TIME_S = 30


@dataclass
class Receiver:
    """A web server that keeps what it was sent: (path, headers, body)."""

    address: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    got: Queue[tuple[str, dict[str, str], bytes]] = field(default_factory=Queue)

    def requests(self) -> list[tuple[str, dict[str, str], bytes]]:
        found = []
        while True:
            try:
                found.append(self.got.get_nowait())
            except Empty:
                return found

    def spans(self) -> list[Any]:
        """Every span that came by OTLP, with `service` as its resource says."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        requests = [ExportTraceServiceRequest.FromString(body) for _, _, body in self.requests()]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.requests()]


@contextmanager
def receiver(*statuses: int) -> Iterator[Receiver]:
    """Answer with these statuses, the last one for ever."""
    made = Receiver(statuses=list(statuses) or [200])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.put((self.path, dict(self.headers), body))
            self.send_response(made.statuses.pop(0) if len(made.statuses) > 1 else made.statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    made.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def nobody() -> str:
    """Return the address of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def report(epoch: int = 1, **facts: Any) -> EpochReport:
    given: dict[str, Any] = {
        "records": {"events": 5},
        "outcomes": {"events": {"accepted": 4, "malformed": 1}},
        "rows": {"counted": 2},
        "seconds": {"compute": 0.25, "commit": 0.5, "read": 1.0, "rows": 0.125},
        "frontiers": {"events": None},
    }
    return EpochReport(epoch=epoch, **{**given, **facts})


def traces_to(address: str, failures: list[tuple[str, str]], *, queue_max: int = 100) -> Traces:
    spans = EpochTraces(address, f"api-key={SECRET}", pipeline="shop", version="1.2.3")
    return Traces(spans, lambda *told: failures.append(told), queue_max=queue_max)


def project_in(folder: Path, telemetry: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text(f"[profiles.local]\n{telemetry}\n")
    return folder


def send(folder: Path, *headers: bytes | None) -> None:
    """Append a record for each, with that `traceparent` where it is given."""
    log = open_log(load_project(folder), "events")
    value = json.dumps({"id": "a", "at": log.now().isoformat()}).encode()
    rows = [
        {
            "partition": None,
            "record_time": None,
            "key": None,
            "value": value,
            "headers": None if each is None else [{"key": "traceparent", "value": each}],
        }
        for each in headers
    ]
    log.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
    log.close()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_each_epoch_is_a_trace_whose_stages_fill_it_and_lead_back_to_its_producers(tmp_path: Path) -> None:
    with receiver() as got:
        folder = project_in(
            tmp_path / "shop",
            f'telemetry = {{ traces = "{got.address}", traces_headers = "api-key={SECRET}" }}',
        )
        send(folder, PARENT.encode(), None, b"nonsense \xff", PARENT.encode())
        runtime = Runtime.open(load_project(folder))
        try:
            runtime.run(threading.Event(), until_caught_up=True)
            (state,) = runtime.answers.status()["telemetry"]
        finally:
            runtime.close()
        path, headers, body = got.got.get(timeout=IN_TIME_S)
        got.got.put((path, headers, body))
        spans = got.spans()
    assert path == "/v1/traces"
    assert headers["api-key"] == SECRET
    assert state["sent"] == len(spans) >= 7
    assert (state["dropped"], state["waiting"], state["problem"]) == (0, 0, "")
    epoch = next(each for each in spans if attributes(each).get("messaging.batch.message_count") == 4)
    assert (epoch.name, epoch.parent_span_id) == ("epoch", b"")
    assert attributes(epoch)["headrace.outcome.accepted"] == attributes(epoch)["headrace.records.events"] == 4
    assert [link.trace_id.hex() for link in epoch.links] == [PARENT.split("-")[1]]
    stages = [each for each in spans if each.parent_span_id == epoch.span_id]
    assert {"read", "rows", "compute", "commit"} <= {each.name for each in stages}
    assert {each.trace_id for each in stages} == {epoch.trace_id}
    ends = epoch.start_time_unix_nano
    for each in stages:  # end to end, in their order
        assert each.start_time_unix_nano == ends
        ends = each.end_time_unix_nano
    assert ends == epoch.end_time_unix_nano


@pytest.mark.parametrize(
    "headers", [f"Bearer {SECRET}", f"tenant=a,{SECRET}", f'key="{SECRET}"', f"key={SECRET}%0Aother"]
)
def test_headers_that_cannot_be_sent_are_refused_and_not_shown(
    headers: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProfileError, match=r"of telemetry\.traces_headers is not NAME") as refused:
        EpochTraces(nobody(), headers, pipeline="shop", version="1.2.3")
    assert SECRET not in str(refused.value) + repr(refused.value.__dict__)
    assert SECRET not in caplog.text


def test_a_run_tells_of_its_tables_as_jobs_with_what_they_read_and_write(tmp_path: Path) -> None:
    with receiver() as got:
        folder = project_in(
            tmp_path / "shop",
            f'telemetry.lineage = "{got.address}"\n'
            f'telemetry.lineage_key = "{SECRET}"\ntelemetry.lineage_namespace = "here"',
        )
        send(folder, None, None)
        runtime = Runtime.open(load_project(folder))
        try:
            runtime.run(threading.Event(), until_caught_up=True)
        finally:
            runtime.close()
        requests = got.requests()
    assert {path for path, _, _ in requests} == {"/api/v1/lineage"}
    assert {headers["Authorization"] for _, headers, _ in requests} == {f"Bearer {SECRET}"}
    events = [json.loads(body) for _, _, body in requests]
    told = [(each["job"]["name"], each["eventType"]) for each in events]
    jobs = ("shop", "shop.counted", "shop.doubled")
    assert told == [(job, state) for state in ("START", "COMPLETE") for job in jobs]
    assert {each["job"]["namespace"] for each in events} == {"here"}
    assert len({each["run"]["runId"] for each in events}) == 3
    pipeline, counted, doubled = events[3:]
    for table in (counted, doubled):
        parent = table["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == pipeline["run"]["runId"]
        assert (parent["job"]["namespace"], parent["job"]["name"]) == ("here", "shop")
        assert table["job"]["facets"]["jobType"]["processingType"] == "STREAMING"
    assert counted["job"]["facets"]["sql"]["query"] == "SELECT count(*) AS n FROM events"
    (stream,), (stored,) = counted["inputs"], counted["outputs"]
    assert (stream["namespace"], Path(stream["name"]).name) == ("file", "events")
    assert [each["name"] for each in stream["facets"]["schema"]["fields"]] == ["id", "at"]
    assert stream["inputFacets"]["inputStatistics"]["rowCount"] == 2
    assert stored["facets"]["schema"]["fields"][0]["type"] == "BIGINT"
    assert [each["name"] for each in doubled["inputs"]] == [stored["name"]]


def steps() -> tuple[Step, ...]:
    events = Data("kafka://broker:9092", "events", (("id", "VARCHAR"),), counted="events")
    return (Step("counted", "SELECT 1", (events,), (Data("file", "/x/counted", (), counted="counted"),)),)


def test_a_run_that_goes_on_says_how_far_it_is_and_one_that_fails_says_why() -> None:
    about = About(pipeline="shop", namespace="here", engine="local", version="1", steps=steps())
    failures: list[tuple[str, str]] = []
    with receiver(503, 201) as got:  # the first event is not taken at first
        events = LineageEvents(got.address + "/own/path?for=us", None, about)
        lineage = Lineage(events, lambda *told: failures.append(told), every=timedelta(minutes=1))
        lineage.start(NOW)
        got.got.get(timeout=IN_TIME_S)
        for epoch in range(3):
            lineage.committed(report(epoch), NOW)
        for seconds in (1, 59, 60, 61, 119):
            lineage.tick(NOW + timedelta(seconds=seconds))
        lineage.stop(NOW + timedelta(seconds=130), "RefusedError: the disk is full")
        lineage.close()
        requests = got.requests()
    assert {path for path, _, _ in requests} == {"/own/path?for=us"}
    found = [json.loads(body) for _, _, body in requests]
    of_table = [each for each in found if each["job"]["name"] == "shop.counted"]
    assert [each["eventType"] for each in of_table] == ["START", "RUNNING", "FAIL"]
    counts = [each["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] for each in of_table]
    assert counts == [0, 15, 15]
    assert of_table[2]["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 6
    assert of_table[2]["run"]["facets"]["errorMessage"]["message"] == "RefusedError: the disk is full"
    assert failures == [("lineage", "ConnectionError: status 503")]
    assert lineage.state()["sent"] == 6
    assert lineage.state()["dropped"] == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            InternalError("Spark stopped the query: ValueError: could not read 'card of Ada Lovelace'"),
            "InternalError",
        ),
        (ValueError("could not read 'card of Ada Lovelace'"), "ValueError"),
        (RefusedError("the disk is full", fix="look"), "RefusedError: the disk is full"),
    ],
)
def test_of_a_run_that_failed_receivers_are_told_what_no_record_can_have_said(
    error: Exception, told: str, tmp_path: Path
) -> None:
    with receiver() as traces, receiver() as lineage:
        project = load_project(
            project_in(
                tmp_path / "shop",
                f'telemetry = {{ traces = "{traces.address}", lineage = "{lineage.address}" }}',
            )
        )
        telemetry = Telemetry(project, plan_pipeline(project.pipeline), Journal(tmp_path / "journal.ndjson"))
        telemetry.start()
        telemetry.stop(error)
        telemetry.close()
        (span,) = traces.spans()
        sent = lineage.requests()
    assert span.status.message == told
    assert "Lovelace" not in str(span)
    failed = [json.loads(body) for _, _, body in sent if b'"FAIL"' in body]
    messages = {each["run"]["facets"]["errorMessage"]["message"] for each in failed}
    assert messages == {told}
    assert not [body for _, _, body in sent if b"Lovelace" in body]


def test_a_receiver_that_is_away_keeps_nobody_waiting_and_what_is_dropped_is_counted() -> None:
    failures: list[tuple[str, str]] = []
    traces = traces_to(nobody(), failures, queue_max=10)
    traces.start(NOW)
    begun = time.monotonic()
    for epoch in range(5_000):
        traces.committed(report(epoch), NOW)
    offered_s = time.monotonic() - begun
    state = traces.state()
    # The thread may have taken some batches of ten meanwhile; nothing is lost from the count.
    assert state["dropped"] >= 5 * 4_000
    assert state["waiting"] <= 5 * 20
    begun = time.monotonic()
    traces.stop(NOW, "")
    traces.close()
    assert time.monotonic() - begun < IN_TIME_S
    assert offered_s < IN_TIME_S
    assert traces.state()["sent"] == 0
    assert SECRET not in str(failures)


def test_a_refused_batch_is_dropped_and_told_once_and_the_next_ones_are_sent() -> None:
    failures: list[tuple[str, str]] = []
    with receiver(400, 200) as got:
        traces = traces_to(got.address + "/v1/traces", failures)
        traces.start(NOW)
        traces.committed(report(1), NOW)
        got.got.get(timeout=IN_TIME_S)
        traces.committed(report(2), NOW)
        traces.stop(NOW, "RefusedError: the disk is full")
        traces.close()
        spans = got.spans()
    assert failures == [("traces", "ConnectionError: the receiver did not take them")]
    assert traces.state() == {"signal": "traces", "sent": 6, "dropped": 5, "waiting": 0, "problem": ""}
    assert [each.name for each in spans if not each.parent_span_id] == ["epoch", "run failed"]
    assert spans[-1].status.message == "RefusedError: the disk is full"
    assert [attributes(each).get("headrace.epoch") for each in spans if each.name == "epoch"] == [2]


def test_a_receiver_that_never_answers_does_not_keep_a_run_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.observe.forwarding._STOP_S", 0.1)
    asked, answer = threading.Event(), threading.Event()

    def hangs(items: object) -> None:
        asked.set()
        answer.wait(IN_TIME_S)

    sending = Forwarding[int]("traces", hangs, size=lambda item: item, failed=lambda *told: None)
    sending.start()
    sending.offer(3)
    assert asked.wait(IN_TIME_S)
    sending.offer(4)
    sending.stop()
    state = sending.state()
    answer.set()
    assert (state["dropped"], state["waiting"]) == (4, 3)


def test_a_run_goes_on_while_its_receivers_are_away_and_its_metrics_say_so(tmp_path: Path) -> None:
    away = nobody()
    folder = project_in(tmp_path / "shop", f'telemetry = {{ traces = "{away}", lineage = "{away}" }}')
    send(folder, None)
    project = load_project(folder)
    runtime, stop = Runtime.open(project), threading.Event()

    def signals() -> dict[str, Any]:
        return {each["signal"]: each for each in runtime.answers.status()["telemetry"]}

    try:
        running = threading.Thread(target=runtime.run, args=(stop,))
        running.start()
        try:
            wait_until(
                lambda: all(each["problem"] for each in signals().values()), what="both fail", seconds=60
            )
        finally:
            stop.set()
            running.join()
        states = signals()
        exposed = runtime.observer.expose()[0].decode()
        assert runtime.store.ledger().read("events") == 1
    finally:
        runtime.close()
    assert {name: each["sent"] for name, each in states.items()} == {"traces": 0, "lineage": 0}
    assert states["lineage"]["problem"] == "ConnectionError: ConnectionError"
    assert all(each["dropped"] + each["waiting"] > 0 for each in states.values())
    assert 'headrace_telemetry_total{result="dropped",signal="lineage"}' in exposed
    told = [json.loads(line) for line in project.journal_path.read_text().splitlines()]
    assert {each["signal"] for each in told if each["event"] == "telemetry"} == {"traces", "lineage"}


def test_nothing_of_it_is_loaded_where_no_receiver_is_named(tmp_path: Path) -> None:
    runtime = Runtime.open(load_project(project_in(tmp_path / "shop", "")))
    try:
        assert runtime.answers.status()["telemetry"] == []
        assert "headrace_telemetry" not in {each.name for each in runtime.observer.samples()}
    finally:
        runtime.close()


@pytest.mark.parametrize(
    ("signal", "module"), [("traces", "opentelemetry.sdk"), ("lineage", "openlineage.client")]
)
def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str, module: str
) -> None:
    folder = project_in(tmp_path / "shop", f'telemetry = {{ {signal} = "http://localhost:1" }}')
    for name in [
        name for name in sys.modules if name == f"headrace.observe.{signal}" or name.startswith(module)
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ProfileError, match=r"headrace\[telemetry\]"):
        Runtime.open(load_project(folder))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:4318", "is no address of a web server"),
        ("http://me:sesame@localhost:4318", "holds a user or a password"),
        ("http://localhost:port", "is no address of a web server"),
    ],
)
def test_an_address_that_cannot_be_or_holds_a_secret_is_refused_without_showing_it(
    tmp_path: Path, address: str, said: str
) -> None:
    for signal in ("traces", "lineage"):
        folder = project_in(tmp_path / "shop", f'telemetry.{signal} = "{address}"')
        with pytest.raises(ProfileError, match=f"telemetry.{signal}.*{said}") as caught:
            read_profile(folder, None)
        assert "sesame" not in str(caught.value)


def test_places_are_named_as_lineage_servers_know_them_and_no_name_holds_a_secret(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="headrace[postgresql] is not installed")
    folder = project_in(
        tmp_path / "shop",
        f"""
        streams.events = {{ log = "kafka", brokers = "one:9092,two:9092", topic = "shop-events" }}
        replicas.pg = {{ kind = "postgresql", dsn = "postgresql://me:{SECRET}@db:6000/sales", schema = "x" }}
        replicas.es = {{ kind = "elasticsearch", url = "http://search", prefix = "x-", api_key = "{SECRET}" }}
        replicas.cs = {{ kind = "cassandra", hosts = "node", keyspace = "shop", tables = ["counted"] }}
        replicas.kf = {{ kind = "kafka", brokers = "three:9093" }}
        replicas.lake = {{ kind = "delta", uri = "s3://lake/warehouse", mode = "update" }}
        replicas.pond = {{ kind = "parquet", uri = "s3://pond/files", mode = "update" }}
        replicas.out = {{ kind = "stdout" }}
        """,
    )
    project = load_project(folder)
    found = steps_of(project, plan_pipeline(project.pipeline))
    assert SECRET not in str(found)
    counted = next(each for each in found if each.name == "counted")
    assert [(each.namespace, each.name) for each in counted.reads] == [("kafka://one:9092", "shop-events")]
    assert [(each.namespace, each.name) for each in counted.writes] == [
        ("file", f"{project.store_path}/counted"),
        ("postgres://db:6000", "sales.x.counted"),
        ("elasticsearch://search:9200", "x-counted"),
        ("cassandra://node:9042", "shop.counted"),
        ("kafka://three:9093", "headrace-counted"),
        ("s3://lake", "warehouse/counted"),
        ("s3://pond", "files/counted"),
    ]


def test_a_view_over_what_headrace_itself_keeps_reads_it_from_the_store(tmp_path: Path) -> None:
    folder = project_in(tmp_path / "shop", "")
    with (folder / "pipeline.py").open("a") as pipeline:
        pipeline.write('\npipeline.table("bad", "SELECT stream, records FROM outcomes_by_minute")\n')
        pipeline.write('pipeline.table("Totals", "SELECT count(*) AS n FROM events")\n')
        pipeline.write('pipeline.table("shown", "SELECT n FROM totals")\n')
    project = load_project(folder)
    found = steps_of(project, plan_pipeline(project.pipeline))
    (read,) = next(each for each in found if each.name == "bad").reads
    assert (read.namespace, read.name) == ("file", f"{project.store_path}/outcomes_by_minute")
    assert [name for name, _ in read.columns] == ["stream", "minute", "outcome", "records"]
    (total,) = next(each for each in found if each.name == "shown").reads
    assert (total.name, total.counted) == (f"{project.store_path}/Totals", "Totals")
