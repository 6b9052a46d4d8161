"""`headrace watch` and `headrace logs`, over a project that has run."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, RichLog, Static

from headrace.cli.app import run
from headrace.cli.watch import WatchApp
from headrace.cli.watch_facts import flow_of, line_of, questions_of
from headrace.log import APPEND_SCHEMA
from headrace.operate import Runtime, find_home, load_project, open_log
from headrace.operate.journal import Journal

DEADLINE_S = 60


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch") / "readings"
    assert run(["new", str(folder)]) == 0
    place = ["-C", str(folder)]
    produced = ["produce", "readings", str(folder / "readings.ndjson"), "--record-time", "event", *place]
    assert run(produced) == 0
    assert run(["run", "--until-caught-up", *place]) == 0
    return folder


async def shown(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it was not shown in time"
        await pilot.pause(0.05)


def test_watch_answers_the_four_questions(project: Path) -> None:
    async def look() -> None:
        app = WatchApp(find_home(project))
        async with app.run_test(size=(120, 40)) as pilot:
            tables = app.query_one("#tables", DataTable)
            await shown(pilot, lambda: tables.row_count > 0)
            texts = {
                name: str(app.query_one(f"#{name}", Static).content) for name in ("many", "errors", "healthy")
            }
            assert "5" in texts["many"]
            assert "20.00 % set aside" in texts["errors"]
            assert "stopped" in texts["healthy"]
            assert [str(cell) for cell in tables.get_row_at(0)][:2] == ["by_minute", "windowed"]
            outcomes = app.query_one("#outcomes", DataTable)
            rows = [[str(cell) for cell in outcomes.get_row_at(at)] for at in range(outcomes.row_count)]
            assert rows == [["accepted", "4", "80.00 %"], ["rejected", "1", "20.00 %"]]
            await pilot.press("q")

    asyncio.run(look())


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_watch_is_left_by_its_key_and_like_every_command(project: Path, key: str) -> None:
    async def leave() -> None:
        app = WatchApp(find_home(project))
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.press(key)
            await pilot.pause()
            assert not app.is_running

    asyncio.run(leave())


def test_watch_follows_a_run_and_names_the_alert_that_fires(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(
        "import headrace as hr\n"
        "pipeline = hr.Pipeline('shop')\n"
        "pipeline.stream('events', schema='id VARCHAR NOT NULL')\n"
        "pipeline.table('counted', 'SELECT count(*) AS n FROM events')\n"
        "pipeline.alert('many', 'SELECT n > 2 FROM counted')\n"
    )
    (tmp_path / "headrace.toml").write_text('[profiles.local]\nalerts.every = "1 s"\npage.serve = "off"\n')
    runtime, stop = Runtime.open(load_project(tmp_path)), threading.Event()
    engine = threading.Thread(target=runtime.run, args=(stop,))

    async def look() -> None:
        app = WatchApp(find_home(tmp_path))
        async with app.run_test(size=(120, 40)) as pilot:
            many, errors, healthy = (
                app.query_one(f"#{name}", Static) for name in ("many", "errors", "healthy")
            )
            await shown(pilot, lambda: "yes" in str(healthy.content))
            runtime.journal.info("said meanwhile")
            journal = app.query_one("#journal", RichLog)
            await shown(pilot, lambda: any("said meanwhile" in line.text for line in journal.lines))
            log = open_log(runtime.project, "events")
            rows = [{"value": value} for value in (b'{"id": "a"}', b'{"id": "b"}', b'{"id": "c"}', b"{")]
            log.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
            log.close()
            await shown(pilot, lambda: "\n4\n" in str(many.content))
            assert "25.00 % set aside" in str(errors.content)
            await shown(pilot, lambda: "alert many" in str(healthy.content))
            assert "look here" in str(healthy.content)
            await pilot.press("q")

    engine.start()
    try:
        asyncio.run(look())
    finally:
        stop.set()
        engine.join()
        runtime.close()


def test_logs_are_followed_until_somebody_stops_them(tmp_path: Path) -> None:
    assert run(["new", str(tmp_path / "followed")]) == 0
    journal = Journal(find_home(tmp_path / "followed").journal_path)
    journal.info("of before")
    command = [sys.executable, "-m", "headrace", "logs", "-f", "-C", str(tmp_path / "followed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as followed:
        try:
            assert followed.stdout is not None
            assert "of before" in followed.stdout.readline()
            journal.warning("something new")
            assert "warning something new" in followed.stdout.readline()
        finally:
            followed.send_signal(signal.SIGINT)
        followed.communicate(timeout=DEADLINE_S)
        assert followed.returncode == 0
    journal.close()


def test_watch_says_that_nothing_has_run_yet(tmp_path: Path) -> None:
    assert run(["new", str(tmp_path / "fresh")]) == 0

    async def look() -> None:
        app = WatchApp(find_home(tmp_path / "fresh"))
        async with app.run_test() as pilot:
            healthy = app.query_one("#healthy", Static)
            await shown(pilot, lambda: "nothing has run" in str(healthy.content))

    asyncio.run(look())


def status_of(*, lag: int, waits_s: float | None, records: int) -> dict[str, Any]:
    """A run that read nothing wrong: so many records wait, the oldest for so long; so many read in a minute.

    Nobody has sent anything for an hour before those that wait, so the frontier is an hour old.
    """
    frontier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    place = {"lane": "main", "frontier": frontier, "lag_records": lag, "lag_seconds": waits_s}
    events = {"outcomes": {"accepted": 90}, "lag_records": lag, "lag_seconds": waits_s, "partitions": [place]}
    return {
        "running": True,
        "waiting": "",
        "log_problem": "",
        "throughput": {"records": records, "records_per_second": records / 60},
        "streams": {"events": events},
        "tables": [],
        "replicas": [],
        "alerts": [],
    }


def test_an_idle_source_is_healthy_and_late_for_nothing() -> None:
    _, _, delay, healthy = questions_of(status_of(lag=0, waits_s=0.0, records=0), 0.0)
    assert (delay.answer, delay.beside, delay.grade) == ("0.0 s", "0 records to read", "good")
    assert (healthy.answer, healthy.grade) == ("yes", "good")


def test_what_comes_after_a_pause_does_not_make_a_run_ill() -> None:
    _, _, delay, healthy = questions_of(status_of(lag=3, waits_s=0.2, records=0), 0.0)
    assert (delay.answer, delay.grade, healthy.answer) == ("0.2 s", "good", "yes")


def test_a_run_that_catches_up_is_late_and_healthy() -> None:
    _, _, delay, healthy = questions_of(status_of(lag=10**6, waits_s=3_000.0, records=5_000), 80.0)
    assert (delay.answer, delay.grade) == ("3000.0 s", "warn")
    assert (healthy.answer, healthy.grade) == ("yes", "good")


def test_a_run_that_does_not_read_what_waits_is_ill() -> None:
    _, _, delay, healthy = questions_of(status_of(lag=7, waits_s=61.0, records=0), 0.0)
    assert (delay.grade, healthy.answer, healthy.grade) == ("warn", "look here", "warn")
    assert healthy.beside == "records wait, and none was read in the last minute"


def test_a_log_that_does_not_say_gives_no_delay() -> None:
    status = {**status_of(lag=0, waits_s=None, records=0), "log_problem": "stream 'events': no broker"}
    _, _, delay, healthy = questions_of(status, 0.0)
    assert (delay.answer, healthy.answer, healthy.beside) == ("-", "look here", "stream 'events': no broker")


def test_what_is_wrong_is_said_in_words() -> None:
    status = status_of(lag=7, waits_s=60.0, records=0)
    status["streams"]["events"]["outcomes"] = {"accepted": 90, "malformed": 10}
    status["replicas"] = [{"replica": "pg", "state": "waiting"}]
    status["alerts"] = [{"name": "disk_full", "state": "firing"}]
    many, errors, delay, healthy = questions_of(status, 12.0)
    assert (many.answer, many.beside) == ("100", "12.0/s, 43,200 an hour")
    assert (errors.answer, errors.grade) == ("10", "warn")
    assert (delay.answer, delay.grade) == ("60.0 s", "warn")
    for words in ("replica pg is waiting", "alert disk_full", "dead-letters", "records wait"):
        assert words in healthy.beside
    assert "0 of 1 replicas follow" in flow_of(status, 12.0)


def test_logs_prints_the_journal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["logs", "-C", str(project)]) == 0
    assert "run started" in capsys.readouterr().out
    assert run(["logs", "-C", str(project), "--json", "-n", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "run stopped"
    assert run(["logs", "-C", str(project), "--level", "loud"]) == 2


def test_a_line_of_the_journal_cannot_move_the_cursor() -> None:
    line = {"timestamp": "2026-01-01T12:00:00Z", "level": "info", "event": "x", "why": "\x1b[2J\u202e"}
    assert line_of(line) == "2026-01-01 12:00:00 info    x why=\\x1b[2J\\u202e"
