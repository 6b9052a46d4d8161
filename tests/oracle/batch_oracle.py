"""A batch oracle: every answer of a pipeline from all its records at once, in plain Python.

It reads DESIGN's rules of time and outcome for itself and shares no code with `headrace`. It knows no epochs,
no state and no frontiers, which is why it can say what every way of cutting a run must give.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from oracle_model import Arrival, Grouped, Plain, Row, Stream, Table, View, Window
from oracle_values import WrongValueError, parse_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Judged:
    """One record with its outcome, the rules that it failed and, where it could be read, its row."""

    arrival: Arrival
    outcome: str
    rules: tuple[str, ...] = ()
    event_time: datetime | None = None
    row: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a pipeline gives: judged records in (record time, partition, offset) order, and tables as rows."""

    judged: Sequence[Judged]
    tables: Mapping[str, list[Row]]
    table_counts: Mapping[tuple[str, str], Mapping[str, int]]

    def outcomes(self, stream: str) -> dict[str, int]:
        """Records per outcome; an outcome without records is left out."""
        return dict(Counter(one.outcome for one in self.judged if one.arrival.stream == stream))

    def addresses(self, stream: str, *outcomes: str) -> list[tuple[int, int, str, tuple[str, ...]]]:
        """(partition, offset, outcome, rules) of the records with one of `outcomes`."""
        return sorted(
            (one.arrival.partition, one.arrival.offset, one.outcome, one.rules)
            for one in self.judged
            if one.arrival.stream == stream and one.outcome in outcomes
        )


def answer(streams: Iterable[Stream], tables: Mapping[str, Table], arrivals: Iterable[Arrival]) -> Answer:
    """Judge `arrivals` and compute `tables`; a view stands after what it reads."""
    ordered = sorted(arrivals, key=lambda one: (one.record_time, one.partition, one.offset))
    judged: list[Judged] = []
    for stream in streams:
        judged.extend(_judge_stream(stream, [one for one in ordered if one.stream == stream.name]))
    results: dict[str, list[Row]] = {}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for name, table in tables.items():
        if isinstance(table, View):
            results[name] = table.compute(results)
            continue
        accepted = [one for one in judged if one.outcome == "accepted" and one.arrival.stream == table.source]
        kept, failed = _kept(table, accepted)
        counts[name, table.source] = {
            "kept": len({(one.arrival.partition, one.arrival.offset) for one, _ in kept}),
            "failed": failed,
        }
        counts[name, table.source]["filtered"] = len(accepted) - sum(counts[name, table.source].values())
        results[name] = _plain(table, kept) if isinstance(table, Plain) else _grouped(table, kept)
    return Answer(judged, results, counts)


def _judge_stream(stream: Stream, arrivals: Sequence[Arrival]) -> list[Judged]:
    judged, accepted = [], set()
    # A conflicting copy is settled by place in its partition, so the first of each partition is asked first.
    for arrival in sorted(arrivals, key=lambda one: (one.offset, one.partition)):
        verdict = _judge(stream, arrival)
        if verdict.outcome == "accepted" and stream.unique:
            values = tuple(verdict.row[name] for name in stream.unique)
            if None not in values:
                if (values, verdict.event_time) in accepted:
                    verdict = Judged(arrival, "duplicate", (), verdict.event_time, verdict.row)
                accepted.add((values, verdict.event_time))
        judged.append(verdict)
    return judged


def _judge(stream: Stream, arrival: Arrival) -> Judged:
    try:
        fields = parse_json(arrival.value or b"")
    except UnicodeDecodeError:
        return Judged(arrival, "malformed", ("utf8",))
    except (ValueError, RecursionError):
        return Judged(arrival, "malformed", ("json",))
    row, wrong = _read(stream, fields)
    if wrong:
        return Judged(arrival, "malformed", tuple(sorted(wrong)))
    event_time = arrival.record_time if stream.event_time is None else row[stream.event_time]
    if event_time is None:
        return Judged(arrival, "malformed", ("event_time",))
    broken = _derive(stream, row) + _broken_rules(stream, row)
    if broken:
        return Judged(arrival, "rejected", tuple(sorted(broken)), event_time, row)
    row = row | {"_time": event_time}
    if event_time > arrival.record_time + stream.future_tolerance:
        return Judged(arrival, "future", ("future",), event_time, row)
    if event_time < arrival.record_time - stream.allowed_lateness:
        return Judged(arrival, "late", (), event_time, row)
    return Judged(arrival, "accepted", (), event_time, row)


def _read(stream: Stream, fields: Mapping[str, Any]) -> tuple[Row, list[str]]:
    row: Row = {}
    wrong: list[str] = []
    for column in stream.columns:
        value = fields.get(column.name)
        row[column.name] = None
        try:
            if value is not None:
                row[column.name] = column.read(value)
            elif not column.nullable:
                wrong.append(f"column:{column.name}")
        except WrongValueError:
            wrong.append(f"column:{column.name}")
    return row, wrong


