"""What `dead-letters redrive` shows before it asks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from headrace.cli.app import run


def ok(*words: str) -> None:
    assert run(words) == 0


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A project with one rejected record, which is longer than a line, and wrong at its end."""
    folder = tmp_path / "weather"
    ok("new", str(folder))
    reading: dict[str, object] = {
        "sensor": "on the roof of the old lighthouse, north side",
        "measured_at": "2026-03-01T10:06:00Z",
    }
    reading |= {"note": "äußerste Mole", "celsius": 999.0}
    (tmp_path / "one.ndjson").write_text(json.dumps(reading, ensure_ascii=False) + "\n")
    ok("produce", "readings", str(tmp_path / "one.ndjson"), "--record-time", "event", "-C", str(folder))
    assert "1 record appended to 'readings'" in capsys.readouterr().out
    ok("run", "--until-caught-up", "-C", str(folder))
    return folder


def test_a_correction_is_seen_also_where_it_stands_far_behind_the_begin(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    ok("dead-letters", "redrive", "--all", "--set", "celsius=21.5", "--dry-run", "-C", str(project))
    before, after = (line for line in capsys.readouterr().out.splitlines() if line[:4] in ("  - ", "  + "))
    assert "999" in before and "21.5" in after
    assert before.startswith("  - …") and after.startswith("  + …")


def test_a_run_may_begin_while_somebody_is_asked_whether_to_give_back(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: str) -> bool:
        ok("run", "--until-caught-up", "-C", str(project))
        return question == "give 1 record back?"

    monkeypatch.setattr("typer.confirm", answer)
    ok("dead-letters", "redrive", "--all", "--set", "celsius=21.5", "-C", str(project))
    assert "1 record given back" in capsys.readouterr().out


def test_where_nobody_can_be_asked_nothing_is_given_back_and_the_option_that_is_needed_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    with Path(os.devnull).open() as nothing, monkeypatch.context() as patched:
        patched.setattr("sys.stdin", nothing)
        assert run(["dead-letters", "redrive", "--all", "-C", str(project)]) == 2
    told = capsys.readouterr()
    assert "error: nobody answers, so nothing was done" in told.err and "fix: --yes" in told.err
    assert "given back" not in told.out
    ok("dead-letters", "redrive", "--all", "--dry-run", "-C", str(project))
    assert "1 record would be given back" in capsys.readouterr().out


def test_a_record_that_was_set_aside_says_what_became_of_it_since(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("-C", str(project))

    def shown(address: str) -> tuple[dict[str, object], str]:
        capsys.readouterr()
        ok("dead-letters", "show", address, "--json", *place)
        document = json.loads(capsys.readouterr().out)
        ok("dead-letters", "show", address, *place)
        return document, capsys.readouterr().err

    def give_back(address: str, change: str) -> None:
        ok("dead-letters", "redrive", address, "--set", change, "--yes", *place)
        ok("run", "--until-caught-up", *place)

    first, second, third = "readings:0:0", "readings@redrive:0:0", "readings@redrive:0:1"
    document, said = shown(first)
    assert (document["accepted_since"], document["set_aside_again"]) == (False, None)
    assert f"correct it: headrace dead-letters redrive {first}" in said
    give_back(first, "celsius=998")
    give_back(second, "celsius=997")
    for address in (first, second):
        document, said = shown(address)
        assert (document["accepted_since"], document["set_aside_again"]) == (False, third)
        assert f"set aside again: headrace dead-letters show {third}" in said and "correct it" not in said
    document, said = shown(third)
    assert document["set_aside_again"] is None and "correct it" in said
    give_back(third, "celsius=21.5")
    for address in (first, second, third):
        document, said = shown(address)
        assert (document["accepted_since"], document["set_aside_again"]) == (True, None)
        assert "accepted since" in said and "correct it" not in said
