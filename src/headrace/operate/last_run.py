"""What a run notes for whoever comes after it: its profile, its store, and whether it ended well."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.operate.project import Home

__all__ = ["how_ended", "note_begin", "note_good_end", "write_private"]


def note_begin(home: Home) -> int:
    """Note that a run begins; return how often one began after another that failed or was killed.

    The number only grows. A disk that is full keeps what the run before this noted: whoever hands over then
    names that one.
    """
    before = _read(home.last_run_path)
    again = before.get("restarts")
    restarts = again if isinstance(again, int) else 0
    restarts += before.get("ended_well") is False
    _note(home, restarts, ended_well=False)
    return restarts


def note_good_end(home: Home) -> None:
    """Note that this run stopped as it was told to, or had read everything: the next one is no restart."""
    restarts = _read(home.last_run_path).get("restarts")
    _note(home, restarts if isinstance(restarts, int) else 0, ended_well=True)


def _note(home: Home, restarts: int, *, ended_well: bool) -> None:
    facts = {"profile": home.profile.name, "store": str(home.store_path)}
    document = json.dumps({**facts, "restarts": restarts, "ended_well": ended_well})
    with contextlib.suppress(OSError):
        write_private(home.last_run_path, document + "\n")


def how_ended(home: Home) -> str:
    """Return how the last run of this project ended, while none is running: `well`, `failed` or `killed`.

    It is `killed` also where the machine went down, and empty when it had another store or noted nothing.
    """
    # A run that is opened says where it listens, and takes that away when it is closed, failed or not.
    left, noted = _read(home.run_path), _read(home.last_run_path)
    if (left or noted).get("store") != str(home.store_path):
        return ""
    if left:
        return "killed"
    well = noted.get("ended_well")
    return "" if well is None else "well" if well else "failed"


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def write_private(path: Path, text: str) -> None:
    """Put `text` into a file that only this user may read; it is replaced as a whole. Raises OSError."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
