"""Chooses among records of the log by a condition in SQL, which runs where the console's queries do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from headrace.errors import RefusedError
from headrace.sql.plan import StreamPlan
from headrace.store.names import quoted, text_literal
from headrace.web.page import models
from headrace.web.page.console import ask_about
from headrace.web.page.sources import PageSources

__all__ = ["those_where"]

_TYPES = [
    ("_number", "BIGINT"),
    ("partition", "INTEGER"),
    ("offset", "BIGINT"),
    ("record_time", "TIMESTAMP WITH TIME ZONE"),
    ("key", "VARCHAR"),
    ("value", "JSON"),
    ("text", "VARCHAR"),
    ("form", "VARCHAR"),
]
_OWN = frozenset(name for name, _ in _TYPES)


def those_where(
    sources: PageSources, stream: str, found: Sequence[tuple[models.PeekedRecord, str | None]], where: str
) -> list[models.PeekedRecord]:
    """Return those records for which `where` is true; each comes with its value as JSON, if it is some.

    The stream's columns are what the JSON holds for them, or NULL where that has another type. Raises
    RefusedError for what is no condition, and as `ask_console` does.
    """
    rows = pa.table(
        {
            "_number": pa.array(range(len(found)), pa.int64()),
            "partition": pa.array([each.partition for each, _ in found], pa.int64()),
            "offset": pa.array([each.offset for each, _ in found], pa.int64()),
            "record_time": pa.array([each.record_time for each, _ in found], pa.string()),
            "key": pa.array([each.key for each, _ in found], pa.string()),
            "value": pa.array([value for _, value in found], pa.string()),
            "text": pa.array([each.value for each, _ in found], pa.string()),
            "form": pa.array([each.form for each, _ in found], pa.string()),
        }
    )
    plan = sources.runtime.plan.streams[stream.partition("@")[0]]
    columns = ", ".join(["*", *_columns(plan)])
    sql = f"SELECT _number FROM (SELECT {columns} FROM records) WHERE ({where}\n) ORDER BY 1"
    with sources.slot():
        answer = ask_about(sources.runtime, "records", rows, _TYPES, sql)
    if [each["name"] for each in answer["columns"]] != ["_number"]:
        raise RefusedError("this is no condition", fix="write one such as: device = 'mobile' AND amount > 5")
    chosen = {str(row[0]) for row in answer["rows"]}
    return [each for number, (each, _) in enumerate(found) if str(number) in chosen]


def _columns(plan: StreamPlan) -> Iterator[str]:
    derived = {each.name for each in plan.derived}
    for column in plan.columns:
        if column.name not in derived | _OWN:
            path = text_literal('$."' + column.name.replace('"', '\\"') + '"')
            yield f"TRY_CAST(value->>{path} AS {column.type}) AS {quoted(column.name)}"
