"""The one object that an author talks to: it collects the declarations of a pipeline.

Declaring never raises for a mistake in what is declared. Mistakes are collected in `Pipeline.problems`, each
with the author's file and line, so that the planner reports all of them at once, with those in the SQL.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from headrace.declare.checks import Checker, names_in, place_of
from headrace.declare.schema import Schema
from headrace.declare.values import (
    PANEL_KINDS,
    SEVERITIES,
    Alert,
    Expect,
    Function,
    Panel,
    Reference,
    Stream,
    Table,
)
from headrace.errors import Problem

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Pipeline"]

_Call = TypeVar("_Call", bound=Callable[..., Any])
_PARTS = ("streams", "tables", "panels", "alerts", "functions", "references")


class Pipeline:
    """Collects the declarations of one pipeline, in the order in which they were made.

    Two pipelines are equal when their names and declarations are; where they were declared, and what is wrong
    with them, is left out. A declaration that has a problem is kept as far as it could be read, so that what
    refers to it does not become a second problem; a stream whose schema could not be read has no columns.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.streams: tuple[Stream, ...] = ()
        self.tables: tuple[Table, ...] = ()
        self.panels: tuple[Panel, ...] = ()
        self.alerts: tuple[Alert, ...] = ()
        self.functions: tuple[Function, ...] = ()
        self.references: tuple[Reference, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        check = Checker(place_of(sys._getframe(1)), "pipeline", name)
        check.project_name(name)
        self.problems += check.problems

    def stream(  # noqa: PLR0913 - every argument is a word of the declaration
        self,
        name: str,
        schema: str | type[BaseModel] = "",
        *,
        event_time: str | None = None,
        allowed_lateness: str | timedelta = "1 minute",
        future_tolerance: str | timedelta = "1 minute",
        unique: str | Iterable[str] = (),
        key: str | None = None,
        derive: Mapping[str, str] | None = None,
        expect: Mapping[str, str | Expect] | None = None,
        record_time: str = "log",
        contract: str = "evolve",
        label: str | None = None,
        **unknown: Any,
    ) -> None:
        """Declare a stream of records.

        Args:
            name: what queries call it, and the name of its log.
            schema: the columns, as SQL (`"id VARCHAR NOT NULL, at TIMESTAMP"`) or as a pydantic model. Every
                declared column is decoded and checked; fields of a record that are not declared are ignored.
            event_time: the TIMESTAMP column that says when it happened; without one, record time is used.
            allowed_lateness: a record whose event time is further before its record time is `late`.
            future_tolerance: a record whose event time is further after its record time is `future`.
            unique: the column or columns that, with the event time, make a second copy a `duplicate`.
            key: the column that chooses the partition when Headrace itself writes to the log.
            derive: further columns, by name, each a SQL expression over the record.
            expect: conditions by name; a plain string rejects, `Expect(..., on_violation="warn")` counts.
            record_time: `"log"`, the log's own time, or `"header"`, the time that came with the record.
            contract: for records that name a schema (Avro, JSON Schema): `"evolve"` takes what every schema
                has of the declared columns, `"freeze"` takes only records of the declared schema.
            label: a column with few values, such as a type: metrics count records by it, too.
            **unknown: any other word is a problem that names the nearest right one.
        """
        check = Checker(place_of(sys._getframe(1)), "stream", name)
        check.unknown_words(unknown, Pipeline.stream)
        check.relation_name(name, self._relations())
        columns = check.schema(schema)
        derived = check.derived(derive, columns)
        self.streams += (
            Stream(
                name=str(name),
                schema=columns,
                event_time=check.event_time(event_time, columns),
                allowed_lateness=check.duration("allowed_lateness", allowed_lateness, "1 minute"),
                future_tolerance=check.duration("future_tolerance", future_tolerance, "1 minute"),
                unique=check.columns_of("unique", unique, columns, derived),
                key=next(iter(check.columns_of("key", key, columns, derived)), None),
                derive=derived,
                expect=check.expectations(expect),
                record_time=check.record_time(record_time),
                contract=check.contract(contract),
                label=check.label(label, columns, derived),
                place=check.place,
            ),
        )
        self.problems += check.problems

    def table(
        self,
        name: str,
        query: str = "",
        *,
        key: str | Iterable[str] = (),
        keep: str | timedelta | None = None,
        **unknown: Any,
    ) -> None:
        """Declare a table: a query over streams, kept up to date, or over tables, which makes it a view.

        Args:
            name: what queries, panels and replicas call it.
            query: a SELECT in DuckDB's SQL, with `window(time, size[, slide])`, `session_window(time, gap)`.
            key: for a query without aggregates: the output columns of which only the latest record is kept;
                of several rows of one record (UNNEST) the greatest, by its columns in their order.
            keep: how long rows or closed windows stay in the store; None: for ever.
            **unknown: any other word is a problem that names the nearest right one.
        """
        check = Checker(place_of(sys._getframe(1)), "table", name)
        check.unknown_words(unknown, Pipeline.table)
        check.relation_name(name, self._relations())
        self.tables += (
            Table(
                name=str(name),
                query=check.query(query),
                key=check.names("key", key),
                keep=None
                if keep is None
                else check.duration("keep", keep, "1 day", least=timedelta(seconds=1)),
                place=check.place,
            ),
        )
        self.problems += check.problems

    def panel(
        self, title: str, query: str = "", *, kind: str = "table", unit: str = "", **unknown: Any
    ) -> None:
        """Declare a chart over tables.

        Args:
            title: what stands above it; it identifies the panel.
            query: a SELECT over tables. The first column is the place (a time, a name), the rest values.
            kind: how the rows are drawn, one of `headrace.declare.PANEL_KINDS`.
            unit: what the values are measured in, for example `"events/s"` or `"€"`.
            **unknown: any other word is a problem that names the nearest right one.
        """
        check = Checker(place_of(sys._getframe(1)), "panel", title)
        check.unknown_words(unknown, Pipeline.panel)
        check.title(title, names_in(self.panels, "title"))
        kind = check.choice("kind", kind, PANEL_KINDS)
        self.panels += (Panel(str(title), check.query(query), kind, check.text("unit", unit), check.place),)
        self.problems += check.problems

    def alert(
        self,
        name: str,
        query: str = "",
        *,
        hold: str | timedelta = "0 s",
        severity: str = "warning",
        summary: str = "",
        **unknown: Any,
    ) -> None:
        """Declare an alert: a query over tables that gives true when somebody should look.

        Args:
            name: identifies the alert.
            query: a SELECT of one value; it fires when the value is true.
            hold: how long it has to be true before it fires.
            severity: one of `headrace.declare.SEVERITIES`.
            summary: one sentence for whoever is woken by it.
            **unknown: any other word is a problem that names the nearest right one.
        """
        check = Checker(place_of(sys._getframe(1)), "alert", name)
        check.unknown_words(unknown, Pipeline.alert)
        check.own_name(name, names_in(self.alerts, "name"))
        self.alerts += (
            Alert(
                name=str(name),
                query=check.query(query),
                hold=check.duration("hold", hold, "0 s"),
                severity=check.choice("severity", severity, SEVERITIES),
                summary=check.text("summary", summary),
                place=check.place,
            ),
        )
        self.problems += check.problems

    @overload
    def function(self, name: _Call, /) -> _Call: ...

    @overload
    def function(
        self, name: str, call: _Call, *, arguments: Iterable[str] = (), returns: str = "", **unknown: Any
    ) -> _Call: ...

    @overload
    def function(
        self,
        name: str | None = None,
        *,
        arguments: Iterable[str] = (),
        returns: str = "",
        **unknown: Any,
    ) -> Callable[[_Call], _Call]: ...

    def function(
        self,
        name: Any = None,
        call: Any = None,
        *,
        arguments: Iterable[str] = (),
        returns: str = "",
        **unknown: Any,
    ) -> Any:
        """Declare a vectorised function over records, also as a decorator.

        It may stand in `derive` and `expect`, and in a table over a stream in WHERE, among the keys and
        inside aggregates; what is computed of groups and tables is read where the function is not.

            @pipeline.function(arguments=["DOUBLE"], returns="DOUBLE")
            def celsius(fahrenheit): ...

        Args:
            name: what SQL calls it; the Python function's own name when left out.
            call: takes one Arrow array per argument and returns one Arrow array of the same length; a value
                may depend only on the values at its own place. It has to be defined at the top of a module,
                because it is sent to other processes by its name.
            arguments: the SQL type of each argument.
            returns: the SQL type of the result.
            **unknown: any other word is a problem that names the nearest right one.
        """
        place = place_of(sys._getframe(1))
        if callable(name):
            name, call = None, name

        def declare(function: Any) -> Any:
            word = name or getattr(function, "__name__", "")
            check = Checker(place, "function", word)
            check.unknown_words(unknown, Pipeline.function)
            check.own_name(word, names_in(self.functions, "name"))
            check.sent_by_name(function)
            types = check.types("arguments", arguments)
            result = check.types("returns", (returns,) if returns else ())
            self.functions += (Function(str(word), types, next(iter(result), ""), function, place),)
            self.problems += check.problems
            return function

        return declare if call is None else declare(call)

    def reference(
        self,
        name: str,
        path: str = "",
        *,
        key: str | Iterable[str] = (),
        schema: str | type[BaseModel] | None = None,
        **unknown: Any,
    ) -> None:
        """Declare a CSV or Parquet file that queries may join a stream with, by its key.

        Args:
            name: what queries call it.
            path: the file, relative to the project's folder.
            key: the column or columns whose values are unique in the file.
            schema: the columns, as for a stream; None: as the file has them.
            **unknown: any other word is a problem that names the nearest right one.
        """
        check = Checker(place_of(sys._getframe(1)), "reference", name)
        check.unknown_words(unknown, Pipeline.reference)
        check.relation_name(name, self._relations())
        columns: Schema | None = None if schema is None else check.schema(schema)
        self.references += (
            Reference(
                name=str(name),
                path=check.reference_path(path),
                key=check.reference_key(key, columns),
                schema=columns,
                place=check.place,
            ),
        )
        self.problems += check.problems

    def _relations(self) -> dict[str, str]:
        """Return the names that a query can read, in small letters, each with what it is."""
        groups = (("stream", self.streams), ("table", self.tables), ("reference", self.references))
        return {name.lower(): kind for kind, values in groups for name in names_in(values, "name")}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pipeline):
            return NotImplemented
        return self.name == other.name and all(getattr(self, part) == getattr(other, part) for part in _PARTS)

    __hash__ = None  # type: ignore[assignment]  # it grows while it is declared

    def __repr__(self) -> str:
        counts = (f"{part}={len(getattr(self, part))}" for part in _PARTS if getattr(self, part))
        problems = (f"problems={len(self.problems)}",) if self.problems else ()
        return f"<Pipeline {self.name!r} {' '.join((*counts, *problems))}".rstrip() + ">"
