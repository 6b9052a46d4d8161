"""Types whose values Arrow would change or hold as bytes of DuckDB's own: they leave it as DuckDB's texts.

A BIT and a VARIANT come as bytes, a TIME WITH TIME ZONE loses its zone, a large UHUGEINT becomes negative.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headrace.store.names import quoted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["with_large_numbers", "with_texts"]

_TEXTS = frozenset({"bignum", "bit", "geometry", "time with time zone", "uhugeint", "variant"})
_NAMED = re.compile(rf"\b({'|'.join(_TEXTS)})\b", re.IGNORECASE)
_UHUGEINT_DIGITS = 39


def with_texts(cursor: Any, sql: str) -> tuple[Any, list[str]]:
    """Return the relation of one SELECT with such values as texts, and the types that its columns had.

    The relation is None where the statement gives no rows. Raises what DuckDB raises.
    """
    relation = cursor.sql(sql)
    if relation is None:
        return None, []
    types = list(relation.types)
    names = [str(each) for each in types]
    if not any(map(_NAMED.search, names)):
        return relation, names
    # By their places: two columns may have one name.
    columns = ", ".join(
        f"{_cast(f'#{place}', kind)} AS {quoted(column)}"
        for place, (column, kind) in enumerate(zip(relation.columns, types, strict=True), start=1)
    )
    return cursor.sql(_alone(sql)).project(columns), names


def _cast(value: str, kind: Any) -> str:
    shown = _shown(kind)
    return value if shown is None else f"CAST({value} AS {shown})"


def _shown(kind: Any) -> str | None:
    """Return the type that shows values of `kind`; None: as they are."""
    if str(kind).lower() in _TEXTS:
        return "VARCHAR"
    if not _NAMED.search(str(kind)):
        return None
    if kind.id == "union":  # its text says the value, whatever it is
        return "VARCHAR"
    if kind.id not in ("list", "array", "struct", "map"):
        return None  # an ENUM, of which a value is called so
    parts = dict(kind.children)
    inner = {name: _shown(part) or str(part) for name, part in parts.items() if name != "size"}
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {part}' for name, part in inner.items())})"
    if kind.id == "map":
        return f"MAP({inner['key']}, {inner['value']})"
    return f"{inner['child']}[{parts.get('size', '')}]"


def _alone(sql: str) -> str:
    """Return the text of one statement so that it may stand in brackets: without its semicolons."""
    import duckdb

    text = bytearray(sql.encode())
    for place, kind in duckdb.tokenize(sql):
        if kind == duckdb.token_type.operator and text[place : place + 1] == b";":
            text[place : place + 1] = b" "
    return f"{text.decode()}\n"


def with_large_numbers(table: pa.Table, types: list[str]) -> pa.Table:
    """Return the table with columns of type UHUGEINT as numbers again: some of Arrow's are large enough."""
    import pyarrow as pa

    for place, kind in enumerate(types):
        if kind == "UHUGEINT":
            numbers = table.column(place).cast(pa.decimal256(_UHUGEINT_DIGITS, 0))
            table = table.set_column(place, table.schema.field(place).with_type(numbers.type), numbers)
    return table
