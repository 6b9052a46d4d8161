"""Why is this number this: from a row of a table to the records behind it, and to those that were left out.

The store says which group a row is, and which records were set aside when they were read, whatever the rules
of today say of them; the log holds the records. What the row part keeps of the others for that group are the
records that the row's numbers were made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import RefusedError
from headrace.log.arrays import Mask
from headrace.operate import open_log
from headrace.operate.formats import open_framings
from headrace.operate.record_groups import Address, RecordGroups, addresses_of
from headrace.operate.redrive import LANE
from headrace.sql.plan import NamedColumn, StreamPlan, TableClass, TablePlan
from headrace.store.declared import longest_known
from headrace.store.names import late_name, quoted, state_name, text_literal
from headrace.store.schema import groups_sql, result_columns
from headrace.web.page.scanning import Before, Budget, Outcomes, outcomes_between
from headrace.web.page.values import bytes_text, plain

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.rows import RowStage
    from headrace.store import Store, StoreStatus
    from headrace.web.page.sources import PageSources

__all__ = ["why"]

_SAMPLES = 50
_SAMPLE_CHARACTERS = 4_000
_LATE_MAX = 20_000
_TRIES = 5
_HIDDEN = ("_partition", "_offset", "_record_time")
_STAYS = "Each counts where it was given back; dead letters among them are told below, too"


@dataclass
class _Heap:
    """Records of one kind: how many, and the first of them."""

    records: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: pa.Table, texts: Mapping[tuple[int, int], str], place: str) -> None:
        """Count rows with `_partition`, `_offset`, `_record_time` and `_event_time`."""
        self.records += found.num_rows
        for row in found.slice(0, _SAMPLES - len(self.samples)).to_pylist():
            at = (row["_partition"], row["_offset"])
            self.samples.append(
                {
                    "address": f"{place}:{at[0]}:{at[1]}",
                    "record_time": row["_record_time"].isoformat(),
                    "event_time": row["_event_time"] and row["_event_time"].isoformat(),
                    "value": texts.get(at, ""),
                }
            )


@dataclass(frozen=True)
class _Group:
    """A row of a table as it is now: `asked` names its group for `RecordGroups`, `shown` are its columns."""

    shown: dict[str, Any]
    asked: pa.Table
    bounds: tuple[datetime, datetime] | None
    status: StoreStatus


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
    where = _where(plan, row)
    names = ", ".join(quoted(each.name) for each in plan.columns)
    found = sources.runtime.store.query(
        f"SELECT {names}, {', '.join(_HIDDEN)}, _time AS _event_time FROM {state_name(plan.name)} "
        f"WHERE {where} LIMIT 1",
        rows_max=1,
    )
    if not found.num_rows:
        raise _gone(plan)
    facts = found.to_pylist()[0]
    kept, notes = _Heap(), []
    for lane in ("main", LANE):
        record = _record(log.lane(lane) if lane == LANE else log, facts)
        if record is not None:
            texts = {(facts["_partition"], facts["_offset"]): _text(record)}
            kept.add(found, texts, stream.stream.name + ("" if lane == "main" else f"@{lane}"))
            break
    else:
        kept.add(found, {}, stream.stream.name)
        notes.append("retention has taken the record itself from the log")
    return {
        **_about(plan, stream, _shown(found, plan), None, sources.runtime.store.status().epoch),
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
        if place == tuple(facts[name] for name in _HIDDEN):
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

    group = _group(sources, plan, row)
    name = stream.stream.name
    framing = open_framings(sources.runtime.project, [stream.stream], undo).get(name)
    stage = RowStage(stream, framing)
    undo.callback(stage.close)
    groups = RecordGroups(plan, stream, group.asked, partial(_reference, sources))
    undo.callback(groups.close)
    search = _Search(group, groups, partial(_before, sources.runtime.store, name))
    budget = Budget()
    search.main(log, stage, _reach(sources.runtime.store, stream, group), budget)
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
            *_late(sources, search, stream, group),
            *_letters(sources, stream, group),
        ],
        "scanned": budget.scanned,
        "notes": list(dict.fromkeys(budget.notes)),
    }


class _Search:
    """Sorts outcomes of records into those of a group, and those beside it."""

    def __init__(self, group: _Group, groups: RecordGroups, before: Before) -> None:
        self._group = group
        self._groups = groups
        self._before = before
        self._seen: set[int] = set()
        self._unplaced = 0
        self.told: set[Address] = set()
        """Where records of the main lane are from that were set aside and are told as that."""
        self.kept, self._copies, self._back, self._aside = _Heap(), _Heap(), _Heap(), _Heap()
        self._others, self._filtered, self._failed = _Heap(), _Heap(), _Heap()

    def main(
        self, log: Log, stage: RowStage, times: tuple[datetime, datetime] | None, budget: Budget
    ) -> None:
        """Look through the records that can be in the group by their record times (see `_reach`)."""
        at = self._group.status.positions(log.stream)
        for each in outcomes_between(log, stage, at, times, budget, seen=self._seen, before=self._before):
            self._sort(each, log.stream)

    def redriven(self, log: Log, stage: RowStage, stream: str, budget: Budget) -> None:
        """Look through what was given back; its record times say nothing."""
        at = self._group.status.positions(stream, LANE)
        if not any(at.values()) or budget.spent:
            return
        lane = log.lane(LANE)
        for each in outcomes_between(
            lane, stage, at, None, budget, lane=LANE, seen=self._seen, before=self._before
        ):
            self._sort(each, f"{stream}@{LANE}")

    def left_out(self) -> list[dict[str, Any]]:
        """Return what the scan found beside the group's own records."""
        kinds = (
            ("duplicate", "copies of records of this group; each counts once", self._copies),
            ("given back", "given back, and counted already or too old by then", self._back),
            ("set aside", "when they were read; the rules of today would take them. " + _STAYS, self._aside),
            ("failed", "the query failed on them", self._failed),
            ("other keys", "of the same time, in other rows", self._others),
            ("filtered", "of the same time; the query's WHERE leaves them out", self._filtered),
        )
        return [
            {"what": what, "why": reason, "records": heap.records, "samples": heap.samples}
            for what, reason, heap in kinds
            if heap.records
        ]

    def matching(self, rows: pa.Table, lane: str) -> pa.Table:
        """Return those of `rows` (as `RowResult.timely`) that the row part puts into the group."""
        within = self._within(rows)
        return _at(within, self._groups.sort(within, lane).inside.get(0, ()))

    def _sort(self, found: Outcomes, place: str) -> None:
        texts = _Texts(found.records)
        within = self._within(found.accepted)
        belong = self._groups.sort(within, found.lane)
        mine = belong.inside.get(0, [])
        told = {*mine, *belong.others, *belong.failed}
        self.kept.add(_at(within, mine), texts, place)
        self._others.add(_at(within, belong.others), texts, place)
        self._failed.add(_at(within, belong.failed), texts, place)
        rest = [each for each in addresses_of(within) if each not in told]
        self._filtered.add(_at(within, rest), texts, place)
        copies = self._back if found.lane == LANE else self._copies
        copies.add(self.matching(found.duplicates, found.lane), texts, place)
        aside = self.matching(found.aside, found.lane)
        self._aside.add(aside, texts, place)
        if found.lane == "main":
            self.told.update(addresses_of(aside))
        # A record without an event time of today may have had one.
        self._unplaced += self._within(found.unplaced, also_null=True).num_rows

    def unplaced(self) -> list[str]:
        """Return in words how many records would be told to be left out, and are in what was computed."""
        if not self._unplaced:
            return []
        records, were = ("record", "was") if self._unplaced == 1 else ("records", "were")
        return [
            f"{self._unplaced:,} {records} of that time {were} accepted when read, and would be set aside by "
            "the rules of today: what was computed before has them, and they are not among these"
        ]

    def _within(self, rows: pa.Table, *, also_null: bool = False) -> pa.Table:
        """Return the rows whose event times lie in the group's window; all of them where it has none."""
        if self._group.bounds is None:
            return rows
        begins, ends = (pa.scalar(each, pa.timestamp("us", "UTC")) for each in self._group.bounds)
        at = rows.column("_event_time")
        inside = pc.and_(pc.greater_equal(at, begins), pc.less(at, ends))
        return rows.filter(pc.fill_null(inside, also_null))


