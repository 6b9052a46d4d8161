"""What replicas that write into a folder share: whole files, a lock, and what an error of the disk means."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError, RefusedError, TransientError

__all__ = ["deleted", "folder_failures", "locked", "make_folder", "sync", "write_json"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENOTCONN, errno.EHOSTDOWN)
_LOCK_S = 10.0
_LOCK_LOOK_S = 0.02


@contextmanager
def folder_failures(folder: Path) -> Iterator[None]:
    """Say who must act when the disk says no."""
    try:
        yield
    except HeadraceError:
        raise
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise deleted(Path(error.filename or folder)) from error
        what = f"{folder} cannot be written: {error.strerror or error}"
        if error.errno in _FULL:
            raise TransientError(what, fix="make room; it is tried again") from error
        if error.errno in _AWAY:  # what a network's file system says when its server is away
            raise TransientError(what, fix="look at the disk or its server; it is tried again") from error
        raise RefusedError(what, fix="make the folder writable, or name another one (path = …)") from error


def deleted(path: Path) -> RefusedError:
    """Return the error of a target of which a part, made before, is not there any more."""
    gone = next((each for each in reversed(path.parents) if not each.exists()), path)
    return RefusedError(
        f"{gone} is gone: somebody has deleted it while the replica wrote there",
        fix="bring it back, as it was; or `headrace replicas resume`: a table that is gone is filled anew",
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file; a process that dies gives it back.

    Raises TransientError when somebody else keeps it.
    """
    with path.open("a") as file:
        end, pause = time.monotonic() + _LOCK_S, threading.Event()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    what = f"another process holds {path}"
                    raise TransientError(what, fix="stop one of the two; it is tried again") from None
                pause.wait(_LOCK_LOOK_S)
        yield


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder, and those that it lies in, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for each in missing:
        sync(each.parent)


def write_json(path: Path, facts: Any) -> None:
    """Write a file, whole or not at all, durably."""
    beside = path.with_name(path.name + ".new")
    with beside.open("w") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
