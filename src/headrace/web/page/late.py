"""Late rows in groups: by how much they came too late, beyond what their stream allows."""

from __future__ import annotations

from headrace.errors import RefusedError
from headrace.sql.plan import StreamPlan
from headrace.store.names import late_name, text_literal
from headrace.web.page import models
from headrace.web.page.models_records import LateGroup
from headrace.web.page.sources import PageSources

__all__ = ["BANDS", "late_groups", "late_rows"]

BANDS: tuple[tuple[float, float | None], ...] = ((0, 60), (60, 600), (600, 3_600), (3_600, None))
"""Seconds: from, and below. Within a minute, the bound is too tight; beyond an hour, it is something else."""

_GROUPS_MAX = 500


def late_groups(sources: PageSources) -> list[LateGroup]:
    """Return the bands that have rows, the streams in their order and the least late first."""
    found: list[LateGroup] = []
    for name, plan in sources.runtime.plan.streams.items():
        band = "CASE " + " ".join(f"WHEN too_late >= {over} THEN {over}" for over, _ in reversed(BANDS))
        sql = f"""
            SELECT {text_literal(name)} AS stream, {band} ELSE 0 END AS over_seconds, count(*) AS records,
                   max(too_late) AS most_seconds, min(_record_time) AS first, max(_record_time) AS last
            FROM (SELECT _record_time, {_too_late(plan)} AS too_late FROM {late_name(name)})
            GROUP BY ALL ORDER BY over_seconds
        """
        below = dict(BANDS)
        for row in sources.records(sql, rows_max=_GROUPS_MAX):
            found.append(LateGroup.model_validate({**row, "below_seconds": below[row["over_seconds"]]}))
    return found


def late_rows(
    sources: PageSources, stream: str, over_seconds: float, below_seconds: float | None, limit: int
) -> models.Rows:
    """Return the last rows of a band, each after the seconds by which it came too late."""
    plan = sources.runtime.plan.streams.get(stream)
    if plan is None:
        raise RefusedError(
            "there is no such stream", fix="there are: " + ", ".join(sources.runtime.plan.streams)
        )
    wanted = f"_too_late_seconds >= {float(over_seconds)!r}"
    if below_seconds is not None:
        wanted += f" AND _too_late_seconds < {float(below_seconds)!r}"
    found = sources.rows(
        f"SELECT * FROM (SELECT {_too_late(plan)} AS _too_late_seconds, * EXCLUDE (_event_time, _epoch) "
        f"FROM {late_name(stream)}) WHERE {wanted} "
        f"ORDER BY _record_time DESC, _partition, _offset DESC LIMIT {limit + 1}",
        rows_max=limit,
    )
    return models.Rows.model_validate(found)


def _too_late(plan: StreamPlan) -> str:
    """Return by how many seconds a row came too late; 0 where less was allowed when it came than is now."""
    allowed = plan.stream.allowed_lateness.total_seconds()
    return f"round(greatest(0, epoch(_record_time) - epoch(_event_time) - {allowed!r}), 3)"
