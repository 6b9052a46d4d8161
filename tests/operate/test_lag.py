"""How far behind and how fast: on a running pipeline, on a stopped one, and when a log does not answer."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.cli.app import run
from headrace.errors import RefusedError, TransientError
from headrace.log import APPEND_SCHEMA, Log, open_embedded_log
from headrace.operate import Runtime, connect, find_home, load_project, open_log
from headrace.operate import runtime as runtime_module
from headrace.operate.lag import LogsForQuestions, UnreadRecords, add_lag, throughput
from servers.guard import free_ports, wait_until

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
"""


def append(folder: Path, partition: int, count: int, *, ago_s: float) -> None:
    log = open_embedded_log(folder / ".headrace" / "log.db", "events", partitions=2)
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    value = json.dumps({"id": "a", "at": at.isoformat()}).encode()
    row = {**dict.fromkeys(APPEND_SCHEMA.names), "partition": partition, "record_time": at, "value": value}
    log.append(pa.Table.from_pylist([row] * count, schema=APPEND_SCHEMA))
    log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text("[profiles.local]\nstreams.events = { partitions = 2 }\n")
    append(tmp_path, 0, 6, ago_s=10)
    runtime = Runtime.open(load_project(tmp_path))
    runtime.run(threading.Event(), until_caught_up=True)
    runtime.close()
    return tmp_path


def by_partition(document: dict[str, Any], name: str) -> list[Any]:
    lines = document["streams"]["events"]["partitions"]
    return [line[name] for line in lines if line["lane"] == "main"]


@pytest.mark.parametrize("running", [False, True])
def test_lag_is_told_by_partition_in_records_and_in_seconds(folder: Path, running: bool) -> None:
    append(folder, 0, 3, ago_s=100)
    append(folder, 1, 5, ago_s=1000)
    runtime = Runtime.open(load_project(folder)) if running else None
    try:
        client = connect(find_home(folder))
        document = client.status()
        client.close()
    finally:
        if runtime is not None:
            runtime.close()
    assert document["running"] is running
    assert by_partition(document, "lag_records") == [3, 5]
    assert by_partition(document, "end") == [9, 5]
    assert by_partition(document, "lag_seconds") == [pytest.approx(100, abs=30), pytest.approx(1000, abs=30)]
    assert None not in by_partition(document, "frontier")
    stream = document["streams"]["events"]
    assert (stream["lag_records"], stream["lag_seconds"]) == (8, max(by_partition(document, "lag_seconds")))
    assert document["log_problem"] == ""
    speed = document["throughput"]
    assert speed["records"] == 6
    assert 0 < speed["seconds"] <= 60
    # The seconds are told in milliseconds, of which a fast machine needs few; the rate in tenths, of which a
    # slow one has few.
    least, most = 6 / (speed["seconds"] + 0.0005), 6 / max(speed["seconds"] - 0.0005, 0.0005)
    assert least - 0.051 <= speed["records_per_second"] <= most + 0.051


def test_the_last_minute_is_that_of_the_clock_or_of_the_last_epoch() -> None:
    import duckdb

    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        "CREATE TABLE epochs (epoch BIGINT, committed_at TIMESTAMPTZ, records BIGINT, seconds DOUBLE)"
    )

    class Store:
        def query(self, sql: str, *, rows_max: int | None = None, seconds_max: float = 5.0) -> pa.Table:
            return connection.sql(sql).to_arrow_table()

    assert throughput(Store(), noon)["records_per_second"] == 0
    rows = [(n, noon + timedelta(seconds=10 * n), 120, 10.0) for n in range(1, 13)]
    connection.executemany("INSERT INTO epochs VALUES (?, ?, ?, ?)", rows)
    last = noon + timedelta(seconds=120)
    assert throughput(Store(), None) == {
        "records_per_second": 12.0,
        "records": 720,
        "seconds": 60.0,
        "until": last.isoformat(),
    }
    assert throughput(Store(), last + timedelta(seconds=30))["records_per_second"] == 6.0
    assert throughput(Store(), last + timedelta(hours=1))["records_per_second"] == 0.0
    connection.execute("DELETE FROM epochs WHERE epoch > 2")
    young = throughput(Store(), noon + timedelta(seconds=20))
    assert (young["records_per_second"], young["seconds"]) == (12.0, 20.0)
    connection.close()


@pytest.mark.parametrize("error", [TransientError("no broker"), RefusedError("wrong password")])
def test_a_log_that_does_not_answer_is_asked_once_and_named(error: Exception) -> None:
    asked = []

    def logs(stream: str) -> Any:
        asked.append(stream)
        raise error

    lines = [{"lane": "main", "partition": 0, "position": 5, "frontier": None}]
    streams: dict[str, dict[str, Any]] = {name: {"partitions": [dict(*lines)]} for name in ("a", "b")}
    problem = add_lag(streams, logs)
    assert problem.startswith("stream 'a': ")
    assert asked == ["a"]
    for stream in streams.values():
        assert stream["lag_records"] is None
        assert stream["partitions"][0]["lag_seconds"] is None


