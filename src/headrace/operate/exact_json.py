"""JSON read and written again with the digits that it had: no number becomes the nearest double."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["dump_exact", "load_exact"]


class _Digits(float):
    """A JSON number that is written again with the digits it was read with."""

    def __new__(cls, digits: str) -> _Digits:
        self = super().__new__(cls, digits)
        self.digits = digits
        return self

    digits: str

    def __repr__(self) -> str:
        return self.digits


def load_exact(text: str | bytes) -> Any:
    """Read JSON. Raises ValueError, or RecursionError for deep nesting."""
    return json.loads(text, parse_float=_Digits, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def dump_exact(value: Any, *, indent: int | None = None, _depth: int = 0) -> str:
    """Write JSON, indented or on one line."""
    # json.dumps writes a subclass of float with float's own repr, so containers are walked here.
    if isinstance(value, _Digits):
        return value.digits
    if isinstance(value, dict) and value:
        colon = ":" if indent is None else ": "
        parts = [
            json.dumps(str(name), ensure_ascii=False)
            + colon
            + dump_exact(each, indent=indent, _depth=_depth + 1)
            for name, each in value.items()
        ]
        return _enclosed("{", parts, "}", indent, _depth)
    if isinstance(value, list) and value:
        parts = [dump_exact(each, indent=indent, _depth=_depth + 1) for each in value]
        return _enclosed("[", parts, "]", indent, _depth)
    return json.dumps(value, ensure_ascii=False)


def _enclosed(first: str, parts: list[str], last: str, indent: int | None, depth: int) -> str:
    if indent is None:
        return first + ",".join(parts) + last
    inner = "\n" + " " * (indent * (depth + 1))
    return first + inner + ("," + inner).join(parts) + "\n" + " " * (indent * depth) + last
