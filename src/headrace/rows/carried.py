"""DuckDB's types beside Arrow's: those that Arrow has no word for are written into the schema, and read back.

A UUID and a JSON come out of DuckDB as texts and a HUGEINT as a DECIMAL(38,0). Queries were planned over the
types that were declared, and over others they could answer otherwise, or fail. So a field of a relation that
travels as Arrow holds the type it had, and whoever gives it to DuckDB again casts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import pyarrow as pa

from headrace.sql.syntax import quoted

__all__ = ["casts", "restored", "typed"]

_KEY = b"duckdb"
_LOST = re.compile(r"\b(UUID|JSON|U?HUGEINT)\b")


def typed(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """Return the table with the types of its columns, by their names, written where Arrow would lose them."""
    lost = {name: kind for name, kind in types.items() if _is_lost(kind)}
    if not lost:
        return table
    fields = [
        field.with_metadata({_KEY: lost[field.name]}) if field.name in lost else field
        for field in table.schema
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


@lru_cache(maxsize=4096)
def _is_lost(kind: str) -> bool:
    return _LOST.search(kind) is not None


def casts(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """Return the columns that have to be cast when DuckDB reads a table of this schema, and to what."""
    found = ((field.name, (field.metadata or {}).get(_KEY)) for field in schema)
    return tuple((name, kind.decode()) for name, kind in found if kind)


def restored(relation: str, columns: Iterable[tuple[str, str]]) -> str:
    """Return the query that reads a relation, not quoted, with `columns` of the types that they had."""
    listed = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in columns)
    return f"SELECT *{f' REPLACE ({listed})' if listed else ''} FROM {quoted(relation)}"
