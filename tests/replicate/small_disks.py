"""The targets that are folders, on small disks of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from json_targets import WebhookTarget
from targets import CsvTarget, DeltaTarget, FilesTarget, ParquetTarget

from servers.disks import full_disk

__all__ = ["FOLDERS", "OnDisk", "folder_on"]


class OnDisk:
    """A target on a disk of its own (see `FillableTarget` and `ReadOnlyTarget`)."""

    def __init__(self, target: Any, disk: Path, *, freed: Callable[[], None] | None = None) -> None:
        self._target = target
        self._disk = disk
        self._freed = freed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    @contextmanager
    def full(self) -> Iterator[None]:
        with full_disk(self._disk):
            yield
        if self._freed is not None:
            self._freed()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        subprocess.run(["mount", "-o", "remount,ro", str(self._disk)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(self._disk)], check=True)


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "files": FilesTarget,
    "csv": CsvTarget,
    "parquet": ParquetTarget,
    "delta": lambda folder: DeltaTarget(str(folder)),
    "webhook": WebhookTarget,
}


@contextmanager
def folder_on(disk: Path, kind: str) -> Iterator[OnDisk]:
    """Give a target of this kind, of which all is on that disk."""
    target = FOLDERS[kind](disk / "target")
    try:
        yield OnDisk(target, disk)
    finally:
        if isinstance(target, WebhookTarget):
            target.stop()
