"""Every command, in this process: what it prints and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from typer.main import get_command

from headrace.cli.app import app, run
from headrace.log import APPEND_SCHEMA
from headrace.operate import load_project, open_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.store.progress import LaneProgress
from headrace.store.reading import StoreReading

pytestmark = pytest.mark.slow


def ok(*words: str) -> None:
    assert run(words) == 0


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "weather"
    ok("new", str(folder))
    ok("produce", "readings", str(folder / "readings.ndjson"), "-C", str(folder), "--record-time", "event")
    ok("run", "--until-caught-up", "-C", str(folder))
    out = capsys.readouterr().out
    assert "5 records appended to 'readings'" in out
    assert "4 accepted + 1 rejected" in out
    assert "the ledger balances" in out
    return folder


def commands() -> list[Any]:
    group: Any = get_command(app)
    found = []
    for command in group.commands.values():
        found.extend(getattr(command, "commands", {"": command}).values())
    return found


def test_every_command_shows_an_example_in_its_help() -> None:
    assert len(commands()) >= 14
    for command in commands():
        assert "Example:" in command.epilog, command.name
        assert command.help, command.name


def test_a_wrong_word_is_answered_with_usage_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rum"]) == 2
    assert run(["run", "--profil", "x"]) == 2
    assert "Did you mean" in capsys.readouterr().err


def test_the_shell_completes_commands_and_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = {
        "headrace led": "ledger",
        "headrace dead-letters re": "redrive",
        "headrace run --reb": "--rebuild",
    }
    for line, word in typed.items():
        monkeypatch.setenv("_HEADRACE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        assert run([]) == 0
        assert capsys.readouterr().out.split() == [word]


def test_versions_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ok("--version")
    ok("version", "--json")
    assert "duckdb" in capsys.readouterr().out


def test_a_pipeline_that_is_wrong_gives_its_problems_and_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.py").write_text(
        "import headrace as hr\npipeline = hr.Pipeline('p')\n"
        "pipeline.stream('s', schema='a VARCHA', event_tim='a')\n"
    )
    assert run(["check", "-C", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "pipeline.py:3" in err
    assert "VARCHAR" in err
    assert "event_time" in err
    assert "Traceback" not in err
    assert run(["check", "-C", str(tmp_path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_check_and_explain_say_what_a_pipeline_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("check", "-C", str(project))
    assert "1 stream, 1 table" in capsys.readouterr().out
    ok("explain", "by_minute", "-C", str(project))
    assert "by_minute" in capsys.readouterr().out
    assert run(["explain", "by_minut", "-C", str(project)]) != 0


def test_a_folder_where_nothing_ran_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("new", str(tmp_path / "new"))
    for command in (["status"], ["tables"], ["ledger"], ["sql", "SELECT 1"], ["dead-letters", "list"]):
        assert run([*command, "-C", str(tmp_path / "new")]) == 1
        assert "fix: run it: headrace run" in capsys.readouterr().err
    assert run(["status", "-C", str(tmp_path)]) == 2
    assert "headrace new" in capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["new", str(tmp_path)]) == 1
    assert run(["new", str(tmp_path / "file")]) == 1
    assert run(["new", "--blueprint", "comerce", str(tmp_path / "shop")]) == 2
    assert "did you mean 'commerce'" in capsys.readouterr().err


def test_status_tables_and_sql_answer_for_people_and_for_scripts(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("status", "-C", str(project))
    assert "stopped; epoch 1" in capsys.readouterr().out
    ok("status", "--json", "-C", str(project))
    status = json.loads(capsys.readouterr().out)
    assert status["running"] is False
    assert status["streams"]["readings"]["lag_records"] == 0
    ok("tables", "-C", str(project))
    assert "by_minute" in capsys.readouterr().out
    ok("tables", "by_minute", "--rows", "1", "-C", str(project))
    assert "the first row; more" in capsys.readouterr().out
    assert run(["tables", "by_minut", "-C", str(project)]) == 1
    assert "did you mean 'by_minute'" in capsys.readouterr().err
    query = "SELECT sensor, readings, average::DECIMAL(9,2) AS average FROM by_minute ORDER BY ALL LIMIT 1"
    ok("sql", query, "--format", "json", "-C", str(project))
    assert capsys.readouterr().out == '[{"sensor": "cellar", "readings": 1, "average": 11.00}]\n'
    ok("sql", query, "--format", "csv", "-C", str(project))
    assert capsys.readouterr().out == "sensor,readings,average\ncellar,1,11.00\n"
    ok("sql", "SELECT * FROM range(5)", "--rows", "2", "-C", str(project))
    assert "cut off after 2 rows" in capsys.readouterr().err
    capsys.readouterr()
    for nothing in ("", "  ", "/* nothing */"):
        assert run(["sql", nothing, "-C", str(project)]) == 1
        said = "error: the query is empty\n  fix: write a SELECT; `headrace tables` lists what there is\n"
        assert capsys.readouterr().err == said
    for wrong in ("SELEC 1", "DROP TABLE by_minute", "SELECT * FROM nothing", "SELECT 1; SELECT 2"):
        assert run(["sql", wrong, "-C", str(project)]) == 1


def test_a_new_window_size_is_one_edit_and_one_command(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(project))
    path = project / "pipeline.py"
    path.write_text(path.read_text().replace("(measured_at, '1 minute')", "(measured_at, '1 hour')"))
    assert run(["run", "--until-caught-up", *here]) == 1
    err = capsys.readouterr().err
    assert "'by_minute'" in err
    assert "headrace run --rebuild by_minute" in err
    assert run(["run", "--rebuild", "by_minut", *here]) == 1
    assert "did you mean 'by_minute'" in capsys.readouterr().err
    ok("run", "--until-caught-up", "--rebuild", "by_minute", *here)
    capsys.readouterr()
    ok("sql", "SELECT sensor, readings FROM by_minute ORDER BY 1", "--format", "csv", *here)
    assert capsys.readouterr().out == "sensor,readings\ncellar,1\nroof,3\n"
    ok("run", "--until-caught-up", *here)


def test_records_that_a_table_lost_by_narrower_rules_are_told_at_its_end_and_in_the_journal(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(project))
    path = project / "pipeline.py"
    path.write_text(path.read_text().replace("BETWEEN -90 AND 60", "BETWEEN -90 AND 10"))
    ok("run", "--until-caught-up", "--rebuild", "by_minute", *here)
    lost = "by_minute was computed again without 1 record that was accepted, because today's rules refuse it"
    assert lost in capsys.readouterr().out.splitlines()[-1]
    journal = (project / ".headrace" / "logs" / "headrace.log").read_text().splitlines()
    (told,) = [line for line in map(json.loads, journal) if line["event"] == "table computed again"]
    assert (told["table"], told["refused"], told["level"]) == ("by_minute", 1, "warning")
    assert told["why"].endswith("the table lacks those of them that it would have taken")
    ok("run", "--until-caught-up", *here)
    assert "without" not in capsys.readouterr().out


def test_the_ledger_counts_every_record(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("ledger", "--json", "-C", str(project))
    document = json.loads(capsys.readouterr().out)
    assert document["balanced"] is True
    assert document["streams"]["readings"]["read"] == 5
    assert document["streams"]["readings"]["outcomes"] == {"accepted": 4, "rejected": 1}
    ok("ledger", "-C", str(project))
    assert "the ledger balances" in capsys.readouterr().out


def test_what_the_log_lost_before_it_was_read_is_told_beside_what_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("new", str(tmp_path / "weather"))
    home = load_project(tmp_path / "weather")
    with contextlib.closing(open_log(home, "readings")) as log:
        identities = {"readings": log.identity}
    store = Store.open(home.store_path, plan_pipeline(home.pipeline), identities=identities)
    store.progress.lane("readings", "main")[0] = LaneProgress(0, 5, lost=3, counts={"accepted": 2})
    with store.transaction():
        store.save(store.progress)
    store.close()
    ok("ledger", "-C", str(home.folder))
    assert "lost: 3 records" in capsys.readouterr().out


def test_a_ledger_that_does_not_balance_ends_with_three_for_people_and_for_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("new", str(tmp_path / "weather"))
    home = load_project(tmp_path / "weather")
    with contextlib.closing(open_log(home, "readings")) as log:
        identities = {"readings": log.identity}
    store = Store.open(home.store_path, plan_pipeline(home.pipeline), identities=identities)
    store.progress.lane("readings", "main")[0] = LaneProgress(0, 5, counts={"accepted": 4})
    with store.transaction():
        store.save(store.progress)
    store.close()
    assert run(["ledger", "-C", str(home.folder)]) == 3
    assert "the ledger does NOT balance" in capsys.readouterr().out
    assert run(["ledger", "--json", "-C", str(home.folder)]) == 3
    assert json.loads(capsys.readouterr().out)["balanced"] is False


def test_a_dead_letter_is_seen_corrected_and_accepted_once(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(project))
    ok("dead-letters", "list", *here)
    assert "readings:0:3" in capsys.readouterr().out
    ok("dead-letters", "list", "--json", "--rule", "expect:plausible", *here)
    assert json.loads(capsys.readouterr().out)[0]["address"] == "readings:0:3"
    ok("dead-letters", "show", "readings:0:3", *here)
    assert "expect:plausible" in capsys.readouterr().out
    ok("dead-letters", "redrive", "--all", "--dry-run", *here)
    assert "nothing was done" in capsys.readouterr().out
    assert run(["dead-letters", "redrive", *here]) == 2
    assert run(["dead-letters", "redrive", "readings:0:4", *here]) == 1
    assert run(["dead-letters", "redrive", "readings:0:3", "--set", "celsius", *here]) == 1
    ok("dead-letters", "show", "readings:0:3", "--raw", *here)
    corrected = tmp_path / "corrected.json"
    corrected.write_text(capsys.readouterr().out.replace("999", "6.5"))
    for change in (("--with", str(corrected)), ("--set", "celsius=7")):  # the address counts once
        ok("dead-letters", "redrive", "readings:0:3", *change, "--yes", *here)
    ok("run", "--until-caught-up", *here)
    capsys.readouterr()
    ok(
        "sql",
        "SELECT readings, highest FROM by_minute ORDER BY window_start DESC LIMIT 1",
        "--format",
        "csv",
        *here,
    )
    assert capsys.readouterr().out == "readings,highest\n2,6.5\n"


def test_letters_of_a_large_group_are_given_back_and_never_all_in_memory(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, held = ("-C", str(project)), list[int]()
    (tmp_path / "broken.ndjson").write_bytes(b"no json\n" * 4_500)
    ok("produce", "readings", str(tmp_path / "broken.ndjson"), *here)
    ok("run", "--until-caught-up", *here)
    asked = StoreReading.dead_letters

    def counted(store: StoreReading, **wanted: Any) -> pa.Table:
        found = asked(store, **wanted)
        held.append(found.num_rows if "value" in found.column_names else 0)
        return found

    monkeypatch.setattr(StoreReading, "dead_letters", counted)
    capsys.readouterr()
    ok("dead-letters", "redrive", "--outcome", "malformed", "--yes", *here)
    out = capsys.readouterr().out
    assert "… and 4497 more" in out and "4500 records given back" in out
    assert 0 < max(held) <= 2_000
    ok("run", "--until-caught-up", *here)
    capsys.readouterr()
    ok("sql", "SELECT count(*) AS n FROM dead_letters WHERE lane = 'redrive'", "--format", "csv", *here)
    assert capsys.readouterr().out == "n\n4500\n"


def test_a_record_cannot_command_the_terminal_of_whoever_looks_at_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, title = ("-C", str(project)), "\x1b]0;owned\x07\x9b2J"
    log = open_log(load_project(project), "readings")
    headers = [{"key": title, "value": title.encode()}]
    good = {"id": "t", "station": title, "at": "2026-03-01T10:06:00Z", "celsius": 1.0}
    for value in (title.encode(), json.dumps(good).encode()):
        log.append(
            pa.Table.from_pylist(
                [{"partition": 0, "key": title.encode(), "value": value, "headers": headers}],
                schema=APPEND_SCHEMA,
            )
        )
    log.close()
    ok("run", "--until-caught-up", *here)
    capsys.readouterr()
    for words in (
        ("dead-letters", "list"),
        ("dead-letters", "show", "readings:0:5"),
        ("dead-letters", "redrive", "readings:0:5", "--dry-run"),
        ("sql", f"SELECT '{title}' AS \"{title}\""),
    ):
        ok(*words, *here)
        out = capsys.readouterr().out
        assert "owned" in out
        assert not set(out) & set("\x1b\x07\x9b"), words


def test_nothing_set_aside_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("-C", str(tmp_path / "w"))
    ok("new", str(tmp_path / "w"))
    ok("run", "--until-caught-up", *here)
    capsys.readouterr()
    ok("dead-letters", "list", *here)
    ok("dead-letters", "redrive", "--all", *here)
    assert capsys.readouterr().out.count("no dead letters - nothing was set aside") == 2


def test_events_are_generated_and_their_figures_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = tmp_path / "shop"
    ok("new", "--blueprint", "commerce", str(shop))
    ok("generate", "commerce", "--rate", "unlimited", "--count", "2000", "--seed", "1", "-C", str(shop))
    out = capsys.readouterr().out
    assert "2,000 events" in out
    assert "average purchase" in out
    assert "most popular device" in out
    whole = ("--set", "malformed_share=0", "-C", str(shop))
    ok("generate", "commerce", "--rate", "1000", "--count", "3", "--verbose", *whole)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(lines) == 3
    assert all(re.search(r'"event_id":"[0-9a-f-]{36}"', line) for line in lines)
    assert run(["generate", "commerce", "--rate", "fast", "-C", str(shop)]) == 2
    assert run(["generate", "commerce", "--for", "a while", "-C", str(shop)]) == 2
    ok("new", str(tmp_path / "other"))
    assert run(["generate", "commerce", "-C", str(tmp_path / "other")]) == 2
    assert "stream 'events'" in capsys.readouterr().err


def test_produce_names_the_stream_that_was_meant(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["produce", "reading", "x.ndjson", "-C", str(project)]) == 2
    assert "did you mean 'readings'" in capsys.readouterr().err
    assert run(["produce", "readings", "missing.ndjson", "-C", str(project)]) == 1


def test_produce_warns_when_more_is_to_be_passed_over_than_there_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("produce", "readings", str(project / "readings.ndjson"), "-C", str(project))
    ok(*words, "--skip", "9")
    said = capsys.readouterr()
    assert said.out.startswith("0 records appended")
    assert "--skip 9: there are 5 records, and all were passed over" in said.err
    ok(*words, "--skip", "5")
    assert "warning" not in capsys.readouterr().err


def test_dead_letters_of_an_outcome_that_there_is_not_are_not_searched(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("list",), ("redrive", "--yes")):
        assert run(["dead-letters", *words, "--outcome", "rejectd", "-C", str(project)]) == 2
        said = capsys.readouterr().err
        assert "no record is set aside as 'rejectd'; did you mean 'rejected'?" in said
        assert "one of: malformed, rejected, future" in said
    words = ("redrive", "readings:0:3", "--with", str(project / "nothing"))
    assert run(["dead-letters", *words, "-C", str(project)]) == 2
    assert "fix: name a file with the corrected record" in capsys.readouterr().err


def test_produce_warns_of_records_whose_time_was_not_found(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("produce", "readings", str(project / "readings.ndjson"), "-C", str(project), "--record-time")
    ok(*words, "event")
    assert not capsys.readouterr().err
    ok(*words, "field:mesured_at")
    assert "no time was found for 5 records; they got the log's clock" in capsys.readouterr().err


def test_a_demo_shows_its_tables_in_a_terminal_and_tells_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "demo"
    screen = Console(file=io.StringIO(), force_terminal=True, width=160, height=80)
    monkeypatch.setattr("headrace.cli.view.console", lambda: screen)
    monkeypatch.setattr("headrace.cli.view.LINE_EVERY_S", 0.25)
    for terminal in (False, True):  # the second begins anew, in the folder of the first
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        # Long enough for a first epoch on a machine that is busy: before it there is nothing to show.
        ok("demo", "commerce", "--seconds", "4", "--history", "0.05", "--folder", str(place), "--seed", "1")
    out = capsys.readouterr().out
    assert re.search(r"^[\d,]+ records, [\d,.]+/s, lag ", out, re.MULTILINE)
    shown = screen.file.getvalue()
    for words in ("commerce demo", "lag ", "event_counts", "the last rows of", "Ctrl-C stops"):
        assert words in shown, words
    assert "balances: every record has exactly one outcome" in out
    assert "try next" in out
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert run(["demo", "--folder", str(tmp_path / "mine")]) == 1
