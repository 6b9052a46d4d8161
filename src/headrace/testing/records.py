"""Records as a test writes them, on their way into a log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["append_table", "record_json"]


def append_table(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    record_time: datetime | None = None,
    partition: int | None = None,
    address: str | None = None,
) -> pa.Table:
    """Return `values` as a table for `Log.append`; `address` marks them as redriven from there."""
    import pyarrow as pa

    from headrace.log.protocol import APPEND_SCHEMA

    rows = len(values)
    headers = None if address is None else [{"key": "headrace.address", "value": address.encode()}]
    columns: dict[str, list[Any]] = {
        "partition": [partition] * rows,
        "record_time": [record_time] * rows,
        "key": [None] * rows if keys is None else list(keys),
        "value": list(values),
        "headers": [headers] * rows,
    }
    return pa.table(
        [pa.array(columns[field.name], field.type) for field in APPEND_SCHEMA], schema=APPEND_SCHEMA
    )


def record_json(record: Mapping[str, Any]) -> str:
    """Return `record` as JSON: decimals as numbers with all their digits, times in ISO 8601.

    Raises TypeError for a value that JSON has no word for.
    """
    digits: dict[str, str] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Decimal):
            # json.dumps would make a float of it and lose digits, so a mark is put in and replaced below.
            mark = f"\0{len(digits)}\0"
            digits[json.dumps(mark)] = format(value, "f")
            return mark
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        raise TypeError(
            f"a record cannot hold {type(value).__name__}; use text, numbers, times, lists and dicts"
        )

    text = json.dumps(record, default=plain, ensure_ascii=False)
    for mark, number in digits.items():
        text = text.replace(mark, number, 1)
    return text
