"""The targets that are folders, on small disks of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from json_targets import WebhookTarget
from targets import CsvTarget, DeltaTarget, FilesTarget, ParquetTarget

from servers.disks import full_disk, small_disk

__all__ = ["FOLDERS", "OnDisk", "folder_on", "folder_or_disk"]


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

    def outage(self) -> AbstractContextManager[None]:
        """A folder is away while its disk is full: that is waited for, and nobody has to help."""
        return self.full()

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


def folder_or_disk(folder: Path, kind: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give a target of this kind: on a disk of its own to the rule that lets it go away for a while."""
    if "target_that_is_down" not in request.node.name:
        yield FOLDERS[kind](folder / "target")
        return
    with small_disk(16) as disk, folder_on(disk, kind) as target:
        yield target
