"""Runs contestants: one process tree at a time, its seconds, processor time and memory, and the broker's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.kafka.broker import ROOT
from bench.kafka.data import Stream
from bench.kafka.oracle import CASES, differences, expected
from bench.kafka.peers import HERE, Contestant, jars, program

RUN_S_MAX = 420
_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A run ended without a result; the text is the end of what it said."""


@dataclass
class Ground:
    """Where runs take place: broker, folder, the streams, and every raw result so far.

    run_s_max   how long one run may take, with its warm-up
    """

    broker: Any
    work: Path
    streams: dict[str, Stream]
    batch_rows: int
    raw: list[dict[str, Any]] = field(default_factory=list)
    run_s_max: float = RUN_S_MAX

    def stream_for(self, contestant: Contestant) -> Stream:
        """Return the stream that a contestant reads."""
        return self.streams["small" if contestant.slow else "large"]

    def warm_up_for(self, contestant: Contestant) -> Stream:
        """Return what a contestant does the job over first: much where machine code is made on the way."""
        return self.streams["brief" if contestant.slow else "warm"]

    def oracle(self, case: str, stream: Stream) -> tuple[Path, int]:
        """Return where the right answers of a case lie, and how many records count in it."""
        folder = stream.file.with_suffix("") / case
        return folder, int(expected(case, stream.file, folder)["accepted"])


def run(ground: Ground, contestant: Contestant, case: str) -> dict[str, Any]:
    """Run a contestant once. Raises Failed, and PeerMissing when it cannot be installed."""
    stream, warm = ground.stream_for(contestant), ground.warm_up_for(contestant)
    python = program(contestant)
    with tempfile.TemporaryDirectory(dir=ground.work, prefix=f"{contestant.name}-") as folder:
        task: dict[str, Any] = {
            "case": case, "brokers": ground.broker.bootstrap, "out": folder, "key": CASES.get(case, ""),
            "stream": stream.given, "warm": warm.given, "jars": jars(contestant),
            "batch_rows": ground.batch_rows,
        }  # fmt: skip
        if case in CASES:
            oracle, task["accepted"] = ground.oracle(case, stream)
            _, task["warm_accepted"] = ground.oracle(case, warm)
        script = HERE / "contestants" / f"run_{contestant.name}.py"
        command = [python, str(script), json.dumps(task)]
        result = Watched(command, ground.broker, Path(folder), ground.run_s_max).run()
        result |= {"contestant": contestant.name, "case": case, "events": stream.events}
        result["events_per_s"] = stream.events / result["seconds"]
        result["cpu_s_per_million"] = result["cpu_s"] / stream.events * 1e6
        result["broker_cpu_s_per_million"] = result["broker_cpu_s"] / stream.events * 1e6
        result["load_after"] = os.getloadavg()[0]
        if case in CASES:
            result["differences"] = differences(case, oracle, Path(folder))
    ground.raw.append(result)
    return result


class Watched:
    """A process that prints when its measured part begins and ends; its whole tree is measured."""

    def __init__(self, command: list[str], broker: Any, folder: Path, run_s_max: float = RUN_S_MAX) -> None:
        self._command, self._broker = command, broker
        self._output = folder / "stderr"
        self._run_s_max = run_s_max

    def run(self) -> dict[str, Any]:
        """Return seconds, processor time and peak memory between the marks, once the process has ended."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("SPARK_HOME", None)
        with self._output.open("w") as errors:
            process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=ROOT
            )
        late = threading.Event()

        def give_up() -> None:
            late.set()
            end_tree(process.pid)

        timer = threading.Timer(self._run_s_max, give_up)
        timer.start()
        try:
            result = self._read(process)
            code = process.wait(120)
        except subprocess.TimeoutExpired:
            code = 0  # it gave its result and wrote it; that it does not end by itself is its own affair
        finally:
            timer.cancel()
            end_tree(process.pid)
            process.wait()
        if result is None or code:
            said = self._output.read_text(errors="replace").strip()
            at = max(said.find("Traceback"), 0)  # a JVM says much after it
            how = (
                f"was not done in {self._run_s_max:.0f} s"
                if late.is_set()
                else f"ended with {process.returncode}"
            )
            raise Failed(f"{how}: {said[at : at + 2500]} … {said[-500:]}")
        return result

    def _read(self, process: subprocess.Popen[str]) -> dict[str, Any] | None:
        before: tuple[float, float] | None = None
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("##begin"):
                before = cpu_seconds(process.pid), self._broker.process.cpu_seconds()
            elif line.startswith("##end") and before:
                own, broker = cpu_seconds(process.pid), self._broker.process.cpu_seconds()
                return {
                    **json.loads(line[6:]),
                    "cpu_s": own - before[0],
                    "broker_cpu_s": broker - before[1],
                    "peak_rss_mb": peak_rss_mb(process.pid),
                }
        return None


def tree(pid: int) -> list[int]:
    """Return a process and everything that it started and that still lives."""
    found, ahead = [], [pid]
    while ahead:
        each = ahead.pop()
        try:
            tasks = list(Path(f"/proc/{each}/task").iterdir())
            found.append(each)
            for task in tasks:
                ahead += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a tree, with that of children that ended."""
    total = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def peak_rss_mb(pid: int) -> float:
    """Return the sum of the peaks of a tree's processes."""
    total = 0.0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    return round(total, 1)


def end_tree(pid: int) -> None:
    """Kill what is left of a tree, by process id."""
    for each in tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def end_leftovers() -> None:
    """Kill whatever this process started and did not end, by process id."""
    for each in tree(os.getpid())[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
