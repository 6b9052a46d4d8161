"""Reads the journal back: its last lines, and those that were added since."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["LEVELS", "JournalReader"]

LEVELS = ("info", "warning", "error")
_BYTES_BACK = 1_000_000
_LINES_MAX = 2_000


class JournalReader:
    """The journal at `path`; a line that is no JSON object (cut off by a full disk) is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._at = self._size()

    def last(self, *, level: str = "info", text: str = "", limit: int = 500) -> list[dict[str, Any]]:
        """Return the last lines of this level or worse that hold `text`, oldest first."""
        least = LEVELS.index(level) if level in LEVELS else 0
        wanted = text.casefold()
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, self._size() - _BYTES_BACK))
                read = file.read(_BYTES_BACK + 65_536).splitlines()
        except FileNotFoundError:
            return []
        kept: deque[dict[str, Any]] = deque(maxlen=min(limit, _LINES_MAX))
        for line in _parsed(read):
            serious = LEVELS.index(line["level"]) if line["level"] in LEVELS else 0
            if serious >= least and (not wanted or wanted in json.dumps(line, ensure_ascii=False).casefold()):
                kept.append(line)
        return list(kept)

    def new_lines(self) -> list[dict[str, Any]]:
        """Return what was added since the last call; after the file was begun anew, all of it."""
        with self._lock:
            size = self._size()
            if size < self._at:
                self._at = 0
            if size == self._at:
                return []
            try:
                with self._path.open("rb") as file:
                    file.seek(self._at)
                    read = file.read(size - self._at)
            except FileNotFoundError:
                return []
            whole = read[: read.rfind(b"\n") + 1]
            self._at += len(whole)
        return list(_parsed(whole.splitlines()))

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0


def _parsed(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict):
            yield {
                "at": str(facts.pop("timestamp", "")),
                "level": str(facts.pop("level", "info")),
                "event": str(facts.pop("event", "")),
                "facts": facts,
            }
