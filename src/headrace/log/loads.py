"""Marks of loads in progress: a stream that is being loaded with given record times has no idle clock.

A mark is a row in the log and a lock on a small file beside it. The operating system gives the lock back when
the process dies, so a killed load is told from a slow one, also between containers that share the folder; a
process number could be another process by now.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.log.database import Connection, errors_named

__all__ = ["load_in_progress", "load_marked", "remove_dead_marks"]


def _lock_file(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}.load-{token}")


@contextmanager
def load_marked(path: Path, connection: Connection, stream: int) -> Iterator[None]:
    """Mark `stream` as being loaded until left, or until the process dies."""
    token = uuid.uuid4().hex
    lock_file = _lock_file(path, token)
    with errors_named(path):
        lock = os.open(lock_file, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with connection.writing() as sqlite:
            sqlite.execute("INSERT INTO loads VALUES (?, ?)", (token, stream))
        yield
    finally:
        # The row first: without its lock file it would look like a load that died, which is what it is.
        try:
            with connection.writing() as sqlite:
                sqlite.execute("DELETE FROM loads WHERE token = ?", (token,))
        finally:
            os.close(lock)
            lock_file.unlink(missing_ok=True)


def load_in_progress(path: Path, sqlite: sqlite3.Connection, stream: int) -> bool:
    """Return whether a living process loads `stream`."""
    tokens = sqlite.execute("SELECT token FROM loads WHERE stream = ?", (stream,)).fetchall()
    return any(_alive(_lock_file(path, token)) for (token,) in tokens)


def remove_dead_marks(path: Path, sqlite: sqlite3.Connection) -> None:
    """Delete the marks that processes left when they died; called inside a write transaction."""
    for (token,) in sqlite.execute("SELECT token FROM loads").fetchall():
        lock_file = _lock_file(path, token)
        if not _alive(lock_file):
            sqlite.execute("DELETE FROM loads WHERE token = ?", (token,))
            lock_file.unlink(missing_ok=True)


def _alive(lock_file: Path) -> bool:
    try:
        lock = os.open(lock_file, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
