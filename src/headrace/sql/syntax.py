"""DuckDB's own syntax tree of a query: read, walked, changed and printed.

DuckDB parses and prints here (`json_serialize_sql`, `json_deserialize_sql`), so that nothing is renamed or
rewritten on the way: what is printed is bound and run by the same DuckDB that read it. A node is the JSON
that DuckDB gives; `class` tells its kind. To know:

    GROUP BY window(...)    WINDOW is a reserved word, so it is masked with a name of the same length
    query_location          is a place in the text's UTF-8 bytes; `place_in` makes line and column of it
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "NOWHERE",
    "WINDOW_FUNCTION",
    "Node",
    "QueryError",
    "Syntax",
    "arguments_of",
    "both",
    "canonical",
    "case_when",
    "column",
    "comparison",
    "constant",
    "constant_true",
    "function",
    "is_lambda",
    "lambda_parameters",
    "location_of",
    "place_in",
    "quoted",
    "select",
    "transformed",
    "walk",
]

Node = dict[str, Any]

NOWHERE = 18446744073709551615
"""The location that DuckDB gives to a node that stands in no text."""

WINDOW_FUNCTION = "windo_"
"""What `window(` is read as: the same number of bytes, so that locations stay right."""

_SKIPPED = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | (\$\w*\$).*?\1 | \bwindow(?=\s*\()""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_PLACES = ("query_location", "query_location_length")


_BEFORE_EXPRESSION = "SELECT\n"


def _in_expression(at: int | None) -> int | None:
    return None if at is None else at - len(_BEFORE_EXPRESSION)


def _shifted(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _in_expression(part) if key == "query_location" and part != NOWHERE else _shifted(part)
            for key, part in value.items()
        }
    return [_shifted(part) for part in value] if isinstance(value, list) else value


class QueryError(Exception):
    """What is wrong with a query; `at` is a place in its bytes. Callers turn it into a Problem."""

    def __init__(self, what: str, fix: str = "", at: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.at = at


def quoted(name: str) -> str:
    """Return `name` as SQL that means it whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


class Syntax:
    """Reads and prints queries with a DuckDB connection that is used for nothing else."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def read(self, text: str) -> Node:
        """Return the query node of the one SELECT statement in `text`, or raise QueryError."""
        if not text.strip():
            raise QueryError("the query is empty", "write a SELECT statement")
        answer = self._call("json_serialize_sql", _masked(text))
        if answer["error"]:
            raise self._syntax_error(answer, text)
        statements = answer["statements"]
        if len(statements) != 1:
            raise QueryError("there is more than one statement", "declare one table for each")
        node: Node = statements[0]["node"]
        return node

    def read_expression(self, text: str) -> Node:
        """Return the node of the one expression in `text`; locations are those in `text`."""
        try:
            node = self.read(f"{_BEFORE_EXPRESSION}{text}\n")
        except QueryError as error:
            raise QueryError(error.what, error.fix, _in_expression(error.at)) from None
        items = node.get("select_list", ())
        more = ("modifiers", "where_clause", "group_expressions", "having", "qualify", "sample")
        if (
            len(items) != 1
            or items[0].get("alias")
            or items[0]["class"] == "STAR"
            or any(node.get(key) for key in more)
            or node["from_table"]["type"] != "EMPTY"
        ):
            raise QueryError("this is not one expression", "write one condition or one value")
        found: Node = _shifted(items[0])
        return found

    def write(self, query: Node) -> str:
        """Return the text of a query node."""
        document = {"error": False, "statements": [{"node": query, "named_param_map": []}]}
        row = self._connection.execute(
            "SELECT json_deserialize_sql(?::JSON)", [json.dumps(document)]
        ).fetchone()
        return str(row[0])

    def write_expression(self, node: Node) -> str:
        """Return the text of an expression."""
        return self.write(select([{**node, "alias": ""}])).removeprefix("SELECT ")

    def _syntax_error(self, answer: Node, text: str) -> QueryError:
        message = str(answer["error_message"]).replace(WINDOW_FUNCTION, "window")
        at = int(answer["position"]) if "position" in answer else None
        if answer.get("error_type") == "not implemented":
            if "Only SELECT" in message:
                return QueryError("it is not a SELECT statement", "write one SELECT")
            return QueryError(message, "write it in another way", at)
        return QueryError(message, self._syntax_fix(text, at), at)

    def _syntax_fix(self, text: str, at: int | None) -> str:
        """Return what to write: names such as `at` need quotes, which nobody would guess."""
        before = text.encode()[: at or 0].decode(errors="replace")
        word = re.search(r"(\w+)\W*$", before)
        if word:
            category = self._connection.execute(
                "SELECT keyword_category FROM duckdb_keywords() WHERE keyword_name = ?", [word[1].lower()]
            ).fetchone()
            if category and category[0] in ("type_function", "column_name"):
                return f'if {word[1]} is a column, write it in quotes: "{word[1]}"'
        return "correct the syntax (it is DuckDB's SQL)"

    def _call(self, name: str, text: str) -> Node:
        row = self._connection.execute(f"SELECT {name}(?::VARCHAR)", [text]).fetchone()
        answer: Node = json.loads(row[0])
        return answer


def _masked(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        found = match.group()
        before = text[: match.start()].rstrip()
        is_word = found.lower() == "window" and not before.endswith(".")
        return WINDOW_FUNCTION if is_word else found

    return _SKIPPED.sub(mask, text)


def place_in(text: str, at: int | None) -> str:
    """Return `" (line 2, column 7 of the query)"` for a place in the bytes of `text`; nothing for nowhere."""
    raw = text.encode()
    if at is None or not 0 <= at <= len(raw):
        return ""
    before = raw[:at].decode(errors="replace")
    line = before.count("\n") + 1
    return f" (line {line}, column {len(before) - before.rfind(chr(10))} of the query)"


def location_of(node: Node) -> int | None:
    """Return where a node, or the first part of it that has a place, stands."""
    for part in walk(node):
        at = part.get("query_location", NOWHERE)
        if at != NOWHERE:
            return int(at)
    return None


def walk(value: Any) -> Iterator[Node]:
    """Yield every node of a tree that has a class or a type, parents first."""
    if isinstance(value, dict):
        if "class" in value or "type" in value:
            yield value
        for part in value.values():
            yield from walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from walk(part)


def transformed(value: Any, change: Callable[[Node], Node | None]) -> Any:
    """Return a copy in which expressions for which `change` gives one are replaced, and not looked into."""
    if isinstance(value, dict):
        if "class" in value:
            replaced = change(value)
            if replaced is not None:
                if value.get("alias") and not replaced.get("alias"):
                    replaced = {**replaced, "alias": value["alias"]}
                return replaced
        return {key: transformed(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [transformed(part, change) for part in value]
    return value


def canonical(node: Any) -> str:
    """Return a text that is equal for equal expressions: without places, aliases of its own, and spelling."""
    return json.dumps(_bare({**node, "alias": ""} if isinstance(node, dict) else node), sort_keys=True)


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(part) for key, part in value.items() if key not in _PLACES}
    if isinstance(value, list):
        return [_bare(part) for part in value]
    return value


def arguments_of(node: Node) -> list[Node]:
    """Return the argument expressions of a FUNCTION node."""
    return [argument["expression"] for argument in node["arguments"]]


def is_lambda(node: Node) -> bool:
    """Return whether a node is a lambda; one of class LAMBDA may be JSON's arrow as well."""
    return bool(node["class"] == "LAMBDA" and node.get("syntax_type") == "LAMBDA_KEYWORD")


