"""A panel's query in PostgreSQL's words, for the tables that a replica keeps there.

Written from DuckDB's own syntax tree. The two are of one family; what is not known to mean the same in both
is refused, so that a panel there shows what it shows here or is not there.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from headrace.sql.panel_query import clock_length, parts_of, since_when
from headrace.sql.session import Session
from headrace.sql.syntax import Node, QueryError, arguments_of, quoted

__all__ = ["panel_in_postgresql"]

_OPERATORS = frozenset({"+", "-", "*", "%", "||"})
_FUNCTIONS = frozenset(
    (
        "sum", "avg", "min", "max", "count", "abs", "lower", "upper", "trim", "greatest", "least", "length",
        "now", "nullif", "bool_and", "bool_or",
    )
)  # fmt: skip
_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
}
_TYPES = {
    "VARCHAR": "text",
    "DOUBLE": "double precision",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "DATE": "date",
    "DECIMAL": "numeric",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamptz",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}


def panel_in_postgresql(
    query: str,
    tables: Mapping[str, str],
    session: Session,
    *,
    instants: Container[str] = (),
    time_filter: str = "",
) -> tuple[str, bool]:
    """Return the query, and whether its first column is an instant, which is called "time" then.

    `tables` gives the name there, as SQL, of each table in small letters; `instants` are the columns that are
    instants. `time_filter` takes the place of a condition on the last hours: {} in it is the column. Raises
    QueryError with what has no equal there.
    """
    node = session.syntax.read(query)
    first = (node.get("select_list") or [{}])[0]
    by_time = first.get("class") == "COLUMN_REF" and first["column_names"][-1] in instants
    return _Writer(tables, time_filter).query(node, time_first=by_time), by_time


class _Writer:
    def __init__(self, tables: Mapping[str, str], time_filter: str) -> None:
        self._tables = tables
        self._time_filter = time_filter

    def query(self, node: Node, *, time_first: bool = False) -> str:
        if node["type"] != "SELECT_NODE" or node["cte_map"].get("map"):
            raise QueryError("it is more than one SELECT")
        if node.get("qualify") or node.get("sample"):
            raise QueryError("it has QUALIFY or a sample")
        items = [self._item(item) for item in node["select_list"]]
        if time_first:
            items[0] = f'{self.expression(node["select_list"][0])} AS "time"'
        parts = [f"SELECT {', '.join(items)}"]
        if node["from_table"]["type"] != "EMPTY":
            parts.append(f"FROM {self._source(node['from_table'])}")
        if where := [self._condition(part) for part in parts_of(node.get("where_clause"))]:
            parts.append("WHERE " + " AND ".join(where))
        if groups := node.get("group_expressions"):
            parts.append("GROUP BY " + ", ".join(self.expression(one) for one in groups))
        if node.get("having"):
            parts.append(f"HAVING {self.expression(node['having'])}")
        return " ".join([*parts, *(self._modifier(each) for each in node["modifiers"])])

    def _item(self, item: Node) -> str:
        if item["class"] == "STAR":
            raise QueryError("it has *")
        text = self.expression(item)
        return f"{text} AS {quoted(item['alias'])}" if item.get("alias") else text

    def _source(self, node: Node) -> str:
        alias = f" AS {quoted(node['alias'])}" if node.get("alias") else ""
        if node["type"] == "SUBQUERY":
            return f"({self.query(node['subquery']['node'])}){alias or ' AS inner_query'}"
        if node["type"] != "BASE_TABLE":
            raise QueryError("it joins tables")
        name = str(node["table_name"])
        if name.lower() not in self._tables:
            raise QueryError(f"it reads '{name}', which is not copied")
        return self._tables[name.lower()] + alias

    def _condition(self, part: Node) -> str:
        since = since_when(part)
        if since is not None and self._time_filter:
            return self._time_filter.format(self.expression(since))
        return self.expression(part)

    def _modifier(self, node: Node) -> str:
        if node["type"] == "ORDER_MODIFIER":
            return "ORDER BY " + ", ".join(
                # DuckDB has NULL last, whichever way it sorts.
                self.expression(one["expression"])
                + (" DESC NULLS LAST" if one["type"] == "DESCENDING" else "")
                for one in node["orders"]
            )
        if node["type"] == "LIMIT_MODIFIER" and not node.get("offset"):
            return f"LIMIT {self.expression(node['limit'])}"
        raise QueryError("it has DISTINCT or OFFSET")

    def expression(self, node: Node) -> str:
        kind = node["class"]
        write = getattr(self, f"_{kind.lower()}", None)
        if write is None:
            raise QueryError(f"it has an expression of the kind {kind}")
        return str(write(node))

    def _column_ref(self, node: Node) -> str:
        return ".".join(quoted(name) for name in node["column_names"])

    def _constant(self, node: Node) -> str:
        kind, text = node["literal"]["kind"], str(node["literal"].get("text", ""))
        if kind == "STRING":
            return "'" + text.replace("'", "''") + "'"
        if kind == "NULL_LITERAL":
            return "NULL"
        if kind in ("INTEGER", "NUMERIC", "BOOLEAN"):
            return text
        raise QueryError("it has a constant of another kind")

    def _function(self, node: Node) -> str:
        name, arguments = node["function_name"], arguments_of(node)
        length = clock_length(node)
        if length is not None:
            return f"INTERVAL '{length[0]} {length[1]}'"
        texts = [self.expression(one) for one in arguments]
        if name == "/":
            # Never a whole number, and nothing instead of an error for a share of nothing.
            return f"({texts[0]}::double precision / nullif({texts[1]}, 0))"
        if name in _OPERATORS:
            return f"({f' {name} '.join(texts)})" if len(texts) == 2 else f"({name}{texts[0]})"
        if name == "round":
            return f"round(({texts[0]})::numeric{''.join(', ' + text for text in texts[1:])})"
        if name == "count_star":
            name, texts = "count", ["*"]
        elif name not in _FUNCTIONS:
            raise QueryError(f"it calls {name}()")
        distinct = "DISTINCT " if node.get("distinct") else ""
        chosen = f" FILTER (WHERE {self.expression(node['filter'])})" if node.get("filter") else ""
        return f"{name}({distinct}{', '.join(texts)}){chosen}"

    def _cast(self, node: Node) -> str:
        name = node["type_expr"]["type_name"].upper()
        if name not in _TYPES or node.get("try_cast"):
            raise QueryError(f"it has a cast to {name}")
        bounds = [self.expression(one) for one in node["type_expr"].get("children") or ()]
        size = f"({', '.join(bounds)})" if bounds else ""
        return f"({self.expression(node['child'])})::{_TYPES[name]}{size}"

    def _comparison(self, node: Node) -> str:
        if node["type"] not in _COMPARISONS:
            raise QueryError("it has a comparison of another kind")
        left, right = self.expression(node["left"]), self.expression(node["right"])
        return f"({left} {_COMPARISONS[node['type']]} {right})"

    def _conjunction(self, node: Node) -> str:
        word = " AND " if node["type"] == "CONJUNCTION_AND" else " OR "
        return "(" + word.join(self.expression(one) for one in node["children"]) + ")"

    def _operator(self, node: Node) -> str:
        parts = [self.expression(one) for one in node["children"]]
        match node["type"]:
            case "OPERATOR_COALESCE":
                return f"coalesce({', '.join(parts)})"
            case "OPERATOR_IS_NULL":
                return f"({parts[0]} IS NULL)"
            case "OPERATOR_IS_NOT_NULL":
                return f"({parts[0]} IS NOT NULL)"
            case "OPERATOR_NOT":
                return f"(NOT {parts[0]})"
            case "COMPARE_IN" | "COMPARE_NOT_IN":
                word = "IN" if node["type"] == "COMPARE_IN" else "NOT IN"
                return f"({parts[0]} {word} ({', '.join(parts[1:])}))"
            case _:
                raise QueryError("it has an operator of another kind")

    def _between(self, node: Node) -> str:
        parts = [self.expression(node[each]) for each in ("input", "lower", "upper")]
        return f"({parts[0]} BETWEEN {parts[1]} AND {parts[2]})"

    def _case(self, node: Node) -> str:
        checks = " ".join(
            f"WHEN {self.expression(one['when_expr'])} THEN {self.expression(one['then_expr'])}"
            for one in node["case_checks"]
        )
        return f"(CASE {checks} ELSE {self.expression(node['else_expr'])} END)"

    def _subquery(self, node: Node) -> str:
        if node["subquery_type"] != "SCALAR":
            raise QueryError("it has a sub-query of another kind")
        return f"({self.query(node['subquery']['node'])})"
