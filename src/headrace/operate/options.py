"""Options declared once: the line of an option gives its parsing, default, check, help and row in the docs.

An option is a field of a frozen dataclass:
`path: str = option(Kind.TEXT, ".headrace/store.duckdb", "where the store's file lies")`
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

from headrace.declare.durations import format_duration, parse_duration
from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError
from headrace.operate.secrets import AbsentError, Secret, resolve_references

__all__ = ["Kind", "OptionLine", "Report", "describe_options", "option", "option_names", "read_options"]


class Report(Protocol):
    """Is told what is wrong with a profile, one thing at a time."""

    def __call__(self, key: str, what: str, fix: str, *, absent: bool = False) -> None:
        """Take a dotted key, what is wrong there, and the fix.

        `absent`: what is written may be right, and what it needs is not on this machine.
        """


T = TypeVar("T")
WHOLE_MAX = 10**18
"""What every number of a profile is at most: beyond it there is no clock, disk or memory, nor a BIGINT."""

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?\s*", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Kind(StrEnum):
    """What an option takes; the value is the word that the docs use."""

    TEXT = "text"
    WHOLE = "whole number"
    SIZE = "size"
    DURATION = "duration"
    CHOICE = "one of"
    LIST = "list of names"
    PATH = "path"
    SETTINGS = "table of settings"
    SECRET = "secret"  # noqa: S105 - the word for the kind, not a password


_EXAMPLES = {
    Kind.TEXT: '"text"',
    Kind.WHOLE: "3",
    Kind.SIZE: '"500 MB"',
    Kind.DURATION: '"24 hours"',
    Kind.PATH: '"folder/"',
    Kind.LIST: '["revenue", "users"]',
    Kind.SETTINGS: '{ "linger.ms" = 5 }',
    Kind.SECRET: '"${env:NAME}"',
}


@dataclass(frozen=True)
class OptionLine:
    """One option as the docs and `--help` show it."""

    name: str
    takes: str
    default: str
    help: str


def option(
    kind: Kind,
    default: Any,
    help: str,
    *,
    choices: Mapping[str, str] | None = None,
    at_least: int = 1,
    at_most: int = WHOLE_MAX,
) -> Any:
    """Declare a field of an options class. `choices` maps a word to "" or to why it cannot be used yet."""
    metadata = {
        "kind": kind,
        "help": help,
        "choices": choices or {},
        "at_least": at_least,
        "at_most": at_most,
    }
    return dataclasses.field(default=default, metadata=metadata)


def option_names(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of the options of a class, in order."""
    return tuple(line.name for line in dataclasses.fields(kind) if "kind" in line.metadata)


