"""What a panel asks of one table, where it is simple enough to be asked in another system's own words.

Elasticsearch and Cassandra have no SQL that a panel's query could be written in. What most panels ask can be
said without one: columns of a table, or sums of them by others, filtered, ordered, so many of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headrace.sql.plan import NamedColumn, PipelinePlan
from headrace.sql.session import Session
from headrace.sql.syntax import Node, QueryError, arguments_of

__all__ = ["Filter", "Output", "PanelQuery", "clock_length", "read_panel", "since_when"]

_AGGREGATES = frozenset({"sum", "avg", "min", "max", "count"})
_OPERATORS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
}
_UNITS = frozenset({"seconds", "minutes", "hours", "days", "weeks", "months", "years"})


@dataclass(frozen=True)
class Output:
    """A column that a panel shows.

    function  sum, avg, min, max or count of `column`; "" is the column itself
    type      the column's type in DuckDB's words
    month     the column is a text such as 2026-03, and shown as the month's first day
    """

    name: str
    column: str
    type: str
    function: str = ""
    month: bool = False

    @property
    def is_time(self) -> bool:
        """Whether it is a place in time."""
        return not self.function and (self.month or self.type.startswith(("TIMESTAMP", "DATE")))

    @property
    def is_text(self) -> bool:
        """Whether it is a name, and no number."""
        return not self.function and not self.is_time and self.type in ("VARCHAR", "BOOLEAN", "UUID")


@dataclass(frozen=True)
class Filter:
    """A condition: `column` `operator` value, or one of several values where the operator is `in`."""

    column: str
    operator: str
    values: tuple[str | float, ...]


@dataclass(frozen=True)
class PanelQuery:
    """A panel's query over one table.

    time     the column of which the panel shows the last hours, "" when it shows all there is
    grouped  whether rows are put together by the outputs that are no aggregates
    order    (which output, whether the largest comes first)
    """

    table: str
    outputs: tuple[Output, ...]
    filters: tuple[Filter, ...]
    time: str
    grouped: bool
    order: tuple[tuple[Output, bool], ...]
    limit: int | None


def read_panel(query: str, plan: PipelinePlan, session: Session) -> PanelQuery:
    """Take a panel's query apart. Raises QueryError with what is too much for it."""
    node = session.syntax.read(query)
    if node["type"] != "SELECT_NODE" or node["cte_map"].get("map"):
        raise QueryError("it is more than one SELECT")
    if any(node.get(part) for part in ("having", "qualify", "sample")):
        raise QueryError("it has HAVING, QUALIFY or a sample")
    source = node["from_table"]
    known = {table.name.lower(): table for table in plan.tables}
    name = str(source.get("table_name", "")).lower()
    if source["type"] != "BASE_TABLE":
        raise QueryError("it reads more than one table")
    if name not in known:
        raise QueryError(f"it reads '{source['table_name']}', which Headrace keeps for itself")
    columns = {column.name.lower(): column for column in known[name].columns}
    outputs = tuple(one for item in node["select_list"] for one in _outputs(item, columns))
    filters, time = _conditions(node.get("where_clause"), columns)
    order, limit = _modifiers(node["modifiers"], outputs)
    return PanelQuery(
        table=known[name].name,
        outputs=outputs,
        filters=filters,
        time=time,
        grouped=bool(node.get("group_expressions")) or any(one.function for one in outputs),
        order=order,
        limit=limit,
    )


def _column(node: Node, columns: dict[str, NamedColumn]) -> NamedColumn:
    name = str(node["column_names"][-1]).lower() if node["class"] == "COLUMN_REF" else ""
    if name not in columns:
        raise QueryError("it computes with columns")
    return columns[name]


def _outputs(item: Node, columns: dict[str, NamedColumn]) -> Iterator[Output]:
    if item["class"] == "CAST" and (month := _month_of(item)) is not None:
        found = _column(month, columns)
        yield Output(item["alias"] or found.name, found.name, found.type, month=True)
    elif item["class"] == "FUNCTION" and item["function_name"] == "round":
        yield from _outputs({**arguments_of(item)[0], "alias": item["alias"]}, columns)
    elif item["class"] == "FUNCTION" and item["function_name"] in _AGGREGATES:
        yield from _aggregates(item, columns)
    else:
        found = _column(item, columns)
        yield Output(item["alias"] or found.name, found.name, found.type)


