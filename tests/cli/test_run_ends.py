"""What a run that has ended leaves undone, and how it ended: told at its end, and to whoever asks later."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.app import run
from headrace.cli.replica_commands import lacking_words
from headrace.operate import Runtime, connect, find_home, load_project
from headrace.operate.last_run import note_begin
from servers.guard import wait_until

DEADLINE_S = 60
LACKS = re.compile(
    r"not copied yet: copy lacks the last (?:epoch|\d epochs), in which 5 records were read; "
    r"the next run with profile 'local' sends that\n"
)


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "weather"
    assert run(["new", str(folder)]) == 0
    capsys.readouterr()
    return folder


def stopped_by_ctrl_c_before_its_replica_sends_anything(folder: Path) -> None:
    failures: list[BaseException] = []

    def produce_and_stop() -> None:
        try:
            run_file = folder / ".headrace" / "run.json"
            wait_until(run_file.exists, what="it runs", seconds=DEADLINE_S)
            client = connect(find_home(folder))
            wait_until(
                lambda: client.status()["replicas"][0]["state"] == "following",
                what="the replica has what there is, and gathers from now on",
                seconds=DEADLINE_S,
            )
            produce = ["produce", "readings", "readings.ndjson", "--record-time", "event"]
            subprocess.run([sys.executable, "-m", "headrace", *produce], cwd=folder, check=True, timeout=60)
            wait_until(
                lambda: client.ledger()["streams"].get("readings", {}).get("read") == 5,
                what="all is read",
                seconds=DEADLINE_S,
            )
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits for the run
            failures.append(error)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=produce_and_stop)
    other.start()
    try:
        assert run(["run", "-C", str(folder)]) == 0
    finally:
        other.join()
    assert not failures, failures


@pytest.mark.slow
def test_a_run_that_ends_says_which_replicas_lack_something_and_so_does_their_status_until_it_is_sent(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(project))
    gathers = 'replicas.copy = { kind = "files", path = "copy/", linger = "1 hour" }'
    (project / "headrace.toml").write_text(f'[profiles.local]\npage.serve = "off"\n{gathers}\n')
    stopped_by_ctrl_c_before_its_replica_sends_anything(project)
    assert LACKS.fullmatch(capsys.readouterr().out.splitlines(keepends=True)[-1])
    for command in (["replicas", "status"], ["status"]):
        assert run([*command, *here]) == 0
        assert LACKS.search(capsys.readouterr().out)
    assert run(["replicas", "status", "--json", *here]) == 0
    assert json.loads(capsys.readouterr().out)[0]["lag_records"] == 5
    assert run(["run", "--until-caught-up", *here]) == 0
    assert run(["replicas", "status", *here]) == 0
    assert "not copied yet" not in capsys.readouterr().out


def replica(name: str, state: str, epochs: int, records: int) -> dict[str, Any]:
    return {"replica": name, "state": state, "lag_epochs": epochs, "lag_records": records}


def test_of_several_replicas_those_that_lack_something_are_named_and_which_ones_the_next_run_does_not_serve(
) -> None:  # fmt: skip
    here, near = replica("here", "stopped", 0, 0), replica("near", "stopped", 1, 0)
    away, held = replica("away", "refused", 12_000, 469_000), replica("held", "paused", 2, 1)
    assert lacking_words([here], "local") == ""
    assert lacking_words([here, near, away], "warehouse") == (
        "not copied yet: near lacks the last epoch, away (refused) lacks the last 12,000 epochs, in which "
        "469,000 records were read; the next run with profile 'warehouse' sends that"
    )
    assert lacking_words([held], "local") == (
        "not copied yet: held (paused) lacks the last 2 epochs, in which 1 record was read; "
        "`headrace replicas resume NAME` lets the next run with profile 'local' send that"
    )
    assert lacking_words([near, held], "local").endswith(
        "; the next run with profile 'local' sends that, to one that is paused once it is resumed"
    )


@pytest.fixture
def caught_up(project: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """One that has read everything, of whose profiles one has the same store and one another."""
    (project / "headrace.toml").write_text(
        "[profiles.local]\n[profiles.second]\n[profiles.apart]\nstore.path = 'apart.duckdb'\n"
    )
    assert run(["run", "--until-caught-up", "-C", str(project)]) == 0
    assert run(["run", "--until-caught-up", "--profile", "apart", "-C", str(project)]) == 0
    capsys.readouterr()
    return project


def said_by(command: str, folder: Path, capsys: pytest.CaptureFixture[str], *profile: str) -> tuple[str, Any]:
    """What a command says to people, its first line, and to scripts."""
    options = ("-C", str(folder), *(("--profile", *profile) if profile else ()))
    assert run([command, *options]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert run([command, "--json", *options]) == 0
    return first, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["status", "ledger"])
def test_figures_are_told_with_the_profile_that_they_are_of(
    caught_up: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, document = said_by(command, caught_up, capsys)
    assert (first.startswith("profile 'local'"), document["profile"]) == (True, "local")
    first, document = said_by(command, caught_up, capsys, "apart")
    assert (first.startswith("profile 'apart'"), document["profile"]) == (True, "apart")
    runtime = Runtime.open(load_project(caught_up, profile="second"))
    try:  # the one that runs answers, whichever profile is asked for
        first, document = said_by(command, caught_up, capsys, "apart")
        assert (first.startswith("profile 'second'"), document["profile"]) == (True, "second")
    finally:
        runtime.close()


def test_a_stopped_pipeline_says_that_its_last_run_failed_and_only_of_the_store_that_it_had(
    caught_up: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said_by("status", caught_up, capsys, "apart")[1]["ended"] == "well"
    assert said_by("status", caught_up, capsys)[1]["ended"] == ""  # the last one was the other's
    note_begin(find_home(caught_up))
    assert said_by("status", caught_up, capsys)[1]["ended"] == "failed"
    assert run(["status", "-C", str(caught_up)]) == 0
    assert "the last run failed, or was killed" in capsys.readouterr().out
    assert said_by("status", caught_up, capsys, "apart")[1]["ended"] == ""
    (caught_up / ".headrace" / "last_run.json").write_text("[]")
    assert said_by("status", caught_up, capsys)[1]["ended"] == ""


def test_an_empty_query_is_an_error_with_a_fix_whether_the_pipeline_runs_or_not(
    caught_up: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = "error: the query is empty\n  fix: write a SELECT; `headrace tables` lists what there is\n"
    for nothing in ("", " \n"):
        assert run(["sql", nothing, "-C", str(caught_up)]) == 1
        assert capsys.readouterr() == ("", empty)
    runtime = Runtime.open(load_project(caught_up))
    try:
        for nothing in ("", " \n"):
            assert run(["sql", nothing, "-C", str(caught_up)]) == 1
            assert capsys.readouterr() == ("", empty)
    finally:
        runtime.close()
