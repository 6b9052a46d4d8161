"""One process holds a store. A side file says which, so that a second one can name it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from headrace.errors import RefusedError

__all__ = ["StoreLock", "holder_of"]


class StoreLock:
    """Holds the side file `<store>.lock`, which belongs to the process and is given back when it dies.

    The lock is the kernel's (flock), not the file's existence: a file left by `kill -9` blocks nobody.
    DuckDB's own lock on the store stays the truth; this one is there to say who, and to come first.
    """

    def __init__(self, store: Path) -> None:
        self._path = _path_of(store)
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock; raises RefusedError that names the process which has it."""
        file = os.fdopen(_open_private(self._path), "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise RefusedError(
                f"the store is held by {holder_of(self._path)}",
                fix="stop that process, or ask the running pipeline (`headrace status`, `headrace sql`)",
            ) from error
        try:
            file.truncate(0)
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)}, file)
            file.flush()
        except OSError:  # a full disk: closing tries to write again, and closes all the same
            with suppress(OSError):
                file.close()
            raise
        self._file = file

    def release(self) -> None:
        """Give the lock back; twice is harmless."""
        if self._file is not None:
            # The file stays: removing it would let a process that waits on the old file and one that makes
            # a new
            # one both believe that they hold the lock.
            self._file.truncate(0)
            self._file.close()
            self._file = None


def _open_private(path: Path) -> int:
    """Open the file for its owner only: it holds a command line."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(PermissionError):  # somebody else's file, who may share the store with us
        os.fchmod(descriptor, 0o600)
    return descriptor


def holder_of(path: Path) -> str:
    """Return in words which process wrote the side file."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} (`{facts['command']}`)"
    except (OSError, ValueError, KeyError):
        return "another process"


def _path_of(store: Path) -> Path:
    return store.with_name(store.name + ".lock")
