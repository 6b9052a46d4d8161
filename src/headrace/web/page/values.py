"""Rows of the store as JSON: nothing is rounded, nothing is lost, and everything is text to a browser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from headrace.store.values import values_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TEXT_CHARACTERS_MAX", "bytes_text", "columns_of", "journal_line", "plain", "rows_of"]

TEXT_CHARACTERS_MAX = 20_000
_EXACT_MAX = 2**53


def plain(value: Any) -> Any:
    """Return a value as JSON can say it; a number that a browser would round is a text of its digits."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, int):
        return value if abs(value) <= _EXACT_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bytes):
        return _cut(bytes_text(value))
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return _cut(str(value))


def bytes_text(value: bytes) -> str:
    """Return bytes as text; what is no UTF-8 is written as in a Python literal."""
    return value.decode("utf-8", "backslashreplace")


def _cut(text: str) -> str:
    # A lone surrogate cannot be sent; a text that is larger than a screen is not read there.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[:TEXT_CHARACTERS_MAX] + "…"


def columns_of(table: pa.Table) -> list[dict[str, str]]:
    """Return name, type and kind (`number`, `time`, `text`, `other`) of each column."""
    import pyarrow as pa

    found = []
    for field in table.schema:
        kind = "other"
        if (
            pa.types.is_integer(field.type)
            or pa.types.is_floating(field.type)
            or pa.types.is_decimal(field.type)
        ):
            kind = "number"
        elif pa.types.is_temporal(field.type):
            kind = "time"
        elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            kind = "text"
        found.append({"name": field.name, "type": str(field.type), "kind": kind})
    return found


def rows_of(table: pa.Table) -> list[list[Any]]:
    """Return the rows, each a list in the order of the columns: two columns may have one name."""
    columns = [[plain(value) for value in values_of(column)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def journal_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the journal as `models_settings.JournalLine` has it."""
    facts = dict(line)
    return {
        "at": str(facts.pop("timestamp", "")),
        "level": str(facts.pop("level", "info")),
        "event": str(facts.pop("event", "")),
        "facts": facts,
    }