def test_a_run_tells_what_waits_now_and_not_what_its_last_epoch_left(folder: Path) -> None:
    append(folder, 0, 3, ago_s=1)
    append(folder, 1, 5, ago_s=1)
    runtime = Runtime.open(load_project(folder))
    try:
        unread = runtime.unread
        assert unread.count() is None
        unread.ask()
        assert unread.count() == 8
        report = runtime.engine.step()
        assert report is not None
        assert unread.count() == 0, "what was read since it was asked waits no more"
        append(folder, 1, 2, ago_s=0)
        unread.ask()
        assert (sum(report.lag_records.values()), unread.count()) == (0, 2)
        while runtime.engine.step() is not None:
            pass
        unread.ask()
        assert unread.count() == 0
    finally:
        runtime.close()


def test_what_waits_is_not_known_while_a_log_does_not_answer_or_said_it_long_ago(folder: Path) -> None:
    runtime = Runtime.open(load_project(folder))
    now, away = [0.0], [False]
    log = open_embedded_log(folder / ".headrace" / "log.db", "events", partitions=2)

    def logs(stream: str) -> Log:
        if away[0]:
            raise TransientError("no broker answers")
        return log

    try:
        unread = UnreadRecords(runtime.store, ["events"], logs, clock=lambda: now[0])
        unread.ask()
        assert unread.count() == 0
        now[0] = 60
        assert unread.count() is None
        unread.ask()
        assert unread.count() == 0
        away[0] = True
        unread.ask()
        assert unread.count() is None
    finally:
        log.close()
        runtime.close()


def test_what_waits_is_asked_while_it_is_shown(folder: Path) -> None:
    append(folder, 1, 5, ago_s=1)
    runtime = Runtime.open(load_project(folder))
    try:
        with runtime.unread:
            wait_until(lambda: runtime.unread.count() == 5, what="what waits")
        assert runtime.unread.count() is None
    finally:
        runtime.close()


def test_a_run_that_has_read_everything_says_that_it_waits_for_its_replicas(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(folder, 1, 5, ago_s=1)
    (port,) = free_ports(1)  # where nobody listens
    away = f'kind = "webhook", url = "http://127.0.0.1:{port}/", path = "hook", tables = ["*"]'
    with (folder / "headrace.toml").open("a") as profile:
        profile.write(f"replicas.hook = {{ {away} }}\n")
    runtime, stop = Runtime.open(load_project(folder)), threading.Event()
    assert runtime.answers.status()["awaits"] == ""
    thread = threading.Thread(target=runtime.run, args=(stop,), kwargs={"until_caught_up": True})
    thread.start()
    try:
        wait_until(lambda: runtime.answers.status()["awaits"] == "replicas", what="everything is read")
        assert run(["status", "-C", str(folder)]) == 0
    finally:
        stop.set()
        thread.join()
        runtime.close()
    out = capsys.readouterr().out
    assert "everything is read; the run ends when its replicas have it: hook\n" in out
    assert "Spark" not in out
    assert run(["status", "--json", "-C", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["awaits"] == ""


def test_status_is_shown_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(folder, 1, 5, ago_s=1000)
    assert run(["status", "-C", str(folder)]) == 0
    out = capsys.readouterr().out
    assert run(["status", "--json", "-C", str(folder)]) == 0
    over = json.loads(capsys.readouterr().out)["throughput"]["seconds"]
    assert ("records/s in its last minute" in out) == (over >= 1)  # of less, a rate says nothing
    assert "lag in s" in out
    assert "lag: 5 records" in out
    (folder / ".headrace" / "log.db").unlink()
    assert run(["status", "-C", str(folder)]) == 0
    assert "NULL" in capsys.readouterr().out


def test_logs_for_questions_are_closed_though_one_of_them_is_still_being_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    opened: list[Log] = []

    def slow(*given: Any, **more: Any) -> Log:
        asked.set()
        go_on.wait(30)
        opened.append(open_log(*given, **more))
        return opened[0]

    refused: list[str] = []

    def ask() -> None:
        try:
            logs("events")
        except TransientError as error:
            refused.append(error.message)

    monkeypatch.setattr(runtime_module, "open_log", slow)
    logs = LogsForQuestions(load_project(folder))
    asking = threading.Thread(target=ask)
    asking.start()
    assert asked.wait(30)
    closing = threading.Thread(target=lambda: (logs.close(), closed.set()))
    closing.start()
    in_time = closed.wait(10)
    go_on.set()
    asking.join()
    closing.join()
    assert in_time
    assert refused == ["the run is over"]
    with pytest.raises(RefusedError):
        opened[0].partitions()
    with pytest.raises(TransientError, match="the run is over"):
        logs("events")
