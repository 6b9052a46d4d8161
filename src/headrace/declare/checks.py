"""Checks of one declaration: what can be said without reading SQL.

A `Checker` is made by a method of `Pipeline`, is given what the author wrote, and gives back values that are
safe to keep; what was wrong stands in `problems`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from headrace.declare.durations import parse_duration
from headrace.declare.schema import Column, ScalarType, Schema
from headrace.declare.schema_text import parse_type, read_schema
from headrace.declare.values import Expect, Place
from headrace.declare.words import did_you_mean
from headrace.errors import Problem

__all__ = ["SYSTEM_RELATIONS", "Checker", "names_in", "place_of"]

NAME_LENGTH_MAX = 63
SYSTEM_RELATIONS = (
    "closings",
    "dead_letters",
    "epochs",
    "failed_cells",
    "late_rows",
    "ledger",
    "metrics",
    "metrics_by_minute",
    "outcomes_by_minute",
    "reasons_by_minute",
    "removed",
    "rule_checks",
)
_LABEL_TYPES = ("VARCHAR", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_SYSTEM_PREFIXES = ("late_", "headrace_", "duckdb_", "pragma_", "sqlite_")

# Words that DuckDB does not read as a relation's name unless they are quoted (its reserved keywords), and two
# that stand for functions of ours.
_RESERVED_WORDS = frozenset(  # as text: a list of them is four pages long
    re.findall(
        r"\w+",
        """
    all analyse analyze and any array as asc asymmetric both case cast check collate column
    constraint create default deferrable desc describe distinct do else end except false fetch for
    foreign from group having in initially intersect into lambda lateral leading limit not null
    offset on only or order pivot pivot_longer pivot_wider placing primary qualify references
    returning select show some summarize symmetric table then to trailing true union unique unpivot
    using variadic when where window with session_window
        """,
    )
)


def place_of(frame: FrameType) -> Place:
    """Return where `frame` stands in its author's files; below the working folder it is shown from there."""
    file = frame.f_code.co_filename
    path = Path(file)
    try:
        base = Path.cwd()
    except OSError:  # the working folder was deleted
        return Place(file, frame.f_lineno)
    if path.is_absolute() and path.is_relative_to(base):
        file = str(path.relative_to(base))
    return Place(file, frame.f_lineno)


def names_in(values: Iterable[Any], attribute: str) -> tuple[str, ...]:
    """Return that attribute of each value."""
    return tuple(getattr(value, attribute) for value in values)


