"""Folders of this machine in which objects are made; those of a run that was killed go at the next one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["Workspace", "clear_workspaces"]


class Workspace:
    """A new folder for a place, held by a lock that ends with the process."""

    def __init__(self, place: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_prefix(place)))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def clear_workspaces(place: str) -> None:
    """Take away what runs that are over have left for a place; what cannot be taken away stays."""
    for left in Path(tempfile.gettempdir()).glob(f"{_prefix(place)}*"):
        with suppress(OSError):
            _clear(left)


def _clear(left: Path) -> None:
    lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # One that is empty may have been made just now, and will be locked next.
        if os.fstat(lock).st_uid == os.geteuid() and any(left.iterdir()):
            shutil.rmtree(left)
    finally:
        os.close(lock)


def _prefix(place: str) -> str:
    return f"headrace-{hashlib.sha256(place.encode()).hexdigest()[:16]}-"