class _Texts(dict[tuple[int, int], str]):
    """Values of a slice's records by address, made to text only for those that are asked for."""

    def __init__(self, records: pa.Table) -> None:
        super().__init__()
        places = zip(
            records.column("partition").to_pylist(), records.column("offset").to_pylist(), strict=True
        )
        self._rows = {place: row for row, place in enumerate(places)}
        self._values = records.column("value")

    def get(self, place: tuple[int, int], default: Any = None) -> Any:
        """Return the text of the record there."""
        row = self._rows.get(place)
        return default if row is None else _text(self._values[row].as_py())


def _at(rows: pa.Table, places: Iterable[Address]) -> pa.Table:
    """Return those of `rows` that are from these addresses."""
    wanted = set(places)
    return rows.filter(pa.array([each in wanted for each in addresses_of(rows)], pa.bool_()))


def _before(store: Store, stream: str, lane: str, rows: pa.Table) -> tuple[Mask, Mask]:
    from headrace.engine.local.outcomes import outcomes_before

    with store.snapshot() as cursor:
        return outcomes_before(cursor, stream, lane, rows)


def _reach(store: Store, stream: StreamPlan, group: _Group) -> tuple[datetime, datetime] | None:
    """Return between which record times lies what any rule, of today or before, has taken into a window."""
    if group.bounds is None:
        return None
    begins, ends = group.bounds
    with store.snapshot() as cursor:
        early = longest_known(cursor, stream.stream, "future_tolerance")
        late = longest_known(cursor, stream.stream, "allowed_lateness")
    return (begins - early, ends + late)


