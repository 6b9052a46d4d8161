"""The options of a replica in the profile: a line each, from which parsing, defaults, checks and docs follow.

A replica is a frozen dataclass. Its options are fields that `setting` makes; the profile's section is read
into them, so a replica of somebody else needs nothing here.
"""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol

__all__ = ["CommonOptions", "Revealed", "setting"]

SettingKind = Literal[
    "text",
    "path",
    "whole number",
    "size",
    "duration",
    "one of",
    "secret",
    "list of names",
    "table of settings",
]


class Revealed(Protocol):
    """A secret: `reveal` is the only way to its value, which no message may hold."""

    def reveal(self) -> str:
        """Return the value, read now."""


def setting(
    kind: SettingKind,
    default: Any,
    help: str,
    *,
    choices: Mapping[str, str] | None = None,
    at_least: int = 1,
    required: bool = False,
) -> Any:
    """Declare an option. `choices` maps a word to "" or to why it cannot be used."""
    metadata = {"kind": kind, "help": help, "choices": choices or {}, "at_least": at_least}
    return dataclasses.field(default=default, metadata={**metadata, "required": required})


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What every replica can be told."""

    kind: str = setting("text", "", "which system it is", required=True)
    tables: tuple[str, ...] = setting(
        "list of names", ("*",), "which tables and views are copied; *: all of them"
    )
    mode: str = setting(
        "one of",
        "update",
        "update: rows change as the table does; append: a window is sent once, when it is closed, and again "
        "with a higher _revision when a correction changes it",
        choices={"update": "", "append": ""},
    )
    expired: str = setting(
        "one of",
        "keep",
        "what becomes of rows that leave the store because they are older than their table's keep: keep: "
        "they stay in the target; delete: they are taken out of it, too",
        choices={"keep": "", "delete": ""},
    )
    linger: timedelta = setting(
        "duration", timedelta(milliseconds=200), "how long changes may gather before they are sent"
    )
    share: str = setting(
        "one of",
        "half",
        "how much of the time a replica that has much to copy works while the engine does, too",
        choices={"all": "", "half": "", "quarter": ""},
    )
    refresh: timedelta = setting("duration", timedelta(seconds=5), "how often a view is computed at most")
    chunk_rows_max: int = setting("whole number", 50_000, "the most rows that are sent at once")
    chunk_bytes_max: int = setting("size", 16_000_000, "about the most bytes that are sent at once")
    view_rows_max: int = setting("whole number", 100_000, "a view with more rows is not copied")

    @property
    def json_nested(self) -> bool:
        """Whether lists and structs come as JSON text."""
        return True

    @property
    def row_keys(self) -> bool:
        """Whether rows of a table without a key come with a `_key`, made of where they are from.

        For a target that cannot write rows and cursor at once: a row that comes again has the same `_key`.
        """
        return False
