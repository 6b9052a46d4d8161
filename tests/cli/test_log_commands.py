"""`headrace log …` on the embedded log: what it prints, for people and for scripts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.cli.app import run
from headrace.operate import Runtime, load_project, open_log
from headrace.testing.records import append_table

DEADLINE_S = 60


def ok(*words: str) -> None:
    assert run(words) == 0


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "weather"
    ok("new", str(folder))
    ok("produce", "readings", str(folder / "readings.ndjson"), "-C", str(folder), "--record-time", "event")
    capsys.readouterr()
    return folder


def test_who_only_looks_makes_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "weather"
    ok("new", str(folder))
    assert run(["log", "peek", "readings", "-C", str(folder)]) == 1
    assert "there is no log yet" in capsys.readouterr().err
    assert not (folder / ".headrace").exists()


def test_a_log_is_described(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("-C", str(project))
    ok("log", "describe", *here)
    out = capsys.readouterr().out
    assert "stream readings: 5 records" in out
    assert "log = embedded" in out
    assert "nobody reads it yet" in out
    ok("run", "--until-caught-up", *here)
    capsys.readouterr()
    ok("log", "describe", "readings", "--json", *here)
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["partitions"] == 1
    assert [each["reader"] for each in document["readers"]] == ["engine"]
    assert document["readers"][0]["lag_records"] == 0
    ok("log", "describe", "--lane", "redrive", *here)
    assert "0 records" in capsys.readouterr().out
    assert run(["log", "describe", "reading", *here]) == 2
    assert "did you mean 'readings'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("peek", "readings"), ("describe",)])
@pytest.mark.parametrize(("lane", "meant"), [("nope", ""), ("redrvie", "did you mean 'redrive'"), ("", "")])
def test_a_lane_that_there_is_not_is_told_with_those_that_there_are(
    project: Path, command: tuple[str, ...], lane: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["log", *command, "--lane", lane, "-C", str(project)]) == 2
    told = capsys.readouterr().err
    assert f"there is no lane '{lane}'" in told
    assert meant in told
    assert "fix: there are: main, redrive, polling" in told


@pytest.mark.parametrize(
    ("lane", "who"), [("redrive", "headrace dead-letters redrive"), ("polling", "headrace poll")]
)
def test_a_lane_that_holds_nothing_is_told_with_who_fills_it(
    project: Path, lane: str, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ok("log", "peek", "readings", "--lane", lane, "-C", str(project))
    told = capsys.readouterr().err
    assert f"stream 'readings' holds no record in its lane {lane}" in told
    assert who in told


@pytest.mark.parametrize("begin", [("--offset", "0:2"), ("--last", "0")])
def test_a_lane_that_holds_records_is_not_said_to_hold_none(
    project: Path, begin: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(load_project(project), "readings")
    log.lane("redrive").append(append_table([b"a", b"b"]))
    log.close()
    ok("log", "peek", "readings", "--lane", "redrive", *begin, "-C", str(project))
    told = capsys.readouterr().err
    assert told == "stream 'readings' holds no record there\n"


def test_how_long_records_are_kept_is_told_as_the_profile_takes_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = project / "headrace.toml"
    profile.write_text(
        profile.read_text().replace("partitions = 1", 'partitions = 1, retention = "36 hours"')
    )
    ok("log", "describe", "-C", str(project))
    assert "retention = 1 day 12 hours" in capsys.readouterr().out


def test_records_are_shown_for_people_and_for_scripts(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(project))
    ok("log", "peek", "readings", "--last", "1", *here)
    out = capsys.readouterr().out
    assert out.startswith("readings:0:4  2026-01-01T12:01:30Z\n{\n  ")
    assert '"celsius": 5.0' in out
    ok("log", "peek", "readings", "--from-beginning", "-n", "2", "--json", *here)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["offset"] for line in lines] == [0, 1]
    assert lines[0]["value"]["sensor"] == "roof"
    ok("log", "peek", "readings", "--offset", "0:5", *here)
    assert "holds no record there" in capsys.readouterr().err
    assert run(["log", "peek", "readings", "--offset", "0:9", *here]) == 1
    assert run(["log", "peek", "readings", "--last", "1", "--from-beginning", *here]) == 2


@pytest.mark.server
def test_records_in_avro_are_shown_through_a_registry_of_somebody_else(
    project: Path, apicurio_registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    binding = f'{{ format = "avro", registry = "{apicurio_registry}" }}'
    (project / "headrace.toml").write_text(f"[profiles.local]\nstreams.readings = {binding}\n")
    (project / ".headrace" / "log.db").unlink()
    here = ("-C", str(project))
    ok("produce", "readings", str(project / "readings.ndjson"), *here)
    log = open_log(load_project(project), "readings")
    log.append(append_table([b"\0\0\0\x27\x0f what no schema names"]))
    (first,) = log.read({0: 0}, rows_max=1, bytes_max=1 << 20, wait=timedelta()).records["value"].to_pylist()
    log.close()
    assert first[:1] == b"\0" and not first.strip().startswith(b"{"), "it is Avro that lies in the log"
    capsys.readouterr()
    ok("log", "peek", "readings", "--from-beginning", "--json", *here)
    *shown, odd = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    sent = [json.loads(line) for line in (project / "readings.ndjson").read_text().splitlines()]
    assert [(line["value"]["sensor"], line["value"]["celsius"]) for line in shown] == [
        (each["sensor"], each["celsius"]) for each in sent
    ]
    assert "9999" in odd["problem"]
    ok("log", "peek", "readings", "--offset", "0:0", "-n", "1", *here)
    out = capsys.readouterr().out
    assert out.startswith("readings:0:0  ") and f'"sensor": "{sent[0]["sensor"]}"' in out


def test_a_copy_says_where_to_and_is_not_made_onto_itself(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "headrace.toml").write_text("[profiles.local]\n[profiles.other]\n")
    here = ("-C", str(project))
    assert run(["log", "copy", *here]) == 2
    assert "add --to-profile" in capsys.readouterr().err
    assert run(["log", "copy", "--to-profile", "other", *here]) == 1
    assert "the same log in both profiles" in capsys.readouterr().err


@pytest.mark.slow
def test_following_ends_cleanly_with_ctrl_c(project: Path) -> None:
    following = subprocess.Popen(
        [sys.executable, "-m", "headrace", "log", "peek", "readings", "--last", "1", "--follow", "--json"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["offset"] == 4
        ok("produce", "readings", str(project / "readings.ndjson"), "-C", str(project))
        assert json.loads(following.stdout.readline())["offset"] == 5
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=DEADLINE_S)
    finally:
        following.kill()
        following.wait()
    assert (following.returncode, err) == (0, "")


def test_beside_a_run_of_another_profile_who_names_none_is_told_where_that_one_has_the_stream_otherwise(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peek, describe = ("log", "peek", "readings"), ("log", "describe")
    produce = ("produce", "readings", str(project / "readings.ndjson"))
    (project / "headrace.toml").write_text(
        "[profiles.local]\n[profiles.same]\nstore.path = 'same.duckdb'\n"
        "[profiles.other]\nstreams.readings.retention = '7 days'\n"
    )
    hint = (
        "hint: a run of profile 'other' is alive here, and this takes profile 'local', which has stream "
        "'readings' otherwise; --profile other takes that run's\n"
    )

    def said(*words: str) -> list[str]:
        capsys.readouterr()
        ok(*words, "-C", str(project))
        return [line for line in capsys.readouterr().err.splitlines(keepends=True) if "hint" in line]

    runtime = Runtime.open(load_project(project, profile="other"))
    try:
        for command in (peek, describe, produce):
            assert said(*command) == [hint]
            for asked in ("local", "other"):
                assert said(*command, "--profile", asked) == []
        other = (project / "headrace.toml").read_text().replace("profiles.other", "profiles.renamed")
        (project / "headrace.toml").write_text(other)  # what that run has is not known any more
        assert said(*peek) == [hint]
    finally:
        runtime.close()
    assert said(*peek) == []
    runtime = Runtime.open(load_project(project, profile="same"))
    try:
        assert said(*peek) == []
    finally:
        runtime.close()


def test_events_are_made_with_a_hint_beside_a_run_of_another_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(tmp_path / "shop"))
    ok("new", "--blueprint", "commerce", str(tmp_path / "shop"))
    settings = tmp_path / "shop" / "headrace.toml"
    settings.write_text(
        "[profiles.local]\n[profiles.other]\npage.serve = 'off'\nstreams.events.retention = '7 days'\n"
    )
    runtime = Runtime.open(load_project(tmp_path / "shop", profile="other"))
    try:
        for profile, told in (([], True), (["--profile", "other"], False)):
            capsys.readouterr()
            ok("generate", "commerce", "--count", "1", *profile, *here)
            assert ("hint: a run of profile 'other' is alive here" in capsys.readouterr().err) is told
    finally:
        runtime.close()
