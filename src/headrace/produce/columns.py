"""CSV and Parquet rows as JSON objects, one record each.

The text of every number is kept as it is, so decimals stay exact; times become ISO-8601 UTC (a text or a time
without a zone is UTC already); NULL becomes null. DuckDB does the work, one expression per column.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.declare import Stream
from headrace.errors import RefusedError
from headrace.produce.lines import Chunk, gzip_errors

__all__ = ["csv_chunks", "parquet_chunks"]

_ROWS_AT_ONCE = 20_000
_HEADER_CHARACTERS_MAX = 1024 * 1024
_NUMBERS = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL.*|FLOAT|REAL|DOUBLE)$")
_JSON_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_TIME_FORMAT = "'\"%Y-%m-%dT%H:%M:%S.%fZ\"'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(file: Path) -> str:
    """Return the name in SQL: DuckDB takes *, ? and [ in it for a pattern, and would read other files."""
    return _text(re.sub(r"[*?\[]", r"[\g<0>]", str(file.absolute())))


def parquet_chunks(file: Path, connection: Any) -> Iterator[Chunk]:
    """Give the rows of a Parquet file; `connection` is a DuckDB connection whose zone is UTC."""
    source = f"read_parquet({_name(file)})"
    with _ErrorsOf(file):
        relation = connection.sql(f"SELECT * FROM {source}")
        columns = [
            (name, _json_of(_quoted(name), kind))
            for name, kind in zip(relation.columns, relation.types, strict=True)
        ]
    yield from _objects(file, connection, source, columns)


def csv_chunks(file: Path, stream: Stream, connection: Any) -> Iterator[Chunk]:
    """Give the rows of a CSV file; its first line names the columns.

    What a text means is said by the stream's declaration: a column declared as a number or BOOLEAN gives JSON
    numbers and booleans where the text is one, a VARCHAR keeps `007`. An empty field is null, `""` an empty
    text.
    """
    delimiter, names = _header(file)
    declared = {column.name: column.type.sql for column in stream.schema.columns}
    given = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in names)
    source = (
        f"read_csv({_name(file)}, auto_detect = false, header = true, delim = {_text(delimiter)}, "
        f"quote = '\"', escape = '\"', columns = {{{given}}}, nullstr = '', allow_quoted_nulls = false)"
    )
    columns = [(name, _json_of_text(_quoted(name), declared.get(name))) for name in names]
    yield from _objects(file, connection, source, columns)


def _header(file: Path) -> tuple[str, list[str]]:
    opened = gzip.open if file.suffix == ".gz" else open
    with gzip_errors(file), opened(file, "rt", encoding="utf-8-sig", newline="", errors="replace") as lines:
        first = lines.readline(_HEADER_CHARACTERS_MAX)
    if "\0" in first:  # as every other character of UTF-16 is
        raise RefusedError(
            f"{file}, line 1: not UTF-8 text", fix="save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8"
        )
    delimiter = max(",;\t|", key=first.count)
    try:
        names = next(csv.reader([first], delimiter=delimiter), [])
    except csv.Error:  # a name of that many characters is none
        names = []
    if not names or not all(names) or len({name.lower() for name in names}) < len(names):
        raise RefusedError(
            f"{file}, line 1: not a list of different column names",
            fix="the first line of a CSV file names its columns; add it, or give the missing ones a name",
        )
    return delimiter, names


class _ErrorsOf:
    """Raises what DuckDB says of a file as a RefusedError: its line, never its content."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        import duckdb

        if not isinstance(error, duckdb.Error | OSError):  # in the middle of a reader, they are Arrow's
            return
        line = re.search(r"CSV Error on Line: (\d+)", str(error))
        reason = re.search(
            r"(Expected Number of Columns: \d+ Found: \d+|[Uu]nterminated quote|[Ii]nvalid unicode)",
            str(error),
        )
        place = f", line {line.group(1)}" if line else ""
        raise RefusedError(
            f"{self._file}{place}: cannot be read" + (f" ({reason.group(1)})" if reason else ""),
            fix="correct that line"
            if line
            else "check that the file is whole and has the format that was named",
        ) from error


def _objects(file: Path, connection: Any, source: str, columns: list[tuple[str, str]]) -> Iterator[Chunk]:
    parts = [
        f"to_json({_text(name)}) || ':' || coalesce({expression}, 'null')" for name, expression in columns
    ]
    value = "'{' || " + " || ',' || ".join(parts) + " || '}'"
    size, rows = file.stat().st_size, 0
    with _ErrorsOf(file):
        total = connection.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0] if size else 0
        # A cursor: the reader stays open while records' fields are asked for over the same connection.
        reader = connection.cursor().sql(f"SELECT {value} AS v FROM {source}").to_arrow_reader(_ROWS_AT_ONCE)
        for batch in reader:
            rows += len(batch)
            values = batch.column(0).cast(pa.binary())
            yield Chunk(values, size * rows // max(total, 1))


def _json_of_text(text: str, declared: str | None) -> str:
    """Return SQL that gives the JSON of a CSV field, or NULL."""
    string = f"CAST(to_json({text}) AS VARCHAR)"
    number = f"regexp_full_match({text}, {_text(_JSON_NUMBER)})"
    boolean = f"lower({text}) IN ('true', 'false')"
    if declared is None:
        bare = f"{number} OR {text} IN ('true', 'false')"
    elif _NUMBERS.match(declared):
        bare = number
    elif declared == "BOOLEAN":
        return f"CASE WHEN {boolean} THEN lower({text}) ELSE {string} END"
    elif declared == "JSON" or declared.startswith(("STRUCT", "MAP")) or declared.endswith("[]"):
        bare = f"json_valid({text})"
    else:
        return string
    return f"CASE WHEN {bare} THEN {text} ELSE {string} END"


def _json_of(value: str, kind: Any, depth: int = 0) -> str:
    """Return SQL that gives the JSON of `value`, a DuckDB expression of type `kind`, or NULL."""
    if kind.id in ("list", "array"):
        element = f"e{depth}"
        inner = _json_of(element, dict(kind.children)["child"], depth + 1)
        items = f"list_transform({value}, lambda {element}: coalesce({inner}, 'null'))"
        return f"('[' || array_to_string({items}, ',') || ']')"
    if kind.id == "struct":
        fields = [
            f"to_json({_text(name)}) || ':' || "
            f"coalesce({_json_of(f'struct_extract({value}, {_text(name)})', inner, depth + 1)}, 'null')"
            for name, inner in kind.children
        ]
        joined = " || ',' || ".join(fields)
        return f"CASE WHEN {value} IS NOT NULL THEN '{{' || {joined} || '}}' END"
    if kind.id == "map":
        entry = f"e{depth}"
        inner = _json_of(f"{entry}.value", dict(kind.children)["value"], depth + 1)
        pair = f"to_json(CAST({entry}.key AS VARCHAR)) || ':' || coalesce({inner}, 'null')"
        items = f"list_transform(map_entries({value}), lambda {entry}: {pair})"
        return f"('{{' || array_to_string({items}, ',') || '}}')"
    if kind.id in ("float", "double"):
        # JSON has no NaN and no infinity: as texts they are visible, and the row stage says what it thinks.
        text = f"CAST({value} AS VARCHAR)"
        return f"CASE WHEN isfinite({value}) THEN {text} ELSE '\"' || {text} || '\"' END"
    if str(kind) == "JSON":
        return f"CAST({value} AS VARCHAR)"
    if kind.id == "decimal":
        # With all its digits behind the point, a decimal's text begins with the point; JSON's with a zero.
        return f"regexp_replace(CAST({value} AS VARCHAR), '^(-?)[.]', '\\10.')"
    if kind.id == "boolean" or _NUMBERS.match(str(kind)):
        return f"CAST({value} AS VARCHAR)"
    if kind.id.startswith("timestamp"):
        # The session's zone is UTC, so both kinds of timestamp read the same clock.
        return f"strftime(CAST({value} AS TIMESTAMP), {_TIME_FORMAT})"
    if kind.id == "blob":
        return f"CAST(to_json(to_base64({value})) AS VARCHAR)"
    return f"CAST(to_json(CAST({value} AS VARCHAR)) AS VARCHAR)"
