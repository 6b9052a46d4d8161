"""plan_pipeline: every declaration of a pipeline checked and taken apart, every problem reported at once."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.declare import Pipeline, Place, Stream, Table
from headrace.errors import DeclarationError, Problem
from headrace.sql.advice import advice_for
from headrace.sql.expressions import Expressions, Relation, Scope
from headrace.sql.kept import refuse_kept_type
from headrace.sql.plan import Check, Derived, NamedColumn, PipelinePlan, StreamPlan, TablePlan
from headrace.sql.references import reference_columns
from headrace.sql.session import Session
from headrace.sql.sources import Catalog
from headrace.sql.syntax import Node, QueryError, location_of, place_in, quoted, transformed
from headrace.sql.system import REFERENCE_COLUMNS, system_relations
from headrace.sql.tables import Refused, plan_stream_table
from headrace.sql.views import bind_query, order_of_tables, plan_view, reads_stream, relations_read

__all__ = ["plan_pipeline"]


def plan_pipeline(pipeline: Pipeline) -> PipelinePlan:
    """Return the plan of a pipeline; raises DeclarationError that holds every problem found.

    Nothing is connected to; no row and no clock is read.
    """
    session = Session()
    try:
        plan, problems = _Planner(pipeline, session).plan()
    finally:
        session.close()
    if problems:
        raise DeclarationError(problems)
    return plan


class _Planner:
    def __init__(self, pipeline: Pipeline, session: Session) -> None:
        self._pipeline = pipeline
        self._session = session
        self._problems = list(pipeline.problems)
        self._streams: dict[str, StreamPlan] = {}
        self._wrong: set[str] = set()  # relations that are wrong: what reads them is not judged

    def plan(self) -> tuple[PipelinePlan, list[Problem]]:
        """Plan streams, then tables in the order in which they read each other, then panels and alerts."""
        pipeline = self._pipeline
        self._functions()
        for stream in pipeline.streams:
            self._streams[stream.name] = self._stream(stream)
        references = self._references()
        relations = system_relations(self._streams.values())
        for name, columns in relations.items():
            self._session.relation(name, columns)
        known = frozenset(table.name.lower() for table in pipeline.tables) | {
            name.lower() for name in relations
        }
        catalog = Catalog(self._streams, references, known, frozenset(self._session.functions))
        tables = self._tables(catalog)
        for panel in pipeline.panels:
            self._bound(panel.place, f"panel '{panel.title}'", panel.query, catalog)
        for alert in pipeline.alerts:
            columns = self._bound(alert.place, f"alert '{alert.name}'", alert.query, catalog)
            if columns and columns[0].type not in ("BOOLEAN", '"NULL"'):
                what = f"the first column is {columns[0].type}, not BOOLEAN"
                fix = "write a condition, for example SELECT max(errors) > 5 FROM ..."
                self._problem(alert.place, f"alert '{alert.name}'", QueryError(what, fix), "")
        plan = PipelinePlan(
            pipeline=pipeline,
            streams=dict(self._streams),
            tables=tables,
            references={reference.name: reference for reference in pipeline.references},
            panels=pipeline.panels,
            alerts=pipeline.alerts,
            warnings=tuple(advice_for(pipeline, tables)),
        )
        return plan, self._problems

    def _functions(self) -> None:
        for function in self._pipeline.functions:
            try:
                self._session.function(function)
            except QueryError as error:
                self._problem(function.place, f"function '{function.name}'", error, "")

    def _problem(self, place: Place, subject: str, error: QueryError, text: str, part: str = "") -> None:
        where = place_in(text, error.at)
        what = f"{part}{error.what}{where}"
        self._problems.append(Problem(place.file, place.line, subject, what, error.fix))

    # -- streams -------------------------------------------------------------------------------------------

    def _stream(self, stream: Stream) -> StreamPlan:
        derived, checks = [], []
        if not stream.schema.columns:  # the schema could not be read, which is a problem already
            self._wrong.add(stream.name.lower())
            return StreamPlan(stream, (), (), (), ())
        # Types as DuckDB prints them (which fields of a STRUCT are quoted): a store compares them with those
        # of its relations, and would take another spelling for another type.
        nulls = (f"NULL::{known.type.sql} AS {quoted(known.name)}" for known in stream.schema.columns)
        columns = list(self._session.describe(f"SELECT {', '.join(nulls)}"))
        for name, text in stream.derive:
            kind = self._expression(stream, f"derived column '{name}': ", text, columns)
            if kind is None:
                self._wrong.add(stream.name.lower())
            else:
                derived.append(Derived(name, kind[0], kind[1]))
                columns.append(NamedColumn(name, kind[1]))
        for name, expect in stream.expect:
            part = f"expectation '{name}': "
            kind = self._expression(stream, part, expect.condition, columns)
            if kind and kind[1] != "BOOLEAN":
                error = QueryError(
                    f"it is {kind[1]}, not BOOLEAN", "write a condition, for example amount >= 0"
                )
                self._problem(stream.place, f"stream '{stream.name}'", error, "", part)
            if kind:
                checks.append(Check(name, kind[0], expect))
        functions = tuple(self._pipeline.functions)
        return StreamPlan(stream, tuple(derived), tuple(checks), tuple(columns), functions)

    def _expression(
        self, stream: Stream, part: str, text: str, columns: list[NamedColumn]
    ) -> tuple[str, str] | None:
        """Return text and type of an expression over a record; None when it is wrong."""
        errors: list[QueryError] = []
        try:
            node = self._session.syntax.read_expression(text)
            scope = Scope([Relation("_rows", tuple(known.name for known in columns))])
            names = Expressions(scope, frozenset(self._session.functions), errors)
            resolved = names.resolved(node, aggregates="an expression over one record")
            if not errors:
                self._session.relation("_rows", columns)
                sql = self._session.syntax.write_expression(_unqualified(resolved))
                kind = self._session.describe(f"SELECT {sql} AS value FROM _rows", origin=node)[0].type
                wrong = refuse_kept_type(kind, location_of(node))
                if wrong is None:
                    return sql, kind
                errors.append(wrong)
        except QueryError as error:
            errors.append(error)
        for found in errors:
            self._problem(stream.place, f"stream '{stream.name}'", found, text, part)
        return None

    def _references(self) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        found = {}
        for reference in self._pipeline.references:
            columns: tuple[NamedColumn, ...] = ()
            try:
                columns = reference_columns(reference)
            except QueryError as error:
                self._wrong.add(reference.name.lower())
                self._problem(reference.place, f"reference '{reference.name}'", error, "")
            self._session.relation(f"_reference_{reference.name}", (*columns, *REFERENCE_COLUMNS))
            found[reference.name] = (tuple(known.name for known in columns), reference.key)
        return found

    # -- tables --------------------------------------------------------------------------------------------

    def _tables(self, catalog: Catalog) -> tuple[TablePlan, ...]:
        queries: dict[str, Node] = {}
        for table in self._pipeline.tables:
            try:
                queries[table.name] = self._session.syntax.read(table.query)
            except QueryError as error:
                self._wrong.add(table.name.lower())
                self._problem(table.place, f"table '{table.name}'", error, table.query)
        plans = []
        by_name = {table.name: table for table in self._pipeline.tables}
        for name in self._ordered(queries, by_name):
            table, query = by_name[name], queries[name]
            plan = None if self._reads_wrong(query) else self._table(table, query, catalog)
            if plan is None:
                self._wrong.add(name.lower())
            else:
                self._session.relation(name, plan.columns)
                plans.append(plan)
        return tuple(plans)

    def _ordered(self, queries: Mapping[str, Node], by_name: Mapping[str, Table]) -> list[str]:
        ordered, cycles = order_of_tables(queries)
        for cycle in cycles:
            table = by_name[cycle[0]]
            self._wrong |= {name.lower() for name in cycle}
            what = f"views that read each other: {' -> '.join(cycle)}"
            wrong = QueryError(what, "read the tables that they stand on")
            self._problem(table.place, f"table '{table.name}'", wrong, "")
        return ordered

    def _table(self, table: Table, query: Node, catalog: Catalog) -> TablePlan | None:
        try:
            if reads_stream(query, catalog):
                return plan_stream_table(table, query, catalog, self._session)
            return plan_view(table, query, catalog, self._session)
        except Refused as refused:
            for error in refused.errors:
                self._problem(table.place, f"table '{table.name}'", error, table.query)
            return None

    def _reads_wrong(self, query: Node) -> bool:
        return any(node["table_name"].lower() in self._wrong for node in relations_read(query))

    def _bound(self, place: Place, subject: str, text: str, catalog: Catalog) -> tuple[NamedColumn, ...]:
        try:
            query = self._session.syntax.read(text)
            if self._reads_wrong(query):
                return ()
            return bind_query(text, query, catalog, self._session)
        except QueryError as error:
            self._problem(place, subject, error, text)
            return ()
        except Refused as refused:
            for found in refused.errors:
                self._problem(place, subject, found, text)
            return ()


def _unqualified(node: Node) -> Node:
    """Return an expression over "_rows" without that name before its columns."""

    def change(part: Node) -> Node | None:
        if part["class"] != "COLUMN_REF" or part["column_names"][0] != "_rows":
            return None
        return {**part, "column_names": part["column_names"][1:]}

    plain: Node = transformed(node, change)
    return plain
