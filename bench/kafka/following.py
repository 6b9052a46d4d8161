"""Headrace following a live topic in a process of its own, and what is sent to it in another one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.kafka.broker import ROOT
from bench.kafka.data import PARTITIONS, create_topic
from bench.kafka.running import Failed, Ground, end_tree, peak_rss_mb

_WAIT_S_MAX = 90.0


class Follower:
    """An engine on a topic of its own; it can be killed and started again on the same store."""

    def __init__(self, ground: Ground, case: str, topic: str, folder: Path) -> None:
        self._ground, self._case, self.topic, self._folder = ground, case, topic, folder
        self.commits: list[tuple[float, list[int]]] = []
        self.ends = [0] * PARTITIONS  # what was sent so far
        self._stderr = folder / "follower.err"
        create_topic(ground.broker.bootstrap, topic, **{"message.timestamp.type": "LogAppendTime"})
        self.start()

    def start(self) -> float:
        """Start the engine and return when it was opened."""
        task = {
            "case": self._case, "brokers": self._ground.broker.bootstrap, "topic": self.topic,
            "store": str(self._folder / "store.duckdb"),
        }  # fmt: skip
        self._process = _python("follow", task, self._stderr, stdin=subprocess.PIPE)
        self._opened = threading.Event()
        self._reading = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reading.start()
        if not self._opened.wait(60) or self._process.poll() is not None:
            raise Failed(f"the engine did not open: {self._said()}")
        return time.time()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            moment, positions = json.loads(line)
            if positions:
                self.commits.append((moment, [positions.get(str(each), 0) for each in range(PARTITIONS)]))
            self._opened.set()
        self._opened.set()

    def send(self, steps: list[tuple[float, float]], at: dict[float, Any] | None = None) -> Sent:
        """Send as the steps say (rate, seconds), wait until all is committed, and return what came of it.

        `at` are calls to make, by seconds after the start.
        """
        out, err = self._folder / "sent.npz", self._folder / "sender.err"
        task = {
            "brokers": self._ground.broker.bootstrap,
            "topic": self.topic,
            "steps": steps,
            "out": str(out),
        }
        sender = _python("send", task, err)
        try:
            assert sender.stdout is not None
            said = sender.stdout.readline()
            if not said:
                raise Failed(f"the sender ended: {err.read_text()[-500:]}")
            start = json.loads(said)["start"]
            for moment, call in sorted((at or {}).items()):
                time.sleep(max(0.0, start + moment - time.time()))
                call()
            said = sender.stdout.readline()
            if not said:
                raise Failed(f"the sender ended: {err.read_text()[-500:]}")
        finally:
            end_tree(sender.pid) if sender.poll() is None and not said else sender.wait(30)
        made, first = np.load(out), list(self.ends)
        for each in range(PARTITIONS):
            self.ends[each] += int((made["partition"] == each).sum())
        self._wait_until_drained()
        return Sent(start, made["due"], made["partition"], first, list(self.commits), json.loads(said))

    def _wait_until_drained(self) -> None:
        deadline = time.monotonic() + _WAIT_S_MAX
        while not self.commits or any(a < b for a, b in zip(self.commits[-1][1], self.ends, strict=True)):
            if self._process.poll() is not None:
                raise Failed(f"the engine ended: {self._said()}")
            if time.monotonic() > deadline:
                raise Failed(f"not drained in {_WAIT_S_MAX:.0f} s: {self.commits[-1:]} of {self.ends}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()
        self._reading.join()

    def peak_rss_mb(self) -> float:
        """Return the engine's peak so far."""
        return peak_rss_mb(self._process.pid)

    def close(self) -> None:
        """End it in good order, or kill what does not end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code:
            raise Failed(f"the engine ended with {code}: {self._said()}")

    def _said(self) -> str:
        return self._stderr.read_text(errors="replace")[-800:]


class Sent:
    """What was sent, when it was due, and when it was visible."""

    def __init__(
        self,
        start: float,
        due: np.ndarray,
        partition: np.ndarray,
        first: list[int],
        commits: list[tuple[float, list[int]]],
        sender: dict[str, Any],
    ) -> None:
        self.start, self.due, self.sender, self.commits = start, due, sender, commits
        times = np.array([moment for moment, _ in commits])
        self.visible = np.empty(len(due))
        for each in range(PARTITIONS):
            chosen = np.flatnonzero(partition == each)
            offsets = first[each] + np.arange(len(chosen))
            after = np.array([positions[each] for _, positions in commits])
            self.visible[chosen] = times[np.searchsorted(after, offsets, side="right")]

    def latency_s(self, after: float = 0.0, until: float = float("inf")) -> np.ndarray:
        """Return from when a record was due to when it was visible, for those due between two moments."""
        moment = self.due - self.start
        chosen = (moment >= after) & (moment < until)
        return np.asarray((self.visible - self.due)[chosen])


def following(ground: Ground, case: str) -> Any:
    """Return a context manager that runs a follower on a new topic, and ends it."""
    return _Following(ground, case)


class _Following:
    def __init__(self, ground: Ground, case: str) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=ground.work, prefix="follow-")
        self._follower = Follower(ground, case, f"live-{time.time_ns()}", Path(self._folder.name))

    def __enter__(self) -> Follower:
        return self._follower

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._follower.close()
            else:
                self._follower.kill()
        finally:
            self._folder.cleanup()


def _python(script: str, task: dict[str, Any], errors: Path, stdin: int | None = None) -> Any:
    command = [sys.executable, "-m", f"bench.kafka.contestants.{script}", json.dumps(task)]
    with errors.open("a") as file:
        return subprocess.Popen(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            cwd=ROOT,
        )
