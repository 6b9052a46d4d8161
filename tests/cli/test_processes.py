"""Real processes: started, asked while they run, stopped, killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.app import run
from headrace.operate import connect, find_home
from own_tests import own_tests_pass
from servers.guard import wait_until

pytestmark = pytest.mark.slow

HEADRACE = [sys.executable, "-m", "headrace"]
DEADLINE_S = 60


def headrace(*words: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEADRACE, *words], cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=check
    )


class Running:
    """`headrace run` in a process of its own; made when it answers on its socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [*HEADRACE, "run"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("running"):
                return
        raise AssertionError(f"run ended with {self.process.wait()}")

    def stop(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(DEADLINE_S)

    def told_until(self, word: str) -> str:
        """What it says from now on, up to the line that begins with `word`."""
        assert self.process.stdout is not None
        told = ""
        for line in self.process.stdout:
            told += line
            if line.startswith(word):
                return told
        raise AssertionError(f"run ended without saying '{word}': {told}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    assert run(["new", str(tmp_path / "weather")]) == 0
    return tmp_path / "weather"


@pytest.fixture
def running(project: Path) -> Iterator[Running]:
    started = Running(project)
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.wait(DEADLINE_S)
    if started.process.stdout is not None:
        started.process.stdout.close()


def produced(project: Path) -> None:
    headrace("produce", "readings", "readings.ndjson", "--record-time", "event", cwd=project)


def wait_until_read(project: Path, records: int, *, stream: str = "readings") -> None:
    """Ask the running pipeline as `headrace ledger` does, which takes longer to start than to answer."""
    client = connect(find_home(project))
    assert client.running
    wait_until(
        lambda: client.ledger()["streams"].get(stream, {}).get("read") == records,
        what=f"{records} records are read",
        seconds=DEADLINE_S,
    )


def test_a_running_pipeline_answers_like_a_stopped_one(project: Path, running: Running) -> None:
    produced(project)
    wait_until_read(project, 5)
    questions = (
        ["ledger", "--json"],
        ["sql", "FROM by_minute ORDER BY ALL"],
        ["dead-letters", "list", "--json"],
    )
    alive = [headrace(*question, cwd=project).stdout for question in questions]
    assert json.loads(headrace("status", "--json", cwd=project).stdout)["running"] is True
    assert headrace("sql", "DELETE FROM by_minute", cwd=project, check=False).returncode == 1
    running.stop(signal.SIGTERM)
    assert json.loads(headrace("status", "--json", cwd=project).stdout)["running"] is False
    stopped = [headrace(*question, cwd=project).stdout for question in questions]
    # Idle epochs may be counted between the two; everything else must be the same.
    assert [_without_epoch(text) for text in alive] == [_without_epoch(text) for text in stopped]


def _without_epoch(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if '"epoch"' not in line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_at_an_epoch_within_two_seconds(
    project: Path, running: Running, number: int
) -> None:
    produced(project)
    wait_until_read(project, 5)  # it is under way: one that is still starting finishes that first
    began = time.monotonic()
    running.process.send_signal(number)
    out = running.told_until("stopped")
    # Until it says so: what measures the coverage of a test writes its files after that.
    assert time.monotonic() - began < 2
    assert running.process.wait(DEADLINE_S) == 0
    assert "stopping after this epoch" in out
    assert "the ledger balances" in out
    assert not (running.folder / ".headrace" / "run.json").exists()


@pytest.mark.soak
def test_a_signal_stops_a_run_that_is_catching_up_at_an_epoch_within_two_seconds(tmp_path: Path) -> None:
    shop, records = tmp_path / "shop", 300_000
    headrace("new", "--blueprint", "commerce", "shop", cwd=tmp_path)
    headrace("generate", "commerce", "--rate", "unlimited", "--count", str(records), cwd=shop)
    running = Running(shop)
    client = connect(find_home(shop))
    wait_until(
        lambda: client.ledger()["streams"].get("events", {}).get("read", 0) > records // 10,
        what="it is in the middle of catching up",
        seconds=DEADLINE_S,
    )
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    out = running.told_until("stopped")
    assert time.monotonic() - began < 2
    assert running.process.wait(DEADLINE_S) == 0
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert "the ledger balances" in out
    read = json.loads(headrace("ledger", "--json", cwd=shop).stdout)["streams"]["events"]["read"]
    assert records // 10 < read < records


def test_a_second_run_is_told_about_the_first(project: Path, running: Running) -> None:
    second = headrace("run", cwd=project, check=False)
    assert second.returncode == 1
    assert str(running.process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert json.loads(headrace("status", "--json", cwd=project).stdout)["running"] is True


def test_a_killed_run_leaves_nothing_in_the_way(project: Path, running: Running) -> None:
    produced(project)
    wait_until_read(project, 5)
    running.stop(signal.SIGKILL)
    assert (project / ".headrace" / "run.json").exists()
    status = json.loads(headrace("status", "--json", cwd=project).stdout)
    assert (status["running"], status["ended"]) == (False, "killed")
    assert "the last run was killed, or the machine went down;" in headrace("status", cwd=project).stdout
    out = headrace("run", "--until-caught-up", cwd=project).stdout
    assert "the ledger balances" in out
    assert json.loads(headrace("status", "--json", cwd=project).stdout)["ended"] == "well"


def test_what_another_process_produces_is_seen_and_redriven_while_it_runs(
    project: Path, running: Running
) -> None:
    produced(project)
    wait_until_read(project, 5)
    given = headrace("dead-letters", "redrive", "--all", "--set", "celsius=1", "--yes", cwd=project).stdout
    assert "the running pipeline takes them now" in given
    wait_until_read(project, 6)


def test_run_json_belongs_to_its_owner(running: Running) -> None:
    path = running.folder / ".headrace" / "run.json"
    assert path.stat().st_mode & 0o777 == 0o600
    facts = json.loads(path.read_text())
    assert facts["pid"] == running.process.pid
    assert Path(facts["socket"]).stat().st_mode & 0o777 == 0o600


def test_a_new_project_passes_its_own_tests_and_has_a_workflow_that_runs_them(tmp_path: Path) -> None:
    headrace("new", "made", cwd=tmp_path)
    own_tests_pass(tmp_path / "made")
    workflow = (tmp_path / "made" / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: headrace check\n" in workflow
    assert "run: python -m pytest\n" in workflow


def test_generate_goes_on_beside_run_in_a_process_of_its_own_until_ctrl_c(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    headrace("new", "--blueprint", "commerce", "shop", cwd=tmp_path)
    running = Running(shop)
    generating = subprocess.Popen(
        [*HEADRACE, "generate", "commerce", "--rate", "1500"], cwd=shop, stdout=subprocess.PIPE, text=True
    )
    try:
        client = connect(find_home(shop))
        wait_until(
            lambda: client.ledger()["streams"].get("events", {}).get("read", 0) > 1000,
            what="the events are read while they are made",
            seconds=DEADLINE_S,
        )
        generating.send_signal(signal.SIGINT)
        out, _ = generating.communicate(timeout=DEADLINE_S)
        assert generating.returncode == 0
        (made,) = re.findall(r"^([\d,]+) events in ", out, re.MULTILINE)
        wait_until_read(shop, int(made.replace(",", "")), stream="events")
        document = json.loads(headrace("ledger", "--json", cwd=shop).stdout)
        assert document["balanced"]
    finally:
        generating.kill()
        running.stop(signal.SIGINT)
        assert running.process.stdout is not None
        running.process.stdout.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_clear_error(project: Path) -> None:
    shutil.rmtree(project / ".headrace", ignore_errors=True)
    project.chmod(0o500)
    try:
        failed = headrace("run", cwd=project, check=False)
    finally:
        project.chmod(0o700)
    assert failed.returncode == 1
    assert "cannot be made" in failed.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*HEADRACE, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(DEADLINE_S)
