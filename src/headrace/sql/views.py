"""Queries over tables: views, panels and alerts. DuckDB runs them as they are; here they are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.declare import Table
from headrace.declare.words import did_you_mean, listed
from headrace.sql import functions
from headrace.sql.choices import open_choices
from headrace.sql.kept import refuse_kept_type
from headrace.sql.plan import NamedColumn, TableClass, TablePlan
from headrace.sql.session import Session
from headrace.sql.sources import Catalog, output_name
from headrace.sql.syntax import WINDOW_FUNCTION, Node, QueryError, location_of, walk
from headrace.sql.tables import Refused

__all__ = ["bind_query", "order_of_tables", "plan_view", "reads_stream", "relations_read"]

_TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})


def relations_read(query: Any) -> Iterator[Node]:
    """Yield every BASE_TABLE of a query that is not one of its own WITH."""
    own = {
        entry["key"].lower() for node in walk(query) for entry in (node.get("cte_map") or {"map": []})["map"]
    }
    for node in walk(query):
        if node.get("type") == "BASE_TABLE" and node["table_name"].lower() not in own:
            yield node


def reads_stream(query: Node, catalog: Catalog) -> bool:
    """Return whether a query reads a stream or nothing that is known, and so is no view."""
    names = [node["table_name"].lower() for node in relations_read(query)]
    streams = {name.lower() for name in (*catalog.streams, *catalog.references)}
    return (
        not names
        or any(name in streams for name in names)
        or not any(name in catalog.tables for name in names)
    )


def order_of_tables(queries: Mapping[str, Node]) -> tuple[list[str], list[list[str]]]:
    """Return the tables, each after what it reads, and the cycles; tables of a cycle are left out."""
    spelling = {name.lower(): name for name in queries}
    reads = {
        name: sorted(
            {
                spelling[word]
                for node in relations_read(query)
                if (word := node["table_name"].lower()) in spelling
            }
        )
        for name, query in queries.items()
    }
    ordered: list[str] = []
    cycles: list[list[str]] = []
    state: dict[str, str] = {}

    def visit(name: str, path: list[str]) -> None:
        if state.get(name) == "done":
            return
        if name in path:
            cycles.append([*path[path.index(name) :], name])
            return
        for other in reads[name]:
            visit(other, [*path, name])
        if state.get(name) != "done":
            state[name] = "done"
            ordered.append(name)

    for name in queries:
        visit(name, [])
    inside = {name for cycle in cycles for name in cycle}
    return [name for name in ordered if name not in inside], cycles


def plan_view(table: Table, query: Node, catalog: Catalog, session: Session) -> TablePlan:
    """Return the plan of a view; raises Refused with every problem."""
    errors: list[QueryError] = []
    _judge(query, catalog, errors, is_view=True)
    if query["type"] == "SELECT_NODE":
        for position, item in enumerate(query["select_list"]):
            if item["class"] != "STAR":
                output_name(item, errors, position)
    if errors:
        raise Refused(errors)
    try:
        sql = session.syntax.write(query)
        columns = session.describe(table.query, shift=0)
    except QueryError as error:
        raise Refused([error]) from None
    names = [known.name for known in columns]
    for name in names:
        if name.startswith("_") or names.count(name) > 1:
            what = (
                f"two columns are named '{name}'"
                if names.count(name) > 1
                else f"column '{name}' begins with _"
            )
            errors.append(QueryError(what, "write: ... AS another_name"))
    errors += [
        QueryError(f"key='{name}' is not a column of the view", f"there are {', '.join(names)}")
        for name in table.key
        if name not in names
    ]
    errors += [wrong for known in columns if (wrong := refuse_kept_type(known.type)) is not None]
    if errors:
        raise Refused(errors)
    sources = tuple(dict.fromkeys(_spelled(node["table_name"], catalog) for node in relations_read(query)))
    return TablePlan(
        table=table, kind=TableClass.VIEW, sources=sources, references=(), columns=columns, key=table.key,
        fingerprint="", view_sql=sql,
    )  # fmt: skip


def _spelled(name: str, catalog: Catalog) -> str:
    return next((known for known in catalog.tables if known.lower() == name.lower()), name)


def bind_query(text: str, query: Node, catalog: Catalog, session: Session) -> tuple[NamedColumn, ...]:
    """Return the columns of a panel's or an alert's query; raises Refused with every problem."""
    errors: list[QueryError] = []
    try:
        _judge(query, catalog, errors, is_view=False)
        if not errors:
            return session.describe(text, shift=0)
    except QueryError as error:
        errors.append(error)
    raise Refused(errors)


def _judge(query: Node, catalog: Catalog, errors: list[QueryError], *, is_view: bool) -> None:
    """Collect what no query over tables may do; a view is replicated: it may not ask for time or chance."""
    for node in relations_read(query):
        name = node["table_name"]
        if name.lower() in catalog.tables:
            continue
        streams = {known.lower() for known in catalog.streams}
        if name.lower() in streams:
            what, fix = f"'{name}' is a stream", "read a table over it"
        else:
            what = f"there is no table '{name}'{did_you_mean(name, catalog.tables)}"
            fix = f"there are {listed(sorted(catalog.tables))}"
        errors.append(QueryError(what, fix, location_of(node)))
    if is_view:
        errors += open_choices(query)
    for node in walk(query):
        if node.get("type") == "TABLE_FUNCTION":
            name = node["function"]["function_name"]
            if name.lower() not in _TABLE_FUNCTIONS:
                errors.append(
                    QueryError(f"the table function '{name}'", "read tables only", location_of(node))
                )
        elif node.get("class") == "FUNCTION":
            _judge_function(node, catalog, errors, is_view=is_view)
        elif is_view and node.get("class") == "COLLATE":
            errors.append(QueryError("COLLATE in a view: which of equal strings it shows is open",
                                     "fold them, for example lower(x)", location_of(node)))  # fmt: skip
        elif is_view and node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
            word = node["column_names"][0].lower()
            if word in functions.CLOCK:
                errors.append(_clock(word, node))


def _clock(name: str, node: Node) -> QueryError:
    return QueryError(f"'{name}' in a view: it would change although no table did",
                      "write it in the panel or the alert over the view", location_of(node))  # fmt: skip


def _judge_function(node: Node, catalog: Catalog, errors: list[QueryError], *, is_view: bool) -> None:
    name = node["function_name"].lower()
    at = location_of(node)
    if name in catalog.functions:
        errors.append(QueryError(f"'{name}' is a function of this pipeline, which sees records and no tables",
                                 "write it in the table over the stream, or in `derive`, and read its column "
                                 "here", at))  # fmt: skip
    elif name in functions.FILES or name in functions.SESSION:
        errors.append(QueryError(f"'{name}' reads more than tables", "write the value itself", at))
    elif name in (WINDOW_FUNCTION, "session_window"):
        shown = "window" if name == WINDOW_FUNCTION else name
        errors.append(QueryError(f"{shown}(...) is for tables over streams",
                                 "GROUP BY time_bucket(INTERVAL '1 hour', window_start)", at))  # fmt: skip
    elif is_view and (name in functions.CLOCK or (name == "age" and len(node["arguments"]) == 1)):
        errors.append(_clock(name, node))
    elif is_view and name in functions.CHANCE:
        errors.append(QueryError(f"'{name}' in a view answers differently every time", "leave it out", at))
    elif is_view and name in functions.ORDERED_AGGREGATES and not node["order_bys"]["orders"]:
        errors.append(
            QueryError(f"{name}() depends on the order of rows", f"write {name}(... ORDER BY ...)", at)
        )
