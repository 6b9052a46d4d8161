"""Routes about records that do not count: those that were set aside and go back, and those that were late."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from headrace.operate import open_log
from headrace.operate.redrive import Address, Redriven
from headrace.store.reading import LETTER_ACCEPTED
from headrace.web.page import models, models_records
from headrace.web.page.giving_back import going_back
from headrace.web.page.late import late_groups, late_rows
from headrace.web.page.sources import PageSources
from headrace.web.page.values import TEXT_CHARACTERS_MAX, bytes_text

__all__ = ["letter_routes"]

_SAMPLES = 5
_SHOWN = (
    *("stream", "lane", "partition", "offset", "outcome", "record_time", "event_time"),
    *("reasons", "key", "value", "accepted"),
)
_GROUPS_MAX = 500
_LONG_S = 1e12

Word = Annotated[str | None, Query(max_length=200)]

_GROUPS = f"""
    SELECT stream, outcome, coalesce(reasons[1].rule, '') AS rule, count(*) AS records,
           count(*) FILTER (WHERE {LETTER_ACCEPTED}) AS accepted,
           min(record_time) AS first, max(record_time) AS last,
           max_by(coalesce(reasons[1].detail, ''), record_time) AS detail,
           max_by(stream || CASE WHEN lane = 'main' THEN '' ELSE '@' || lane END || ':' || "partition" || ':'
                  || "offset", record_time) AS sample
    FROM dead_letters GROUP BY ALL ORDER BY records DESC, stream, outcome, rule
"""


def letter_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(
        prefix="/api",
        tags=["records"],
        responses={422: models.REFUSED, 503: {"model": models.Failure}},
    )

    @router.get("/dead-letters/groups")
    def groups() -> list[models_records.DeadLetterGroup]:
        """Records that were set aside, by stream, outcome and first rule, given back since or not."""
        found = sources.records(_GROUPS, rows_max=_GROUPS_MAX)
        return [models_records.DeadLetterGroup.model_validate(each) for each in found]

    @router.get("/dead-letters")
    def letters(
        stream: Word = None,
        outcome: Word = None,
        rule: Word = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> models_records.DeadLetterPage:
        """Records that were set aside, in the order of their addresses; `rule`: the first they broke."""
        table = sources.runtime.store.dead_letters(
            stream=stream, outcome=outcome, first_rule=rule, limit=limit + 1, columns=_SHOWN
        )
        return models_records.DeadLetterPage(
            letters=[_letter(each) for each in table.slice(0, limit).to_pylist()], more=table.num_rows > limit
        )

    @router.get("/late/groups")
    def late() -> list[models_records.LateGroup]:
        """Rows that came too late, by stream and by how much."""
        return late_groups(sources)

    @router.get("/late/{stream}/rows")
    def rows_of_late(
        stream: Annotated[str, Path(max_length=200)],
        over_seconds: Annotated[float, Query(ge=0, le=_LONG_S)] = 0,
        below_seconds: Annotated[float | None, Query(ge=0, le=_LONG_S)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> models.Rows:
        """The last rows of a stream that came too late by so much, and by how many seconds each."""
        return late_rows(sources, stream, over_seconds, below_seconds, limit)

    @router.post("/dead-letters/preview")
    def preview(asked: models_records.Redrive) -> models_records.RedrivePreview:
        """What would be given back, and how it would be changed; nothing is done."""
        records, samples = going_back(sources.runtime, asked).look(_SAMPLES)
        return models_records.RedrivePreview(records=records, samples=[_sample(each) for each in samples])

    @router.post("/dead-letters/redrive")
    def redrive(asked: models_records.Redrive) -> models_records.RedriveResult:
        """Give records that were set aside to the engine again; each is accepted at most once."""
        project = sources.runtime.project
        records = going_back(sources.runtime, asked).give_back(partial(open_log, project))
        sources.runtime.journal.info("records given back", records=records, by="page")
        return models_records.RedriveResult(records=records)

    return router


def _letter(letter: dict[str, Any]) -> models_records.DeadLetter:
    value = letter["value"]
    shown = None if value is None else bytes_text(value)
    return models_records.DeadLetter(
        address=str(Address.of(letter)),
        stream=letter["stream"],
        outcome=letter["outcome"],
        record_time=letter["record_time"].isoformat(),
        event_time=letter["event_time"] and letter["event_time"].isoformat(),
        reasons=[models_records.Reason(**each) for each in letter["reasons"] or ()],
        key=None if letter["key"] is None else bytes_text(letter["key"])[:TEXT_CHARACTERS_MAX],
        value=None if shown is None else shown[:TEXT_CHARACTERS_MAX],
        # Only what is shown exactly as it is may be edited and given back from there.
        text=shown is not None and len(shown) <= TEXT_CHARACTERS_MAX and shown.encode() == value,
        accepted=letter["accepted"],
    )


def _sample(record: Redriven) -> models_records.RedriveSample:
    def shown(value: bytes | None) -> str | None:
        return None if value is None else bytes_text(value)[:TEXT_CHARACTERS_MAX]

    return models_records.RedriveSample(
        address=str(record.address),
        outcome=record.outcome,
        before=shown(record.before),
        after=shown(record.value),
        changed=record.before != record.value,
    )
