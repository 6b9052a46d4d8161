"""Expressions of a query over a stream: every name resolved, every function allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from headrace.declare.words import did_you_mean, listed
from headrace.sql import functions
from headrace.sql.syntax import (
    WINDOW_FUNCTION,
    Node,
    QueryError,
    arguments_of,
    column,
    lambda_parameters,
    location_of,
    transformed,
)

__all__ = [
    "ALIAS",
    "GROUP",
    "Expressions",
    "Relation",
    "Scope",
    "has_aggregate",
    "is_aggregate",
    "refuse_function",
]

ALIAS = "ALIAS_REF"
"""Class of a node of ours: a name that means an item of the same SELECT."""

GROUP = "GROUP_REF"
"""Class of a node of ours: a column of "_groups"."""

_LAMBDA_TAKERS = frozenset(
    f"{kind}{verb}"
    for kind in ("list_", "array_", "")
    for verb in ("transform", "apply", "filter", "reduce", "invoke")
)


@dataclass(frozen=True)
class Relation:
    """A relation in FROM.

    `hidden` columns are there, but `*` does not give them; those that are `nameable` may be written.
    `event_time` holds the lower-case names of the columns that are the stream's event time.
    """

    name: str
    columns: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    event_time: frozenset[str] = frozenset()
    nameable: frozenset[str] = frozenset()

    def column(self, name: str) -> str | None:
        """Return a column's own spelling."""
        word = name.lower()
        for known in (*self.columns, *(name for name in self.hidden if name in self.nameable)):
            if known.lower() == word:
                return known
        return None


@dataclass
class Scope:
    """The relations that a name can mean, in the order of FROM."""

    relations: list[Relation] = field(default_factory=list)
    merged: set[str] = field(
        default_factory=set
    )  # columns of USING: of several relations, and yet not ambiguous

    def relation(self, name: str) -> Relation | None:
        """Return the relation of this name."""
        return next((known for known in self.relations if known.name.lower() == name.lower()), None)

    def find(self, names: list[str]) -> tuple[Relation, list[str]] | None:
        """Return whose column `names` is, and relation, column and fields; None when there is none.

        Raises QueryError when two relations have it.
        """
        if len(names) > 1:
            owner = self.relation(names[0])
            found = owner.column(names[1]) if owner else None
            if owner and found:
                return owner, [owner.name, found, *names[2:]]
        owners = [known for known in self.relations if known.column(names[0])]
        if len(owners) > 1 and names[0].lower() not in self.merged:
            choices = " or ".join(f"{known.name}.{names[0]}" for known in owners)
            raise QueryError(f"'{names[0]}' is a column of two relations", f"write {choices}")
        if not owners:
            return None
        return owners[0], [owners[0].name, str(owners[0].column(names[0])), *names[1:]]

    def names(self) -> list[str]:
        """Return every visible column."""
        return [name for known in self.relations for name in known.columns]


def is_aggregate(name: str) -> bool:
    """Return whether DuckDB has an aggregate of this name."""
    word = name.lower()
    known = (functions.SHORT_LIST, functions.ORDERED_AGGREGATES, functions.OTHER_AGGREGATES)
    return any(word in names for names in known)


def has_aggregate(node: object) -> bool:
    """Return whether an aggregate stands somewhere in a tree that no OVER makes a window function of."""
    found = False

    def look(part: Node) -> Node | None:
        nonlocal found
        found = found or (part["class"] == "FUNCTION" and is_aggregate(part["function_name"]))
        return None

    transformed(node, look)
    return found


def refuse_function(name: str, arguments: int, known: Collection[str]) -> QueryError | None:
    """Return why a function may not be used over streams; None when it may. `known` are the user's own."""
    word = name.lower()
    if word in known or is_aggregate(word):
        return None
    if word in functions.CLOCK or (word == "age" and arguments == 1):
        return QueryError(
            f"'{name}' asks for the time: it would answer differently when records are read again",
            "use the event time or _record_time; now() may stand in panels and alerts",
        )
    reasons = (
        (functions.CHANCE, "answers differently every time", "take hash(...) of a value of the record"),
        (functions.FILES, "reads the machine that it runs on", "declare a pipeline.reference"),
        (functions.SESSION, "reads DuckDB's session or catalog, not the record", "write the value itself"),
        (functions.ROW_MAKING, "makes several rows of one", "write FROM stream, UNNEST(list) AS t(item)"),
    )  # fmt: skip
    for names, what, fix in reasons:
        if word in names:
            return QueryError(f"'{name}' {what}", fix)
    if functions.is_pure(word):
        return None
    if word in (WINDOW_FUNCTION, "session_window"):
        return QueryError(
            f"{'window' if word == WINDOW_FUNCTION else word}(...) may stand in GROUP BY only",
            "GROUP BY it and select window_start, window_end",
        )
    return QueryError(
        f"unknown function '{name}'{did_you_mean(name, [*functions.PURE, *functions.SHORT_LIST, *known])}",
        "use a function of DuckDB or declare it with pipeline.function",
    )


