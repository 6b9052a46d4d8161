"""DuckDB SQL that turns JSON text into typed columns, and says which records it cannot vouch for.

`json_transform` is fast and too kind: it takes `12` for a VARCHAR, `"12"` for an INTEGER, a list for a
struct. So numbers are taken as JSON tokens and cast from their text, lists and structs as tokens whose first
character says what they are, and every cast has a condition beside it that is true when the result is not
proved. A record for which one is true is a *suspect*: `strict` decides about it, from its bytes alone.

The frequent checks are not here: for strings, numbers, booleans and instants, and lists and structs of these,
the query hands over what it read, and `proof` looks at that in the Arrow result: a byte that NumPy looks at
costs a fifth of one that SQL looks at.

A name that an object repeats is read where it stands first, here and in `strict`; the other values are not
looked at. To find them would need every name of every record, which costs more than all other doubts
together.

Each type has two forms. The doubting form reads a record as it came. The trusting form reads the text that
`strict` writes for a suspect that turned out to be good: every scalar as a string in DuckDB's own notation.
Both end in the same casts, so that a row cannot depend on the way it took.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, StructType

__all__ = [
    "INSTANT",
    "INTEGERS",
    "TIMESTAMP_SHAPE",
    "TIME_SHAPE",
    "DecodeSql",
    "decode_sql",
    "provable",
    "quote",
    "strings_sql",
]

TIMESTAMP_SHAPE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
    r"(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?"
)
"""The texts that are a TIMESTAMP: a date alone, or `T` or a space, a time of day, a zone or none (UTC)."""
TIME_SHAPE = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"

INTEGERS = {
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT",
    "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
}  # fmt: skip
INSTANT = "TIMESTAMP WITH TIME ZONE"
_PROVABLE = (*INTEGERS, "VARCHAR", "JSON", "BOOLEAN", "DOUBLE", "FLOAT", INSTANT)
_MANY = frozenset(("[*]", ".*"))
# A day behind the first: what is before it may have been written with a year 0 and a zone.
_FIRST_INSTANT = "TIMESTAMPTZ '0001-01-02 00:00:00+00'"
_LAST_INSTANT = "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'"


@dataclass(frozen=True)
class DecodeSql:
    """How to decode a stream's declared columns.

    structure  what `json_transform` is asked for; the result is called `t`
    typed      one expression over `t` per column
    proofs     what `proof` needs beside a column's values: an expression over `t` per name; the names are
               `_text_N` (the token) and `_parts_N` (the tokens inside), N being the column's number
    suspect    a condition over `t`; not false: the record must go through `strict`
    """

    structure: str
    typed: tuple[str, ...]
    proofs: tuple[tuple[str, str], ...]
    suspect: str


def quote(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def decode_sql(columns: tuple[Column, ...], *, trusting: bool, texts: tuple[int, ...] = ()) -> DecodeSql:
    """Return the SQL for `columns`, in the doubting or in the trusting form.

    The columns with the numbers `texts`, which are instants, are left to `instants`: their text is all that
    is given of them.
    """
    writer = _Writer(trusting)
    structure = {column.name: writer.raw(column.type) for column in columns}
    reads = [f"t.{quote(column.name)}" for column in columns]
    typed = tuple(
        _text(read) if number in texts else writer.typed(column.type, read)
        for number, (column, read) in enumerate(zip(columns, reads, strict=True))
    )
    doubts: list[str] = []
    proofs: list[tuple[str, str]] = []
    for number, (column, read) in enumerate(zip(columns, reads, strict=True)):
        if not provable(column.type):
            doubts.append(writer.suspect(column.type, read))
        elif not trusting and number not in texts:
            parts = writer.parts(column.type, read)
            proofs += [(f"_parts_{number}", parts)] if parts else []
            proofs += [(f"_text_{number}", _text(read))] if column.type.sql not in ("VARCHAR", "JSON") else []
    return DecodeSql(_literal(structure), typed, tuple(proofs), _any(doubts))


def provable(kind: DataType, depth: int = 0) -> bool:
    """Whether `proof` can show that a value of `kind` is what the record says; if not, SQL must doubt it."""
    if isinstance(kind, ScalarType):
        return kind.sql in _PROVABLE or kind.sql.startswith("DECIMAL")
    if isinstance(kind, StructType):
        return depth < 2 and all(provable(part, 2) for _, part in kind.fields)
    return isinstance(kind, ListType) and depth == 0 and provable(kind.item, 1)


def strings_sql(columns: Iterable[Column], documents: str) -> str:
    """Return a SELECT over `documents`: "strings", whether every string that `columns` declare is one.

    It may be NULL or missing as well. A name that cannot be written in a JSON path makes the answer false.
    """
    singles: dict[str, str] = {}
    conditions: list[str] = []
    for column in columns:
        if column.type.sql == "VARCHAR":
            singles[column.name] = "JSON"
            conditions.append(f"starts_with({_text(f't.{quote(column.name)}')}, '\"')")
            continue
        for path in _string_paths(column.type, (column.name,)):
            if any('"' in step for step in path):
                conditions.append("false")
                continue
            kinds = f"json_type(doc, '${_steps(path)}')"
            if _MANY.intersection(path):
                conditions.append(f"len(list_filter({kinds}, lambda _x: _x NOT IN ('VARCHAR', 'NULL'))) = 0")
            else:
                conditions.append(f"{kinds} IN ('VARCHAR', 'NULL')")
    strings = " AND ".join(f"coalesce({condition}, true)" for condition in conditions) or "true"
    read = f"json_transform(doc, {_literal(singles)})" if singles else "NULL"
    return f"SELECT {strings} AS strings FROM (SELECT doc, {read} AS t FROM {documents})"


def _steps(path: tuple[str, ...]) -> str:
    return "".join(step if step in _MANY else '."' + step.replace("'", "''") + '"' for step in path)


def _string_paths(kind: DataType, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if isinstance(kind, ListType):
        return _string_paths(kind.item, (*path, "[*]"))
    if isinstance(kind, MapType):
        return _string_paths(kind.value, (*path, ".*"))
    if isinstance(kind, StructType):
        return [found for name, part in kind.fields for found in _string_paths(part, (*path, name))]
    return [path] if kind.sql == "VARCHAR" else []


def _literal(structure: object) -> str:
    return "'" + json.dumps(structure, ensure_ascii=False).replace("'", "''") + "'"


def _any(doubts: list[str]) -> str:
    return " OR ".join(f"({doubt})" for doubt in doubts if doubt) or "false"


class _Writer:
    """Writes the expressions of one form. It counts names, because nested lambdas must not share one."""

    def __init__(self, trusting: bool) -> None:
        self.trusting = trusting
        self.names = 0

    def fresh(self) -> str:
        self.names += 1
        return f"_x{self.names}"

    def raw(self, kind: DataType) -> str:
        """What `json_transform` is asked for: VARCHAR unquotes strings, JSON leaves a token as it is."""
        if not isinstance(kind, ScalarType) or kind.sql == "JSON":
            return "JSON"
        if self.trusting or kind.sql in ("VARCHAR", "DATE", "TIME", "UUID", INSTANT):
            return "VARCHAR"
        return "JSON"

    def typed(self, kind: DataType, read: str) -> str:
        """An expression of type `kind` over `read`, which has the type that `raw` says."""
        if isinstance(kind, ListType):
            name = self.fresh()
            parts = self._items(kind, read)
            return f"list_transform({parts}, lambda {name}: {self._item(kind.item, name)})"
        if isinstance(kind, StructType):
            fields = self._fields(kind, read)
            return f"CASE WHEN {read} IS NOT NULL THEN {self._pack(kind, fields)} END"
        if isinstance(kind, MapType):
            name = self.fresh()
            key = f"TRY_CAST({name}.key AS {kind.key.sql})"
            value = self.typed(kind.value, f"{name}.value")
            entry = f"lambda {name}: struct_pack(key := {key}, value := {value})"
            entries = f"map_from_entries(list_transform(map_entries({self._entries(kind, read)}), {entry}))"
            # A key that did not cast is NULL, which a map refuses for the whole batch.
            good = "true" if kind.key.sql == "VARCHAR" or self.trusting else "false"
            return f"CASE WHEN {read} IS NOT NULL AND {good} THEN {entries} END::{kind.sql}"
        return self._scalar(kind.sql, read)

    def suspect(self, kind: DataType, read: str) -> str:
        """A condition that is false, or empty, only if `typed` gives what the record says."""
        if self.trusting:
            return ""
        if isinstance(kind, ScalarType):
            return self._doubt(kind.sql, read)
        start = "[" if isinstance(kind, ListType) else "{"
        shape = f"NOT starts_with({_text(read)}, '{start}')"
        name = self.fresh()
        if isinstance(kind, ListType):
            inside = self._item_doubt(kind.item, name)
            each = (
                f"len(list_filter({self._items(kind, read)}, lambda {name}: {inside})) > 0" if inside else ""
            )
        elif isinstance(kind, StructType):
            fields = self._fields(kind, read)
            each = _any([self.suspect(part, f"{fields}.{quote(field)}") for field, part in kind.fields])
        else:
            inside = self.suspect(kind.value, f"{name}.value")
            entries = self._entries(kind, read)
            each = f"{entries} IS NULL" if kind.key.sql == "VARCHAR" else "true"
            if inside:
                each += f" OR len(list_filter(map_entries({entries}), lambda {name}: {inside})) > 0"
        return f"{read} IS NOT NULL AND ({_any([shape, each])})"

    def parts(self, kind: DataType, read: str) -> str:
        """What stands inside a provable list or struct, as `typed` reads it; empty for a scalar."""
        if isinstance(kind, ListType):
            return self._items(kind, read)
        return self._fields(kind, read) if isinstance(kind, StructType) else ""

    def _items(self, kind: ListType, read: str) -> str:
        item = kind.item
        inside = {f: self.raw(p) for f, p in item.fields} if isinstance(item, StructType) else self.raw(item)
        return f"json_transform({read}, {_literal([inside])})"

    def _fields(self, kind: StructType, read: str) -> str:
        return f"json_transform({read}, {_literal({field: self.raw(part) for field, part in kind.fields})})"

    def _entries(self, kind: MapType, read: str) -> str:
        return f"json_transform({read}, {_literal(f'MAP(VARCHAR, {self.raw(kind.value)})')})"

    def _pack(self, kind: StructType, fields: str) -> str:
        parts = [
            f"{quote(field)} := {self.typed(part, f'{fields}.{quote(field)}')}" for field, part in kind.fields
        ]
        return f"struct_pack({', '.join(parts)})"

    def _item(self, kind: DataType, name: str) -> str:
        if isinstance(kind, StructType):
            return f"CASE WHEN {name} IS NOT NULL THEN {self._pack(kind, name)} END"
        return self.typed(kind, name)

    def _item_doubt(self, kind: DataType, name: str) -> str:
        if not isinstance(kind, StructType):
            return self.suspect(kind, name)
        reads = [(part, f"{name}.{quote(field)}") for field, part in kind.fields]
        # json_transform makes a struct of NULLs out of an item that is no object.
        hollow = " AND ".join(f"{read} IS NULL" for _, read in reads)
        return f"{name} IS NOT NULL AND ({_any([hollow, *(self.suspect(p, read) for p, read in reads)])})"

    def _scalar(self, kind: str, read: str) -> str:
        text = _text(read)
        if kind in ("VARCHAR", "JSON"):
            return read
        if kind == "FLOAT":
            # By way of DOUBLE in both forms, so that both round twice.
            return f"TRY_CAST(TRY_CAST({text} AS DOUBLE) AS FLOAT)"
        if kind == "BOOLEAN":
            return f"CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"
        if kind == "BLOB":
            inner = read if self.trusting else f"{text}[2:-2]"
            return f"TRY(from_base64({inner}))"
        return f"TRY_CAST({text} AS {kind})"

    def _doubt(self, kind: str, read: str) -> str:
        text, typed = _text(read), self._scalar(kind, read)
        if kind in ("VARCHAR", "JSON"):
            return ""
        if kind in INTEGERS:
            # 1.0 and 1e2 cast to INTEGER as well; the way back shows that they were not written as one.
            return f"{typed}::VARCHAR IS DISTINCT FROM {text}"
        if kind in ("DOUBLE", "FLOAT"):
            return f"{read} IS NOT NULL AND isfinite({typed}) IS NOT TRUE"
        if kind == "BOOLEAN":
            return f"{read} IS NOT NULL AND {typed} IS NULL"
        if kind == "BLOB":
            return f"{read} IS NOT NULL AND ('\"' || to_base64({typed}) || '\"') IS DISTINCT FROM {text}"
        if kind.startswith("DECIMAL"):
            return _decimal_doubt(kind, read, typed)
        if kind == INSTANT:
            shape = f"regexp_full_match({read}, '{TIMESTAMP_SHAPE}')"
            bounds = f"{typed} BETWEEN {_FIRST_INSTANT} AND {_LAST_INSTANT}"
        elif kind == "DATE":
            shape, bounds = f"{read} LIKE '____-__-__'", f"{typed} IS NOT NULL AND {read} >= '0001'"
        elif kind == "TIME":
            shape, bounds = f"regexp_full_match({read}, '{TIME_SHAPE}')", f"{typed} IS NOT NULL"
        else:
            shape, bounds = f"{read} LIKE '________-____-____-____-____________'", f"{typed} IS NOT NULL"
        return f"{read} IS NOT NULL AND (({bounds}) AND ({shape})) IS NOT TRUE"


def _text(read: str) -> str:
    return f"CAST({read} AS VARCHAR)"


def _decimal_doubt(kind: str, read: str, typed: str) -> str:
    """Doubt what a double may have changed.

    A token that is not an integer went through a double, which keeps 15 digits. It says what the record
    says if it has no more decimals than the scale, so that nothing was rounded, and at most 15 digits there.
    """
    text = _text(read)
    precision, scale = (int(part) for part in kind.removeprefix("DECIMAL(").removesuffix(")").split(","))
    wide = f" OR abs({typed}) >= {10 ** max(15 - scale, 0)}" if precision > 15 else ""
    point = f"instr({text}, '.')"
    lossy = f"{point} > 0 AND (strlen({text}) - {point} > {scale}{wide})"
    return f"{read} IS NOT NULL AND ({typed} IS NULL OR contains({text}, 'e') OR ({lossy}))"