def _aggregates(item: Node, columns: dict[str, NamedColumn]) -> Iterator[Output]:
    if item.get("filter") or item.get("distinct"):
        raise QueryError("it has an aggregate with FILTER or DISTINCT")
    of = arguments_of(item)[0]
    if item["function_name"] == "sum" and of["class"] == "FUNCTION" and of["function_name"] == "+":
        # A sum of sums: shown one by one, which on stacked bars is the same height.
        for part in arguments_of(of):
            found = _column(part, columns)
            yield Output(found.name, found.name, found.type, "sum")
    else:
        found = _column(of, columns)
        yield Output(item["alias"] or found.name, found.name, found.type, item["function_name"])


def _month_of(item: Node) -> Node | None:
    """Return the text of CAST(text || '-01' AS DATE)."""
    child = item["child"]
    if item["type_expr"]["type_name"] != "DATE" or child.get("function_name") != "||":
        return None
    text, day = arguments_of(child)
    return text if day["class"] == "CONSTANT" and day["literal"].get("text") == "-01" else None


def _conditions(where: Node | None, columns: dict[str, NamedColumn]) -> tuple[tuple[Filter, ...], str]:
    filters, time = [], ""
    for part in parts_of(where):
        since = since_when(part)
        if since is not None:
            time = _column(since, columns).name
        elif part["class"] == "COMPARISON" and part["type"] in _OPERATORS:
            values = (_value(part["right"]),)
            filters.append(Filter(_column(part["left"], columns).name, _OPERATORS[part["type"]], values))
        elif part.get("type") == "COMPARE_IN":
            values_in = tuple(_value(one) for one in part["children"][1:])
            filters.append(Filter(_column(part["children"][0], columns).name, "in", values_in))
        else:
            raise QueryError("its WHERE is more than comparisons with values")
    return tuple(filters), time


def parts_of(where: Node | None) -> Iterable[Node]:
    """Return the conditions that AND puts together."""
    if where is None:
        return []
    if where["type"] == "CONJUNCTION_AND":
        return [part for child in where["children"] for part in parts_of(child)]
    return [where]


def since_when(condition: Node) -> Node | None:
    """Return the column of `column > now() - INTERVAL …`, or None: it is another condition."""
    if condition.get("type") not in ("COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO"):
        return None
    left, right = condition["left"], condition["right"]
    if left["class"] != "COLUMN_REF" or right.get("function_name") != "-":
        return None
    now, length = arguments_of(right)
    return left if now.get("function_name") == "now" and clock_length(length) is not None else None


def clock_length(node: Node) -> tuple[int, str] | None:
    """Return (2, "hours") for what DuckDB makes of INTERVAL 2 HOURS; None for another expression."""
    unit = str(node.get("function_name", "")).removeprefix("to_")
    if unit not in _UNITS:
        return None
    inner: Node = arguments_of(node)[0]
    while inner["class"] != "CONSTANT":
        inner = inner["child"] if inner["class"] == "CAST" else arguments_of(inner)[0]
    return int(inner["literal"]["text"]), unit


def _value(node: Node) -> str | float:
    literal = node["literal"] if node["class"] == "CONSTANT" else {"kind": ""}
    if literal["kind"] in ("INTEGER", "NUMERIC"):
        return float(literal["text"])
    if literal["kind"] != "STRING":
        raise QueryError("its WHERE is more than comparisons with values")
    return str(literal["text"])


def _modifiers(
    modifiers: Iterable[Node], outputs: tuple[Output, ...]
) -> tuple[tuple[tuple[Output, bool], ...], int | None]:
    order, limit = [], None
    for each in modifiers:
        if each["type"] == "ORDER_MODIFIER":
            for one in each["orders"]:
                found = _ordered_by(one["expression"], outputs)
                if found is not None:
                    order.append((found, one["type"] == "DESCENDING"))
        elif each["type"] == "LIMIT_MODIFIER" and not each.get("offset"):
            limit = int(_value(each["limit"]))
        else:
            raise QueryError("it has DISTINCT or OFFSET")
    return tuple(order), limit


def _ordered_by(node: Node, outputs: tuple[Output, ...]) -> Output | None:
    """Return the output; None for a column that is not shown, which only settles ties."""
    if node["class"] == "CONSTANT":
        position = int(node["literal"]["text"]) - 1
        return outputs[position] if position < len(outputs) else None
    name = str(node["column_names"][-1]).lower() if node["class"] == "COLUMN_REF" else ""
    return next((one for one in outputs if name in (one.name.lower(), one.column.lower())), None)
