"""Reads a schema that is written as a SQL column list.

A small parser of our own rather than DuckDB's: it must not import an engine, it says where the mistake is and
which word was meant, and it goes on with the next column so that every mistake is reported at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.declare.schema import Column, DataType, ListType, MapType, ScalarType, Schema, StructType
from headrace.declare.words import did_you_mean

__all__ = ["parse_schema", "parse_type", "read_schema"]

COLUMNS_MAX = 2_000
NESTING_MAX = 32

_INSTANT = "TIMESTAMP WITH TIME ZONE"
_NAMES_OF_TYPE = {
    "BOOLEAN": ("BOOL", "LOGICAL"),
    "TINYINT": ("INT1",),
    "SMALLINT": ("INT2", "SHORT", "INT16"),
    "INTEGER": ("INT", "INT4", "INT32", "SIGNED"),
    "BIGINT": ("INT8", "LONG", "INT64"),
    "HUGEINT": ("INT128",),
    "UTINYINT": ("UINT8",),
    "USMALLINT": ("UINT16",),
    "UINTEGER": ("UINT32",),
    "UBIGINT": ("UINT64",),
    "UHUGEINT": ("UINT128",),
    "FLOAT": ("FLOAT4", "REAL"),
    "DOUBLE": ("FLOAT8",),
    "VARCHAR": ("TEXT", "STRING", "CHAR", "BPCHAR", "NVARCHAR"),
    _INSTANT: ("TIMESTAMP", "TIMESTAMPTZ", "DATETIME", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_US",
               "TIMESTAMP_NS"),
    "DATE": (),
    "TIME": (),
    "UUID": ("GUID",),
    "BLOB": ("BYTEA", "BINARY", "VARBINARY"),
    "JSON": (),
}  # fmt: skip
_SCALARS = {alias: name for name, aliases in _NAMES_OF_TYPE.items() for alias in (name, *aliases)}
_DECIMALS = ("DECIMAL", "NUMERIC", "DEC")
_KNOWN_TYPES = (*(name for name in _SCALARS if " " not in name), *_DECIMALS, "STRUCT", "MAP")
_REFUSED_TYPES = {
    "INTERVAL": "an interval has no fixed length and no JSON form; write DOUBLE for seconds, or VARCHAR",
    "ENUM": "write VARCHAR and an expectation, for example expect={'known_size': \"size IN ('S', 'M')\"}",
    "UNION": "write a STRUCT with one nullable field for each kind, or JSON",
    "VARIANT": "write JSON",
    "BIT": "write VARCHAR or BLOB",
    "BITSTRING": "write VARCHAR or BLOB",
    "TIMETZ": "a time of day with a zone has no place on the time line; write TIME or TIMESTAMP",
    "LIST": "write the item's type and [], for example VARCHAR[]",
    "ARRAY": "write the item's type and [], for example VARCHAR[]",
    "SERIAL": "write BIGINT",
    "VARINT": "write HUGEINT or DECIMAL(38,0)",
    "BIGNUM": "write HUGEINT or DECIMAL(38,0)",
}
_REFUSED_CONSTRAINTS = {
    "PRIMARY": 'a stream has no primary key; write unique="COLUMN" to drop duplicates',
    "UNIQUE": 'write unique="COLUMN" as an argument of the stream',
    "DEFAULT": "a missing field is NULL; write derive={'NAME': \"coalesce(COLUMN, ...)\"}",
    "CHECK": "write expect={'NAME': \"...\"} as an argument of the stream",
    "REFERENCES": "join a reference table in a query instead",
    "FOREIGN": "join a reference table in a query instead",
    "COLLATE": "strings are compared by their bytes; fold them in a query, for example lower(COLUMN)",
    "GENERATED": "write derive={'NAME': \"...\"} as an argument of the stream",
    "AS": "write derive={'NAME': \"...\"} as an argument of the stream",
}
_TOKEN = re.compile(r'\s+|--[^\n]*|"(?:[^"]|"")*"|[^\W\d]\w*|\d+|.', re.DOTALL)


@dataclass(frozen=True)
class _Token:
    text: str
    at: int

    @property
    def is_name(self) -> bool:
        return self.text[:1] == '"' or self.text[:1].isalpha() or self.text[:1] == "_"

    @property
    def word(self) -> str:
        """The token as a keyword; a quoted name is never one."""
        return self.text.upper()

    @property
    def name(self) -> str:
        return self.text[1:-1].replace('""', '"') if self.text[:1] == '"' else self.text


class _Mistake(Exception):
    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at = at
        self.text = text


class _Reader:
    """A position in the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        found = (_Token(match.group(), match.start()) for match in _TOKEN.finditer(text))
        self.tokens = [token for token in found if not token.text.isspace() and token.text[:2] != "--"]
        self.end = _Token("", len(text.rstrip()))
        self.index = 0

    def peek(self, ahead: int = 0) -> _Token:
        index = self.index + ahead
        return self.tokens[index] if index < len(self.tokens) else self.end

    def take(self) -> _Token:
        token = self.peek()
        self.index += 1
        return token

    def accept(self, *words: str) -> bool:
        """Take the tokens if they are exactly these words or signs."""
        if all(self.peek(ahead).word == word for ahead, word in enumerate(words)):
            self.index += len(words)
            return True
        return False

    def expect(self, sign: str, after: str) -> None:
        if not self.accept(sign):
            raise _Mistake(self.peek().at, f"expected '{sign}' {after}, found {_shown(self.peek())}")

    def skip_column(self) -> None:
        """Go behind the next comma that stands in no bracket."""
        depth = 0
        while self.index < len(self.tokens):
            sign = self.take().text
            depth += (sign in "([") - (sign in ")]")
            if sign == "," and depth <= 0:
                return

    def place(self, at: int) -> str:
        line = self.text.count("\n", 0, at)
        if not self.text.count("\n"):
            return f"at character {at + 1}"
        return f"at line {line + 1}, character {at - (self.text.rfind(chr(10), 0, at) + 1) + 1}"


