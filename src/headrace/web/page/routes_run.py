"""Routes about the run: what it is, where it stands, what became of every record, its stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from textwrap import dedent
from typing import Any

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse, StreamingResponse

from headrace.declare.durations import format_duration
from headrace.sql.plan import StreamPlan, TablePlan
from headrace.sql.system import system_relations
from headrace.web.page import models
from headrace.web.page.live import PageFullError
from headrace.web.page.sources import PageSources

__all__ = ["run_routes"]


def run_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api", tags=["run"])

    @router.get("/overview")
    def overview() -> models.Overview:
        """The pipeline as it was declared."""
        return _overview(sources)

    @router.get("/status")
    def status() -> models.Status:
        """Where everything stands."""
        return models.Status.model_validate(sources.status())

    @router.get("/ledger")
    def ledger() -> models.Ledger:
        """What became of every record."""
        return models.Ledger.model_validate(sources.runtime.answers.ledger())

    @router.get("/epochs")
    def epochs() -> list[models.EpochLine]:
        """The last epochs of this run, oldest first; when there was none yet, those of the run before."""
        return _epochs(sources)

    @router.get(
        "/live",
        responses={200: {"content": {"text/event-stream": {}}}, 503: {"model": models.Failure}},
        response_class=StreamingResponse,
        response_model=None,
    )
    async def live(last_event_id: str = Header("", max_length=64)) -> StreamingResponse | JSONResponse:
        """Events as they happen: `epochs`, `status`, `journal`, `waiting`, after a first `hello`."""
        events = sources.live.stream(last_event_id)
        try:
            first = await anext(events)
        except PageFullError:
            problem = {"error": "too many pages are open", "fix": "close some of them"}
            return JSONResponse(problem, 503, {"Retry-After": "5"})
        return StreamingResponse(_joined(first, events), media_type="text/event-stream")

    return router


async def _joined(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for event in events:
        yield event


def _overview(sources: PageSources) -> models.Overview:
    from importlib.metadata import version

    runtime = sources.runtime
    plan, profile = runtime.plan, runtime.project.profile
    return models.Overview(
        pipeline=runtime.project.pipeline.name,
        profile=profile.name,
        version=version("headrace"),
        run=sources.live.run,
        started=sources.started.isoformat(),
        streams=[_stream(each, profile.stream(name)) for name, each in plan.streams.items()],
        tables=[_table(each) for each in plan.tables],
        relations=sorted(system_relations(plan.streams.values())),
        replicas=[
            models.ReplicaLine(name=name, kind=options.kind, tables=list(options.tables))
            for name, options in profile.replicas.items()
        ],
        panels=len(plan.panels),
    )


def _stream(plan: StreamPlan, binding: Any) -> models.StreamLine:
    stream = plan.stream
    return models.StreamLine(
        name=stream.name,
        log=binding.log,
        format=binding.format,
        columns=[models.StreamColumn(name=each.name, type=each.type) for each in plan.columns],
        event_time=stream.event_time,
        allowed_lateness_seconds=stream.allowed_lateness.total_seconds(),
        future_tolerance_seconds=stream.future_tolerance.total_seconds(),
        unique=list(stream.unique),
        key=stream.key,
        rules=[
            models.Rule(
                name=check.name, condition=check.expect.condition, on_violation=check.expect.on_violation
            )
            for check in plan.checks
        ],
    )


def _table(plan: TablePlan) -> models.TableLine:
    window = plan.window
    words = ""
    if window is not None:
        words = f"{window.kind}, {format_duration(window.size)}"
        if window.kind == "session":
            words = f"gap {format_duration(window.size)}"
        elif window.kind == "sliding":
            words += f" every {format_duration(window.slide)}"
    return models.TableLine(
        name=plan.name,
        kind=plan.kind.value,
        columns=[models.StreamColumn(name=each.name, type=each.type) for each in plan.columns],
        key=list(plan.key),
        sources=list(plan.sources),
        references=list(plan.references),
        window=words,
        query=dedent(plan.table.query).strip(),
        keep_seconds=None if plan.table.keep is None else plan.table.keep.total_seconds(),
    )


def _epochs(sources: PageSources) -> list[models.EpochLine]:
    found = [
        models.EpochLine(
            epoch=each["epoch"],
            at=each["at"],
            records=sum(each["records"].values()),
            outcomes=each["outcomes"],
            seconds=each["seconds"],
            rows=each["rows"],
        )
        for each in sources.live.epochs()
    ]
    if found:
        return found
    stored = sources.records(
        "SELECT epoch, committed_at, records, seconds FROM epochs ORDER BY epoch DESC LIMIT 200", rows_max=200
    )
    return [
        models.EpochLine(
            epoch=each["epoch"],
            at=each["committed_at"],
            records=each["records"],
            outcomes={},
            seconds={"all": each["seconds"]},
            rows={},
        )
        for each in reversed(stored)
    ]
