"""Starts processes that are to be killed, and kills them after a chosen line of what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_CHILD = Path(__file__).with_name("crash_child.py")


class Child:
    """A process of `crash_child.py`; `lines` is what it has said so far."""

    def __init__(self, *arguments: object) -> None:
        self.lines: list[list[str]] = []
        self.process = subprocess.Popen(
            [sys.executable, str(_CHILD), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def read(self) -> list[str] | None:
        """The words of its next line; None when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            return None
        self.lines.append(line.split())
        return self.lines[-1]

    def run_until(self, lines: int | None) -> bool:
        """Read `lines` lines, or all; True when the process said that it is done."""
        while lines is None or len(self.lines) < lines:
            if self.read() is None:
                break
        return bool(self.lines) and self.lines[-1] == ["done"]

    def kill(self) -> None:
        """End it as `kill -9` does, and wait until it is gone. Lines that it had said are still read."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        # `communicate` would pass over what `readline` took from the pipe beyond its line.
        assert self.process.stdout is not None
        self.lines += [line.split() for line in self.process.stdout.read().splitlines()]
        _, self.errors = self.process.communicate()
