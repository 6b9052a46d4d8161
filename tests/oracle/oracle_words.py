"""Short words for the descriptions in `tests/golden/cases/*/oracle.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from oracle_aggregates import aggregate, count_rows, half_up
from oracle_model import Aggregate, Column, Expression, Grouped, Plain, Row, Rule, Stream, View, Window
from oracle_values import bigint, boolean, day, decimal, double, instant, integer, list_of, struct, text

__all__ = [
    "Aggregate",
    "Column",
    "Expression",
    "Grouped",
    "Plain",
    "Row",
    "Rule",
    "Stream",
    "View",
    "Window",
    "aggregate",
    "bigint",
    "boolean",
    "column",
    "columns",
    "count_rows",
    "day",
    "decimal",
    "double",
    "half_up",
    "instant",
    "integer",
    "is_value",
    "list_of",
    "minutes",
    "same",
    "struct",
    "text",
    "windowed",
]


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def column(name: str) -> Expression:
    return lambda row: row[name]


def same(*names: str) -> dict[str, Expression]:
    """Columns under their own names."""
    return {name: column(name) for name in names}


windowed = same("window_start", "window_end")


def columns(**readers: Callable[[Any], Any]) -> tuple[Column, ...]:
    """Declared columns; a name that ends in `_required` is NOT NULL and loses the ending."""
    return tuple(
        Column(name.removesuffix("_required"), read, nullable=not name.endswith("_required"))
        for name, read in readers.items()
    )


def is_value(name: str, value: Any) -> Expression:
    """`name = value` as SQL means it: NULL for NULL."""
    return lambda row: None if row[name] is None else row[name] == value
