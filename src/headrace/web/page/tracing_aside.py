"""What the store keeps of the records that never came so far as to a group: late rows and dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.operate.record_groups import addresses_of
from headrace.sql.plan import StreamPlan
from headrace.store.names import late_name, quoted, text_literal
from headrace.web.page.tracing_group import Group
from headrace.web.page.tracing_samples import ADDRESS, SAMPLE_CHARACTERS, SAMPLES, Heap, document_of, text_of
from headrace.web.page.tracing_search import GroupSearch, rows_from

if TYPE_CHECKING:
    from headrace.store import Store

__all__ = ["dead_letters", "late_rows"]

_LATE_MAX = 20_000


def late_rows(store: Store, search: GroupSearch, stream: StreamPlan, group: Group) -> list[dict[str, Any]]:
    """Late rows of the group, but for those that `search` has told already."""
    name = stream.stream.name
    columns = ", ".join(quoted(each.name) for each in stream.columns)
    where = "true" if group.bounds is None else _between("_event_time", *group.bounds)
    rows = store.query(
        f"SELECT {columns}, {', '.join(ADDRESS)}, _event_time FROM {late_name(name)} WHERE {where}",
        rows_max=_LATE_MAX,
    )
    found = search.matching(rows, "main")
    found = rows_from(found, set(addresses_of(found)) - search.told)
    heap = Heap()
    kept = found.slice(0, SAMPLES).to_pylist()
    texts = {(each["_partition"], each["_offset"]): document_of(each) for each in kept}
    heap.add(found, texts, name)
    if not heap.records:
        return []
    reason = f"came more than {int(stream.stream.allowed_lateness.total_seconds())} s after they happened"
    return [{"what": "late", "why": reason, "records": heap.records, "samples": heap.samples}]


def dead_letters(store: Store, stream: StreamPlan, group: Group) -> list[dict[str, Any]]:
    """Dead letters of the window's time; one that cannot be trusted has no key, so they are of all keys."""
    where = f"stream = {text_literal(stream.stream.name)}"
    if group.bounds is not None:
        begins, ends = group.bounds
        taken = _between("record_time", begins, ends + stream.stream.allowed_lateness)
        where += f" AND ({_between('event_time', begins, ends)} OR (event_time IS NULL AND {taken}))"
    rows = store.query(
        f"""SELECT outcome, coalesce(reasons[1].rule, '') AS rule, count(*) AS records,
                   list({{'at': stream || CASE WHEN lane = 'main' THEN '' ELSE '@' || lane END || ':' ||
                         "partition" || ':' || "offset", 'taken': record_time, 'happened': event_time,
                         'value': "value"[:{SAMPLE_CHARACTERS}]}} ORDER BY record_time)[:10] AS samples
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
                    "value": text_of(one["value"]),
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