def _reference(sources: PageSources, name: str) -> pa.Table:
    return sources.runtime.store.query(f"FROM _headrace.{quoted(f'reference_{name}')}")


def _group(sources: PageSources, plan: TablePlan, row: Mapping[str, Any]) -> _Group:
    store = sources.runtime.store
    where = _where(plan, row)
    names = [key.name for key in plan.keys] + (["window_start", "window_end"] if plan.window else [])
    asked = [f"_key_{name}" for name in names]
    hidden = [f"{quoted(name)} AS {quoted(own)}" for name, own in zip(names, asked, strict=True)]
    sql = (
        f'WITH "_groups" AS ({groups_sql(plan)}), _shown AS '
        f'(SELECT {", ".join([*hidden, result_columns(plan)])} FROM "_groups") '
        f"SELECT * FROM _shown WHERE {where} LIMIT 1"
    )
    for _ in range(_TRIES):  # row and positions of one epoch
        status = store.status()
        found = store.query(sql, rows_max=1)
        if store.status().epoch == status.epoch:
            break
    if not found.num_rows:
        raise _gone(plan)
    bounds = None
    if plan.window is not None:
        begins, ends = (found.column(name)[0].as_py() for name in asked[-2:])
        bounds = (begins, ends)
    return _Group(_shown(found, plan), found.select(asked or found.column_names[:1]), bounds, status)


def _where(plan: TablePlan, row: Mapping[str, Any]) -> str:
    """Return the condition that finds a row by the table's key; where it has none, by all that is plain."""
    types = {each.name: each for each in plan.columns}
    names = plan.key or [each.name for each in plan.columns if _is_plain(each) and each.name in row]
    if plan.kind is not TableClass.ROWS and not plan.key:
        if plan.keys or plan.window is not None:
            raise RefusedError(
                f"'{plan.name}' does not show what tells its rows apart", fix="SELECT its grouping keys too"
            )
        return "true"  # there is one row
    missing = [name for name in names if name not in row]
    if missing or not names:
        raise RefusedError("the row is not told apart", fix="give its " + ", ".join(missing or types))
    return " AND ".join(
        f"{quoted(name)} IS NOT DISTINCT FROM {_literal(types[name], row[name])}" for name in names
    )


