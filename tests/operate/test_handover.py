"""A handover between two profiles: the tables do not show it, and what could not go on is refused before."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from headrace.cli.app import run as headrace
from headrace.engine.local import EpochReport
from headrace.errors import ProfileError, RefusedError
from headrace.log import Log
from headrace.operate import Runtime, load_project, open_log
from headrace.operate.handover import Handover, mark_of

pytestmark = pytest.mark.slow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIT_S = 60
PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream(
    "events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, who VARCHAR, n INT",
    event_time="seen", unique="id", allowed_lateness="30 seconds",
)
pipeline.table("minutes", "SELECT window_start, count(*) AS events, sum(n) AS n, count(DISTINCT who) AS who "
               "FROM events GROUP BY window(seen, '1 minute')")
pipeline.table("visits", "SELECT who, window_start, window_end, count(*) AS events FROM events "
               "GROUP BY session_window(seen, '5 seconds'), who")
pipeline.table("totals", "SELECT who, count(*) AS events FROM events GROUP BY who")
pipeline.table("large", "SELECT id, n FROM events WHERE n > 90")
"""
PROFILES = """
[profiles.local]
page.serve = "off"
replicas.files = { kind = "parquet", path = "files", tables = ["large"] }
[profiles.second]
page.serve = "off"
engine_settings.epoch_rows_max = 7
[profiles.apart]
store.path = ".headrace/apart.duckdb"
[profiles.avro]
streams.events = { log = "embedded", format = "avro", registry = "http://127.0.0.1:1" }
[profiles.alias]
metrics.alias = { of_nothing = "no_metric" }
[profiles.unknown]
replicas.files = { kind = "parquet", path = "files", tables = ["larger"] }
"""
TABLES = ("minutes", "visits", "totals", "large", "late_events", "dead_letters")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text(PROFILES)
    return tmp_path


def records(first: int, last: int) -> pa.Table:
    """A record each second: some come again, some late, one in twenty is malformed."""
    found = []
    for number in range(first, last):
        told = number - (number % 9 == 8)
        seen = NOON + timedelta(seconds=told - (told * 7) % 40)
        value = {"id": f"e{told}", "seen": seen.isoformat(), "who": f"w{told % 5}", "n": told * 31 % 100}
        text = json.dumps(value)
        found.append(text[:20].encode() if number % 20 == 3 else text.encode())
    times = [NOON + timedelta(seconds=number) for number in range(first, last)]
    return pa.table({"value": found, "record_time": pa.array(times, pa.timestamp("us", "UTC"))})


class Running:
    """A run of a profile, in a thread of its own; it is closed when the engine stops."""

    def __init__(self, project: Path, profile: str) -> None:
        self.runtime = Runtime.open(load_project(project, profile=profile))
        self.epoch = threading.Event()
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runtime.run(self.stop, on_epoch=self._told)
        finally:
            self.runtime.close()

    def _told(self, report: EpochReport) -> None:
        if any(report.records.values()):
            self.epoch.set()

    def ended(self) -> bool:
        self._thread.join(WAIT_S)
        return not self._thread.is_alive()


@contextmanager
def running(project: Path, profile: str) -> Iterator[Running]:
    found = Running(project, profile)
    try:
        yield found
    finally:
        found.stop.set()
        assert found.ended()


@contextmanager
def opened_log(project: Path) -> Iterator[Log]:
    with closing(open_log(load_project(project), "events")) as log, log.load():
        yield log


@contextmanager
def handover(project: Path, to: str) -> Iterator[Handover]:
    with closing(Handover(load_project(project, profile=to))) as found:
        yield found


def answers(project: Path, profile: str) -> dict[str, Any]:
    runtime = Runtime.open(load_project(project, profile=profile))
    try:
        runtime.run(threading.Event(), until_caught_up=True)
        assert runtime.store.ledger().balanced
        found: dict[str, Any] = {}
        for name in TABLES:
            rows = runtime.store.query(f"FROM {name}").to_pylist()
            plain = [
                {key: value for key, value in row.items() if key[0] != "_" and key != "epoch"} for row in rows
            ]
            found[name] = sorted(plain, key=repr)
        return {**found, "outcomes": runtime.store.ledger().outcomes("events")}
    finally:
        runtime.close()


