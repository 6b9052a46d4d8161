"""A run that ends by an error tells those whom alerts are told; the next that works tells that it is over."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from queue import Queue
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import InternalError, RefusedError
from headrace.log import APPEND_SCHEMA
from headrace.observe import notify
from headrace.observe.alerts import Alerts, Notice
from headrace.observe.rules import Limits, Rule, default_rules
from headrace.operate import Runtime, alerting, load_project, open_log
from headrace.operate.alerting import alerts_of, saved_alerts
from headrace.operate.last_run import note_begin
from headrace.operate.project import Project
from headrace.testing import PipelineTest
from observe.observed import START, shop
from servers.disks import full_disk, small_disk

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, happened TIMESTAMP NOT NULL", event_time="happened")
pipeline.table("customers", "SELECT count(DISTINCT id) AS n FROM events")
"""
SECRET = "a-secret-of-the-address"
TOO_FEW = "engine_settings.side_values_max = 3\n"
WORDS = "table 'customers' must remember 10 distinct values for an exact answer; the limit is 3"


@contextmanager
def hook(answers: threading.Event) -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """A web server: its address, and what it was posted; it answers once `answers` is set."""
    got: Queue[dict[str, Any]] = Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answers.wait(120)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Who asked has ended, and takes no answer any more."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{SECRET}", got
    finally:
        answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def answering() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def profile_in(folder: Path, *hooks: str, settings: str = "") -> Project:
    told = "".join(
        f'alerts.notify.hook{number} = {{ kind = "webhook", url = "{each}" }}\n'
        for number, each in enumerate(hooks)
    )
    head = '[profiles.local]\nalerts.group = "0 s"\npage.serve = "off"\n'
    (folder / "headrace.toml").write_text(head + told + settings)
    return load_project(folder)


def project_in(folder: Path, *hooks: str) -> Project:
    """A pipeline with ten records, of which its profile cannot count the distinct values."""
    (folder / "pipeline.py").write_text(PIPELINE)
    project = profile_in(folder, *hooks, settings=TOO_FEW)
    log = open_log(project, "events")
    row = {"partition": None, "record_time": None, "key": None, "headers": []}
    happened = log.now().isoformat()
    values = [json.dumps({"id": str(number), "happened": happened}).encode() for number in range(10)]
    log.append(pa.Table.from_pylist([row | {"value": each} for each in values], schema=APPEND_SCHEMA))
    log.close()
    return project


def headrace_run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", "run", "--until-caught-up"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_a_process_whose_run_fails_tells_it_once_and_the_next_good_one_tells_the_end(
    tmp_path: Path, answering: threading.Event
) -> None:
    with hook(answering) as (url, got):
        project = project_in(tmp_path, url)
        with (tmp_path / "pipeline.py").open(
            "a"
        ) as declared:  # two failures in a row are told by another one
            declared.write('pipeline.alert("restarting", "SELECT false")\n')
        ended = headrace_run(tmp_path)
        assert ended.returncode == 1 and WORDS in ended.stderr
        told = got.get(timeout=1)  # it had been taken when the process ended
        (alert,) = told["alerts"]
        assert (told["pipeline"], told["status"]) == ("shop", "firing")
        assert (alert["name"], alert["severity"], alert["state"]) == ("failed", "critical", "firing")
        assert alert["summary"] == f"The run ended by an error: {WORDS}"
        assert alert["help"].startswith("give the table `keep`")
        assert datetime.fromisoformat(alert["since"]) <= datetime.fromisoformat(told["time"])
        assert SECRET not in json.dumps(told)
        (shown,) = [each for each in alerts_of(project)["alerts"] if each["name"] == "failed"]
        assert (shown["state"], shown["summary"]) == ("firing", alert["summary"])

        assert headrace_run(tmp_path).returncode == 1
        assert got.empty(), "it failed again before one worked"

        profile_in(tmp_path, url)
        ended = headrace_run(tmp_path)
        assert ended.returncode == 0, ended.stderr
        (alert,) = got.get(timeout=1)["alerts"]
        assert (alert["name"], alert["state"]) == ("failed", "resolved")
        assert headrace_run(tmp_path).returncode == 0
        assert got.empty()


