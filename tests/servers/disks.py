"""Small file systems of a test's own, in memory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from servers.absent import absent

__all__ = ["full_disk", "small_disk"]


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of this size, in a folder that others may look into; only root can make one.

    Skips with the reason where mounting is not permitted, and fails where nothing may be skipped.
    """
    folder = Path(tempfile.mkdtemp(prefix="headrace-disk-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "headrace-tests", str(folder)]
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            absent("there is no `mount` here")
        if done.returncode:
            absent(f"no file system can be mounted here: {done.stderr.strip()}")
        undo.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        folder.chmod(0o777)
        yield folder


@contextmanager
def full_disk(disk: Path) -> Iterator[None]:
    """Take all the room that a disk has left during the block, and give it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 512):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        ballast.unlink()