class Checker:
    """Checks one declaration of the given kind and name."""

    def __init__(self, place: Place, kind: str, name: object) -> None:
        self.place = place
        self.kind = kind
        self.subject = f"{kind} '{name}'"
        self.problems: tuple[Problem, ...] = ()

    def problem(self, what: str, fix: str = "") -> None:
        """Add a problem at this declaration's place."""
        self.problems += (Problem(self.place.file, self.place.line, self.subject, what, fix),)

    def unknown_words(self, unknown: Collection[str], method: Callable[..., Any]) -> None:
        """Every keyword argument that the method does not know is a problem."""
        if not unknown:
            return
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known = [p.name for p in inspect.signature(method).parameters.values() if p.kind in kinds]
        known.remove("self")
        for word in unknown:
            hint = did_you_mean(word, known).removeprefix("; ")
            self.problem(f"unknown argument '{word}'", hint or f"it takes {', '.join(known)}")

    # -- names ---------------------------------------------------------------------------------------------

    def project_name(self, name: object) -> None:
        """A pipeline's name becomes part of file names and metric labels."""
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            self.problem("the name has to be letters, digits, _ and -, and not begin with a digit")
        elif len(name) > NAME_LENGTH_MAX:
            self.problem(f"the name is {len(name)} characters long", f"use at most {NAME_LENGTH_MAX}")

    def identifier(self, name: object, what: str = "the name") -> bool:
        """Check that `name` can be written in SQL without quotes; say why not."""
        if not isinstance(name, str):
            self.problem(f"{what} has to be a string, not {type(name).__name__}")
        elif not name:
            self.problem(f"{what} is empty")
        elif not (name.isascii() and name.isidentifier()):
            fixed = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
            fixed = f"n{fixed}" if fixed[:1].isdigit() else fixed
            self.problem(f"{what} '{name}' is not an identifier", f"write for example '{fixed.strip('_')}'")
        elif name.startswith("_"):
            self.problem(f"{what} '{name}' begins with _, which Headrace keeps for itself",
                         f"write '{name.lstrip('_')}'")  # fmt: skip
        elif name.lower() in _RESERVED_WORDS:
            self.problem(f"{what} '{name}' is a word of SQL", f"write for example '{name}_'")
        elif len(name) > NAME_LENGTH_MAX:
            self.problem(f"{what} is {len(name)} characters long", f"use at most {NAME_LENGTH_MAX}")
        else:
            return True
        return False

    def own_name(self, name: object, taken: Iterable[str]) -> None:
        """Check a name that no other declaration of the same kind may have."""
        if self.identifier(name) and str(name).lower() in {other.lower() for other in taken}:
            self.problem(f"there is already a {self.kind} of this name", "give it another name")

    def relation_name(self, name: object, taken: Mapping[str, str]) -> None:
        """Check a name that queries use; `taken` holds the earlier ones with what they are."""
        if not self.identifier(name):
            return
        word = str(name).lower()
        if word in taken:
            self.problem(f"there is already a {taken[word]} of this name (case is ignored)",
                         "give it another name")  # fmt: skip
        elif word in SYSTEM_RELATIONS:
            self.problem("this is the name of a system table", f"write for example 'my_{name}'")
        elif word.startswith(_SYSTEM_PREFIXES):
            prefix = next(prefix for prefix in _SYSTEM_PREFIXES if word.startswith(prefix))
            self.problem(f"names that begin with '{prefix}' belong to system tables",
                         f"write for example 'my_{name}'")  # fmt: skip
        elif "__" in word:
            self.problem("two _ in a row tell the store's own relations apart",
                         f"write '{re.sub('_+', '_', str(name))}'")  # fmt: skip

    def title(self, title: object, taken: Iterable[str]) -> None:
        """Check a panel's title: some text, once."""
        if not isinstance(title, str) or not title.strip():
            self.problem("the title has to be some text")
        elif title in taken:
            self.problem("there is already a panel of this title", "give it another title")

    def names(self, word: str, value: object) -> tuple[str, ...]:
        """Return one name or several as a tuple; each may stand once."""
        found = (value,) if isinstance(value, str) else value
        if found is None:
            return ()
        if isinstance(found, Mapping) or not isinstance(found, Iterable):
            self.problem(f"{word} has to be a column or a list of columns, not {type(found).__name__}")
            return ()
        names: list[str] = []
        for name in found:
            if not isinstance(name, str) or not name:
                self.problem(f"{word}: {name!r} is not a column's name")
            elif name.lower() in {other.lower() for other in names}:
                self.problem(f"{word}: column '{name}' stands twice")
            else:
                names.append(name)
        return tuple(names)

    # -- plain values --------------------------------------------------------------------------------------

    def text(self, word: str, value: object) -> str:
        """Return a string."""
        if not isinstance(value, str):
            self.problem(f"{word} has to be a string, not {type(value).__name__}")
        return str(value)

    def query(self, value: object) -> str:
        """Return a query's text; the planner reads it."""
        if not isinstance(value, str):
            self.problem(f"the query has to be a string, not {type(value).__name__}")
            return ""
        if not value.strip():
            self.problem("the query is missing", "write a SELECT as the second argument")
        return value

    def duration(
        self, word: str, value: object, default: str, *, least: timedelta = timedelta(0)
    ) -> timedelta:
        """Return the length; `default` stands in for one that cannot be read."""
        try:
            if not isinstance(value, str | timedelta):
                fix = f"; write '{value} seconds'" if isinstance(value, int | float) else ""
                raise ValueError(f"it has to be text such as '5 minutes', not {value!r}{fix}")
            length = parse_duration(value)
            if length < least:
                raise ValueError(f"{value!r} is too short" if least else f"{value!r} is negative")
        except ValueError as error:
            self.problem(f"{word}: {error}")
            return parse_duration(default)
        return length

    def choice(self, word: str, value: object, known: tuple[str, ...]) -> str:
        """Return one of the known words."""
        if value not in known:
            hint = did_you_mean(str(value), known).removeprefix("; ")
            self.problem(f"{word} {value!r} is not one of {', '.join(known)}", hint)
            return known[0]
        return str(value)

    def record_time(self, value: object) -> Literal["log", "header"]:
        """Return where the record time comes from."""
        return "header" if self.choice("record_time", value, ("log", "header")) == "header" else "log"

    def contract(self, value: object) -> Literal["evolve", "freeze"]:
        """Return which schemas a stream's records may name."""
        return "freeze" if self.choice("contract", value, ("evolve", "freeze")) == "freeze" else "evolve"

    # -- schemas and columns -------------------------------------------------------------------------------

    def schema(self, value: object) -> Schema:
        """Return the columns; none when anything is wrong with them, which the planner takes as a sign."""
        if isinstance(value, str):
            schema, mistakes = read_schema(value)
        elif isinstance(value, type) and "pydantic" in sys.modules:
            # A model can only have been made where pydantic is loaded already.
            from headrace.declare.schema_model import model_schema

            schema, mistakes = model_schema(value)
        else:
            given = value.__name__ if isinstance(value, type) else type(value).__name__
            schema, mistakes = (
                Schema(()),
                (f"it has to be a SQL column list or a pydantic model, not {given}",),
            )
        for mistake in mistakes:
            self.problem(f"schema: {mistake}")
        before = len(self.problems)
        seen: set[str] = set()
        for column in schema.columns:
            self._column(column, seen)
        return Schema(()) if mistakes or len(self.problems) > before else schema

    def _column(self, column: Column, seen: set[str]) -> None:
        if column.name.lower() in seen:
            self.problem(f"schema: column '{column.name}' stands twice (case is ignored)")
        if column.name.startswith("_"):
            self.problem(f"schema: column '{column.name}' begins with _, which Headrace keeps for itself",
                         "leave it out: fields that are not declared are ignored")  # fmt: skip
        if len(column.name) > NAME_LENGTH_MAX:
            self.problem(f"schema: the name of column '{column.name}' is too long",
                         f"use at most {NAME_LENGTH_MAX} characters")  # fmt: skip
        seen.add(column.name.lower())

    def columns_of(
        self, word: str, value: object, schema: Schema, derived: tuple[tuple[str, str], ...] = ()
    ) -> tuple[str, ...]:
        """Return the declared columns that are named, in the schema's spelling."""
        names = self.names(word, value)
        if not schema.columns:
            return names
        found = []
        for name in names:
            column = schema.find(name)
            if column is not None:
                found.append(column.name)
            elif name.lower() in {other.lower() for other, _ in derived}:
                self.problem(f"{word}: '{name}' is a derived column", "name a column of the schema")
            else:
                self._no_column(word, name, schema)
        return tuple(found)

    def label(self, value: object, schema: Schema, derived: tuple[tuple[str, str], ...]) -> str | None:
        """Return the column by which metrics count; its values have to be texts, numbers or truths."""
        name = next(iter(self.columns_of("label", value, schema, derived)), None)
        column = schema.find(name) if name else None
        if column is not None and column.type.sql not in _LABEL_TYPES:
            self.problem(
                f"label: '{name}' is {column.type.sql}", "name a column of a few texts or whole numbers"
            )
        return name

    def event_time(self, value: object, schema: Schema) -> str | None:
        """Return the event-time column; it has to be an instant."""
        name = next(iter(self.columns_of("event_time", value, schema)), None)
        column = schema.find(name) if name else None
        if column is None or column.type == ScalarType("TIMESTAMP WITH TIME ZONE"):
            return name
        fix = f"declare '{name} TIMESTAMP NOT NULL'"
        if column.type.sql == "DATE":
            self.problem(f"event_time: column '{name}' is a DATE, and a day is not an instant: lateness and "
                         "windows below a day could not be told", fix)  # fmt: skip
        else:
            self.problem(f"event_time: column '{name}' is {column.type.sql}, not TIMESTAMP", fix)
        return name

    def _no_column(self, word: str, name: str, schema: Schema) -> None:
        known = names_in(schema.columns, "name")
        hint = did_you_mean(name, known).removeprefix("; ")
        self.problem(f"{word}: no column '{name}' in the schema", hint or f"it has {', '.join(known[:20])}")

    def derived(self, value: object, schema: Schema) -> tuple[tuple[str, str], ...]:
        """Return derived columns; their names are identifiers that no other column has."""
        found: list[tuple[str, str]] = []
        for name, sql in self._named("derive", value):
            if not self.identifier(name, "derive: the name"):
                continue
            if schema.find(name):
                self.problem(f"derive: '{name}' is a column of the schema already", "give it another name")
            elif name.lower() in {other.lower() for other, _ in found}:
                self.problem(f"derive: '{name}' stands twice (case is ignored)")
            elif not isinstance(sql, str) or not sql.strip():
                self.problem(f"derive: '{name}' has to be a SQL expression")
            else:
                found.append((name, sql))
        return tuple(found)

    def expectations(self, value: object) -> tuple[tuple[str, Expect], ...]:
        """Return expectations; a string stands for one that rejects."""
        found: list[tuple[str, Expect]] = []
        for name, given in self._named("expect", value):
            expect = Expect(given) if isinstance(given, str) else given
            if not self.identifier(name, "expect: the name"):
                continue
            if not isinstance(expect, Expect):
                self.problem(
                    f"expect: '{name}' has to be a SQL condition or hr.Expect, not {type(given).__name__}"
                )
            elif not str(expect.condition or "").strip():
                self.problem(f"expect: the condition of '{name}' is empty")
            elif name.lower() in {other.lower() for other, _ in found}:
                self.problem(f"expect: '{name}' stands twice (case is ignored)")
            else:
                self.choice(f"expect: '{name}': on_violation", expect.on_violation, ("reject", "warn"))
                found.append((name, expect))
        return tuple(found)

    def _named(self, word: str, value: object) -> tuple[tuple[str, Any], ...]:
        if value is None:
            return ()
        if not isinstance(value, Mapping):
            self.problem(f"{word} has to be a dict of names and SQL, not {type(value).__name__}")
            return ()
        return tuple(value.items())

    # -- functions and references --------------------------------------------------------------------------

    def types(self, word: str, value: object) -> tuple[str, ...]:
        """Return DuckDB's names of the types."""
        given = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else ()
        if not given:
            self.problem(f"{word} is missing", f"write for example {word}="
                         + ('"DOUBLE"' if word == "returns" else '["DOUBLE"]'))  # fmt: skip
        found = []
        for text in given:
            try:
                found.append(parse_type(str(text)).sql)
            except ValueError as error:
                self.problem(f"{word}: {error}")
        return tuple(found)

    def sent_by_name(self, function: Any) -> None:
        """Check that another process can find the function by its module and name."""
        name = getattr(function, "__qualname__", "")
        if not callable(function):
            self.problem(f"a function is needed, not {type(function).__name__}")
        elif not name.isidentifier():
            self.problem(f"'{name or type(function).__name__}' cannot be sent to another process by its name",
                         "define it with def, at the top of a module")  # fmt: skip

    def reference_path(self, path: object) -> str:
        """Return the file's path; whether it exists is asked when it is opened."""
        text = str(path) if isinstance(path, str | Path) else ""
        if not text:
            self.problem("the path is missing", "write the path of a CSV or Parquet file")
        elif Path(text).suffix.lower() not in (".csv", ".parquet"):
            self.problem(f"'{text}' does not end with .csv or .parquet")
        return text

    def reference_key(self, key: object, schema: Schema | None) -> tuple[str, ...]:
        """Return the key's columns; at least one."""
        names = self.names("key", key) if schema is None else self.columns_of("key", key, schema)
        if not key:
            self.problem("key is missing", "name the column whose values are unique in the file")
        return names
