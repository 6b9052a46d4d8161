"""`headrace.toml` as it is written: its profiles, the line of each key, and what is wrong with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.declare.words import did_you_mean
from headrace.errors import Problem

__all__ = ["PROFILE_FILE", "ProfileFile", "read_profile_file"]

PROFILE_FILE = "headrace.toml"

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")
_INNER_KEY = re.compile(r"[{,]\s*([A-Za-z0-9_-]+)\s*=")
_TOML_PLACE = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True)
class ProfileFile:
    """What was found. Without a file there are no profiles and no problems."""

    profiles: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)
    """The line of each dotted key."""

    def problem(self, profile: str, key: str, what: str, fix: str) -> Problem:
        """Return a problem of a profile; `key` is dotted, without `profiles.NAME.`, and may be empty."""
        whole = ".".join(part for part in ("profiles", profile, key) if part)
        subject = f"profile '{profile}'" + (f": '{key}'" if key else "")
        return Problem(PROFILE_FILE, self._line_of(whole), subject, what, fix)

    def _line_of(self, key: str) -> int:
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return 1


def read_profile_file(folder: Path) -> ProfileFile:
    """Read the file of the project in `folder`. What is wrong with it stands in `problems`."""
    try:
        text = (folder / PROFILE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ProfileFile()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return _unread(1, f"it cannot be read: {reason}", "make it a text that this user may read")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place.group(1)) if place else max(1, len(text.splitlines()))  # none: it ends too early
        return _unread(line, f"it is not TOML: {_TOML_PLACE.sub('', str(error))}", "correct that line")
    except RecursionError:
        return _unread(1, "its values are nested too deeply", "write it with fewer brackets")
    lines: dict[str, int] = {}
    for path_of_key, line in _lines_of_keys(text):
        lines.setdefault(path_of_key, line)
    problems = [
        Problem(
            PROFILE_FILE,
            lines.get(key, 1),
            f"section '{key}'",
            f"it is not known{did_you_mean(key, ('profiles',))}",
            "write [profiles.NAME]",
        )
        for key in document
        if key != "profiles"
    ]
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict):
        what, fix = "it is not a section", "write [profiles.local]"
        problems.append(Problem(PROFILE_FILE, lines.get("profiles", 1), "'profiles'", what, fix))
        profiles = {}
    return ProfileFile(profiles, tuple(problems), lines)


def _unread(line: int, what: str, fix: str) -> ProfileFile:
    return ProfileFile(problems=(Problem(PROFILE_FILE, line, "the file", what, fix),))


def _lines_of_keys(text: str) -> Iterator[tuple[str, int]]:
    """Give (dotted key, line): TOML's own reader keeps no places."""
    prefix = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            prefix = _dotted(header.group(1))
            yield prefix, number
        elif key := _KEY.match(line):
            path = ".".join(part for part in (prefix, _dotted(key.group(1))) if part)
            for parents in range(key.group(1).count("."), -1, -1):
                yield path.rsplit(".", parents)[0], number
            for inner in _INNER_KEY.finditer(line):
                yield f"{path}.{inner.group(1)}", number


def _dotted(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))