def _shown(token: _Token) -> str:
    return f"'{token.text}'" if token.text else "the end of the text"


def read_schema(text: str) -> tuple[Schema, tuple[str, ...]]:
    """Return the columns of `text` that could be read, and a sentence for each mistake in it."""
    reader = _Reader(text)
    columns: list[Column] = []
    mistakes: list[str] = []
    if not reader.tokens:
        mistakes.append("the schema is empty; write for example 'id VARCHAR NOT NULL, at TIMESTAMP NOT NULL'")
    while reader.index < len(reader.tokens):
        start = reader.index
        try:
            columns.append(_column(reader))
        except _Mistake as mistake:
            mistakes.append(f"{mistake.text} ({reader.place(mistake.at)})")
            reader.index = start
            reader.skip_column()
            continue
        if reader.index < len(reader.tokens):
            reader.accept(",")
            if reader.index == len(reader.tokens):
                mistakes.append(f"a comma with no column after it ({reader.place(reader.tokens[-1].at)})")
    if len(columns) > COLUMNS_MAX:
        mistakes.append(f"{len(columns)} columns; a schema may have {COLUMNS_MAX}")
    return Schema(tuple(columns)), tuple(mistakes)


def parse_schema(text: str) -> Schema:
    """Return the columns of `text`. Raises ValueError that names every mistake and its position."""
    schema, mistakes = read_schema(text)
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return schema


def parse_type(text: str) -> DataType:
    """Return the type that `text` names. Raises ValueError with the position and the nearest name."""
    reader = _Reader(text)
    try:
        kind = _type(reader, "a type", 0)
        if reader.peek().text:
            raise _Mistake(reader.peek().at, f"unexpected {_shown(reader.peek())} after the type")
    except _Mistake as mistake:
        raise ValueError(f"{mistake.text} ({reader.place(mistake.at)})") from None
    return kind


def _column(reader: _Reader) -> Column:
    name = _name(reader, "a column name")
    kind = _type(reader, f"column '{name}'", 0)
    nullable = True
    while reader.peek().text not in ("", ","):
        token = reader.peek()
        if reader.accept("NOT", "NULL"):
            nullable = False
        elif reader.accept("NULL"):
            nullable = True
        elif token.word in _REFUSED_CONSTRAINTS:
            fix = _REFUSED_CONSTRAINTS[token.word].replace("COLUMN", name)
            raise _Mistake(token.at, f"column '{name}': {token.word} cannot be used in a schema; {fix}")
        elif token.word == "NOT":
            raise _Mistake(token.at, f"column '{name}': NOT without NULL; write NOT NULL")
        elif token.is_name and reader.peek(1).is_name:
            raise _Mistake(token.at, f"column '{name}': a comma is missing before '{token.text}'")
        else:
            hint = did_you_mean(token.word, ("NOT NULL", "NULL"))
            raise _Mistake(token.at, f"column '{name}': unexpected '{token.text}' after the type{hint}")
    return Column(name, kind, nullable)


def _name(reader: _Reader, what: str) -> str:
    token = reader.peek()
    if token.text == '"':
        raise _Mistake(token.at, "a quoted name that does not end")
    if not token.is_name:
        raise _Mistake(token.at, f"expected {what}, found {_shown(token)}")
    if not token.name.strip() or not token.name.isprintable() or '"' in token.name:
        raise _Mistake(
            token.at, f"{token.text} cannot be a name: it is empty, or has quotes or control codes"
        )
    reader.take()
    return token.name


