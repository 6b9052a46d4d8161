"""What `generate`, `produce` and `demo` promise: numbers that are met, a bar, two hours of history."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.blueprints import BLUEPRINTS
from headrace.cli.app import run
from headrace.operate import connect, find_home, load_project, open_log
from headrace.produce import generator

pytestmark = pytest.mark.slow

HEADRACE = [sys.executable, "-m", "headrace"]
DEADLINE_S = 60
Table = Callable[[str], list[dict[str, Any]]]


def in_log(folder: Path) -> int:
    project = load_project(folder)
    (stream,) = project.pipeline.streams
    log = open_log(project, stream.name, make=False)
    try:
        return sum(each.end for each in log.partitions())
    finally:
        log.close()


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_a_generator_ends_by_itself_with_the_number_that_was_asked_for(
    blueprint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    assert run(["new", "--blueprint", blueprint, str(folder)]) == 0
    assert run(["generate", blueprint, "--count", "137", "--rate", "1000", "-C", str(folder)]) == 0
    assert "137 events in" in capsys.readouterr().out
    assert in_log(folder) == 137


@pytest.mark.parametrize(
    ("blueprint", "other", "why"),
    [
        ("commerce", "customers", "no record that stream 'events' can decode: none has event_id, user_id"),
        ("customers", "commerce", "records of another pipeline than this, which is 'customers'"),
        ("signups", "commerce", "is for a stream 'events', this pipeline has 'users_created'"),
    ],
)
def test_the_records_of_another_blueprint_are_not_appended_unless_somebody_insists(
    blueprint: str, other: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    assert run(["new", "--blueprint", blueprint, str(folder)]) == 0
    words = ["generate", other, "--count", "3", "-C", str(folder)]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert f"the generator of '{other}'" in said and why in said
    assert f"this project is of '{blueprint}': headrace generate {blueprint}" in said
    assert f"headrace new --blueprint {other}" in said
    assert not (folder / ".headrace" / "log.db").exists()
    if blueprint != "signups":  # where the stream is
        assert "--force" in said
        assert run([*words, "--force"]) == 0
        assert in_log(folder) == 3


def test_a_generator_ends_by_itself_when_its_time_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    assert run(["new", "--blueprint", "commerce", str(folder)]) == 0
    capsys.readouterr()
    assert run(["generate", "commerce", "--for", "2s", "--rate", "50", "-C", str(folder)]) == 0
    told = capsys.readouterr().out
    made = in_log(folder)
    # The first one at once, then one every 20 ms; a machine that is busy makes fewer, never more.
    assert 1 <= made <= 101
    assert f"{made} events in 2." in told


@pytest.mark.parametrize(
    ("blueprint", "rate"), [("commerce", "14"), ("customers", "20"), ("operations", "20"), ("signups", "10")]
)
def test_a_generator_has_the_rate_of_its_example_where_nobody_says_another(
    blueprint: str, rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project"
    assert run(["new", "--blueprint", blueprint, str(folder)]) == 0
    capsys.readouterr()
    assert run(["generate", blueprint, "--count", "1", "-C", str(folder)]) == 0
    assert f", {rate}.0 events/s, seed " in capsys.readouterr().out


class ClockThatIsWaitedFor(threading.Event):
    """A stop event whose waits move a clock instead of taking time."""

    seconds = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds += timeout or 0.0
        return self.is_set()


@pytest.mark.parametrize(
    ("environment", "options", "made"),
    [
        ({}, (), 140),
        ({"EVENTS_PER_SECOND": "8"}, (), 80),
        ({"EVENTS_PER_SECOND": "16"}, (), 160),
        ({"EVENTS_PER_SECOND": "8"}, ("--rate", "2"), 20),
    ],
)
def test_the_environment_says_how_many_events_a_second_there_are_unless_an_option_does(
    environment: dict[str, str],
    options: tuple[str, ...],
    made: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_virtual_time(*words: Any, **more: Any) -> Any:
        clock = ClockThatIsWaitedFor()
        return run_generator(*words, **more | {"stop": clock, "clock": lambda: clock.seconds})

    run_generator = generator.run_generator
    monkeypatch.setattr(generator, "run_generator", in_virtual_time)
    monkeypatch.delenv("EVENTS_PER_SECOND", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "project"
    assert run(["new", "--blueprint", "commerce", str(folder)]) == 0
    assert run(["generate", "commerce", "--for", "10 s", *options, "-C", str(folder)]) == 0
    assert in_log(folder) == made


@pytest.fixture
def weather(tmp_path: Path) -> Path:
    """A project with a file of 60 records, which at 60/s take a second: a bar is drawn ten times."""
    folder = tmp_path / "weather"
    assert run(["new", str(folder)]) == 0
    lines = (folder / "readings.ndjson").read_text().splitlines(keepends=True)
    (folder / "many.ndjson").write_text("".join(lines * 12))
    return folder


PRODUCE = [*HEADRACE, "produce", "readings", "many.ndjson", "--rate", "60"]


def test_producing_shows_a_bar_on_a_terminal_and_its_answer_apart_from_it(weather: Path) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()

    def look() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side is closed, as Linux says it
                return
            if not part:
                return
            shown.extend(part)

    looking = threading.Thread(target=look)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    try:
        with subprocess.Popen(
            PRODUCE, cwd=weather, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True
        ) as process:
            os.close(theirs)
            looking.start()
            out, _ = process.communicate(timeout=DEADLINE_S)
        looking.join(DEADLINE_S)
    finally:
        os.close(ours)
    assert process.returncode == 0
    assert out.startswith("60 records appended to 'readings'")
    assert "\x1b" not in out
    assert "━" in shown.decode()
    assert any(f"{number} records".encode() in shown for number in range(1, 60)), "it moved"


def test_producing_into_a_pipe_shows_no_bar(weather: Path) -> None:
    done = subprocess.run(
        PRODUCE, cwd=weather, capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert done.stdout.startswith("60 records appended to 'readings'")


def test_a_demo_goes_on_until_ctrl_c_and_tells_what_it_did(tmp_path: Path) -> None:
    words = ["demo", "commerce", "--history", "0.1", "--seed", "3", "--folder", "shop"]
    with subprocess.Popen(
        [*HEADRACE, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if re.match(r"[\d,.kM]+ records, .*accepted", line):
                    break
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
            code = process.wait(DEADLINE_S)
        finally:
            process.kill()
    assert code == 0, said
    told = dict(re.findall(r"^(\w+) {2,}(.*)$", said.partition("try next:")[0], re.MULTILINE))
    ledger = connect(find_home(tmp_path / "shop")).ledger()["streams"]["events"]
    assert re.fullmatch(rf"{ledger['read']:,} read in [\d.]+ s, .+/s", told["records"])
    assert told["outcomes"].startswith(f"{ledger['outcomes']['accepted']:,} accepted + ")
    assert told["ledger"] == "balances: every record has exactly one outcome"
    assert "event_counts " in told["rows"] and "sessions " in told["rows"]
    assert told["files"].startswith("shop (") and (tmp_path / "shop" / ".headrace" / "store.duckdb").exists()
    for command in ("cd shop", 'headrace sql "SELECT', "headrace dead-letters list", "headrace run"):
        assert command in said.partition("try next:")[2]


def test_a_demo_keeps_what_somebody_changed_in_the_folder_of_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "signups", "--history", "0", "--seconds", "1", "--folder", str(tmp_path / "shop")]
    assert run(words) == 0
    assert run(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"], "nothing was changed"
    pipeline = tmp_path / "shop" / "pipeline.py"
    pipeline.write_text(pipeline.read_text() + "# my change\n")
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert run(words) == 0
    kept = tmp_path / "shop-1"
    assert (
        f"kept as {kept}, with its records, because you changed notes.txt, pipeline.py"
        in capsys.readouterr().out
    )
    assert (kept / "notes.txt").read_text() == "mine"
    assert (kept / "pipeline.py").read_text().endswith("# my change\n")
    assert (kept / ".headrace" / "store.duckdb").exists()
    assert "# my change" not in pipeline.read_text()


@pytest.mark.parametrize(
    ("blueprint", "tables"),
    [
        ("customers", ("category_metrics", "customer_activity")),
        ("operations", ("service_health", "click_traffic", "account_risk")),
    ],
)
def test_a_demo_of_any_blueprint_takes_what_its_generator_gives(
    tmp_path: Path, blueprint: str, tables: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / blueprint
    assert run(["demo", blueprint, "--history", "0.05", "--seconds", "1", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "balances: every record has exactly one outcome" in said
    assert f"headrace generate {blueprint}" in said
    assert run(["run", "--until-caught-up", "-C", str(folder)]) == 0  # what a busy machine left unread
    client = connect(find_home(folder))
    (events,) = client.ledger()["streams"].values()
    assert events["outcomes"]["accepted"] > 0.9 * events["read"] > 1_000
    for table in tables:
        assert client.query(f"SELECT count(*) FROM {table}").column(0)[0].as_py() > 0, table


@pytest.mark.parametrize(
    ("seconds", "said"), [("", "demo commerce\n"), ("30", "demo commerce --seconds 30\n")]
)
def test_make_demo_lasts_as_long_as_is_asked_for(seconds: str, said: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["make", "--dry-run", "demo", f"DEMO_SECONDS={seconds}"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"headrace {said}" in re.sub(r" +\n", "\n", done.stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of a second with the history that it has when nobody says another, read to its end."""
    folder = tmp_path_factory.mktemp("demo") / "shop"
    assert run(["demo", "commerce", "--seconds", "1", "--seed", "7", "--folder", str(folder)]) == 0
    assert run(["run", "--until-caught-up", "-C", str(folder)]) == 0
    return folder


