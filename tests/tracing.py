"""Leaves out of the measured coverage what only takes time: tracing takes as long again as many a line."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["save_measured", "untraced", "untraced_processes"]


@contextmanager
def untraced() -> Iterator[None]:
    """Trace no line of this thread, nor of the threads and processes that it starts."""
    here, others = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        with untraced_processes():
            yield
    finally:
        sys.settrace(here)
        threading.settrace(others)


@contextmanager
def untraced_processes() -> Iterator[None]:
    """Trace no line of the processes that are started in the block."""
    told = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("COVERAGE_PROCESS")}
    try:
        yield
    finally:
        os.environ.update(told)


def save_measured() -> None:
    """Write down which lines ran so far; a worker that takes long to end is killed, with what it knows."""
    measured = sys.modules.get("coverage")
    current = measured.Coverage.current() if measured is not None else None
    if current is not None:
        current.save()
