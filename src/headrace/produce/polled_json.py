"""The items of an API's answer, each with the text that it came in, and records written as JSON again.

A number is no double on its way to the log: Python's reader would round it, and fail at 4,300 digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Digits", "Item", "read_items", "write_record"]

_SPACE = re.compile(r"[ \t\n\r]*")


class Digits(float):
    """A number that keeps the text it was read from, for as long as nobody computes with it."""

    text: str


def _digits(text: str) -> Digits:
    number = Digits(text)
    number.text = text
    return number


def _whole(text: str) -> int | Digits:
    try:
        return int(text)
    except ValueError:  # more digits than Python turns into an integer
        return _digits(text)


_DECODER = json.JSONDecoder(parse_float=_digits, parse_int=_whole)


@dataclass(frozen=True)
class Item:
    """One item: its value, and `text`, the JSON that it was in the answer."""

    value: Any
    text: bytes


def read_items(body: bytes, path: str) -> list[Item] | None:
    """Return the items that an answer has at `path` (names with dots); None when it does not look so."""
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        _DECODER.decode(text)  # all of it is JSON: what follows need not look
        at: int | None = _after_space(text, 0)
        for name in filter(None, path.split(".")):
            at = None if at is None else _member(text, at, name)
        if at is None or text[at] != "[":
            return None
        return [Item(value, text[start:end].encode(errors="surrogatepass"))
                for value, start, end in _elements(text, at)]  # fmt: skip
    except (ValueError, RecursionError):
        return None


def _member(text: str, at: int, name: str) -> int | None:
    """Return where the member `name` of what begins at `at` has its value; the last one of that name."""
    if text[at] != "{":
        return None
    found = None
    at = _after_space(text, at + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _after_space(text, _after_space(text, at) + 1)
        if key == name:
            found = at
        _, end = _DECODER.raw_decode(text, at)
        at = _next(text, end)
    return found


def _elements(text: str, at: int) -> Iterator[tuple[Any, int, int]]:
    at = _after_space(text, at + 1)
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield value, at, end
        at = _next(text, end)


def _next(text: str, end: int) -> int:
    """Return where the value after the one that ends at `end` begins, or the bracket that ends them."""
    end = _after_space(text, end)
    return _after_space(text, end + 1) if text[end] == "," else end


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def write_record(record: Any) -> bytes:
    """Return the JSON of a record; numbers of an item have the digits that they came with.

    What JSON does not know is written as a text. Raises what `json.dumps` raises for what has none.
    """
    return _text_of(record).encode()


def _text_of(value: Any) -> str:
    # json.dumps writes a kind of float with float's own repr, so containers are walked here.
    if isinstance(value, Digits):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(name)}: {_text_of(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text_of, value)) + "]"
    return json.dumps(value, default=str)


def _name(name: Any) -> str:
    return json.dumps(name) if isinstance(name, str) else json.dumps({name: 0})[1 : -len(": 0}")]