class Expressions:
    """Resolves names and checks functions; collects what is wrong in `errors`."""

    def __init__(
        self,
        scope: Scope,
        known_functions: Collection[str],
        errors: list[QueryError],
        *,
        aliases: Iterable[str] = (),
        group_columns: Mapping[str, str] | None = None,
    ) -> None:
        self._scope = scope
        self._known = known_functions
        self._errors = errors
        self._aliases = {alias.lower() for alias in aliases}
        self._group_columns = group_columns or {}

    def refuse(self, what: str, fix: str, node: Node) -> None:
        """Add a problem at a node's place."""
        self._errors.append(QueryError(what, fix, location_of(node)))

    def resolved(self, node: Node, *, aggregates: str = "") -> Node:
        """Return the expression with every column qualified.

        `aggregates` says where they may not stand ("WHERE"); empty: they may.
        """
        return self._visit(node, frozenset(), aggregates)

    def _visit(self, node: Node, bound: frozenset[str], aggregates: str) -> Node:
        def change(part: Node) -> Node | None:
            return self._change(part, bound, aggregates)

        found: Node = transformed(node, change)
        return found

    def _change(self, node: Node, bound: frozenset[str], aggregates: str) -> Node | None:
        kind = node["class"]
        if kind == "COLUMN_REF":
            return self._column(node, bound)
        if kind == "FUNCTION":
            return self._function(node, bound, aggregates)
        if kind == "LAMBDA":  # outside of a function that takes one it is JSON's arrow
            return {
                **node,
                "lhs": self._visit(node["lhs"], bound, aggregates),
                "expr": self._visit(node["expr"], bound, aggregates),
            }
        reasons = {
            "SUBQUERY": ("a sub-query", "join a reference table, or write a view over a table"),
            "WINDOW": ("a window function (OVER)", "write a view over this table: it may use them"),
            "PARAMETER": ("a parameter", "write the value itself"),
            "POSITIONAL_REFERENCE": ("a positional reference", "write the column's name"),
            "STAR": ("COLUMNS(...) or * inside an expression", "write the columns"),
            "DEFAULT": ("DEFAULT", "write the value itself"),
            "COLLATE": ("COLLATE", "strings are compared by their bytes; fold them, for example lower(x)"),
        }
        if node["type"] == "GROUPING_FUNCTION":
            self.refuse("grouping(...)", "declare a table for each grouping", node)
            return node
        if kind in reasons:
            what, fix = reasons[kind]
            self.refuse(f"{what} cannot be used over a stream", fix, node)
            return node
        return None

    def _column(self, node: Node, bound: frozenset[str]) -> Node:
        names = node["column_names"]
        if names[0].lower() in bound:
            return node
        try:
            found = self._scope.find(names)
        except QueryError as error:
            self._errors.append(QueryError(error.what, error.fix, location_of(node)))
            return node
        word = names[0].lower()
        if len(names) == 1 and word in self._group_columns:
            if found:
                self.refuse(
                    f"'{names[0]}' is a column of the stream and a bound of the window",
                    "rename the column in a sub-select", node,
                )  # fmt: skip
            return {**node, "class": GROUP, "column_names": [self._group_columns[word]]}
        if found:
            return {**node, "column_names": found[1]}
        if word in self._aliases:
            return {**node, "class": ALIAS}
        if len(names) == 1 and (word in functions.CLOCK or word in functions.SESSION):
            wrong = refuse_function(word, 0, ())
            if wrong:
                self.refuse(wrong.what, wrong.fix, node)
            return node
        self._unknown(node)
        return node

    def _unknown(self, node: Node) -> None:
        names = node["column_names"]
        owner = self._scope.relation(names[0]) if len(names) > 1 else None
        if owner:
            word, known = names[1], list(owner.columns)
        else:
            word, known = names[0], [*self._scope.names(), *self._aliases]
        if word.lower() in ("window_start", "window_end"):
            self.refuse(
                f"'{word}' is there only with window(...)", "add GROUP BY window(time, '5 minutes')", node
            )
            return
        what = f"unknown column '{'.'.join(names)}'{did_you_mean(word, known)}"
        self.refuse(what, f"there are {listed(known)}", node)

    def _function(self, node: Node, bound: frozenset[str], aggregates: str) -> Node | None:
        name = node["function_name"]
        path = node["qualified_name"]["path"]
        if len(path) > 1:  # l.list_sum() is list_sum(l)
            first = {**column(*path[:-1]), "query_location": node["query_location"]}
            arguments = [{"name": "", "expression": first}, *node["arguments"]]
            node = {**node, "schema": "", "catalog": "", "arguments": arguments,
                    "qualified_name": {"path": [name]}}  # fmt: skip
            return self._visit(node, bound, aggregates)
        if aggregates and is_aggregate(name):
            shown = name.replace("count_star", "count")
            self.refuse(f"the aggregate {shown}(...) cannot stand in {aggregates}",
                        "aggregates stand in SELECT and HAVING of a GROUP BY", node)  # fmt: skip
            return node
        wrong = refuse_function(name, len(node["arguments"]), self._known)
        if wrong:
            self.refuse(wrong.what, wrong.fix, node)
            return node
        if not any(argument["class"] == "LAMBDA" for argument in arguments_of(node)):
            return None
        return {**node, "arguments": [
            {**argument, "expression": self._argument(name, argument["expression"], bound, aggregates)}
            for argument in node["arguments"]
        ]}  # fmt: skip

    def _argument(self, name: str, node: Node, bound: frozenset[str], aggregates: str) -> Node:
        if node["class"] != "LAMBDA" or name.lower() not in _LAMBDA_TAKERS:
            return self._visit(node, bound, aggregates)
        inner = bound | lambda_parameters(node)
        return {**node, "expr": self._visit(node["expr"], inner, "a lambda")}
