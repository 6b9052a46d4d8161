"""Routes about the log: what it holds, and looking into it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Path, Query

from headrace.errors import RefusedError, TransientError
from headrace.operate import open_log
from headrace.operate.exact_json import dump_exact
from headrace.operate.formats import open_framings
from headrace.operate.log_tools import From, describe_log, peek, settings_of
from headrace.operate.redrive import LANE
from headrace.web.page import models
from headrace.web.page.choosing import those_where
from headrace.web.page.sources import PageSources
from headrace.web.page.values import TEXT_CHARACTERS_MAX

__all__ = ["record_routes"]


def record_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(
        prefix="/api",
        tags=["records"],
        responses={422: models.REFUSED, 503: {"model": models.Failure}},
    )

    @router.get("/log")
    def log() -> list[models.LogStream]:
        """The logs of the streams: partitions, bytes, who reads them and how far behind they are."""
        return [_log(sources, name) for name in sources.runtime.plan.streams]

    @router.get("/log/{stream}/records")
    def peeked(
        stream: Annotated[str, Path(max_length=200)],
        last: Annotated[int, Query(ge=1, le=500)] = 50,
        contains: Annotated[str, Query(max_length=200)] = "",
        partition: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
        offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
        where: Annotated[str, Query(max_length=2_000)] = "",
    ) -> list[models.PeekedRecord]:
        """The last records of a log, or those from an offset of a partition on; no position is moved.

        `where` is a condition in SQL over the stream's columns, and over partition, offset, record_time, key,
        value (JSON), text and form.
        """
        begin = From(last=last) if partition is None else From(offset=(partition, offset))
        found = _peeked(sources, stream, begin, last, contains)
        return those_where(sources, stream, found, where) if where.strip() else [each for each, _ in found]

    return router


def _log(sources: PageSources, name: str) -> models.LogStream:
    project = sources.runtime.project
    settings = settings_of(project.profile.stream(name))
    try:
        log = open_log(project, name, make=False)
        try:
            described = describe_log(log)
        finally:
            log.close()
    except (RefusedError, TransientError) as error:
        return models.LogStream(stream=name, problem=error.message, settings=settings)
    return models.LogStream.model_validate({**described, "problem": "", "settings": settings})


def _peeked(
    sources: PageSources, stream: str, begin: From, count: int, contains: str
) -> list[tuple[models.PeekedRecord, str | None]]:
    """Return records, each with its value as a line of JSON where it is some."""
    plan, project = sources.runtime.plan, sources.runtime.project
    name, _, lane = stream.partition("@")
    if name not in plan.streams or lane not in ("", LANE):
        raise RefusedError("there is no such stream", fix="there are: " + ", ".join(plan.streams))
    found = []
    wanted = contains.casefold()
    with ExitStack() as undo:
        framings = open_framings(project, [plan.streams[name].stream], undo)
        log = open_log(project, name, make=False)
        undo.callback(log.close)
        read = peek(
            log.lane(lane) if lane else log,
            begin,
            lane=lane or "main",
            records_max=count,
            framing=framings.get(name),
        )
        for each in read:
            value = each.pretty()[:TEXT_CHARACTERS_MAX]
            if wanted and wanted not in f"{each.facts['key']} {value}".casefold():
                continue
            record = models.PeekedRecord(
                address=each.address,
                partition=each.facts["partition"],
                offset=each.facts["offset"],
                record_time=each.facts["record_time"],
                key=each.facts["key"],
                form=each.form,
                value=value,
                problem=each.problem,
            )
            found.append((record, dump_exact(each.parsed) if each.form == "json" else None))
    return found
