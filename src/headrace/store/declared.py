"""What a store's records were read by: the streams as they were declared, and what changed since.

Records keep the outcome that they were given. So a change of a stream holds from the store's positions on,
and the store writes down when that was. A change of what tells records apart is refused, because the values
that the store remembers would find no copy any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal

from headrace.declare.durations import format_duration, parse_duration
from headrace.declare.values import Stream
from headrace.errors import RefusedError
from headrace.sql.plan import PipelinePlan
from headrace.sql.system import SYSTEM_RELATIONS
from headrace.store.names import quoted
from headrace.store.progress import Progress

__all__ = ["adopt_streams", "drop_views_of_old", "longest_known", "require_identities"]

_IDENTITY = ("unique", "event_time")
_CHANGES = "CREATE TABLE IF NOT EXISTS _headrace.changes (epoch BIGINT, stream VARCHAR, what VARCHAR)"

Facts = dict[str, str | list[str] | dict[str, str] | None]


def adopt_streams(connection: Any, plan: PipelinePlan, progress: Progress) -> list[str]:
    """Write down how the streams are declared now, inside a transaction; say in words what changed.

    Raises RefusedError when a stream that was read changed in what tells its records apart.
    """
    connection.execute(_CHANGES)
    said = []
    for name, stream in plan.streams.items():
        facts = _facts_of(stream.stream)
        place = f"declared:{name}"
        found = connection.execute("SELECT value FROM _headrace.meta WHERE name = ?", [place]).fetchall()
        known: Facts = json.loads(found[0][0]) if found else facts
        if found and known == facts:
            continue
        differing = [part for part in facts if known.get(part) != facts[part]]
        if differing and any(progress.positions(name).values()):
            _refuse_other_identity(stream.stream, known, facts)
            what = "; ".join(_difference(part, known.get(part), facts[part]) for part in differing)
            connection.execute("INSERT INTO _headrace.changes VALUES (?, ?, ?)", [progress.epoch, name, what])
            said.append(
                f"stream '{name}' is declared otherwise since epoch {progress.epoch}: {what}; "
                "records that were read before keep their outcomes"
            )
        connection.execute("DELETE FROM _headrace.meta WHERE name = ?", [place])
        connection.execute("INSERT INTO _headrace.meta VALUES (?, ?)", [place, json.dumps(facts)])
    return said


def longest_known(
    connection: Any, stream: Stream, part: Literal["allowed_lateness", "future_tolerance"]
) -> timedelta:
    """Return the longest that a stream allowed while its records were read, or allows now; look only."""
    longest: timedelta = getattr(stream, part)
    # The change is kept in the words that people read; see `_difference`.
    before = re.compile(f"(?:^|; ){part} was '([^']*)' and is ")
    found = connection.execute("SELECT what FROM _headrace.changes WHERE stream = ?", [stream.name])
    for (what,) in found.fetchall():
        for text in before.findall(what):
            with suppress(ValueError):  # a condition of `expect` may read like a change
                longest = max(longest, parse_duration(text))
    return longest


def require_identities(meta: Mapping[str, str], plan: PipelinePlan, progress: Progress) -> None:
    """Raise the RefusedError of `adopt_streams`, of what `_headrace.meta` says; write nothing."""
    for name, stream in plan.streams.items():
        known = meta.get(f"declared:{name}")
        if known is not None and any(progress.positions(name).values()):
            _refuse_other_identity(stream.stream, json.loads(known), _facts_of(stream.stream))


def drop_views_of_old(connection: Any, plan: PipelinePlan) -> None:
    """Take out the views of tables that are not declared any more, inside a transaction."""
    kept = {table.name for table in plan.tables} | set(SYSTEM_RELATIONS)
    kept |= {name for (name,) in connection.execute('SELECT name FROM _headrace."references"').fetchall()}
    found = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal AND NOT temporary"
    ).fetchall()
    for (name,) in found:
        if name not in kept and not name.startswith("late_"):
            connection.execute(f"DROP VIEW {quoted(name)}")
            connection.execute("DELETE FROM _headrace.meta WHERE name = ?", [f"kind:{name}"])


def _facts_of(stream: Stream) -> Facts:
    return {
        "schema": {
            column.name: column.type.sql + ("" if column.nullable else " NOT NULL")
            for column in stream.schema.columns
        },
        "event_time": stream.event_time,
        "unique": list(stream.unique),
        "allowed_lateness": format_duration(stream.allowed_lateness),
        "future_tolerance": format_duration(stream.future_tolerance),
        "derive": dict(stream.derive),
        "expect": {name: f"{rule.condition} ({rule.on_violation})" for name, rule in stream.expect},
        "record_time": stream.record_time,
    }


def _refuse_other_identity(stream: Stream, known: Facts, facts: Facts) -> None:
    differing = [part for part in _IDENTITY if known.get(part) != facts[part]]
    if differing:
        what = "; ".join(_difference(part, known.get(part), facts[part]) for part in differing)
        raise RefusedError(
            f"stream '{stream.name}' was read with another declaration of what tells its records apart: "
            f"{what}",
            fix=f"{stream.place.file}:{stream.place.line}: declare "
            + ", ".join(_as_before(part, known.get(part)) for part in differing)
            + "; or move the store away, and everything is computed from the log",
        )


def _as_before(part: str, value: Any) -> str:
    """Return how an author writes a part of a declaration."""
    names = [value] if isinstance(value, str) else list(value or ())
    if not names:
        return f"no {part}"
    return f"{part}=" + (json.dumps(names[0]) if len(names) == 1 else json.dumps(names))


def _difference(part: str, before: Any, now: Any) -> str:
    """Return in words how one part of a declaration differs."""
    if not isinstance(now, dict) or not isinstance(before, dict):
        return f"{part} was {_words(before)} and is {_words(now)}"
    changes = [
        *(f"'{name}' is new" for name in now if name not in before),
        *(f"'{name}' is gone" for name in before if name not in now),
        *(
            f"'{name}' was {before[name]} and is {now[name]}"
            for name in now
            if name in before and before[name] != now[name]
        ),
    ]
    return f"{part}: " + (", ".join(changes) or "another order")


def _words(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(value)
    return f"'{value}'" if value else "none"
