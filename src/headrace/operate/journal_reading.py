"""Reads what runs have written into the journal: the last lines, and those that come."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

__all__ = ["LEVELS", "Line", "follow_lines", "kept", "last_lines"]

LEVELS = ("info", "warning", "error")
_LOOK_S = 0.2
_FILES_KEPT = 3

Line = Mapping[str, Any]
"""One line: `timestamp`, `level`, `event`, and the facts of the event."""


def kept(*, level: str = "info", text: str = "") -> Callable[[Line], bool]:
    """Return whether a line is of at least this level and holds the text, in small letters or large."""
    least, wanted = LEVELS.index(level), text.lower()

    def keep(line: Line) -> bool:
        found = line.get("level")
        number = LEVELS.index(found) if found in LEVELS else len(LEVELS)
        return number >= least and wanted in json.dumps(line, ensure_ascii=False, default=str).lower()

    return keep


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


def follow_lines(path: Path, keep: Callable[[Line], bool], stop: threading.Event) -> Iterator[Line]:
    """Give lines as they are written, from the end of the file on, until `stop`.

    A file that is put aside for a new one, or is not there yet, is waited for.
    """
    file = _opened(path)
    if file is not None:
        file.seek(0, os.SEEK_END)
    unfinished, aside = "", False
    try:
        while not stop.is_set():
            if file is None:
                file, aside = _opened(path), False
            text = "" if file is None else file.readline()
            if text.endswith("\n"):
                line = _line_of(unfinished + text)
                unfinished = ""
                if line is not None and keep(line):
                    yield line
                continue
            unfinished += text
            if file is not None and not text:
                if aside:
                    file.close()
                    file, unfinished = None, ""
                    continue
                # What was written between the last look and the change of files is still to be read.
                aside = _was_put_aside(file, path)
                if aside:
                    continue
            stop.wait(_LOOK_S)
    finally:
        if file is not None:
            file.close()


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
