"""Routes about single records: those that were set aside, giving them back, and looking into the log."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from headrace.errors import RefusedError, TransientError
from headrace.operate import open_log
from headrace.operate.exact_json import dump_exact
from headrace.operate.formats import open_framings
from headrace.operate.log_tools import From, describe_log, peek, settings_of
from headrace.operate.redrive import (
    LANE,
    Address,
    Change,
    Redriven,
    append_redriven,
    find_letters,
    prepare,
    replace_exactly,
    set_fields,
)
from headrace.web.page import models
from headrace.web.page.choosing import those_where
from headrace.web.page.sources import PageSources
from headrace.web.page.values import TEXT_CHARACTERS_MAX, bytes_text

__all__ = ["record_routes"]

_SAMPLES = 5
_GROUPS_MAX = 500

Word = Annotated[str | None, Query(max_length=200)]

_GROUPS = """
    SELECT stream, outcome, coalesce(reasons[1].rule, '') AS rule, count(*) AS records,
           min(record_time) AS first, max(record_time) AS last,
           max_by(coalesce(reasons[1].detail, ''), record_time) AS detail,
           max_by(stream || CASE WHEN lane = 'main' THEN '' ELSE '@' || lane END || ':' || "partition" || ':'
                  || "offset", record_time) AS sample
    FROM dead_letters GROUP BY ALL ORDER BY records DESC, stream, outcome, rule
"""


def record_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(
        prefix="/api",
        tags=["records"],
        responses={422: models.REFUSED, 503: {"model": models.Failure}},
    )

    @router.get("/dead-letters/groups")
    def groups() -> list[models.DeadLetterGroup]:
        """Records that were set aside, by stream, outcome and first rule."""
        found = sources.records(_GROUPS, rows_max=_GROUPS_MAX)
        return [models.DeadLetterGroup.model_validate(each) for each in found]

    @router.get("/dead-letters")
    def letters(
        stream: Word = None,
        outcome: Word = None,
        rule: Word = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> models.DeadLetterPage:
        """Records that were set aside, in the order of their addresses."""
        table = sources.runtime.answers.dead_letters(
            stream=stream, outcome=outcome, rule=rule, limit=limit + 1
        )
        return models.DeadLetterPage(
            letters=[_letter(each) for each in table.slice(0, limit).to_pylist()], more=table.num_rows > limit
        )

    @router.post("/dead-letters/preview")
    def preview(asked: models.Redrive) -> models.RedrivePreview:
        """What would be given back, and how it would be changed; nothing is done."""
        records = _prepared(sources, asked)
        return models.RedrivePreview(
            records=len(records), samples=[_sample(each) for each in records[:_SAMPLES]]
        )

    @router.post("/dead-letters/redrive")
    def redrive(asked: models.Redrive) -> models.RedriveResult:
        """Give records that were set aside to the engine again; each is accepted at most once."""
        records = _prepared(sources, asked)
        project = sources.runtime.project
        append_redriven(records, lambda name: open_log(project, name))
        sources.runtime.journal.info("records given back", records=len(records), by="page")
        return models.RedriveResult(records=len(records))

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


def _letter(letter: dict[str, Any]) -> models.DeadLetter:
    value = letter["value"]
    shown = None if value is None else bytes_text(value)
    return models.DeadLetter(
        address=str(Address.of(letter)),
        stream=letter["stream"],
        outcome=letter["outcome"],
        record_time=letter["record_time"].isoformat(),
        event_time=letter["event_time"] and letter["event_time"].isoformat(),
        reasons=[models.Reason(**each) for each in letter["reasons"] or ()],
        key=None if letter["key"] is None else bytes_text(letter["key"])[:TEXT_CHARACTERS_MAX],
        value=None if shown is None else shown[:TEXT_CHARACTERS_MAX],
        # Only what is shown exactly as it is may be edited and given back from there.
        text=shown is not None and len(shown) <= TEXT_CHARACTERS_MAX and shown.encode() == value,
    )


def _prepared(sources: PageSources, asked: models.Redrive) -> list[Redriven]:
    if not asked.addresses and asked.stream is None and asked.outcome is None and asked.rule is None:
        raise RefusedError("nothing was chosen", fix="name addresses, or a stream, an outcome or a rule")
    if asked.value is not None and asked.assignments:
        raise RefusedError("a new record and fields at once", fix="give one of them")
    if asked.value is not None and len(asked.addresses) != 1:
        raise RefusedError("a new record stands for one address", fix="choose one record")
    change: Change | None = set_fields(asked.assignments) if asked.assignments else None
    if asked.value is not None:
        change = replace_exactly(asked.value.encode("utf-8", "surrogatepass"))
    addresses = [Address.parse(each) for each in asked.addresses]
    # The answers of the run serve as the client that a command would open.
    letters = find_letters(
        sources.runtime.answers, addresses, stream=asked.stream, outcome=asked.outcome, rule=asked.rule
    )
    return prepare(letters, change)


def _sample(record: Redriven) -> models.RedriveSample:
    def shown(value: bytes | None) -> str | None:
        return None if value is None else bytes_text(value)[:TEXT_CHARACTERS_MAX]

    return models.RedriveSample(
        address=str(record.address),
        outcome=record.outcome,
        before=shown(record.before),
        after=shown(record.value),
        changed=record.before != record.value,
    )


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
