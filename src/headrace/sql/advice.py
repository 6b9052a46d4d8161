"""Advice to the author: what is allowed, and will be regretted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from headrace.declare import Pipeline
from headrace.errors import Problem
from headrace.sql.plan import TablePlan

__all__ = ["advice_for"]

_MONEY = re.compile(
    r"(^|_)(amount|balance|charge|cost|discount|fee|income|payment|price|refund|revenue|salary|spend|spent|subtotal"
    r"|tax|tip|total|turnover|wage)s?($|_)",
    re.IGNORECASE,
)
_DOUBLES = ("DOUBLE", "FLOAT")


def advice_for(pipeline: Pipeline, tables: Iterable[TablePlan]) -> Iterator[Problem]:
    """Yield a warning for each thing that is worth changing."""
    for stream in pipeline.streams:
        for column in stream.schema.columns:
            if column.type.sql in _DOUBLES and _MONEY.search(column.name):
                yield Problem(
                    stream.place.file, stream.place.line, f"stream '{stream.name}'",
                    f"'{column.name}' looks like money and is a {column.type.sql}, whose sums are inexact",
                    f"declare it DECIMAL, for example {column.name} DECIMAL(12,2)",
                )  # fmt: skip
    for table in tables:
        for aggregate in table.aggregates:
            if aggregate.approximate:
                yield Problem(
                    table.table.place.file, table.table.place.line, f"table '{table.name}'",
                    f"{aggregate.function}() is approximate: two engines need not give the same value",
                    "write count(DISTINCT x) or quantile_cont(x, 0.5) for an exact one",
                )  # fmt: skip
