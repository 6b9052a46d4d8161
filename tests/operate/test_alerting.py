"""Alerts of a run: looked at beside it, told by its socket, kept for the next run; metrics at a port."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pyarrow as pa
import pytest

from headrace.cli.app import run as headrace
from headrace.errors import ProfileError, RefusedError
from headrace.log import APPEND_SCHEMA
from headrace.operate import Runtime, load_project
from headrace.operate.alerting import alerts_of, rules_of, saved_alerts, silence_alert
from headrace.operate.profiles import read_profile
from servers.guard import free_ports

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, happened TIMESTAMP NOT NULL", event_time="happened")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
pipeline.alert("empty", "SELECT n = 0 FROM counted", severity="critical", summary="Nothing is there.")
"""


def project_in(folder: Path, profile: str = "") -> Any:
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text(f'[profiles.local]\nalerts.every = "1 s"\n{profile}')
    return load_project(folder)


@contextmanager
def running(project: Any) -> Iterator[Runtime]:
    runtime, stop = Runtime.open(project), threading.Event()
    thread = threading.Thread(target=runtime.run, args=(stop,))
    thread.start()
    try:
        yield runtime
    finally:
        stop.set()
        thread.join()
        runtime.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def state_of(project: Any, name: str) -> dict[str, Any]:
    (found,) = [each for each in alerts_of(project)["alerts"] if each["name"] == name]
    return dict(found)


def test_an_alert_of_a_run_is_shown_silenced_and_kept_for_the_next_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    project = project_in(tmp_path, f"metrics.port = {port}\n")
    with running(project) as runtime:
        wait_for(lambda: state_of(project, "empty")["state"] == "firing")
        (firing,) = runtime.answers.status()["alerts"]
        assert (firing["name"], firing["summary"]) == ("empty", "Nothing is there.")
        silence_alert(project, "empty", 5)
        assert state_of(project, "empty")["silenced_until"] is not None
        silence_alert(project, "empty", 0)
        assert state_of(project, "empty")["silenced_until"] is None
        with pytest.raises(RefusedError, match="there is no alert 'emty'; did you mean 'empty'"):
            silence_alert(project, "emty", 5)
        told = 'headrace_alert_firing{alert="empty",severity="critical"} 1.0'
        wait_for(lambda: told in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        with pytest.raises(RefusedError, match=f"metrics cannot be served on 127.0.0.1:{port}"):
            other = tmp_path / "other"
            other.mkdir()
            Runtime.open(project_in(other, f"metrics.port = {port}\n"))
    lines = [json.loads(line) for line in project.journal_path.read_text().splitlines()]
    said = [(line["event"], line["level"]) for line in lines if line.get("alert") == "empty"]
    assert said == [("alert fires", "warning"), ("alert silenced", "info"), ("silence ended", "info")]
    (fires,) = [line for line in lines if line["event"] == "alert fires"]
    assert set(fires) == {"timestamp", "level", "event", "alert"}, "it is either so or not, and has no value"
    assert saved_alerts(project)["empty"]["state"] == "firing"
    assert alerts_of(project)["running"] is False
    stopped = state_of(project, "empty")
    assert (stopped["state"], stopped["severity"], stopped["summary"]) == (
        "firing", "critical", "Nothing is there.",
    )  # fmt: skip
    assert state_of(project, "disk_full")["severity"] == "critical"
    capsys.readouterr()
    assert headrace(["alerts", "list", "-C", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "NULL" not in told and "Nothing is there." in told
    (tmp_path / "pipeline.py").write_text("1 / 0\n")
    assert (state_of(project, "empty")["state"], state_of(project, "empty")["severity"]) == ("firing", "")
    assert state_of(project, "disk_full")["severity"] == "critical", "every pipeline has it"
    with pytest.raises(RefusedError, match="the pipeline is stopped"):
        silence_alert(project, "empty", 5)


@contextmanager
def hook() -> Iterator[tuple[str, list[int], Queue[tuple[int, list[str]]]]]:
    """A web server: its address, the status with which it answers, and what it answered to which states."""
    status: list[int] = [200]
    got: Queue[tuple[int, list[str]]] = Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = status[0]
            self.send_response(answer)
            self.end_headers()
            got.put((answer, [each["state"] for each in told["alerts"]]))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", status, got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_the_end_of_an_alert_that_nobody_took_before_a_run_stopped_is_told_by_the_next_run(
    tmp_path: Path,
) -> None:
    with hook() as (url, status, got):
        notify = (
            'alerts.defaults = "off"\nalerts.group = "0 s"\n'
            f'alerts.notify.hook = {{ kind = "webhook", url = "{url}" }}\n'
        )
        project = project_in(tmp_path, notify)
        with running(project) as runtime:
            assert got.get(timeout=60) == (200, ["firing"])
            status[0] = 503
            log = runtime.logs["events"]
            row = {"partition": None, "record_time": None, "key": None, "headers": []}
            value = json.dumps({"id": "a", "happened": log.now().isoformat()}).encode()
            log.append(pa.Table.from_pylist([row | {"value": value}], schema=APPEND_SCHEMA))
            assert got.get(timeout=60) == (503, ["resolved"])
        while not got.empty():
            got.get()
        status[0] = 200
        with running(project):
            assert got.get(timeout=60) == (200, ["resolved"])
        with running(project):
            wait_for(lambda: state_of(project, "empty")["state"] == "resolved")
        assert got.empty()


def test_default_alerts_can_be_left_out(tmp_path: Path) -> None:
    assert len(rules_of(project_in(tmp_path))) > 10
    assert [rule.name for rule in rules_of(project_in(tmp_path, 'alerts.defaults = "off"\n'))] == ["empty"]


def test_every_mistake_in_the_section_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(
        "[profiles.local.alerts]\n"
        "late_precent = 3\n"
        'delay = "soon"\n'
        'notify.a = { kind = "webhok", url = "http://x" }\n'
        'notify.b = { kind = "slack" }\n'
        'notify.c = { kind = "email" }\n'
    )
    with pytest.raises(ProfileError) as raised:
        read_profile(tmp_path, None)
    said = str(raised.value)
    for words in (
        "did you mean 'late_percent'",
        "headrace.toml:3",
        "did you mean 'webhook'",
        "needs 'url'",
        "needs 'to'",
    ):
        assert words in said
