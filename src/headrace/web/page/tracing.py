"""Why is this number this: from a row of a table to the records behind it, and to those that were left out.

The store says which group a row is, and which records were set aside when they were read, whatever the rules
of today say of them; the log holds the records. What the row part keeps of the others for that group are the
records that the row's numbers were made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import RefusedError
from headrace.log.arrays import Mask
from headrace.operate import open_log
from headrace.operate.formats import open_framings
from headrace.operate.record_groups import RecordGroups
from headrace.operate.redrive import LANE
from headrace.sql.plan import StreamPlan, TableClass, TablePlan
from headrace.store.declared import longest_known
from headrace.store.names import quoted, state_name
from headrace.web.page.scanning import Budget
from headrace.web.page.tracing_aside import dead_letters, late_rows
from headrace.web.page.tracing_group import Group, condition_of, group_of, no_such_row, shown_of
from headrace.web.page.tracing_samples import ADDRESS, Heap, text_of
from headrace.web.page.tracing_search import GroupSearch

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.store import Store
    from headrace.web.page.sources import PageSources

__all__ = ["why"]


def why(sources: PageSources, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `models.Why` has of the row of `table` that `row` tells apart (by the table's key).

    Raises RefusedError for a view or a table of ours, and for a row that is not there.
    """
    runtime = sources.runtime
    plan = next((each for each in runtime.plan.tables if each.name == table), None)
    if plan is None:
        raise RefusedError("no records stand behind this relation", fix="ask for a row of a declared table")
    if plan.kind is TableClass.VIEW:
        raise RefusedError(
            f"'{table}' is a query over other tables", fix="look at the rows of: " + ", ".join(plan.sources)
        )
    if table in runtime.store.outside:
        raise RefusedError(
            f"the rows of table '{table}' are not in the store: executors write them into files "
            f"({runtime.store.outside[table]})",
            fix="look for the row there: of where it comes from only `_version` is kept, with the epoch",
        )
    stream = runtime.plan.streams[plan.sources[0]]
    with ExitStack() as undo:
        undo.enter_context(sources.slot())
        log = open_log(runtime.project, stream.stream.name)
        undo.callback(log.close)
        if plan.kind is TableClass.ROWS:
            return _of_record(sources, plan, stream, row, log)
        return _of_group(sources, plan, stream, row, log, undo)


# --- a row that is a record


def _of_record(
    sources: PageSources, plan: TablePlan, stream: StreamPlan, row: Mapping[str, Any], log: Log
) -> dict[str, Any]:
    where = condition_of(plan, row)
    names = ", ".join(quoted(each.name) for each in plan.columns)
    found = sources.runtime.store.query(
        f"SELECT {names}, {', '.join(ADDRESS)}, _time AS _event_time FROM {state_name(plan.name)} "
        f"WHERE {where} LIMIT 1",
        rows_max=1,
    )
    if not found.num_rows:
        raise no_such_row(plan)
    facts = found.to_pylist()[0]
    kept, notes = Heap(), []
    for lane in ("main", LANE):
        record = _record(log.lane(lane) if lane == LANE else log, facts)
        if record is not None:
            texts = {(facts["_partition"], facts["_offset"]): text_of(record)}
            kept.add(found, texts, stream.stream.name + ("" if lane == "main" else f"@{lane}"))
            break
    else:
        kept.add(found, {}, stream.stream.name)
        notes.append("retention has taken the record itself from the log")
    return {
        **_about(plan, stream, shown_of(found, plan), None, sources.runtime.store.status().epoch),
        "records": kept.records,
        "samples": kept.samples,
        "left_out": [],
        "scanned": 1,
        "notes": notes,
    }


def _record(log: Log, facts: Mapping[str, Any]) -> bytes | None:
    """Return the value of the record at an address; None where the log holds another one there, or none."""
    ranges = log.partitions()
    held = next((each for each in ranges if each.partition == facts["_partition"]), None)
    if held is None or not held.start <= facts["_offset"] < held.end:
        return None
    asked = {each.partition: each.end for each in ranges} | {held.partition: facts["_offset"]}
    records = log.read(asked, rows_max=1, bytes_max=1 << 24, wait=timedelta(seconds=1)).records
    for each in records.to_pylist():
        place = (each["partition"], each["offset"], each["record_time"])
        if place == tuple(facts[name] for name in ADDRESS):
            value: bytes | None = each["value"]
            return value
    return None


# --- a row that is a group


def _of_group(
    sources: PageSources,
    plan: TablePlan,
    stream: StreamPlan,
    row: Mapping[str, Any],
    log: Log,
    undo: ExitStack,
) -> dict[str, Any]:
    from headrace.rows import RowStage

    store = sources.runtime.store
    group = group_of(store, plan, row)
    name = stream.stream.name
    framing = open_framings(sources.runtime.project, [stream.stream], undo).get(name)
    stage = RowStage(stream, framing)
    undo.callback(stage.close)
    groups = RecordGroups(plan, stream, group.asked, partial(_reference, store))
    undo.callback(groups.close)
    search = GroupSearch(group, groups, partial(_before, store, name))
    budget = Budget()
    search.main(log, stage, _reach(store, stream, group), budget)
    search.redriven(log, stage, name, budget)
    if budget.notes and group.bounds is None:
        budget.notes.append("a table without windows is made of every record since the first")
    budget.notes.extend(search.unplaced())
    return {
        **_about(plan, stream, group.shown, group.bounds, group.status.epoch),
        "records": search.kept.records,
        "samples": search.kept.samples,
        "left_out": [
            *search.left_out(),
            *late_rows(store, search, stream, group),
            *dead_letters(store, stream, group),
        ],
        "scanned": budget.scanned,
        "notes": list(dict.fromkeys(budget.notes)),
    }


def _before(store: Store, stream: str, lane: str, rows: pa.Table) -> tuple[Mask, Mask]:
    from headrace.engine.local.outcomes import outcomes_before

    with store.snapshot() as cursor:
        return outcomes_before(cursor, stream, lane, rows)


def _reach(store: Store, stream: StreamPlan, group: Group) -> tuple[datetime, datetime] | None:
    """Return between which record times lies what any rule, of today or before, has taken into a window."""
    if group.bounds is None:
        return None
    begins, ends = group.bounds
    with store.snapshot() as cursor:
        early = longest_known(cursor, stream.stream, "future_tolerance")
        late = longest_known(cursor, stream.stream, "allowed_lateness")
    return (begins - early, ends + late)


def _reference(store: Store, name: str) -> pa.Table:
    return store.query(f"FROM _headrace.{quoted(f'reference_{name}')}")


def _about(
    plan: TablePlan,
    stream: StreamPlan,
    shown: dict[str, Any],
    bounds: tuple[datetime, datetime] | None,
    epoch: int,
) -> dict[str, Any]:
    return {
        "table": plan.name,
        "stream": stream.stream.name,
        "row": shown,
        "window_start": None if bounds is None else bounds[0].isoformat(),
        "window_end": None if bounds is None else bounds[1].isoformat(),
        "epoch": epoch,
    }
