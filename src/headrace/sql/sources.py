"""FROM of a query over a stream: one stream, sub-selects of it, UNNEST of its lists, joins with references.

What is read is rewritten to stand over "_rows" and "_reference_NAME", and keeps a record's address, record
time and event time on its way through sub-selects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.declare.words import did_you_mean, listed
from headrace.sql.expressions import ALIAS, Expressions, Relation, Scope, has_aggregate
from headrace.sql.plan import StreamPlan
from headrace.sql.syntax import (
    Node,
    QueryError,
    both,
    canonical,
    column,
    comparison,
    constant_true,
    function,
    location_of,
    select,
    transformed,
)
from headrace.sql.system import HIDDEN_COLUMNS, REFERENCE_COLUMNS

__all__ = [
    "ADDRESS",
    "Catalog",
    "Item",
    "Source",
    "expanded",
    "is_event_time",
    "output_items",
    "output_name",
    "plain_columns",
    "read_source",
    "refuse_clauses",
    "where_of",
]

ADDRESS = ("_partition", "_offset", "_record_time")
_NAMEABLE = frozenset(ADDRESS)


@dataclass(frozen=True)
class Catalog:
    """Everything that a name in FROM can mean, and the user's functions."""

    streams: Mapping[str, StreamPlan]
    references: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # name: its columns, its key
    tables: frozenset[str]  # tables and system relations
    functions: frozenset[str]


@dataclass
class Source:
    """What a query over a stream reads. `node` is FROM over "_rows", `where` conditions that came with it."""

    node: Node
    scope: Scope
    stream: StreamPlan | None = None
    owner: str = ""  # the relation that carries the address
    time: Node = field(default_factory=dict)
    references: tuple[str, ...] = ()
    unnests: bool = False


@dataclass(frozen=True)
class Item:
    """One item of SELECT: a column, or a star (`name` is empty)."""

    name: str
    node: Node


def read_source(node: Node, catalog: Catalog, errors: list[QueryError]) -> Source:
    """Return what FROM reads; raises QueryError when nothing further can be said about the query."""
    reader = _Reader(catalog, errors)
    source = reader.read(_leftmost(node))
    if source.stream is None:
        raise QueryError("it reads no stream", "write FROM and the stream's name", location_of(node))
    return source


def _leftmost(node: Node) -> Node:
    """Return joins nested to the left: a, (b JOIN c) is (a, b) JOIN c, as the inner ON sees b and c only."""
    if node["type"] != "JOIN":
        return node
    left, right = _leftmost(node["left"]), _leftmost(node["right"])
    if right["type"] == "JOIN" and node["ref_type"] == "CROSS":
        inner = _leftmost({**node, "left": left, "right": right["left"]})
        return {**right, "left": inner}
    return {**node, "left": left, "right": right}


