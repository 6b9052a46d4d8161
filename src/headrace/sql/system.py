"""The relations that every store has beside the declared tables: one place for their columns.

Views, panels and alerts are checked against them here, and the store creates them from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.sql.plan import NamedColumn, StreamPlan

__all__ = ["HIDDEN_COLUMNS", "REFERENCE_COLUMNS", "SYSTEM_RELATIONS", "late_columns", "system_relations"]


def _columns(text: str) -> tuple[NamedColumn, ...]:
    words = (line.strip().split(" ", 1) for line in text.strip().splitlines())
    return tuple(NamedColumn(name, kind) for name, kind in words)


SYSTEM_RELATIONS: Mapping[str, tuple[NamedColumn, ...]] = {
    "outcomes_by_minute": _columns("""
        stream VARCHAR
        minute TIMESTAMP WITH TIME ZONE
        outcome VARCHAR
        records BIGINT
    """),
    "reasons_by_minute": _columns("""
        stream VARCHAR
        minute TIMESTAMP WITH TIME ZONE
        outcome VARCHAR
        reason VARCHAR
        records BIGINT
    """),
    "rule_checks": _columns("""
        stream VARCHAR
        minute TIMESTAMP WITH TIME ZONE
        rule VARCHAR
        checked BIGINT
        warned BIGINT
        rejected BIGINT
    """),
    "failed_cells": _columns("""
        table_name VARCHAR
        column_name VARCHAR
        cells BIGINT
    """),
    "dead_letters": _columns("""
        stream VARCHAR
        lane VARCHAR
        partition INTEGER
        offset BIGINT
        record_time TIMESTAMP WITH TIME ZONE
        outcome VARCHAR
        reasons STRUCT("rule" VARCHAR, detail VARCHAR)[]
        event_time TIMESTAMP WITH TIME ZONE
        key BLOB
        value BLOB
        headers STRUCT("key" VARCHAR, "value" BLOB)[]
        epoch BIGINT
    """),
    "epochs": _columns("""
        epoch BIGINT
        committed_at TIMESTAMP WITH TIME ZONE
        records BIGINT
        seconds DOUBLE
    """),
    "metrics": _columns("""
        time TIMESTAMP WITH TIME ZONE
        name VARCHAR
        labels VARCHAR
        value DOUBLE
    """),
    "metrics_by_minute": _columns("""
        minute TIMESTAMP WITH TIME ZONE
        name VARCHAR
        labels VARCHAR
        value DOUBLE
        least DOUBLE
        greatest DOUBLE
    """),
}
"""Name of each relation and its columns, in order. `minute` is the minute of record time, that of metrics the
minute in which they were taken. `labels` is JSON text with keys in order: `(labels->>'$.stream') = 'a'`."""

HIDDEN_COLUMNS: tuple[NamedColumn, ...] = _columns("""
    _partition INTEGER
    _offset BIGINT
    _record_time TIMESTAMP WITH TIME ZONE
    _lane VARCHAR
""")
"""What "_rows" holds after the stream's own columns: a record's address and record time."""

REFERENCE_COLUMNS: tuple[NamedColumn, ...] = _columns("""
    _valid_from TIMESTAMP WITH TIME ZONE
    _valid_to TIMESTAMP WITH TIME ZONE
""")
"""What "_reference_NAME" holds after the columns of the file; a NULL `_valid_to` means still."""


def late_columns(stream: StreamPlan) -> tuple[NamedColumn, ...]:
    """Return the columns of `late_<stream>`: the stream's own, then the record's address and record time."""
    return stream.columns + HIDDEN_COLUMNS[:3]


def system_relations(streams: Iterable[StreamPlan]) -> dict[str, tuple[NamedColumn, ...]]:
    """Return every relation that is not a declared table, with its columns."""
    late = {f"late_{plan.stream.name}": late_columns(plan) for plan in streams}
    return {**SYSTEM_RELATIONS, **late}