def describe_options(kind: type[Any]) -> tuple[OptionLine, ...]:
    """Return the options of a class for the docs, in order."""
    lines = []
    for line in dataclasses.fields(kind):
        if "kind" not in line.metadata:
            continue
        takes = str(line.metadata["kind"])
        if line.metadata["choices"]:
            takes = " | ".join(word for word, missing in line.metadata["choices"].items() if not missing)
        lines.append(OptionLine(line.name, takes, _shown(line.default), line.metadata["help"]))
    return tuple(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(value)
    return format_duration(value) if hasattr(value, "total_seconds") else str(value)


def read_options(kind: type[T], raw: object, *, path: str, folder: Path, report: Report) -> T:
    """Read a TOML table into an options class; a problem goes to `report`, its option keeps the default.

    `path` is the dotted key of the table; relative `${file:…}` references start in `folder`.
    """
    if not isinstance(raw, Mapping):
        report(path, f"takes a table, not {_word_for(raw)}", "write { key = value }")
        return kind()
    declared = {line.name: line for line in dataclasses.fields(kind) if "kind" in line.metadata}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in raw.items():
        line = declared.get(name)
        if line is None:
            hint = did_you_mean(name, declared)
            report(f"{path}.{name}", f"unknown option{hint}", "known: " + ", ".join(declared))
            continue
        try:
            values[name] = _read_value(line.metadata, value, folder)
        except AbsentError as error:
            report(f"{path}.{name}", error.message, error.fix, absent=True)
            if line.metadata["kind"] in (Kind.TEXT, Kind.PATH):
                values[name] = value  # so that nobody takes the option for one that was left out
        except ProfileError as error:
            report(f"{path}.{name}", error.message, error.fix)
        except ValueError as error:
            report(f"{path}.{name}", str(error), "")
    for name, line in declared.items():
        if line.metadata.get("required") and name not in raw:
            example = _EXAMPLES[Kind(line.metadata["kind"])]
            report(path, f"needs '{name}'", f"add {name} = {example}: {line.metadata['help']}")
    return kind(**values)


def _read_value(facts: Mapping[str, Any], value: object, folder: Path) -> Any:
    kind = Kind(facts["kind"])
    if kind is Kind.SECRET and isinstance(value, str):
        return Secret(value, folder)
    if isinstance(value, str):
        value = resolve_references(value, folder)
    if kind is Kind.LIST and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if kind is Kind.SETTINGS and isinstance(value, Mapping):
        return {str(name): str(resolve_references(str(one), folder)) for name, one in value.items()}
    if kind is Kind.CHOICE:
        return _read_choice(facts["choices"], value)
    if kind is Kind.DURATION and isinstance(value, str):
        return parse_duration(value)
    if kind is Kind.PATH and isinstance(value, str) and "://" in value:
        raise ProfileError(
            "takes a file or folder of this machine, not an address",
            fix="write a path; an object store is named by `uri`, where there is such an option",
        )
    if kind in (Kind.PATH, Kind.TEXT) and isinstance(value, str) and value:
        return str(folder / Path(value).expanduser()) if kind is Kind.PATH else value
    if kind in (Kind.WHOLE, Kind.SIZE):
        if kind is Kind.SIZE and isinstance(value, str):
            value = parse_size(value)
        elif isinstance(value, str) and value.strip().isdecimal():
            value = int(value)  # a reference such as ${env:PARTITIONS} can only give text
        if isinstance(value, int) and not isinstance(value, bool):
            return _within(value, facts["at_least"], facts.get("at_most", WHOLE_MAX))
    raise ValueError(f"takes a {kind}, for example {_EXAMPLES[kind]}, not {_word_for(value)}")


def _within(value: int, at_least: int, at_most: int) -> int:
    if value < at_least:
        raise ValueError(f"must be at least {at_least}")
    if value > at_most:
        raise ValueError(f"must be at most {at_most}")
    return value


def _read_choice(choices: Mapping[str, str], value: object) -> str:
    usable = ", ".join(f"'{word}'" for word, missing in choices.items() if not missing)
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        shown = f"'{value}'" if isinstance(value, str) else _word_for(value)
        raise ProfileError(f"{shown} is not known{hint}", fix=f"write {usable}")
    if choices[value]:
        raise ProfileError(f"'{value}' is not in this version: {choices[value]}", fix=f"write {usable}")
    return value


def parse_size(text: str) -> int:
    """Return the bytes of `"500 MB"` or `"2 GiB"` (KB is 1,000 bytes, KiB 1,024). Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text}' is not a size; write for example '500 MB' or '2 GiB'")
    number, unit = found.group(1), (found.group(2) or "b").lower()
    base = 1024 if "i" in unit else 1000
    size = float(number) * base ** _POWER[unit.rstrip("b").rstrip("i")]
    if size > WHOLE_MAX:
        raise ValueError(f"'{text[:40]}' is more than any machine has")
    return int(size)


def _word_for(value: object) -> str:
    # Never the value itself: it may be a secret that was written in the wrong place.
    words = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return next((word for kind, word in words.items() if isinstance(value, kind)), "a table")