@pytest.fixture
def rows(demo: Path) -> Table:
    def asked(sql: str) -> list[dict[str, Any]]:
        client = connect(find_home(demo))
        try:
            return client.query(sql).to_pylist()
        finally:
            client.close()

    return asked


def test_a_demo_begins_with_two_hours_of_history(rows: Table) -> None:
    minutes = [
        row["window_start"] for row in rows("SELECT DISTINCT window_start FROM event_counts ORDER BY 1")
    ]
    steps = {after - before for before, after in pairwise(minutes)}
    assert steps == {timedelta(minutes=1)}, "the shop is never empty"
    assert 119 <= len(minutes) <= 125


def test_every_table_of_a_demo_has_what_its_history_gives(rows: Table, demo: Path) -> None:
    client = connect(find_home(demo))
    try:
        ledger, listed = client.ledger(), client.status()["tables"]
    finally:
        client.close()
    outcomes = ledger["streams"]["events"]["outcomes"]
    assert ledger["balanced"]
    assert outcomes["accepted"] > 30_000  # 14 a second on the average of a day, and a third of it at night
    for name in ("duplicate", "late", "malformed"):
        assert outcomes[name] > 0, "a shop's events are not all right"
    assert {line["table"] for line in listed if line["rows"] == 0} == set()
    accepted = outcomes["accepted"]
    (sums,) = rows(
        "SELECT (SELECT sum(events) FROM event_counts)::BIGINT AS by_type, "
        "(SELECT sum(events) FROM device_stats)::BIGINT AS by_device, "
        "(SELECT sum(events) FROM location_stats)::BIGINT AS by_location, "
        "(SELECT sum(events) FROM sessions)::BIGINT AS in_sessions, "
        "(SELECT sum(events) FROM user_activity)::BIGINT AS in_five_windows, "
        "(SELECT count(*) FROM events_clean)::BIGINT AS clean"
    )
    five = sums.pop("in_five_windows")
    assert sums == dict.fromkeys(sums, accepted)
    assert five == 5 * accepted
    (money,) = rows(
        "SELECT (SELECT sum(revenue) FROM purchase_analytics) AS bought, "
        "(SELECT sum(total_amount) FROM events_clean WHERE event_type = 'purchase') AS paid, "
        "(SELECT sum(orders) FROM purchase_analytics)::BIGINT AS orders, "
        "(SELECT sum(purchases) FROM funnel)::BIGINT AS at_the_end"
    )
    assert money["bought"] == money["paid"] > 0
    assert money["orders"] == money["at_the_end"] > 0


def test_every_panel_of_a_demo_has_something_to_show(rows: Table, demo: Path) -> None:
    panels = load_project(demo).pipeline.panels
    empty = {
        panel.title
        for panel in panels
        if not any(value is not None for row in rows(panel.query) for value in row.values())
    }
    assert len(panels) >= 14
    assert empty == set()