def _is_plain(column: NamedColumn) -> bool:
    return not any(word in column.type.upper() for word in ("[", "STRUCT", "MAP", "BLOB", "DOUBLE", "FLOAT"))


def _literal(column: NamedColumn, value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        value = str(value).lower()
    if not isinstance(value, str):
        raise RefusedError(f"'{column.name}' of the row is no plain value", fix="give it as it is shown")
    return f"TRY_CAST({text_literal(value)} AS {column.type})"


def _gone(plan: TablePlan) -> RefusedError:
    return RefusedError(
        f"'{plan.name}' has no such row (any more)", fix="load its rows anew: they change while records flow"
    )


def _shown(found: pa.Table, plan: TablePlan) -> dict[str, Any]:
    facts = found.select([each.name for each in plan.columns]).to_pylist()[0]
    return {name: plain(value) for name, value in facts.items()}


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


# --- what the store keeps of records that never came so far


def _late(sources: PageSources, search: _Search, stream: StreamPlan, group: _Group) -> list[dict[str, Any]]:
    name = stream.stream.name
    columns = ", ".join(quoted(each.name) for each in stream.columns)
    where = "true" if group.bounds is None else _between("_event_time", *group.bounds)
    rows = sources.runtime.store.query(
        f"SELECT {columns}, {', '.join(_HIDDEN)}, _event_time FROM {late_name(name)} WHERE {where}",
        rows_max=_LATE_MAX,
    )
    found = search.matching(rows, "main")
    found = _at(found, set(addresses_of(found)) - search.told)
    heap = _Heap()
    kept = found.slice(0, _SAMPLES).to_pylist()
    texts = {(each["_partition"], each["_offset"]): _document(each) for each in kept}
    heap.add(found, texts, name)
    if not heap.records:
        return []
    reason = f"came more than {int(stream.stream.allowed_lateness.total_seconds())} s after they happened"
    return [{"what": "late", "why": reason, "records": heap.records, "samples": heap.samples}]


def _letters(sources: PageSources, stream: StreamPlan, group: _Group) -> list[dict[str, Any]]:
    """Dead letters of the window's time; one that cannot be trusted has no key, so they are of all keys."""
    where = f"stream = {text_literal(stream.stream.name)}"
    if group.bounds is not None:
        begins, ends = group.bounds
        taken = _between("record_time", begins, ends + stream.stream.allowed_lateness)
        where += f" AND ({_between('event_time', begins, ends)} OR (event_time IS NULL AND {taken}))"
    rows = sources.runtime.store.query(
        f"""SELECT outcome, coalesce(reasons[1].rule, '') AS rule, count(*) AS records,
                   list({{'at': stream || CASE WHEN lane = 'main' THEN '' ELSE '@' || lane END || ':' ||
                         "partition" || ':' || "offset", 'taken': record_time, 'happened': event_time,
                         'value': "value"[:{_SAMPLE_CHARACTERS}]}} ORDER BY record_time)[:10] AS samples
            FROM dead_letters WHERE {where} GROUP BY ALL ORDER BY records DESC LIMIT 50""",
        rows_max=50,
    ).to_pylist()
    return [
        {
            "what": each["outcome"],
            "why": f"{each['rule']}; of that time, whatever their key",
            "records": each["records"],
            "samples": [
                {
                    "address": one["at"],
                    "record_time": one["taken"].isoformat(),
                    "event_time": one["happened"] and one["happened"].isoformat(),
                    "value": _text(one["value"]),
                }
                for one in each["samples"]
            ],
        }
        for each in rows
    ]


def _between(column: str, begins: datetime, ends: datetime) -> str:
    return (
        f"({column} >= '{begins.isoformat()}'::TIMESTAMPTZ AND {column} < '{ends.isoformat()}'::TIMESTAMPTZ)"
    )


def _document(row: Mapping[str, Any]) -> str:
    facts = {name: plain(value) for name, value in row.items() if value is not None and name[0] != "_"}
    return json.dumps(facts, ensure_ascii=False)[:_SAMPLE_CHARACTERS]


def _text(value: bytes | None) -> str:
    return "" if value is None else bytes_text(value)[:_SAMPLE_CHARACTERS]
