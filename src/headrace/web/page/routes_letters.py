"""Routes about records that do not count: those that were set aside and go back, and those that were late."""

from __future__ import annotations

from dataclasses import astuple
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from headrace.operate import open_log
from headrace.operate.redrive import Address, Redriven
from headrace.web.page import models, models_records
from headrace.web.page.again import GROUPS_SQL, last_tries
from headrace.web.page.giving_back import going_back
from headrace.web.page.late import late_groups, late_rows
from headrace.web.page.previewing import CHECKED_MAX, check
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
        found = sources.records(GROUPS_SQL, rows_max=_GROUPS_MAX)
        return [models_records.DeadLetterGroup.model_validate(each) for each in found]

    @router.get("/dead-letters")
    def letters(
        stream: Word = None,
        outcome: Word = None,
        rule: Word = None,
        address: Word = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> models_records.DeadLetterPage:
        """Records that were set aside, in the order of their addresses; `rule`: the first they broke."""
        return _letters(sources, limit, address, stream=stream, outcome=outcome, first_rule=rule)

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
        """What would be given back, how it would be changed, and what it would get; nothing is done."""
        return _preview(sources, asked)

    @router.post("/dead-letters/redrive")
    def redrive(asked: models_records.Redrive) -> models_records.RedriveResult:
        """Give records that were set aside to the engine again; each is accepted at most once."""
        project = sources.runtime.project
        records = going_back(sources.runtime, asked).give_back(partial(open_log, project))
        sources.runtime.journal.info("records given back", records=records, by="page")
        return models_records.RedriveResult(records=records)

    return router


def _letters(
    sources: PageSources, limit: int, address: str | None, **group: str | None
) -> models_records.DeadLetterPage:
    only = None if address is None else [astuple(Address.parse(address))]
    table = sources.runtime.store.dead_letters(
        stream=group["stream"],
        outcome=group["outcome"],
        first_rule=group["first_rule"],
        addresses=only,
        limit=limit + 1,
        columns=_SHOWN,
    )
    shown = table.slice(0, limit).to_pylist()
    tries = last_tries(sources, [Address.of(each) for each in shown if not each["accepted"]])
    return models_records.DeadLetterPage(
        letters=[_letter(each, tries.get(Address.of(each))) for each in shown], more=table.num_rows > limit
    )


def _preview(sources: PageSources, asked: models_records.Redrive) -> models_records.RedrivePreview:
    records, looked = going_back(sources.runtime, asked).look(CHECKED_MAX)
    checked = check(sources, looked)
    return models_records.RedrivePreview(
        records=records,
        samples=[_sample(each, checked.outcomes.get(place)) for place, each in enumerate(looked[:_SAMPLES])],
        checked=len(checked.outcomes),
        outcomes=checked.counted(),
        broken=checked.broken(),
        warned=dict(checked.warned),
        unchecked=checked.unchecked,
    )


def _letter(letter: dict[str, Any], again: dict[str, Any] | None) -> models_records.DeadLetter:
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
        again=None if again is None else models_records.Again.model_validate(again),
    )


def _sample(record: Redriven, would: tuple[str, list[dict[str, str]]] | None) -> models_records.RedriveSample:
    def shown(value: bytes | None) -> str | None:
        return None if value is None else bytes_text(value)[:TEXT_CHARACTERS_MAX]

    return models_records.RedriveSample(
        address=str(record.address),
        outcome=record.outcome,
        before=shown(record.before),
        after=shown(record.value),
        changed=record.before != record.value,
        would=None if would is None else would[0],
        reasons=[] if would is None else [models_records.Reason(**each) for each in would[1]],
    )