def _type(reader: _Reader, subject: str, depth: int) -> DataType:
    if depth > NESTING_MAX:
        raise _Mistake(reader.peek().at, f"{subject}: more than {NESTING_MAX} types inside one another")
    token = reader.take()
    kind: DataType
    if not token.is_name:
        raise _Mistake(token.at, f"{subject}: expected a type, found {_shown(token)}")
    if token.word in ("STRUCT", "ROW"):
        kind = _struct(reader, subject, depth)
    elif token.word == "MAP":
        kind = _map(reader, subject, depth)
    elif token.word in _DECIMALS:
        kind = _decimal(reader, subject)
    else:
        kind = _scalar(reader, token, subject)
    while reader.peek().text == "[":
        at = reader.take().at
        if reader.peek().text.isdigit():
            raise _Mistake(at, f"{subject}: a list has no fixed length here; write {kind.sql}[]")
        reader.expect("]", f"after '{kind.sql}['")
        kind = ListType(kind)
    return kind


def _scalar(reader: _Reader, token: _Token, subject: str) -> DataType:
    word = token.word
    if word in _REFUSED_TYPES:
        raise _Mistake(token.at, f"{subject}: the type {word} cannot be used; {_REFUSED_TYPES[word]}")
    if word not in _SCALARS:
        hint = did_you_mean(word, (*_KNOWN_TYPES, *_REFUSED_TYPES))
        raise _Mistake(token.at, f"{subject}: unknown type '{token.text}'{hint}")
    if word == "TIME" and reader.accept("WITH", "TIME", "ZONE"):
        raise _Mistake(token.at, f"{subject}: the type TIMETZ cannot be used; {_REFUSED_TYPES['TIMETZ']}")
    if word in ("TIMESTAMP", "TIME"):
        # Both spellings are the same here: a TIMESTAMP is an instant, and a text without a zone is UTC.
        _ = reader.accept("WITH", "TIME", "ZONE") or reader.accept("WITHOUT", "TIME", "ZONE")
    if word == "DOUBLE":
        reader.accept("PRECISION")
    if reader.peek().text == "(":
        name = _SCALARS[word]
        fix = f"write {word} and an expectation on its length()" if name == "VARCHAR" else f"write {word}"
        raise _Mistake(reader.peek().at, f"{subject}: {word} takes no length or precision; {fix}")
    return ScalarType(_SCALARS[word])


def _decimal(reader: _Reader, subject: str) -> DataType:
    precision, scale = 18, 3
    if reader.accept("("):
        at = reader.peek().at
        precision, scale = _number(reader, subject), 0
        if reader.accept(","):
            scale = _number(reader, subject)
        reader.expect(")", "after the precision of DECIMAL")
        if not (1 <= precision <= 38 and 0 <= scale <= precision):
            raise _Mistake(at, f"{subject}: DECIMAL({precision},{scale}) has to have 1 to 38 digits, "
                               "not fewer than stand behind the point")  # fmt: skip
    return ScalarType(f"DECIMAL({precision},{scale})")


def _number(reader: _Reader, subject: str) -> int:
    token = reader.take()
    if not (token.text.isascii() and token.text.isdigit()) or len(token.text) > 4:
        raise _Mistake(token.at, f"{subject}: expected a number of digits, found {_shown(token)}")
    return int(token.text)


def _struct(reader: _Reader, subject: str, depth: int) -> StructType:
    reader.expect("(", "after STRUCT")
    fields: list[tuple[str, DataType]] = []
    seen: set[str] = set()
    while True:
        at = reader.peek().at
        name = _name(reader, f"a field name in the STRUCT of {subject}")
        if name.lower() in seen:
            raise _Mistake(at, f"{subject}: field '{name}' stands twice in the STRUCT")
        seen.add(name.lower())
        fields.append((name, _type(reader, f"{subject}, field '{name}'", depth + 1)))
        if reader.accept("NOT", "NULL"):
            raise _Mistake(
                at,
                f"{subject}, field '{name}': only a column can be NOT NULL; write an expectation instead, "
                "for example expect={'named': \"COLUMN.FIELD IS NOT NULL\"}",
            )
        if not reader.accept(","):
            break
    reader.expect(")", f"at the end of the STRUCT of {subject}")
    return StructType(tuple(fields))


def _map(reader: _Reader, subject: str, depth: int) -> MapType:
    reader.expect("(", "after MAP")
    at = reader.peek().at
    key = _type(reader, f"{subject}, key of the MAP", depth + 1)
    if not isinstance(key, ScalarType) or key.sql in ("JSON", "BLOB"):
        raise _Mistake(at, f"{subject}: the keys of a MAP have to be of a plain type, for example VARCHAR")
    reader.expect(",", "between the key and the value of a MAP")
    value = _type(reader, f"{subject}, value of the MAP", depth + 1)
    reader.expect(")", f"at the end of the MAP of {subject}")
    return MapType(key, value)
