"""Rows as JSON: what targets that take documents or texts are given.

Texts are made by DuckDB, whose values Python cannot all hold: instants beyond the year 9999, `infinity`,
decimals within lists. Decimals and `HUGEINT` are texts with every digit, times ISO 8601, bytes hex; NaN and
the infinities, for which JSON has no word, are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from headrace.errors import RefusedError
from headrace.replicate.protocol import GENERATION, REFUSED_MAX, Chunk, Refusal, TableShape, refusal_of
from headrace.rows.database import bare_arrow_of
from headrace.store.names import quoted, text_literal

__all__ = [
    "changes_of",
    "csv_changes",
    "csv_head",
    "decimal_text",
    "in_order",
    "json_bytes",
    "objects",
    "sound",
    "swept_from",
]

_OF_THREAD = threading.local()
_INTEGERS = frozenset(
    {"TINYINT", "UTINYINT", "SMALLINT", "USMALLINT", "INTEGER", "UINTEGER", "BIGINT", "UBIGINT"}
)
_MICROS = ("microsecond", 1_000_000, ".%f")
_FRACTIONS = {
    "TIMESTAMP": _MICROS,
    "TIMESTAMP WITH TIME ZONE": _MICROS,
    "TIMESTAMP_NS": ("nanosecond", 1_000_000_000, ".%n"),
}
_LINE_END = re.compile(r"[\r\n]")
_LAX = re.compile(
    r'(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<sign>-?)(?P<word>nan|inf(?:inity)?)'
    r"|[ \t\r\n]+|,(?=[ \t\r\n]*[\]}])",
    re.IGNORECASE,
)


def sound(chunk: Chunk, set_aside: Callable[[Sequence[Refusal]], None]) -> Chunk:
    """Return a chunk whose JSON is JSON by its standard, each value on one line.

    DuckDB takes more for JSON than others do: a comma behind the last element, and the words nan and inf.
    What cannot be made right is set aside; a removal of such a key is left out: the target never had it.
    Raises RefusedError when that is more than `REFUSED_MAX` rows.
    """
    rows, wrong = _sound_rows(chunk.rows, chunk.table)
    removed, unknown = _sound_rows(chunk.removed, chunk.table)
    if len(wrong) > REFUSED_MAX:
        why = next(iter(wrong.values()))
        raise RefusedError(
            f"{len(wrong)} rows of '{chunk.table.name}' cannot be written at once: {why}",
            fix="write CAST(… AS VARCHAR), or NULL for such values, in the SQL of the table, then resume",
        )
    if wrong:
        set_aside([refusal_of(chunk.table, rows, index, why) for index, why in wrong.items()])
    return replace(chunk, rows=_without(rows, wrong), removed=_without(removed, unknown))


def _sound_rows(rows: pa.Table, shape: TableShape) -> tuple[pa.Table, Mapping[int, str]]:
    wrong: dict[int, str] = {}
    for column in shape.columns:
        if column.type != "JSON" or column.name not in rows.column_names:
            continue
        texts: list[str | None] = rows.column(column.name).to_pylist()
        for index, text in enumerate(texts):
            if text is None:
                continue
            try:
                texts[index] = _strict(text)
            except (ValueError, RecursionError):
                wrong[index] = (
                    f"column '{column.name}' holds no JSON that others read, or it is nested too deeply"
                )
        at = rows.schema.get_field_index(column.name)
        rows = rows.set_column(at, column.name, pa.array(texts, pa.string()))
    return rows, wrong


def _strict(text: str) -> str:
    """Return JSON on one line, with the digits that it had. Raises ValueError and RecursionError."""
    if not _LINE_END.search(text):
        try:
            _check(text)
        except ValueError:
            pass
        else:
            return text
    made = _LAX.sub(_corrected, text)
    _check(made)
    return made


def _check(text: str) -> None:
    # Numbers stay the digits that they are: an integer of 5,000 of them is JSON, and none to Python.
    json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _corrected(found: re.Match[str]) -> str:
    if found["text"]:
        return found["text"]
    if found["word"]:
        return f'"{found["sign"]}{"NaN" if found["word"].lower() == "nan" else "Infinity"}"'
    return ""


def _without(rows: pa.Table, left_out: Iterable[int]) -> pa.Table:
    some = set(left_out)
    return rows.filter(pa.array([index not in some for index in range(rows.num_rows)])) if some else rows


def objects(rows: pa.Table, shape: TableShape, names: Sequence[str] | None = None) -> list[str]:
    """Return rows of a sound chunk as JSON objects of these columns; None: of all that they have."""
    if not rows.num_rows:
        return []
    kinds = _kinds(shape)
    parts = [
        text_literal("," * (at > 0) + json.dumps(name, ensure_ascii=False) + ":")
        + f", coalesce({_json(quoted(name), kinds[name])}, 'null')"
        for at, name in enumerate(rows.column_names if names is None else names)
    ]
    found: list[str] = in_order(rows, f"SELECT concat('{{', {', '.join(parts)}, '}}') FROM rows").to_pylist()
    return found


def changes_of(chunk: Chunk, *, lead: str = "") -> Iterator[str]:
    """Give what a sound chunk changes, in order, as JSON on one line each.

    `op` (put, remove, sweep), and what it is about. `lead` stands in front, with a comma behind it.
    """
    for op, word, rows in (("remove", "key", chunk.removed), ("put", "row", chunk.rows)):
        texts = objects(rows, chunk.table, [name for name in rows.column_names if name != "_version"])
        for version, text in zip(rows.column("_version").to_pylist(), texts, strict=True):
            yield f'{{{lead}"op":"{op}","version":{version},"{word}":{text}}}'
    if chunk.sweep_below:
        first = f'"from":{first},' if (first := swept_from(chunk)) else ""
        yield f'{{{lead}"op":"sweep",{first}"below":{chunk.sweep_below}}}'


def swept_from(chunk: Chunk) -> int:
    """Return the version from which a sweep takes rows out, for targets that hold what replicas wrote only.

    0: from the first one. In the first generation nothing was there before.
    """
    return kept if (kept := chunk.cursor.kept_below) > GENERATION else 0


def csv_head(shape: TableShape) -> str:
    """Return the first line of a file of CSV."""
    return ",".join(_csv_text(name) for name in ("_op", "_version", *(c.name for c in shape.columns)))


def csv_changes(chunk: Chunk) -> Iterator[str]:
    """Give what a sound chunk changes, in order, as lines of CSV: `_op`, `_version`, the columns.

    Texts stand in quotes, NULL is nothing at all, lists and structs are JSON.
    """
    columns = chunk.table.columns
    for op, rows in (("remove", chunk.removed), ("put", chunk.rows)):
        cells = [
            f"coalesce({_csv(quoted(column.name), column.type)}, '')"
            if column.name in rows.column_names
            else "''"
            for column in columns
        ]
        line = f"concat_ws(',', '\"{op}\"', \"_version\", {', '.join(cells)})"
        yield from in_order(rows, f"SELECT {line} FROM rows").to_pylist()
    if chunk.sweep_below:
        op = f"sweep from {first}" if (first := swept_from(chunk)) else "sweep"
        yield f'"{op}",{chunk.sweep_below}' + "," * len(columns)


def json_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return plain facts as JSON in UTF-8 on one line."""
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def in_order(rows: pa.Table, select: str) -> pa.Array:
    """Return the only column of a query over `rows`, as large_string, in the order of the rows.

    The query is planned for each chunk, which for a few rows is nearly all that it costs: so let it join
    texts by one `concat` and not by a tree of `||`.
    """
    connection: duckdb.DuckDBPyConnection | None = getattr(_OF_THREAD, "connection", None)
    if connection is None:  # kept: to make one takes longer than to write a thousand rows
        connection = duckdb.connect(config={"threads": 1})  # which keeps the rows in their order
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("PRAGMA disable_optimizer")  # a projection has nothing to gain
        _OF_THREAD.connection = connection
    connection.register("rows", rows)
    try:
        made = bare_arrow_of(connection, select)
    finally:
        connection.unregister("rows")
    column = made.column(0).cast(pa.large_string()).combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def decimal_text(expression: str) -> str:
    """Return the expression for a DECIMAL as JSON writes it: DuckDB leaves out the 0 of `.05`."""
    return f"regexp_replace(CAST({expression} AS VARCHAR), '^(-?)[.]', '\\10.')"


