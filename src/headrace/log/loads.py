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

__all__ = ["dead_loads", "load_in_progress", "load_marked", "remove_dead_marks"]


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


def dead_loads(path: Path, sqlite: sqlite3.Connection, stream: int) -> frozenset[str]:
    """Return the marks of `stream` whose processes are gone; to be asked before a snapshot is taken.

    What a dead process appended was committed before its lock became free, so the snapshot holds all of it.
    """
    return frozenset(token for token in _tokens(sqlite, stream) if not _alive(_lock_file(path, token)))


def load_in_progress(sqlite: sqlite3.Connection, stream: int, dead: frozenset[str]) -> bool:
    """Return whether `stream` was being loaded at the snapshot that `sqlite` reads.

    A load whose mark is in the snapshot may have appended more and ended since: its lock says nothing now,
    only what it said before the snapshot (`dead`) does.
    """
    return any(token not in dead for token in _tokens(sqlite, stream))


def _tokens(sqlite: sqlite3.Connection, stream: int) -> list[str]:
    return [
        token for (token,) in sqlite.execute("SELECT token FROM loads WHERE stream = ?", (stream,)).fetchall()
    ]


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
