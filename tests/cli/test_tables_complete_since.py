"""`headrace tables` over a log of which retention has taken what tables lack."""

import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.cli.app import run
from headrace.log import open_embedded_log
from headrace.operate import load_project, open_log
from headrace.testing.records import append_table, record_json

pytestmark = pytest.mark.slow

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("weather")
pipeline.stream("readings", schema="at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("total", "SELECT count(*) AS n FROM readings")
"""


def ok(*words: str) -> None:
    assert run(words) == 0


def test_tables_say_since_when_they_are_complete_where_the_log_lost_its_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, noon = tmp_path / "weather", datetime(2026, 3, 1, 12, tzinfo=UTC)
    ok("new", str(folder))
    (folder / "pipeline.py").write_text(PIPELINE)
    home = load_project(folder)
    open_log(home, "readings").close()
    with contextlib.closing(open_embedded_log(home.log_path, "readings", retention_bytes=1)) as log:
        for minute in (0, 5):
            log.retain()  # the first record goes before the second one comes
            at = noon + timedelta(minutes=minute)
            log.append(append_table([record_json({"at": at}).encode()], record_time=at))
    ok("run", "--until-caught-up", "-C", str(folder))
    capsys.readouterr()
    ok("tables", "--json", "-C", str(folder))
    (total,) = json.loads(capsys.readouterr().out)
    assert (total["table"], total["partial_since"]) == ("total", "2026-03-01T12:05:00+00:00")
    ok("tables", "-C", str(folder))
    assert "complete from 2026-03-01 12:05:00 on" in " ".join(capsys.readouterr().out.split())


def test_tables_say_that_they_lack_records_which_were_lost_before_they_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, noon = tmp_path / "weather", datetime(2026, 3, 1, 12, tzinfo=UTC)
    ok("new", str(folder))
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text('[profiles.local]\nengine_settings.on_data_loss = "continue"\n')
    home = load_project(folder)
    for minutes in ((0,), (1, 2)):
        with contextlib.closing(open_log(home, "readings")) as log:
            for minute in minutes:
                at = noon + timedelta(minutes=minute)
                log.append(append_table([record_json({"at": at}).encode()], record_time=at))
        if minutes == (0,):
            ok("run", "--until-caught-up", "-C", str(folder))
    with contextlib.closing(sqlite3.connect(home.log_path)) as file, file:
        file.execute("DELETE FROM batches WHERE first_offset < 2")  # a retention that did not know of the run
        main = "stream = (SELECT id FROM streams WHERE lane = '')"
        file.execute(f"UPDATE partitions SET start_offset = 2 WHERE {main}")
    ok("run", "--until-caught-up", "-C", str(folder))
    capsys.readouterr()
    ok("tables", "--json", "-C", str(folder))
    (total,) = json.loads(capsys.readouterr().out)
    assert (total["lost_before"], total["partial_since"]) == ("2026-03-01T12:02:00+00:00", None)
    ok("tables", "-C", str(folder))
    assert "lacks records lost before 2026-03-01 12:02:00" in " ".join(capsys.readouterr().out.split())
