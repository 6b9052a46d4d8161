"""Rows as JSON: what targets that take documents or texts are given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from headrace.replicate.protocol import TableShape

__all__ = ["json_bytes", "plain_rows"]


def plain_rows(rows: pa.Table, shape: TableShape) -> Iterator[dict[str, Any]]:
    """Give the rows of a chunk with JSON's own lists and objects in the place of their texts."""
    nested = {column.name for column in shape.columns if column.type == "JSON"}
    for row in rows.to_pylist():
        yield {k: json.loads(v) if k in nested and v is not None else v for k, v in row.items()}


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
