"""Which rows a query takes, where its text leaves that open: two looks at the same table may differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.sql.syntax import Node, QueryError, location_of, walk

__all__ = ["open_choices"]

_BY_ORDER = frozenset({"first_value", "last_value", "nth_value", "lag", "lead", "ntile", "row_number"})
_SAMPLE = "take rows by their content, for example WHERE hash(id) % 10 = 0"


def open_choices(query: Any) -> Iterator[QueryError]:
    """Yield what a view may not do: take rows by chance, or by an order that is not said.

    A replica of a view is sent what differs from the last look, and would be sent rows although none changed.
    """
    for node in walk(query):
        if node.get("sample"):
            yield QueryError("a sample of rows in a view differs every time", _SAMPLE, location_of(node))
        modifiers = {each["type"]: each for each in node.get("modifiers") or ()}
        if "ORDER_MODIFIER" not in modifiers:
            yield from _unordered(modifiers)
        if node.get("class") == "WINDOW" and node["function_name"] in _BY_ORDER:
            name = node["function_name"]
            if not node["orders"] and not node.get("arg_orders"):
                yield QueryError(f"{name}() in a view depends on the order of rows",
                                 f"write {name}(...) OVER (... ORDER BY ...)", location_of(node))  # fmt: skip


def _unordered(modifiers: dict[str, Node]) -> Iterator[QueryError]:
    limit = modifiers.get("LIMIT_MODIFIER")
    if limit is not None:
        yield QueryError("LIMIT or OFFSET without ORDER BY in a view: which rows it takes is open",
                         "write ORDER BY what tells rows apart before it", location_of(limit))  # fmt: skip
    distinct = modifiers.get("DISTINCT_MODIFIER")
    if distinct is not None and distinct["distinct_on_targets"]:
        yield QueryError("DISTINCT ON without ORDER BY in a view: which row it takes is open",
                         "write ORDER BY what puts the wanted row first", location_of(distinct))  # fmt: skip
