"""A panel as aggregations of Elasticsearch, which Kibana and Grafana each write in a form of their own."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.sql.panel_query import Filter, Output, PanelQuery
from headrace.sql.syntax import QueryError

__all__ = ["Bucket", "Measure", "PanelSearch", "panel_search"]

_NAMES_MAX = 50
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"'})


@dataclass(frozen=True)
class Bucket:
    """Rows put together: by time when `size` is 0, else by at most so many values of a field.

    order_by  the number of the measure that orders them; None: the value itself
    """

    field: str
    size: int = 0
    order_by: int | None = None
    descending: bool = False


@dataclass(frozen=True)
class Measure:
    """A number of each bucket: `function` is sum, avg, min, max, or count of documents."""

    label: str
    function: str
    field: str = ""


@dataclass(frozen=True)
class PanelSearch:
    """What is searched and put together; `lucene` says which documents."""

    lucene: str
    buckets: tuple[Bucket, ...]
    measures: tuple[Measure, ...]


def panel_search(query: PanelQuery, kind: str) -> PanelSearch:
    """Return the aggregations of a panel of this kind. Raises QueryError for what cannot be said so.

    Where a panel shows rows as they are, a bucket of time shows their mean, and any other bucket is one row.
    """
    first = query.outputs[0]
    places = [one for one in query.outputs if one.is_text or (one is first and one.is_time)]
    shown = [one for one in query.outputs if one not in places]
    by_time = bool(places) and places[0].is_time
    if any(one.month for one in places) or (by_time and not places[0].type.startswith("TIMESTAMP")):
        raise QueryError("its time is no field of the kind date")
    measures = tuple(_measure(one, query, by_time=by_time) for one in shown) or (Measure("rows", "count"),)
    buckets = tuple(
        Bucket(one.column)
        if one.is_time
        else _terms(one, query, shown, only=len(places) == 1 or one is first)
        for one in places
    )
    if kind in ("number", "gauge") and buckets:
        raise QueryError("it shows one number of several rows")
    return PanelSearch(" AND ".join(_lucene(each) for each in query.filters), buckets, measures)


def _measure(one: Output, query: PanelQuery, *, by_time: bool) -> Measure:
    if one.function == "count":
        raise QueryError("it counts rows")
    function = one.function or ("avg" if by_time and not query.grouped else "max")
    return Measure(one.name, function, one.column)


def _terms(one: Output, query: PanelQuery, shown: list[Output], *, only: bool) -> Bucket:
    size = query.limit or _NAMES_MAX
    for ordered, descending in query.order:
        if ordered in shown and only:
            return Bucket(one.column, size, shown.index(ordered), descending)
        if ordered == one:
            return Bucket(one.column, size, None, descending)
    return Bucket(one.column, size, 0 if shown else None, bool(shown))


def _lucene(condition: Filter) -> str:
    field = condition.column
    values = [_literal(value) for value in condition.values]
    if condition.operator == "in":
        return f"{field}:({' OR '.join(values)})"
    if condition.operator == "=":
        return f"{field}:{values[0]}"
    return f"{field}:{condition.operator}{values[0]}"


def _literal(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else f'"{value.translate(_ESCAPED)}"'