def test_the_tables_do_not_show_where_engines_took_turns(project: Path) -> None:
    said: list[str] = []
    log = open_log(load_project(project), "events")
    with log.load():
        one = Running(project, "local")
        for turn, to in enumerate(("second", "local")):
            log.append(records(turn * 80, turn * 80 + 80))
            with handover(project, to) as taking:
                taking.wait_for(NOON + timedelta(seconds=turn * 80 + 79), threading.Event(), said.append)
                assert taking.take(threading.Event(), said.append)
            assert one.ended()
            assert one.runtime.handed_to == to
            one = Running(project, to)
        log.append(records(160, 320))
        assert one.epoch.wait(WAIT_S)
        one.stop.set()
        assert one.ended()
    log.close()
    given = answers(project, "second")
    assert given == answers(project, "apart")
    assert given["outcomes"]["accepted"] > 200
    assert {"duplicate", "late", "malformed"} <= set(given["outcomes"])
    assert sum("stopping profile 'second'" in line for line in said) == 1


def test_a_mark_is_waited_for_and_a_signal_leaves_everything_as_it_is(project: Path) -> None:
    log = open_log(load_project(project), "events")
    with log.load(), running(project, "local") as one:
        log.append(records(0, 40))
        assert one.epoch.wait(WAIT_S)
        said: list[str] = []
        stop = threading.Event()

        def told(line: str) -> None:
            said.append(line)
            stop.set()

        with handover(project, "second") as taking:
            assert taking.left_out == ("replica 'files' is not written under profile 'second'",)
            taking.wait_for(NOON + timedelta(minutes=5), stop, told)
            assert "until it passes record time 2026-03-01 12:05:00 UTC; it stands at 2026-03-01" in said[0]
            taking.wait_for(NOON + timedelta(seconds=30), threading.Event(), told)
            assert "12:00:30 UTC is passed already" in said[1]
        assert not one.runtime.handed_to
        assert not one.stop.is_set()
    log.close()


def test_a_run_that_ends_before_the_mark_is_told(project: Path) -> None:
    with running(project, "local") as one, handover(project, "second") as taking:

        def told(line: str) -> None:
            one.stop.set()

        with pytest.raises(RefusedError, match="the run of profile 'local' ended before"):
            taking.wait_for(datetime(2100, 1, 1, tzinfo=UTC), threading.Event(), told)


def test_a_second_handover_waits_for_the_first_one_to_end(project: Path) -> None:
    with running(project, "local"):
        with handover(project, "second"), pytest.raises(RefusedError, match="being handed over already, by"):
            Handover(load_project(project, profile="second"))
        with handover(project, "second"):
            pass


def test_a_pipeline_that_is_stopped_is_gone_on_with_at_once(project: Path) -> None:
    with pytest.raises(RefusedError, match="nothing has run") as raised:
        Handover(load_project(project, profile="second"))
    assert raised.value.fix == "run it: headrace run --profile second"
    answers(project, "local")
    with handover(project, "second") as taking:
        assert not taking.running
        assert taking.before.profile.name == "local"
        assert taking.take(threading.Event(), print)


def test_what_could_not_go_on_is_refused_while_the_first_one_runs(project: Path) -> None:
    with running(project, "local") as one:
        with pytest.raises(RefusedError, match=r"apart\.duckdb, and the one before at"):
            Handover(load_project(project, profile="apart"))
        with pytest.raises(RefusedError, match='with format = "avro", the one before'):
            Handover(load_project(project, profile="avro"))
        with pytest.raises(ProfileError, match="no table 'larger'"):
            Handover(load_project(project, profile="unknown"))
        with pytest.raises(ProfileError, match="'no_metric', which is no metric"):
            Handover(load_project(project, profile="alias"))
        (project / "pipeline.py").write_text(PIPELINE.replace("WHERE n > 90", "WHERE n > 95"))
        with pytest.raises(RefusedError, match="table 'large' cannot be gone on with") as raised:
            Handover(load_project(project, profile="second"))
        assert "headrace run --rebuild large --profile local" in raised.value.fix
        assert not one.runtime.handed_to


