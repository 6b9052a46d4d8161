"""Rows as JSON: what targets that take documents or texts are given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from headrace.replicate.protocol import Chunk, TableShape

__all__ = ["changes_of", "csv_line", "json_bytes", "plain_rows"]


def plain_rows(rows: pa.Table, shape: TableShape) -> Iterator[dict[str, Any]]:
    """Give the rows of a chunk with JSON's own lists and objects in the place of their texts."""
    nested = {column.name for column in shape.columns if column.type == "JSON"}
    for row in rows.to_pylist():
        yield {k: json.loads(v) if k in nested and v is not None else v for k, v in row.items()}


def changes_of(chunk: Chunk) -> Iterator[dict[str, Any]]:
    """Give what a chunk changes, in order: `op` (put, remove, sweep), and what it is about."""
    for op, word, rows in (("remove", "key", chunk.removed), ("put", "row", chunk.rows)):
        for row in plain_rows(rows, chunk.table):
            version = row.pop("_version")
            yield {"op": op, "version": version, word: row}
    if chunk.sweep_below:
        yield {"op": "sweep", "below": chunk.sweep_below}


def csv_line(values: Iterable[Any]) -> bytes:
    """Return a line of CSV: texts stand in quotes, NULL is nothing at all, lists and structs are JSON."""
    return ",".join(map(_cell, values)).encode() + b"\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | dict):
        text = json.dumps(value, default=_plain, ensure_ascii=False)
    else:
        text = value if isinstance(value, str) else str(_plain(value))
    return '"' + text.replace('"', '""') + '"'


def json_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return JSON in UTF-8 on one line."""
    return json.dumps(facts, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Return what JSON can say: decimals as texts that keep every digit, times as ISO 8601, bytes as hex."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return list(value)