def _derive(stream: Stream, row: Row) -> list[str]:
    broken = []
    for name, expression in stream.derive.items():
        try:
            row[name] = expression(row)
        except (ArithmeticError, ValueError, LookupError, TypeError):
            row[name] = None
            broken.append(f"derive:{name}")
    return broken


def _broken_rules(stream: Stream, row: Row) -> list[str]:
    broken = []
    for name, rule in stream.expect.items():
        try:
            holds = rule.holds(row)
        except (ArithmeticError, ValueError, LookupError, TypeError):
            holds = None
        if holds is not True and not rule.warn:
            broken.append(f"expect:{name}")
    return broken


def _kept(table: Grouped | Plain, accepted: Sequence[Judged]) -> tuple[list[tuple[Judged, Row]], int]:
    kept: list[tuple[Judged, Row]] = []
    failed = 0
    for one in accepted:
        try:
            rows = table.unnest(one.row) if table.unnest else [one.row]
            rows = [row for row in rows if table.where is None or table.where(row) is True]
            for row in rows:  # every expression of the row part runs before the row counts as kept
                _arguments(table, row)
        except ArithmeticError:
            failed += 1
            continue
        kept.extend((one, row) for row in rows)
    return kept, failed


def _arguments(table: Grouped | Plain, row: Row) -> None:
    if isinstance(table, Plain):
        expressions = list(table.columns.values())
    else:
        expressions = [
            *table.keys.values(),
            *(part for one in table.aggregates.values() for part in one.arguments),
        ]
    for expression in expressions:
        expression(row)


def _plain(table: Plain, kept: Sequence[tuple[Judged, Row]]) -> list[Row]:
    latest: dict[Any, Row] = {}
    place = lambda pair: (  # noqa: E731
        pair[0].event_time, pair[0].arrival.record_time, pair[0].arrival.partition, pair[0].arrival.offset,
    )  # fmt: skip
    for number, (_, row) in enumerate(sorted(kept, key=place)):
        shown = {name: expression(row) for name, expression in table.columns.items()}
        latest[tuple(shown[name] for name in table.key) if table.key else number] = shown
    return list(latest.values())


def windows_of(window: Window, time: datetime) -> list[tuple[datetime, datetime]]:
    """The windows [start, end) that hold `time`, in whole microseconds since 1970."""
    size, slide = window.size // _TICK, (window.slide or window.size) // _TICK
    at = (time - _EPOCH) // _TICK
    found, start = [], at - at % slide
    while start + size > at:
        found.append((_EPOCH + start * _TICK, _EPOCH + (start + size) * _TICK))
        start -= slide
    return found


def _grouped(table: Grouped, kept: Sequence[tuple[Judged, Row]]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    times: dict[tuple[Any, ...], list[tuple[datetime, Row]]] = defaultdict(list)
    for one, row in kept:
        keys = tuple(expression(row) for expression in table.keys.values())
        if table.window is None:
            groups[(None, None, *keys)].append(row)
        elif table.window.session:
            times[keys].append((one.event_time, row))
        else:
            for bounds in windows_of(table.window, one.event_time):
                groups[(*bounds, *keys)].append(row)
    for keys, members in times.items():
        for start, end, rows in _sessions(table.window.size, members):
            groups[(start, end, *keys)] = rows
    if table.window is None and not table.keys:
        groups.setdefault((None, None), [])
    shown = [_shown(table, group, rows) for group, rows in groups.items()]
    return [row for row in shown if row is not None]


def _sessions(
    gap: timedelta, members: list[tuple[datetime, Row]]
) -> list[tuple[datetime, datetime, list[Row]]]:
    """A session ends a gap after its last event; sessions that overlap or only touch are one."""
    found: list[tuple[datetime, datetime, list[Row]]] = []
    for time, row in sorted(members, key=lambda member: member[0]):
        if found and time <= found[-1][1]:
            start, _, rows = found[-1]
            found[-1] = (start, time + gap, [*rows, row])
        else:
            found.append((time, time + gap, [row]))
    return found


def _shown(table: Grouped, group: tuple[Any, ...], rows: list[Row]) -> Row | None:
    start, end, *keys = group
    values: Row = {"window_start": start, "window_end": end, **dict(zip(table.keys, keys, strict=True))}
    for name, one in table.aggregates.items():
        chosen = [row for row in rows if one.where is None or one.where(row) is True]
        values[name] = one.call([tuple(part(row) for part in one.arguments) for row in chosen])
    if table.having is not None and table.having(values) is not True:
        return None
    return {name: expression(values) for name, expression in table.columns.items()}
