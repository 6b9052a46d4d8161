"""Takes a query over a stream apart into row part, aggregate part and result part (DESIGN: one code)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.declare import Table
from headrace.sql.aggregates import build_aggregate, narrowed
from headrace.sql.expressions import GROUP, has_aggregate
from headrace.sql.grouping import Grouped, Use, read_grouped
from headrace.sql.kept import refuse_kept_type
from headrace.sql.plan import Aggregate, NamedColumn, StreamPlan, TableClass, TablePlan
from headrace.sql.session import Session
from headrace.sql.sources import (
    ADDRESS,
    Catalog,
    Source,
    expanded,
    output_items,
    plain_columns,
    read_source,
    refuse_clauses,
    where_of,
)
from headrace.sql.syntax import (
    Node,
    QueryError,
    canonical,
    case_when,
    column,
    comparison,
    constant,
    is_lambda,
    location_of,
    quoted,
    select,
    transformed,
)
from headrace.sql.system import HIDDEN_COLUMNS

__all__ = ["Refused", "plan_stream_table"]

_TIME = "TIMESTAMP WITH TIME ZONE"
_BOUNDS = (NamedColumn("window_start", _TIME), NamedColumn("window_end", _TIME))

_NO_TYPE = '"NULL"'
_FILLER = NamedColumn("_none", "INTEGER")  # a relation has to have a column


class Refused(Exception):
    """A query has problems; `errors` holds all that were found."""

    def __init__(self, errors: list[QueryError]) -> None:
        super().__init__(str([error.what for error in errors]))
        self.errors = errors


def plan_stream_table(table: Table, query: Node, catalog: Catalog, session: Session) -> TablePlan:
    """Return the plan of a table over a stream; raises Refused with every problem."""
    errors: list[QueryError] = []
    try:
        refuse_clauses(query, errors, where="a table over a stream")
        source = read_source(query["from_table"], catalog, errors)
        assert source.stream is not None  # noqa: S101 - read_source sees to it
        session.relation("_rows", (*source.stream.columns, *HIDDEN_COLUMNS))
        planner = _Planner(table, query, source, catalog, session, errors)
        grouped = query["group_expressions"] or has_aggregate(query["select_list"])
        plan = planner.grouped() if grouped else planner.rows()
    except QueryError as error:
        errors.append(error)
    if errors:
        raise Refused(errors)
    return plan


@dataclass
class _Planner:
    table: Table
    query: Node
    source: Source
    catalog: Catalog
    session: Session
    errors: list[QueryError]

    def stop_if_wrong(self) -> None:
        """Bind nothing that is known to be wrong: DuckDB would say it again in its own words."""
        if self.errors:
            raise Refused(self.errors)

    def row_part(self, items: list[Node], *, where: Node | None) -> str:
        """Return the row part: address, record time, event time, then `items`."""
        owner = self.source.owner
        address = [column(owner, name, alias=name) for name in ADDRESS]
        time = {**self.source.time, "alias": "_time"}
        return self.session.syntax.write(select([*address, time, *items], self.source.node, where))

    def where(self) -> Node | None:
        """Return WHERE, resolved."""
        return where_of(self.query, self.source, self.catalog, self.errors)

    # -- rows ----------------------------------------------------------------------------------------------

    def rows(self) -> TablePlan:
        """Plan a table of rows."""
        if self.query.get("having"):
            raise QueryError("HAVING without GROUP BY", "write WHERE")
        items = expanded(output_items(self.query, self.source, self.catalog, self.errors), self.source.scope)
        where = self.where()
        self.check_names([item.name for item in items])
        self.check_key([item.name for item in items])
        self.stop_if_wrong()
        self.check_condition(where, "WHERE")
        listed = [{**plain_columns(item.node), "alias": item.name} for item in items]
        row_sql = self.row_part(listed, where=where)
        columns = self.session.describe(row_sql, origin=self.query)[4:]
        self.check_types(columns, [item.node for item in items])
        return self.made(TableClass.ROWS, columns, self.table.key, row_sql, _fingerprint_of(columns))

    def check_names(self, names: list[str]) -> None:
        """Names of columns differ, also when case is ignored, and do not begin with _."""
        seen: set[str] = set()
        for name in names:
            if name.lower() in seen:
                self.errors.append(
                    QueryError(f"two columns are named '{name}'", "write: ... AS another_name")
                )
            if name.startswith("_"):
                self.errors.append(QueryError(f"column '{name}' begins with _, which is Headrace's",
                                              f"write: ... AS {name.lstrip('_') or 'name'}"))  # fmt: skip
            seen.add(name.lower())

    def check_types(self, columns: tuple[NamedColumn, ...], nodes: Sequence[Node]) -> None:
        """Every column, made by the node in its place, has a type that can be kept; a bare NULL has none."""
        for known, node in zip(columns, nodes, strict=True):
            wrong = refuse_kept_type(known.type, location_of(node))
            if wrong is not None:
                self.errors.append(wrong)
            if known.type == _NO_TYPE:
                self.errors.append(QueryError(f"'{known.name}' is always NULL and has no type",
                                              "write for example CAST(NULL AS VARCHAR)"))  # fmt: skip

    def check_condition(self, condition: Node | None, word: str) -> None:
        """A condition is BOOLEAN: another type would fail, or mean something else, row by row."""
        if condition is None:
            return
        sql = self.session.syntax.write(select([{**condition, "alias": "value"}], self.source.node))
        kind = self.session.describe(sql, origin=self.query)[0].type
        if kind not in ("BOOLEAN", _NO_TYPE):
            self.errors.append(QueryError(f"{word} is {kind}, not BOOLEAN", "write a condition",
                                          location_of(condition)))  # fmt: skip

    def check_key(self, names: list[str]) -> None:
        """`key=` names columns that are there."""
        for name in self.table.key:
            if name not in names:
                self.errors.append(QueryError(f"key='{name}' is not a column of the table",
                                              f"there are {', '.join(names)}"))  # fmt: skip

    def made(
        self, kind: TableClass, columns: tuple[NamedColumn, ...], key: tuple[str, ...], row_sql: str,
        state: object,
        **parts: object,
    ) -> TablePlan:  # fmt: skip
        """Return the plan; `state` is what tells incompatible states apart beside the row part."""
        stream = self.source.stream
        assert stream is not None  # noqa: S101 - read_source sees to it
        derived = _derived_in(row_sql, stream)
        identity = [
            kind,
            stream.stream.name,
            stream.stream.event_time,
            derived,
            row_sql,
            self.table.key,
            state,
        ]
        return TablePlan(
            table=self.table,
            kind=kind,
            sources=(stream.stream.name,),
            references=self.source.references,
            columns=columns,
            key=key,
            fingerprint=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32],
            row_sql=self.with_tries_apart(row_sql),
            unnests=self.source.unnests,
            **parts,  # type: ignore[arg-type]
        )

    def with_tries_apart(self, row_sql: str) -> str:
        """Return a row part in which each TRY that the user wrote stands in a CASE of its own.

        What two of them have in common DuckDB computes before them, outside of both: the row would be set
        aside on which the query says NULL. It takes nothing out of a CASE; the condition of this one is true
        of every row. The state is told by the row part without it, so stores stay as they are.
        """
        if "TRY(" not in row_sql:
            return row_sql
        held = comparison(
            "COMPARE_GREATERTHANOREQUALTO", column(self.source.owner, "_offset"), constant("INTEGER", "0")
        )

        def change(part: Node) -> Node | None:
            if part["class"] == "SUBQUERY" or is_lambda(part):
                return part  # other names are known there, and nothing is taken out of them
            tries = part["type"] == "OPERATOR_TRY"
            return case_when(held, {**part, "alias": ""}, constant("NULL_LITERAL", "")) if tries else None

        query = self.session.syntax.read(row_sql)
        parts = ("select_list", "where_clause")
        return self.session.syntax.write(query | {name: transformed(query[name], change) for name in parts})

    # -- groups --------------------------------------------------------------------------------------------

    def grouped(self) -> TablePlan:
        """Plan a windowed, session or keyed table."""
        grouped = read_grouped(self.query, self.source, self.catalog, self.errors)
        where = self.where()
        self.check_names([name for name, _ in grouped.items])
        if self.table.key:
            self.errors.append(
                QueryError("key= with GROUP BY", "leave key= out: the keys are those of GROUP BY")
            )
        if self.table.keep is not None and grouped.window is None:
            self.errors.append(
                QueryError(
                    "keep= with totals that have no window: they never become old",
                    "leave keep= out, or group by a window: GROUP BY window(time, '1 day')",
                )
            )
        self.stop_if_wrong()
        self.check_condition(where, "WHERE")
        uses = sorted(grouped.uses.values(), key=lambda use: use.identity)
        row_sql, keys, aggregates = self.aggregates(grouped, uses, where)
        self.stop_if_wrong()
        names = {use.identity: aggregate.name for use, aggregate in zip(uses, aggregates, strict=True)}
        items = [(name, self.written(node, names)) for name, node in grouped.items]
        having = self.written(grouped.having, names) if grouped.having else ""
        columns = self.result_columns(grouped, keys, aggregates, items, having)
        self.check_types(columns, [node for _, node in grouped.items])
        kind = TableClass.KEYED
        if grouped.window:
            kind = TableClass.SESSION if grouped.window.kind == "session" else TableClass.WINDOWED
        window = repr(grouped.window)
        state = [window, _fingerprint_of(keys), [repr(aggregate) for aggregate in aggregates]]
        return self.made(
            kind, columns, self.key_of(grouped, items), row_sql, state,
            window=grouped.window, keys=keys, aggregates=aggregates,
            result_sql=tuple(sql for _, sql in items), having_sql=having,
        )  # fmt: skip

    def written(self, node: Node, names: dict[str, str]) -> str:
        """Return the text of an expression over "_groups"."""
        return self.session.syntax.write_expression(_over_groups(node, names))

    def key_of(self, grouped: Grouped, items: list[tuple[str, str]]) -> tuple[str, ...]:
        """Return the columns that identify a row: the window's start and the keys, if all are shown."""
        wanted = ["window_start"] if grouped.window else []
        wanted += [f"k{position}" for position in range(len(grouped.keys))]
        shown = {sql: name for name, sql in reversed(items)}
        found = [shown.get(sql) for sql in wanted]
        return tuple(name for name in found if name) if all(found) else ()

    def aggregates(
        self, grouped: Grouped, uses: list[Use], where: Node | None
    ) -> tuple[str, tuple[NamedColumn, ...], tuple[Aggregate, ...]]:
        """Return the row part, the keys and the aggregates with their types."""
        keys = [{**key, "alias": f"k{position}"} for position, key in enumerate(grouped.keys)]
        given = _numbered([argument for use in uses for argument in use.arguments])
        first = self.row_part([*keys, *given.values()], where=where)
        types = {known.name: known.type for known in self.session.describe(first, origin=self.query)}
        for use in uses:
            use.arguments = [
                self.narrowed(use, argument, types[given[canonical(argument)]["alias"]])
                for argument in use.arguments
            ]
        self.stop_if_wrong()
        final = _numbered([argument for use in uses for argument in use.arguments])
        row_sql = self.row_part([*keys, *final.values()], where=where)
        described = self.session.describe(row_sql, origin=self.query)[4:]
        self.check_types(described, [*keys, *final.values()])
        self.stop_if_wrong()
        self.session.relation("_arguments", (*described, _FILLER))
        by_name = {known.name: known for known in described}
        built = []
        for position, use in enumerate(uses):
            arguments = tuple(by_name[final[canonical(argument)]["alias"]] for argument in use.arguments)
            try:
                built.append(self.aggregate(f"g{position}", use, arguments))
            except QueryError as error:
                at = error.at if error.at is not None else use.node["query_location"]
                self.errors.append(QueryError(error.what, error.fix, at))
        return row_sql, described[: len(keys)], tuple(built)

    def narrowed(self, use: Use, argument: Node, kind: str) -> Node:
        """Return the argument cast so that no sum of such values can overflow."""
        try:
            text = narrowed(use.function, kind)
        except QueryError as error:
            self.errors.append(QueryError(error.what, error.fix, use.node["query_location"]))
            return argument
        if text is None:
            return argument
        return transformed(  # type: ignore[no-any-return]
            self.session.syntax.read_expression(text),
            lambda part: argument if part.get("column_names") == ["x"] else None,
        )

    def aggregate(self, name: str, use: Use, arguments: tuple[NamedColumn, ...]) -> Aggregate:
        """Return one aggregate, checked by DuckDB for its arguments."""
        parameters = tuple(self.session.syntax.write_expression(node) for node in use.parameters)
        distinct = "DISTINCT " if use.distinct else ""
        given = ", ".join([*(quoted(argument.name) for argument in arguments), *parameters]) or "*"
        one_shot = f"SELECT {use.function}({distinct}{given}) FROM _arguments"
        kind = self.session.describe(one_shot, origin=self.query)[0].type
        fractions = self.session.value(f"SELECT {parameters[0]}") if parameters else ()
        return build_aggregate(
            name, use.function, arguments, parameters=parameters, type=kind, distinct=use.distinct,
            fractions=fractions,
        )  # fmt: skip

    def result_columns(
        self, grouped: Grouped, keys: tuple[NamedColumn, ...], aggregates: tuple[Aggregate, ...],
        items: list[tuple[str, str]], having: str,
    ) -> tuple[NamedColumn, ...]:  # fmt: skip
        """Bind the result part and return its columns."""
        bounds = _BOUNDS if grouped.window else ()
        values = tuple(NamedColumn(aggregate.name, aggregate.type) for aggregate in aggregates)
        self.session.relation("_groups", (*bounds, *keys, *values, _FILLER))
        listed = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in items)
        condition = f" WHERE {having}" if having else ""
        return self.session.describe(f"SELECT {listed} FROM _groups{condition}", origin=self.query)


