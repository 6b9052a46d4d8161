"""Routes about what is observed: alerts, metrics over time, and what Prometheus reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from headrace.web.page import models
from headrace.web.page.sources import PageSources

__all__ = ["observe_routes"]

_NAMES_MAX = 12
_MINUTES_MAX = 14 * 24 * 60
_LAST_SECOND = 4_102_444_800  # the year 2100


def observe_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["observe"], responses={422: models.REFUSED, 503: {"model": models.Failure}})

    @router.get("/api/alerts")
    def alerts() -> models.Alerts:
        """Every alert and its state, and the last changes, the newest first."""
        told = sources.runtime.alerts
        return models.Alerts.model_validate({"alerts": told.states(), "recent": told.recent()})

    @router.post("/api/alerts/{name}/silence")
    def silence(name: Annotated[str, Path(max_length=200)], asked: models.Silence) -> models.Alerts:
        """Tell nobody of an alert for so many minutes; 0 ends the silence."""
        told = sources.runtime.alerts
        if asked.minutes:
            told.silence(name, datetime.now(UTC) + timedelta(minutes=asked.minutes))
        else:
            told.unsilence(name)
        sources.runtime.journal.info("alert silenced", alert=name, minutes=asked.minutes, by="page")
        return alerts()

    @router.get("/api/history")
    def history(
        names: Annotated[list[str], Query(max_length=_NAMES_MAX)],
        minutes: Annotated[int, Query(ge=1, le=_MINUTES_MAX)] = 30,
        until: Annotated[float | None, Query(ge=0, le=_LAST_SECOND)] = None,
    ) -> list[models.MetricSeries]:
        """Metrics over so many minutes until an instant (Unix seconds) or now; counters as rates a second."""
        from headrace.observe.history import history as asked

        end = datetime.now(UTC) if until is None else datetime.fromtimestamp(until, UTC)
        since = end - timedelta(minutes=minutes)
        found = asked(sources.runtime.answers, names, since=since, until=end)
        return [
            models.MetricSeries(
                name=each.name,
                labels=each.labels,
                times=[at.timestamp() for at in each.times],
                values=each.values,
            )
            for each in found
        ]

    @router.get("/metrics", response_class=Response, include_in_schema=False)
    def metrics() -> Response:
        """What Prometheus reads."""
        body, kind = sources.runtime.observer.expose()
        return Response(body, media_type=kind)

    return router
