"""An in-memory DuckDB with empty relations: what is bound here is what will run.

Names, types and functions are checked by binding the generated SQL against relations without rows; nothing
here reads a row or a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from headrace.declare import Function
from headrace.declare.arity import with_arity
from headrace.errors import InternalError
from headrace.sql.plan import NamedColumn
from headrace.sql.syntax import Node, QueryError, Syntax, quoted, walk

__all__ = ["Session"]

_DESCRIBE = "DESCRIBE "


class Session:
    """Binds queries. Use it in one thread and close it."""

    def __init__(self) -> None:
        import duckdb  # not needed to import headrace

        self._connection = duckdb.connect(
            ":memory:", config={"threads": 1, "enable_external_access": False, "errors_as_json": True}
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        self._error = duckdb.Error
        self.syntax = Syntax(self._connection.cursor())
        self.functions: dict[str, Function] = {}

    def close(self) -> None:
        """Give back the memory."""
        self._connection.close()

    def relation(self, name: str, columns: Iterable[NamedColumn]) -> None:
        """Create an empty relation, or replace it."""
        body = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
        self._connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} ({body})")

    def function(self, declared: Function) -> None:
        """Make a user's function known; it is never called here. Raises QueryError for a type or name."""
        import duckdb

        try:
            create: Any = self._connection.create_function  # its stubs refuse what it takes
            create(
                declared.name,
                with_arity(lambda *arrays: arrays[0], len(declared.arguments)),
                [duckdb.type(kind) for kind in declared.arguments],
                duckdb.type(declared.returns),
                type="arrow",
                side_effects=False,
            )
        except duckdb.Error as error:
            raise QueryError(_message(str(error)), "correct its types or its name") from None
        self.functions[declared.name.lower()] = declared

    def describe(
        self, sql: str, *, origin: Node | None = None, shift: int | None = None
    ) -> tuple[NamedColumn, ...]:
        """Return the columns of a query, or raise QueryError with what DuckDB's binder says against it.

        The place of a mistake is searched in `origin`, the author's tree, by the name that the binder gives;
        or, when `sql` is the author's own text but for `shift` bytes before it, it is the binder's own.
        """
        try:
            rows = self._connection.execute(_DESCRIBE + sql).fetchall()
        except self._error as error:
            raise _refusal(str(error), origin, shift) from None
        return tuple(NamedColumn(row[0], row[1]) for row in rows)

    def value(self, sql: str) -> Any:
        """Return the only value of a query without relations."""
        try:
            row = self._connection.execute(sql).fetchone()
        except self._error as error:
            raise _refusal(str(error), None, None) from None
        if row is None:
            raise InternalError(f"a query without a row: {sql}")
        return row[0]


def _facts(text: str) -> Node:
    start = text.find("{")
    try:
        facts = json.loads(text[start:].split("\n\nLINE", maxsplit=1)[0]) if start >= 0 else {}
    except ValueError:
        facts = {}
    return facts if isinstance(facts, dict) else {}


def _message(text: str) -> str:
    message = str(_facts(text).get("exception_message", text))
    first = message.split("\n", maxsplit=1)[0].rstrip(". ")
    return first.removesuffix(". You might need to add explicit type casts")


def _refusal(text: str, origin: Node | None, shift: int | None) -> QueryError:
    facts = _facts(text)
    message = _message(text)
    fix = "correct the expression"
    if facts.get("error_subtype") == "NO_MATCHING_FUNCTION" or "No function matches" in message:
        called = facts.get("call") or message.partition("'")[2].rpartition("'")[0]
        message = f"no function takes these arguments: {called}"
        lines = str(facts.get("exception_message", "")).splitlines()
        forms = [line.strip().replace('"', "").replace(", /)", ")") for line in lines if "->" in line]
        fix = "CAST the arguments" + (f"; it exists as {'; '.join(forms[:3])}" if forms else "")
    elif facts.get("candidates"):
        fix = f"did you mean '{str(facts['candidates']).split(',')[0]}'?"
    at = None
    if shift is not None and "position" in facts:
        at = int(facts["position"]) - len(_DESCRIBE) - shift
    elif origin is not None:
        named = re.search(r"[\"']([^\"']+)[\"']", message)
        at = _place_of_name(origin, str(facts.get("name") or (named[1] if named else "")))
    return QueryError(message, fix, at)


def _place_of_name(tree: Node, name: str) -> int | None:
    if not name:
        return None
    for node in walk(tree):
        if name.lower() in (
            str(node.get("function_name", "")).lower(),
            str((node.get("column_names") or [""])[-1]).lower(),
            str(node.get("type_name", "")).lower(),
        ):
            return int(node["query_location"])
    return None