def _over_groups(node: Node, names: dict[str, str], owner: tuple[str, ...] = ()) -> Node:
    """Return an expression with the columns of "_groups" put in, after `owner`.

    They are qualified in a lambda, whose parameters could have their names.
    """

    def change(part: Node) -> Node | None:
        if is_lambda(part):
            return {**part, "expr": _over_groups(part["expr"], names, ("_groups",))}
        if part["class"] != GROUP:
            return None
        first, *rest = part["column_names"]
        return {**part, "class": "COLUMN_REF", "column_names": [*owner, names.get(first, first), *rest]}

    written: Node = transformed(node, change)
    return written


def _numbered(arguments: list[Node]) -> dict[str, Node]:
    """Return each different argument once, named a0, a1, ... in their order."""
    found: dict[str, Node] = {}
    for argument in arguments:
        found.setdefault(canonical(argument), {**argument, "alias": f"a{len(found)}"})
    return found


def _fingerprint_of(columns: tuple[NamedColumn, ...]) -> list[list[str]]:
    return [[known.name, known.type] for known in columns]


def _derived_in(row_sql: str, stream: StreamPlan) -> list[list[str]]:
    """Return the derived columns that a row part stands on, directly or through each other."""
    found: list[list[str]] = []
    text = row_sql
    for known in reversed(stream.derived):
        if re.search(rf"\b{re.escape(known.name)}\b", text):
            found.append([known.name, known.sql])
            text += " " + known.sql
    return found