def _kinds(shape: TableShape) -> dict[str, str]:
    return {column.name: column.type for column in shape.columns} | {"_version": "BIGINT"}


def _json(expression: str, kind: str) -> str:
    """Return the expression for a value as JSON, NULL for NULL."""
    if kind == "JSON":
        return expression
    if kind in _INTEGERS or kind == "BOOLEAN":
        return f"CAST({expression} AS VARCHAR)"
    if kind in ("FLOAT", "DOUBLE"):
        text = f"CAST(to_json({expression}) AS VARCHAR)"
        return f"CASE WHEN isfinite({expression}) THEN {text} ELSE '\"' || {text} || '\"' END"
    return f"CAST(to_json({_text(expression, kind)}) AS VARCHAR)"


def _csv(expression: str, kind: str) -> str:
    if kind in _INTEGERS or kind in ("BOOLEAN", "FLOAT", "DOUBLE"):
        return f"CAST({expression} AS VARCHAR)"
    return f"'\"' || replace({_text(expression, kind)}, '\"', '\"\"') || '\"'"


def _csv_text(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(expression: str, kind: str) -> str:
    if kind.startswith("DECIMAL"):
        return decimal_text(expression)
    if kind in ("BLOB", "BIT"):
        return f"lower(hex({expression}))"
    if kind in _FRACTIONS:
        part, second, form = _FRACTIONS[kind]
        fraction = (
            f"CASE WHEN {part}({expression}) % {second} = 0 THEN '' ELSE strftime({expression}, '{form}') END"
        )
        zone = "+00:00" if kind == "TIMESTAMP WITH TIME ZONE" else ""
        return (
            f"CASE WHEN isfinite({expression}) THEN strftime({expression}, '%Y-%m-%dT%H:%M:%S') || "
            f"{fraction} || '{zone}' ELSE CAST({expression} AS VARCHAR) END"
        )
    if kind in ("TIMESTAMP_S", "TIMESTAMP_MS"):  # whose infinity is none to strftime
        return f"replace(CAST({expression} AS VARCHAR), ' ', 'T')"
    return f"CAST({expression} AS VARCHAR)"
