"""Small file systems of a test's own, in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["small_disk"]


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
            _absent("there is no `mount` here")
        if done.returncode:
            _absent(f"no file system can be mounted here: {done.stderr.strip()}")
        undo.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        folder.chmod(0o777)
        yield folder


def _absent(what: str) -> NoReturn:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)