def lambda_parameters(node: Node) -> frozenset[str]:
    """Return the lower-case names that a LAMBDA node binds."""
    left = node["lhs"]
    parts = arguments_of(left) if left["class"] == "FUNCTION" else [left]
    return frozenset(part["column_names"][0].lower() for part in parts if part["class"] == "COLUMN_REF")


def column(*names: str, alias: str = "") -> Node:
    """Return a reference to a column."""
    return {
        "class": "COLUMN_REF", "type": "COLUMN_REF", "alias": alias, "query_location": NOWHERE,
        "query_location_length": 0, "column_names": list(names),
    }  # fmt: skip


def function(name: str, *arguments: Node) -> Node:
    """Return the call of a function."""
    return {
        "class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": NOWHERE,
        "query_location_length": 0, "function_name": name, "schema": "", "filter": None,
        "order_bys": {"type": "ORDER_MODIFIER", "orders": []}, "distinct": False, "is_operator": False,
        "export_state": False, "catalog": "", "qualified_name": {"path": [name]},
        "arguments": [{"name": "", "expression": argument} for argument in arguments],
    }  # fmt: skip


def case_when(condition: Node, then: Node, otherwise: Node) -> Node:
    """Return CASE WHEN condition THEN then ELSE otherwise END."""
    return {
        "class": "CASE", "type": "CASE_EXPR", "alias": "", "query_location": NOWHERE,
        "query_location_length": 0,
        "case_checks": [{"when_expr": condition, "then_expr": then}], "else_expr": otherwise,
    }  # fmt: skip


def select(items: list[Node], source: Node | None = None, where: Node | None = None) -> Node:
    """Return a query node: SELECT items FROM source WHERE where."""
    empty: Node = {
        "type": "EMPTY",
        "alias": "",
        "sample": None,
        "query_location": NOWHERE,
        "column_name_alias": [],
    }
    return {
        "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}, "select_list": items,
        "from_table": source or empty, "where_clause": where, "group_expressions": [], "group_sets": [],
        "aggregate_handling": "STANDARD_HANDLING", "having": None, "sample": None, "qualify": None,
    }  # fmt: skip


def comparison(kind: str, left: Node, right: Node) -> Node:
    """Return a comparison; `kind` is DuckDB's name of it, for example COMPARE_EQUAL."""
    return {
        "class": "COMPARISON", "type": kind, "alias": "", "query_location": NOWHERE,
        "query_location_length": 0,
        "left": left, "right": right,
    }  # fmt: skip


def both(parts: list[Node]) -> Node:
    """Return the AND of conditions."""
    if len(parts) == 1:
        return parts[0]
    return {
        "class": "CONJUNCTION", "type": "CONJUNCTION_AND", "alias": "", "query_location": NOWHERE,
        "query_location_length": 0, "children": parts,
    }  # fmt: skip


def constant(kind: str, text: str) -> Node:
    """Return a constant; `kind` is DuckDB's name of it: INTEGER, STRING, BOOLEAN, NULL_LITERAL."""
    return {
        "class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "query_location": NOWHERE,
        "query_location_length": 0, "literal": {"kind": kind, "text": text},
    }  # fmt: skip


def constant_true() -> Node:
    """Return TRUE."""
    return constant("BOOLEAN", "true")
