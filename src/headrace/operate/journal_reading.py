"""Reads what runs have written into the journal: the last lines, and those that come."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Any

__all__ = ["LEVELS", "Line", "NewLines", "Part", "follow_lines", "kept", "last_lines", "part_of"]

LEVELS = ("info", "warning", "error")
_LOOK_S = 0.2
_FILES_KEPT = 3

Line = Mapping[str, Any]
"""One line: `timestamp`, `level`, `event`, and the facts of the event."""


class Part(StrEnum):
    """The parts of a run that write into its journal."""

    RUN = "run"
    LOG = "log"
    PRODUCERS = "producers"
    RECORDS = "records"
    REPLICAS = "replicas"
    ALERTS = "alerts"
    SETTINGS = "settings"
    TELEMETRY = "telemetry"


_BEGINNINGS = {
    Part.LOG: ("log", "waiting", "ready again"),
    Part.PRODUCERS: ("poller",),
    Part.RECORDS: ("records", "dead"),
    Part.REPLICAS: ("replica",),
    Part.ALERTS: ("alert", "silence", "notifier"),
    Part.SETTINGS: ("setting", "change of a setting"),
    Part.TELEMETRY: ("telemetry",),
}
"""With what the events of each part begin; all others are the run's own."""


def part_of(event: str) -> Part:
    """Return which part of a run tells an event."""
    return next((part for part, words in _BEGINNINGS.items() if event.startswith(words)), Part.RUN)


def kept(
    *,
    level: str = "info",
    text: str = "",
    part: Part | None = None,
    between: tuple[datetime, datetime] | None = None,
) -> Callable[[Line], bool]:
    """Return whether a line is of at least this level, holds the text, and was written between two instants.

    The text is found in small letters or large. With `part`, it is also one of that part of the run.
    """
    least, wanted = LEVELS.index(level), text.lower()

    def keep(line: Line) -> bool:
        found = line.get("level")
        number = LEVELS.index(found) if found in LEVELS else len(LEVELS)
        if part is not None and part_of(str(line.get("event", ""))) != part:
            return False
        if between is not None and not _is_between(line.get("timestamp"), *between):
            return False
        return number >= least and wanted in json.dumps(line, ensure_ascii=False, default=str).lower()

    return keep


def _is_between(timestamp: object, since: datetime, until: datetime) -> bool:
    try:
        return since <= datetime.fromisoformat(str(timestamp)) <= until
    except (ValueError, TypeError):  # no time, or one without a zone: not a line of ours
        return False


def last_lines(path: Path, count: int, keep: Callable[[Line], bool]) -> list[Line]:
    """Return the last `count` lines that are kept, the oldest first, also from files that were put aside."""
    found: deque[Line] = deque(maxlen=count)
    for number in range(_FILES_KEPT, -1, -1):
        file = path if not number else path.with_name(f"{path.name}.{number}")
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                found.extend(line for text in lines if (line := _line_of(text)) is not None and keep(line))
        except OSError:
            continue
    return list(found)


class NewLines:
    """Reads the lines that are added to the journal, from its end on. One thread at a time.

    A file that is put aside for a new one is read to its end; one that comes later is begun at its start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished, self._aside = "", False
        self._file = _opened(path)
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def read(self) -> Iterator[Line]:
        """Give what was added since it was asked last, as it is read."""
        while True:
            if self._file is None:
                self._file, self._aside = _opened(self._path), False
            if self._file is None:
                return
            text = self._file.readline()
            if text.endswith("\n"):
                line = _line_of(self._unfinished + text)
                self._unfinished = ""
                if line is not None:
                    yield line
                continue
            self._unfinished += text
            if text:
                return
            if self._aside:
                self.close()
                continue
            # What was written between the last look and the change of files is still to be read.
            self._aside = _was_put_aside(self._file, self._path)
            if not self._aside:
                return

    def close(self) -> None:
        """Give back the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._unfinished = None, ""


def follow_lines(
    path: Path, keep: Callable[[Line], bool], stop: threading.Event, *, last: int = 0
) -> Iterator[Line]:
    """Give the `last` lines, and then those that are written, until `stop`; none is left out between them."""
    lines = NewLines(path)
    try:
        shown = last_lines(path, last, keep)
        yield from shown
        while not stop.is_set():
            # What was written while the last lines were read was read twice.
            yield from (line for line in lines.read() if keep(line) and line not in shown)
            shown = []
            stop.wait(_LOOK_S)
    finally:
        lines.close()


def _opened(path: Path) -> TextIOWrapper | None:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _was_put_aside(file: TextIOWrapper, path: Path) -> bool:
    """Whether another file lies in its place by now, or it was cut."""
    ours = os.fstat(file.fileno())
    try:
        now = path.stat()
    except OSError:
        return True
    return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino) or now.st_size < file.tell()


def _line_of(text: str) -> Line | None:
    """Return a line; None for one that was half written when a process was killed."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
