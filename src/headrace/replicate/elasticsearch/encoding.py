"""Rows as lines of `_bulk`, made column by column: one text for each row, cut into bodies without a copy.

The `_id` of a row is its key as a JSON array, with values as they stand in the document; one of more than
512 bytes, which is the server's limit, is the SHA-256 of that. Rows without a key get their content in the
place of a key, and how many equal ones came before, so that a chunk that is sent twice gives the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from headrace.replicate.elasticsearch.mapping import TIME, VERSION
from headrace.replicate.plain import decimal_text, in_order
from headrace.replicate.protocol import GENERATION, TableShape
from headrace.store.names import quoted, text_literal

__all__ = ["Lines", "ids_of", "lines_of_new", "lines_of_removed", "lines_of_rows"]

_ID_BYTES_MAX = 512


@dataclass(frozen=True)
class Lines:
    """Actions of `_bulk`: those of row `n` are the bytes `ends[n]` to `ends[n + 1]` of `text`."""

    text: memoryview
    ends: Sequence[int]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def body(self, first: int, last: int) -> memoryview:
        """Return the lines of the rows from `first` up to and without `last`."""
        return self.text[self.ends[first] : self.ends[last]]

    def bodies(self, bytes_max: int) -> Iterator[tuple[int, int]]:
        """Cut the rows into pieces of about so many bytes: the first row, and one behind the last."""
        ends = np.asarray(self.ends)
        first = 0
        while first < len(self):
            last = int(np.searchsorted(ends, ends[first] + bytes_max, side="right")) - 1
            last = min(max(last, first + 1), len(self))
            yield first, last
            first = last


def lines_of_rows(shape: TableShape, rows: pa.Table) -> Lines:
    """Return the lines that index `rows`."""
    return _lines(rows, f"concat({_action('index')}, {_document(shape)}, chr(10))", _identified(shape))


def lines_of_new(shape: TableShape, rows: pa.Table, *, column: str, rounds: int) -> Lines:
    """Return the lines that create `rows` in a data stream, whose time is that `column`.

    `rounds` is a part of the id: rows that are copied anew come beside those that are taken out at the end.
    """
    create = "'{\"create\":{\"_id\":', to_json(_id), '}}', chr(10)"
    return _lines(rows, f"concat({create}, {_document(shape, column)}, chr(10))", _identified(shape, rounds))


def ids_of(shape: TableShape, rows: pa.Table, *, rounds: int) -> list[str]:
    """Return the ids that `lines_of_new` gives, in the order of the rows."""
    found: list[str] = in_order(rows, f"SELECT _id FROM {_identified(shape, rounds)}").to_pylist()
    return found


def _document(shape: TableShape, time: str = "") -> str:
    """Return the expression for a row as a document."""
    cells = [(column.name, quoted(column.name), column.type) for column in shape.columns]
    cells += [(TIME, quoted(name), kind) for name, _, kind in cells if name == time != TIME]
    cells.append((VERSION, '"_version"', "BIGINT"))
    document = ", ".join(
        f"{text_literal(',' * (at > 0) + _json_text(name) + ':')}, {_value(expression, kind)}"
        for at, (name, expression, kind) in enumerate(cells)
    )
    return f"concat('{{', {document}, '}}')"


def lines_of_removed(shape: TableShape, removed: pa.Table) -> Lines:
    """Return the lines that delete the rows of these keys."""
    return _lines(removed, f"concat({_action('delete')})", _identified(shape))


def _lines(rows: pa.Table, line: str, source: str) -> Lines:
    column = in_order(rows, f"SELECT {line} FROM {source}")
    _, offsets, text = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return Lines(memoryview(text) if text is not None else memoryview(b""), ends.tolist())


def _action(word: str) -> str:
    version = ',"version":\', "_version", \',"version_type":"external_gte"'
    return f"'{{\"{word}\":{{\"_id\":', to_json(_id), '{version}}}}}', chr(10)"


def _identified(shape: TableShape, rounds: int = 0) -> str:
    """Return the source of rows with their `_id`; `rounds` stands in front of it when it is not 0."""
    types = {column.name: column.type for column in shape.columns}
    source = "rows"
    if shape.key:
        parts = ", ',', ".join(_value(quoted(name), types[name]) for name in shape.key)
        text = f"concat('[', {parts}, ']')"
    else:
        cells = ", ',', ".join(_value(quoted(name), kind) for name, kind in types.items())
        source = f"(SELECT *, md5(concat({cells})) AS _content FROM rows)"
        number = 'row_number() OVER (PARTITION BY "_version", _content)'
        # Without the generation: a run that sends the chunk again has another one.
        text = f"concat_ws(':', \"_version\" % {GENERATION}, _content, {number})"
    text = f"concat('{rounds}:', {text})" if rounds else text
    short = f"CASE WHEN strlen(_text) <= {_ID_BYTES_MAX} THEN _text ELSE 'sha256:' || sha256(_text) END"
    return f"(SELECT *, {short} AS _id FROM (SELECT *, {text} AS _text FROM {source}))"


def _value(expression: str, kind: str) -> str:
    """Return the expression that gives a value as JSON text; NULL is `null`."""
    return f"coalesce(CAST({_json(expression, kind)} AS VARCHAR), 'null')"


def _json(expression: str, kind: str) -> str:
    if kind == "JSON" or kind in _AS_THEY_ARE:
        return expression
    if kind.startswith("DECIMAL(") and kind.endswith(")"):
        return decimal_text(expression)  # every digit, which a JSON function would shorten
    return f"to_json({_plain(expression, kind)})"


_AS_THEY_ARE = frozenset(
    {
        "BOOLEAN",
        "TINYINT",
        "UTINYINT",
        "SMALLINT",
        "USMALLINT",
        "INTEGER",
        "UINTEGER",
        "BIGINT",
        "UBIGINT",
        "HUGEINT",
        "UHUGEINT",
    }
)


def _plain(expression: str, kind: str, depth: int = 0) -> str:
    """Return a value in types that JSON functions write as the mapping reads them: ISO 8601 and base64."""
    if kind.startswith("TIMESTAMP"):
        return f"strftime({expression}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    if kind == "BLOB":
        return f"to_base64({expression})"
    if kind in ("TIME", "INTERVAL", "UUID"):
        return f"CAST({expression} AS VARCHAR)"
    if "TIMESTAMP" not in kind and "BLOB" not in kind:
        return expression
    parsed = duckdb.type(kind)
    if parsed.id in ("list", "array"):
        each = f"e{depth}"
        inner = _plain(each, str(parsed.children[0][1]), depth + 1)
        return f"list_transform({expression}, lambda {each}: {inner})"
    if parsed.id == "struct":
        cells = ", ".join(
            f"{quoted(name)} := {_plain(f'({expression}).{quoted(name)}', str(child), depth)}"
            for name, child in parsed.children
        )
        return f"CASE WHEN {expression} IS NOT NULL THEN struct_pack({cells}) END"
    return expression


def _json_text(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