class _Reader:
    def __init__(self, catalog: Catalog, errors: list[QueryError]) -> None:
        self._catalog = catalog
        self._errors = errors

    def read(self, node: Node) -> Source:
        """Read one node of FROM; the left side first, because UNNEST and ON see what stands before them."""
        kind = node["type"]
        if kind == "BASE_TABLE":
            return self._stream(node)
        if kind == "SUBQUERY":
            return self._sub_select(node)
        if kind == "JOIN":
            return self._join(node)
        if kind == "EMPTY":
            raise QueryError("it reads no stream", "write FROM and the stream's name")
        if kind == "TABLE_FUNCTION":
            self._refuse_function(node)
        raise QueryError(f"{kind} in FROM", "read the stream by its name", location_of(node))

    def _refuse_function(self, node: Node) -> None:
        name = node["function"]["function_name"]
        fix = "declare a reference table with pipeline.reference, or a stream"
        if name.lower() == "unnest":
            fix = "write the stream first: FROM stream, UNNEST(list) AS t(item)"
        raise QueryError(
            f"the table function '{name}' in FROM of a table over a stream", fix, location_of(node)
        )

    def _stream(self, node: Node) -> Source:
        name = node["table_name"]
        plan = _by_name(self._catalog.streams, name)
        if plan is None:
            self._refuse_table(node)
        assert plan is not None  # noqa: S101 - _refuse_table raises
        self._refuse_decorations(node)
        alias = node["alias"] or plan.stream.name
        event_time = plan.stream.event_time or "_record_time"
        relation = Relation(
            alias,
            tuple(known.name for known in plan.columns),
            tuple(known.name for known in HIDDEN_COLUMNS),
            frozenset({event_time.lower()}),
            _NAMEABLE,
        )
        rewritten = {**node, "table_name": "_rows", "alias": alias, "qualified_name": {"path": ["_rows"]}}
        return Source(rewritten, Scope([relation]), plan, alias, column(alias, event_time))

    def _refuse_table(self, node: Node) -> None:
        name = node["table_name"]
        at = location_of(node)
        if _by_name(self._catalog.references, name) is not None:
            raise QueryError(
                f"FROM begins with the reference table '{name}'",
                f"write the stream first: FROM stream JOIN {name} ON ...", at,
            )  # fmt: skip
        if name.lower() in self._catalog.tables:
            raise QueryError(f"'{name}' is a table: it cannot be read together with a stream",
                             "write a view over tables, or repeat its query here", at)  # fmt: skip
        known = [*self._catalog.streams, *self._catalog.references, *self._catalog.tables]
        raise QueryError(
            f"there is no stream or table '{name}'{did_you_mean(name, known)}",
            f"there are {listed(sorted(known))}", at,
        )  # fmt: skip

    def _refuse_decorations(self, node: Node) -> None:
        if node.get("sample"):
            self._errors.append(QueryError("TABLESAMPLE takes rows by chance", "write a condition in WHERE",
                                           location_of(node)))  # fmt: skip
        if node.get("column_name_alias") or node.get("at_clause"):
            self._errors.append(QueryError("a list of column names after a stream", "write a sub-select",
                                           location_of(node)))  # fmt: skip

    def _sub_select(self, node: Node) -> Source:
        query = node["subquery"]["node"]
        refuse_clauses(query, self._errors, where="a sub-select over a stream")
        grouped = query["group_expressions"] or query.get("having") or query["select_list"]
        if query["group_expressions"] or query.get("having") or has_aggregate(query["select_list"]):
            raise QueryError("an aggregate in a sub-select over a stream",
                             "make it a table, and a view of it", location_of(grouped))  # fmt: skip
        source = read_source(query["from_table"], self._catalog, self._errors)
        given = node.get("column_name_alias") or []
        items = output_items(query, source, self._catalog, self._errors, given=given)
        conditions = plain_columns(where_of(query, source, self._catalog, self._errors))
        alias = node["alias"] or "_sub"
        names, listed, event_time = [], [], set()
        for position, item in enumerate(expanded(items, source.scope)):
            own = given[position] if position < len(given) else item.name
            names.append(own)
            listed.append({**plain_columns(item.node), "alias": own})
            if is_event_time(item.node, source.scope):
                event_time.add(own.lower())
        hidden = [column(source.owner, name, alias=name) for name in ADDRESS]
        inner = select([*listed, *hidden, {**source.time, "alias": "_time"}], source.node, conditions)
        relation = Relation(alias, tuple(names), (*ADDRESS, "_time"), frozenset(event_time), _NAMEABLE)
        rewritten = {
            **node,
            "alias": alias,
            "column_name_alias": [],
            "subquery": {**node["subquery"], "node": inner},
        }
        return replace(
            source, node=rewritten, scope=Scope([relation]), owner=alias, time=column(alias, "_time")
        )

    def _join(self, node: Node) -> Source:
        source = self.read(node["left"])
        right = node["right"]
        if right["type"] == "TABLE_FUNCTION":
            return self._unnest(node, source)
        if right["type"] == "BASE_TABLE" and (
            found := _by_name(self._catalog.references, right["table_name"])
        ):
            return self._reference(node, source, found)
        if right["type"] == "BASE_TABLE" and _by_name(self._catalog.streams, right["table_name"]) is None:
            self._refuse_table(right)
        raise QueryError(
            "a join of two streams is not supported yet",
            "join a stream with reference tables, or write a view that joins two tables", location_of(right),
        )  # fmt: skip

    def _unnest(self, node: Node, source: Source) -> Source:
        right = node["right"]
        call = right["function"]
        if call["function_name"].lower() != "unnest" or len(call["arguments"]) != 1:
            self._refuse_function(right)
        if node["ref_type"] != "CROSS" and node["join_type"] != "INNER":
            self._errors.append(QueryError("an outer join with UNNEST", "write FROM stream, UNNEST(list)",
                                           location_of(right)))  # fmt: skip
        names = Expressions(source.scope, self._catalog.functions, self._errors)
        argument = names.resolved(call["arguments"][0]["expression"], aggregates="UNNEST")
        alias = right["alias"] or "unnest"
        given = right.get("column_name_alias") or ["unnest"]
        relation = Relation(alias, tuple(given))
        rewritten = {**right, "alias": alias, "function": {
            **call, "arguments": [{"name": "", "expression": argument}]}}  # fmt: skip
        scope = Scope([*source.scope.relations, relation], set(source.scope.merged))
        joined = {**node, "left": source.node, "right": rewritten, "is_implicit": False}
        if node.get("condition"):
            joined["condition"] = Expressions(scope, self._catalog.functions, self._errors).resolved(
                node["condition"], aggregates="ON"
            )
        return replace(source, node=joined, scope=scope, unnests=True)

    def _reference(
        self, node: Node, source: Source, found: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> Source:
        columns, key = found
        right = node["right"]
        self._refuse_decorations(right)
        name = next(
            known for known in self._catalog.references if known.lower() == right["table_name"].lower()
        )
        relation = Relation(right["alias"] or name, columns, tuple(known.name for known in REFERENCE_COLUMNS))
        using = node.get("using_columns") or []
        merged = source.scope.merged | {word.lower() for word in using}
        scope = Scope([*source.scope.relations, relation], merged)
        if node["ref_type"] != "REGULAR" or node["join_type"] not in ("INNER", "LEFT"):
            kind = node["join_type"] if node["ref_type"] == "REGULAR" else node["ref_type"]
            raise QueryError(
                f"a {kind} join with '{name}'",
                f"write JOIN or LEFT JOIN {name} ON an equality with {_listed(key)}", location_of(right),
            )  # fmt: skip
        condition = self._condition(node, source, relation, scope, using)
        missing = [part for part in key if not _fixes(condition, relation.name, part)]
        if missing:
            self._errors.append(QueryError(
                f"the join with '{name}' does not fix its key {_listed(missing)}",
                f"write ON {' AND '.join(f'{relation.name}.{part} = ...' for part in key)}",
                location_of(right),
            ))  # fmt: skip
        at = column(source.owner, "_record_time")
        since, until = (column(relation.name, known.name) for known in REFERENCE_COLUMNS)
        version = both([
            comparison("COMPARE_LESSTHANOREQUALTO", since, at),
            function("ifnull", comparison("COMPARE_LESSTHAN", at, until), constant_true()),
        ])  # fmt: skip
        rewritten = {**right, "table_name": f"_reference_{name}", "alias": relation.name,
                     "qualified_name": {"path": [f"_reference_{name}"]}}  # fmt: skip
        joined = {**node, "left": source.node, "right": rewritten, "using_columns": [],
                  "condition": both([condition, version])}  # fmt: skip
        return replace(source, node=joined, scope=scope, references=tuple(
            dict.fromkeys((*source.references, name))))  # fmt: skip

    def _condition(
        self, node: Node, source: Source, relation: Relation, scope: Scope, using: list[str]
    ) -> Node:
        if not using:
            if not node.get("condition"):
                raise QueryError("a join without ON", "write ON and an equality with the key",
                                 location_of(node["right"]))  # fmt: skip
            names = Expressions(scope, self._catalog.functions, self._errors)
            return names.resolved(node["condition"], aggregates="ON")
        left = Expressions(source.scope, self._catalog.functions, self._errors)
        right = Expressions(Scope([relation]), self._catalog.functions, self._errors)
        here = {"query_location": location_of(node["right"]) or 0}
        return both([
            comparison("COMPARE_EQUAL", *(side.resolved({**column(word), **here}) for side in (left, right)))
            for word in using
        ])  # fmt: skip


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _by_name(known: Mapping[str, Any], name: str) -> Any:
    return next((value for key, value in known.items() if key.lower() == name.lower()), None)


def _fixes(condition: Node, relation: str, key: str) -> bool:
    """Return whether `condition` makes a reference's key column equal to something of another relation."""
    if condition["class"] == "CONJUNCTION" and condition["type"] == "CONJUNCTION_AND":
        return any(_fixes(part, relation, key) for part in condition["children"])
    if condition["class"] != "COMPARISON" or condition["type"] != "COMPARE_EQUAL":
        return False
    sides = (condition["left"], condition["right"])
    mine = canonical(column(relation, key))
    return any(
        canonical(side).lower() == mine.lower() and f'"column_names": ["{relation}"' not in canonical(other)
        for side, other in (sides, sides[::-1])
    )


def is_event_time(node: Node, scope: Scope) -> bool:
    """Return whether a resolved expression is the stream's event time itself."""
    names = node.get("column_names") or []
    owner = scope.relation(names[0]) if node["class"] == "COLUMN_REF" and len(names) == 2 else None
    return bool(owner and names[1].lower() in owner.event_time)


def where_of(query: Node, source: Source, catalog: Catalog, errors: list[QueryError]) -> Node | None:
    """Return WHERE, resolved, with the items of SELECT that it names put in; None when there is none."""
    if not query.get("where_clause"):
        return None
    aliases = [item["alias"] for item in query["select_list"] if item.get("alias")]
    names = Expressions(source.scope, catalog.functions, errors, aliases=aliases)
    found = names.resolved(query["where_clause"], aggregates="WHERE")
    items = {item["alias"].lower(): item for item in query["select_list"] if item.get("alias")}

    def substitute(node: Node) -> Node | None:
        if node["class"] != ALIAS:
            return None
        plain = Expressions(source.scope, catalog.functions, errors)
        return {**plain.resolved(items[node["column_names"][0].lower()], aggregates="WHERE"), "alias": ""}

    substituted: Node = transformed(found, substitute)
    return substituted


def plain_columns(node: Any) -> Any:
    """Return the tree with names of items as DuckDB reads them."""
    return transformed(node, lambda part: {**part, "class": "COLUMN_REF"} if part["class"] == ALIAS else None)


def output_items(
    query: Node, source: Source, catalog: Catalog, errors: list[QueryError], *, given: Sequence[str] = ()
) -> list[Item]:
    """Return the items of SELECT, resolved; a star stays a star that leaves the hidden columns out."""
    aliases = [item["alias"] for item in query["select_list"] if item.get("alias")]
    names = Expressions(source.scope, catalog.functions, errors, aliases=aliases)
    items = []
    for node in query["select_list"]:
        if node["class"] == "STAR" and not node.get("columns"):
            items.append(_star(node, source.scope, names, errors))
            continue
        resolved = names.resolved(node, aggregates="a query without GROUP BY")
        is_named = len(items) < len(given)
        name = given[len(items)] if is_named else output_name(node, errors, len(items))
        items.append(Item(name, resolved))
    return items


def _star(node: Node, scope: Scope, names: Expressions, errors: list[QueryError]) -> Item:
    if node["relation_name"] and scope.relation(node["relation_name"]) is None:
        errors.append(QueryError(f"there is no '{node['relation_name']}' in FROM",
                                 f"there are {', '.join(known.name for known in scope.relations)}",
                                 location_of(node)))  # fmt: skip
    replaced = [{**entry, "value": names.resolved(entry["value"])} for entry in node["replace_list"]]
    return Item("", {**node, "replace_list": replaced})


def output_name(node: Node, errors: list[QueryError], position: int) -> str:
    """Return an item's name; an expression has to be given one."""
    if node.get("alias"):
        return str(node["alias"])
    if node["class"] == "COLUMN_REF":
        return str(node["column_names"][-1])
    if node["class"] in ("FUNCTION", "OPERATOR") and node["type"] == "STRUCT_EXTRACT":
        return str(node["children"][1]["literal"]["text"])
    errors.append(QueryError(f"column {position + 1} has no name", "write: ... AS name", location_of(node)))
    return f"column{position + 1}"


def expanded(items: list[Item], scope: Scope) -> list[Item]:
    """Return the items with every star written out."""
    found = []
    for item in items:
        if item.name or item.node["class"] != "STAR":
            found.append(item)
            continue
        star = item.node
        excluded = [*star["exclude_list"], *(entry["column"] for entry in star["qualified_exclude_list"])]
        left_out = {str(name).lower() for name in excluded}
        renamed = {entry["key"]["column"].lower(): entry["value"] for entry in star["rename_list"]}
        replaced = {str(entry["key"]).lower(): entry["value"] for entry in star["replace_list"]}
        seen: set[str] = set()
        for known in scope.relations:
            if star["relation_name"] and known.name.lower() != star["relation_name"].lower():
                continue
            for name in known.columns:
                word = name.lower()
                if word in left_out or (word in scope.merged and word in seen):
                    continue
                seen.add(word)
                node = replaced.get(word, column(known.name, name))
                found.append(Item(str(renamed.get(word, name)), {**node, "alias": ""}))
    return found


def refuse_clauses(query: Node, errors: list[QueryError], *, where: str) -> None:
    """Refuse what a query over a stream cannot have, whichever its class."""
    if query["type"] != "SELECT_NODE":
        kind = (
            "a set operation (UNION, EXCEPT, INTERSECT)"
            if query["type"] == "SET_OPERATION_NODE"
            else query["type"]
        )
        raise QueryError(f"{kind} in {where}", "declare a table for each and a view that puts them together")
    if query["cte_map"]["map"]:
        raise QueryError(
            f"WITH in {where}", "write the sub-select in FROM: FROM (SELECT ... FROM stream) AS s"
        )
    fixes = {
        "ORDER_MODIFIER": ("ORDER BY", "a table has no order: write a panel or a view over it"),
        "LIMIT_MODIFIER": ("LIMIT", "write a panel or a view over the table"),
        "LIMIT_PERCENT_MODIFIER": ("LIMIT", "write a panel or a view over the table"),
        "DISTINCT_MODIFIER": ("DISTINCT", "GROUP BY the columns instead"),
    }
    for modifier in query["modifiers"]:
        word, fix = fixes.get(modifier["type"], (modifier["type"], "leave it out"))
        errors.append(QueryError(f"{word} in {where}", fix, location_of(modifier)))
    if query.get("qualify"):
        errors.append(QueryError(f"QUALIFY in {where}", "write a view over the table: it may do so",
                                 location_of(query["qualify"])))  # fmt: skip
    if query.get("sample"):
        errors.append(
            QueryError(f"USING SAMPLE in {where} takes rows by chance", "keep rows by a condition in WHERE")
        )