def test_receivers_that_do_not_answer_hold_up_no_end_and_are_told_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_TIMEOUT_S", 120)
    monkeypatch.setattr(alerting, "_STOP_FAILED_S", 0.5)
    answers = threading.Event()
    with hook(answers) as (url, got):
        project = project_in(tmp_path, url, url)
        runtime = Runtime.open(project)
        with pytest.raises(RefusedError, match="distinct values"):
            runtime.run(threading.Event())
        runtime.close()
        assert not answers.is_set()
        for _ in range(2):
            assert got.get(timeout=60)["alerts"][0]["state"] == "firing"
        kept = json.loads((project.data / "notices.json").read_text())
        assert [each[0]["alerts"][0]["name"] for each in kept.values()] == ["failed", "failed"]
        answers.set()
        runtime = Runtime.open(profile_in(tmp_path, url, url))
        runtime.run(threading.Event(), until_caught_up=True)
        runtime.close()
        told = [got.get(timeout=60)["alerts"][0]["state"] for _ in range(4)]
    assert sorted(told) == ["firing", "firing", "resolved", "resolved"]


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told yet"])
def test_a_failure_that_comes_with_a_full_disk_is_known_afterwards_and_told_to_be_over(
    answering: threading.Event, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    answers = answering if told else threading.Event()
    monkeypatch.setattr(notify, "_TIMEOUT_S", 120)
    if not told:
        monkeypatch.setattr(alerting, "_STOP_FAILED_S", 0.5)
    with small_disk(32) as disk, hook(answers) as (url, got), ExitStack() as filled:
        project = project_in(disk, url)
        runtime = Runtime.open(project)

        def fails(*_: object, **__: object) -> None:
            filled.enter_context(full_disk(disk))
            raise RefusedError("the disk is full", fix="make room")

        monkeypatch.setattr(runtime.engine, "run", fails)
        with pytest.raises(RefusedError, match="the disk is full"):
            runtime.run(threading.Event())
        runtime.close()
        assert got.get(timeout=60)["alerts"][0]["summary"] == "The run ended by an error: the disk is full"
        (shown,) = [each for each in alerts_of(project)["alerts"] if each["name"] == "failed"]
        assert (shown["state"], shown["summary"]) == ("firing", "The run ended by an error: the disk is full")
        filled.close()
        answers.set()
        runtime = Runtime.open(profile_in(disk, url))
        runtime.run(threading.Event(), until_caught_up=True)
        runtime.close()
        states = [got.get(timeout=60)["alerts"][0]["state"] for _ in range(1 if told else 2)]
        assert states == (["resolved"] if told else ["firing", "resolved"])


PAYLOAD = "what a record holds"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"{PAYLOAD}, or {SECRET}"),
        InternalError(f"table 'customers': ConversionException: '{PAYLOAD}' is no number, nor is {SECRET}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_of_an_error_whose_words_are_not_ours_its_kind_is_told_alone(
    tmp_path: Path, answering: threading.Event, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with hook(answering) as (url, got):
        runtime = Runtime.open(project_in(tmp_path, url))

        def fails(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(runtime.engine, "run", fails)
        with pytest.raises(type(error), match=SECRET):
            runtime.run(threading.Event())
        runtime.close()
        told = got.get(timeout=60)
    assert told["alerts"][0]["summary"] == f"The run ended by an error: {type(error).__name__}"
    assert told["alerts"][0]["help"] == "`headrace logs` tells what happened."
    assert SECRET not in json.dumps(told) and PAYLOAD not in json.dumps(told)


def test_of_a_run_that_somebody_interrupts_nobody_is_told(
    tmp_path: Path, answering: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hook(answering) as (url, got):
        project = project_in(tmp_path, url)
        runtime = Runtime.open(project)

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(runtime.engine, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runtime.run(threading.Event())
        runtime.close()
        assert saved_alerts(project)["failed"]["state"] == "ok"
        assert got.empty()


def restarts(runtime: Runtime) -> float:
    """What a run that has ended had told its observer."""
    (value,) = [each.value for each in runtime.observer.samples() if each.name == "headrace_restarts_total"]
    return value


def test_a_run_that_ends_well_makes_the_next_one_no_restart_and_one_that_fails_or_is_killed_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_in(tmp_path)
    project = profile_in(tmp_path)

    def ends_by(error: BaseException | None) -> float:
        def ends(*_: object, **__: object) -> None:
            if error is not None:
                raise error

        runtime = Runtime.open(project)
        monkeypatch.setattr(runtime.engine, "run", ends)
        with suppress(RefusedError, KeyboardInterrupt):
            runtime.run(threading.Event())
        runtime.close()
        return restarts(runtime)

    failure = RefusedError("it broke", fix="mend it")
    told = [ends_by(each) for each in (None, None, KeyboardInterrupt(), None, failure, failure, None, None)]
    assert told == [0, 0, 0, 0, 0, 1, 2, 2]
    note_begin(project)  # a run that is killed has noted its begin, and nothing more
    assert ends_by(None) == 3


class Run:
    """A run of virtual time: it has the alerts that the one before wrote down."""

    def __init__(self, test: PipelineTest, before: Run | None = None) -> None:
        self.test = test
        self.notices: list[Notice] = []
        self.saved: dict[str, Any] = {}
        rules: list[Rule] = [rule for rule in default_rules(Limits()) if rule.ending]
        self.alerts = Alerts(
            test.store,
            rules,
            pipeline="shop",
            group=timedelta(seconds=10),
            repeat=timedelta(hours=1),
            saved={} if before is None else before.saved,
            save=self._save,
            notify=self.notices.append,
        )

    def _save(self, document: dict[str, Any]) -> None:
        self.saved = json.loads(json.dumps(document))

    def live(self, seconds: int) -> Run:
        for _ in range(0, seconds, 5):
            self.alerts.look(self.test.clock.time)
            self.test.clock.move(timedelta(seconds=5))
        return self

    def fail(self, error: str = "it broke", fix: str = "") -> Run:
        self.alerts.ended(self.test.clock.time, error=error, fix=fix)
        return self

    def told(self) -> list[tuple[str, str]]:
        return [(one["state"], one["summary"]) for notice in self.notices for one in notice.alerts]


BROKE = "The run ended by an error: it broke"


@pytest.mark.slow
def test_a_failure_is_told_at_once_and_fires_on_until_the_next_run_commits() -> None:
    with PipelineTest(shop(), start=START) as test:
        first = Run(test).live(10).fail(fix="mend it")
        assert first.told() == [("firing", BROKE)]
        second = Run(test, first).live(30)
        (shown,) = second.alerts.states()
        assert (shown["state"], shown["summary"], shown["help"]) == ("firing", BROKE, "mend it")
        second.alerts.worked()
        second.live(20)
        assert second.told() == [("resolved", BROKE)]
        second.live(3_700)
        (shown,) = second.alerts.states()
        assert (shown["state"], shown["summary"]) == ("ok", "The run ended by an error.")


def test_a_run_to_which_nothing_comes_works_when_it_stood_for_a_minute() -> None:
    with PipelineTest(shop(), start=START) as test:
        second = Run(test, Run(test).fail()).live(60)
        assert second.told() == []
        second.live(15)
        assert second.told() == [("resolved", BROKE)]


def test_a_run_that_works_and_ends_before_anybody_looks_tells_the_end_of_the_failure() -> None:
    with PipelineTest(shop(), start=START) as test:
        second = Run(test, Run(test).fail())
        second.alerts.worked()
        second.alerts.ended(test.clock.time)
        assert second.told() == [("resolved", BROKE)]
        stopped = Run(test, Run(test).fail())
        stopped.alerts.ended(test.clock.time)
        assert stopped.told() == [], "it ended before it did anything"


def test_runs_that_fail_in_a_row_are_told_once_until_the_time_to_repeat_it() -> None:
    with PipelineTest(shop(), start=START) as test:
        run = Run(test).fail()
        for _ in range(3):
            run = Run(test, run).live(20).fail("it broke otherwise")
            assert run.told() == []
        test.clock.move(timedelta(hours=1))
        run = Run(test, run).fail("it broke otherwise")
        assert run.told() == [("firing", "The run ended by an error: it broke otherwise")]


def test_a_run_that_worked_before_it_failed_tells_it_though_one_before_had_failed() -> None:
    with PipelineTest(shop(), start=START) as test:
        second = Run(test, Run(test).fail())
        second.alerts.worked()
        second.live(20).fail()
        assert second.told() == [("resolved", BROKE), ("firing", BROKE)]


@pytest.mark.parametrize("seconds", [0, 5, 10])
def test_a_run_that_worked_is_told_to_fail_by_another_error_before_its_end_of_the_first_is_told(
    seconds: int,
) -> None:
    with PipelineTest(shop(), start=START) as test:
        second = Run(test, Run(test).fail())
        second.alerts.worked()
        second.live(seconds).fail("the disk is full", fix="make room")
        assert second.told() == [("firing", "The run ended by an error: the disk is full")]
        assert second.notices[0].alerts[0]["since"] == test.clock.time.isoformat()
        third = Run(test, second)
        third.alerts.worked()
        third.live(seconds).fail("the disk is full", fix="make room")
        assert third.told() == [], "a run that is started again and again says the same once"
        fourth = Run(test, third)
        fourth.alerts.worked()
        fourth.live(15)
        assert [state for state, _ in fourth.told()] == ["resolved"]


def test_words_that_differ_in_numbers_and_identifiers_alone_are_told_once() -> None:
    with PipelineTest(shop(), start=START) as test:
        run = Run(test).fail("query 0f61ad2e-95c1-4f6c-8a40-1f3e8a3f4a11 broke at task 17 of 20")
        for task in (3, 204):
            run = Run(test, run)
            run.alerts.worked()
            run.live(5).fail(
                f"query 7c0e11d4-0b7a-4c55-9df2-6a2b7e5d90{task % 90 + 10} broke at task {task} of 20"
            )
            assert run.told() == []


def test_the_end_of_a_failure_is_told_after_a_silence_under_which_another_one_came() -> None:
    with PipelineTest(shop(), start=START) as test:
        second = Run(test, Run(test).fail())
        second.alerts.worked()
        second.alerts.silence("failed", test.clock.time + timedelta(hours=1))
        second.live(5).fail("the disk is full")
        assert second.told() == []
        test.clock.time += timedelta(hours=2)
        third = Run(test, second)
        third.alerts.worked()
        third.live(15)
        assert [state for state, _ in third.told()] == ["resolved"]


def test_nobody_is_told_of_a_failure_while_it_is_silenced() -> None:
    with PipelineTest(shop(), start=START) as test:
        run = Run(test)
        run.alerts.silence("failed", test.clock.time + timedelta(hours=2))
        assert run.fail().told() == []
