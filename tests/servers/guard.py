"""A server's process, and beside it a guard that stops it when the tests are gone, however they went.

The guard (this file as a program) holds the reading end of a pipe. When the process at the other end stops
the server or dies, also by kill -9, the pipe closes, and the guard stops the server.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["GuardedProcess", "free_ports", "wait_until"]

STOP_S_MAX = 20


class GuardedProcess:
    """A server that runs until it is stopped, killed, or this process is gone."""

    def __init__(
        self, command: Sequence[str], *, output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.output = output
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(output), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for the tests, which then stop their servers
        )
        assert self._guard.stdout is not None
        self.pid = int(self._guard.stdout.readline() or -1)

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    def stop(self) -> None:
        """End it in good order. What does not end in time is killed."""
        assert self._guard.stdin is not None and self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.wait(STOP_S_MAX + 10)
        self._guard.stdout.close()

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def cpu_seconds(self) -> float:
        """The processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_words(self) -> str:
        return self.output.read_text(errors="replace")[-3000:]


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that were free a moment ago."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def wait_until(
    condition: Callable[[], bool], *, what: str, seconds: float = 30, process: GuardedProcess | None = None
) -> None:
    """Return when `condition` holds; raise when it does not in time, or the process is gone."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if process is not None and not process.running:
            raise RuntimeError(f"{what}: the process ended\n{process.last_words()}")
        if time.monotonic() > deadline:
            words = process.last_words() if process is not None else ""
            raise TimeoutError(f"{what}: not in {seconds} s\n{words}")
        pause.wait(0.02)


def _guard(output: str, command: list[str]) -> None:
    with Path(output).open("ab") as file:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    os.write(1, f"{child.pid}\n".encode())

    def leave_with_it() -> None:
        child.wait()
        os._exit(0)

    threading.Thread(target=leave_with_it, daemon=True).start()
    while os.read(0, 1024):
        pass
    child.terminate()
    try:
        child.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    _guard(sys.argv[1], sys.argv[2:])