def test_another_unique_is_refused_once_records_were_told_apart_by_it(project: Path) -> None:
    (project / "pipeline.py").write_text(PIPELINE.replace('unique="id"', 'unique="who"'))
    with opened_log(project) as log, running(project, "second") as one:
        (project / "pipeline.py").write_text(PIPELINE)
        with handover(project, "local"):  # nothing was read yet
            pass
        log.append(records(0, 40))
        assert one.epoch.wait(WAIT_S)
        with pytest.raises(RefusedError, match="unique was 'who' and is 'id'"):
            Handover(load_project(project, profile="local"))
        assert not one.runtime.handed_to


def test_a_redrive_lane_that_was_made_again_is_refused(project: Path) -> None:
    with opened_log(project) as log, running(project, "local") as one:
        log.lane("redrive").append(records(0, 2))
        assert one.epoch.wait(WAIT_S)
        one.stop.set()
        assert one.ended()
        with handover(project, "second"):
            pass
    path = project / ".headrace" / "store.duckdb"
    with duckdb.connect(path) as store:  # the embedded log keeps its lanes in one file: none is made again
        store.execute("UPDATE _headrace.meta SET value = 'other' WHERE name = 'log:events@redrive'")
    with pytest.raises(RefusedError, match="redrive lane is not the one that the store has read from"):
        Handover(load_project(project, profile="second"))


def test_a_table_whose_rows_executors_write_into_files_is_not_gone_on_with_in_the_store(
    project: Path,
) -> None:
    answers(project, "local")
    with duckdb.connect(project / ".headrace" / "store.duckdb") as store:
        store.execute("INSERT INTO _headrace.meta VALUES ('outside:large', 'the lake')")
    with pytest.raises(RefusedError, match="of table 'large' are in files, and profile 'second'"):
        Handover(load_project(project, profile="second"))


def test_what_ran_last_is_known_without_its_journal(project: Path) -> None:
    answers(project, "second")
    (project / ".headrace" / "logs" / "headrace.log").unlink()
    with handover(project, "local") as taking:
        assert taking.before.profile.name == "second"
    moved = PROFILES.replace("[profiles.second]", '[profiles.second]\nstore.path = ".headrace/apart.duckdb"')
    (project / "headrace.toml").write_text(moved)
    with handover(project, "local"):  # the store that it ran with, not the one that it would have by now
        pass
    with pytest.raises(RefusedError, match=r"and the one before at .*store\.duckdb"):
        Handover(load_project(project, profile="second"))
    for none_of_ours in ("{", "[]", '{"profile": "local"}'):
        (project / ".headrace" / "last_run.json").write_text(none_of_ours)
        with pytest.raises(RefusedError, match="nothing has run"):
            Handover(load_project(project, profile="local"))


def test_another_log_is_refused_with_how_to_move_to_it(project: Path) -> None:
    answers(project, "local")
    (project / ".headrace" / "log.db").unlink()
    with pytest.raises(RefusedError, match="there is no log yet") as raised:
        Handover(load_project(project, profile="second"))
    assert "headrace log copy" in raised.value.fix
    open_log(load_project(project), "events").close()
    with pytest.raises(RefusedError, match="reads another log than the store was filled from"):
        Handover(load_project(project, profile="second"))


@pytest.mark.slow
def test_a_profile_that_fails_to_run_says_how_to_go_back(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken, running(project, "local") as one:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wrong = f'[profiles.wrong]\npage.serve = "off"\nmetrics.port = {taken.getsockname()[1]}\n'
        (project / "headrace.toml").write_text(PROFILES + wrong)
        assert headrace(["handover", "--to", "wrong", "-C", str(project)]) == 1
        assert one.ended()
    said = capsys.readouterr()
    assert "nothing is lost; to go on as before: headrace run --profile local" in said.err
    assert "replica 'files' is not written under profile 'wrong'" in said.err
    answers(project, "local")


def test_a_time_of_day_is_one_of_today_and_without_a_zone_utc() -> None:
    now = datetime(2026, 3, 1, 23, 50, tzinfo=UTC)
    assert mark_of("12:00", now) == NOON
    assert mark_of("2026-03-01T12:00:00", now) == NOON
    assert mark_of("2026-03-01 14:00+02:00", now) == NOON
    assert mark_of("14:00+02:00", now) == NOON
    for text in ("noon", "", "25:00", "2026-13-01"):
        with pytest.raises(ProfileError, match="is no time"):
            mark_of(text, now)
