"""Random streams and random tables, each table as SQL and as a description for the oracle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from oracle_aggregates import aggregate, count_rows
from oracle_model import Aggregate, Arrival, Grouped, Plain, Row, Rule, Stream, Table, Window
from oracle_values import decimal, double, instant, integer, text
from oracle_words import columns

import headrace as hr

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATENESS = timedelta(minutes=2)

STREAM = Stream(
    "events",
    columns(
        id=text,
        seen_required=instant,
        user=text,
        kind_required=text,
        n=integer,
        amount=decimal(10, 2),
        ratio=double,
    ),
    event_time="seen",
    allowed_lateness=LATENESS,
    unique=("id",),
    derive={"twice": lambda row: None if row["n"] is None else row["n"] * 2},
    expect={
        "known_kind": Rule(lambda row: row["kind"] in ("view", "buy", "back")),
        "small": Rule(lambda row: row["n"] is None or row["n"] < 1000),
    },
)


@dataclass(frozen=True)
class Described:
    """A table twice: `sql` for the engine, `table` for the oracle; `key` for a rows table."""

    sql: str
    table: Table
    key: tuple[str, ...] = ()


def pipeline_of(tables: dict[str, Described]) -> hr.Pipeline:
    pipeline = hr.Pipeline("random")
    pipeline.stream(
        "events",
        schema='id VARCHAR, seen TIMESTAMP NOT NULL, "user" VARCHAR, kind VARCHAR NOT NULL, n INT, '
        "amount DECIMAL(10,2), ratio DOUBLE",
        event_time="seen",
        allowed_lateness=LATENESS,
        unique="id",
        derive={"twice": "n * 2"},
        expect={"known_kind": "kind IN ('view', 'buy', 'back')", "small": "n IS NULL OR n < 1000"},
    )
    for name, one in tables.items():
        pipeline.table(name, one.sql, key=one.key)
    return pipeline


def _get(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


def _when(name: str, holds: Callable[[Any], bool]) -> Callable[[Row], bool | None]:
    return lambda row: None if row[name] is None else holds(row[name])


def _size(row: Row) -> str | None:
    if row["n"] is None:
        return None
    return "small" if row["n"] < 4 else "large"


_KEYS: dict[str, Callable[[Row], Any]] = {
    '"user"': _get("user"),
    "kind": _get("kind"),
    "CASE WHEN n < 4 THEN 'small' WHEN n >= 4 THEN 'large' END": _size,
    "twice": _get("twice"),
}
_WHERES: dict[str, Callable[[Row], Any] | None] = {
    "": None,
    " WHERE kind = 'buy'": _when("kind", lambda kind: kind == "buy"),
    " WHERE n > 2": _when("n", lambda n: n > 2),
    " WHERE amount IS NOT NULL": lambda row: row["amount"] is not None,
    " WHERE n > 100000": _when("n", lambda n: n > 100_000),
}
_AGGREGATES: dict[str, Aggregate] = {
    "count(*)": count_rows(),
    "count(n)": aggregate("count", _get("n")),
    "count(DISTINCT n)": aggregate("count_distinct", _get("n")),
    'count(DISTINCT "user")': aggregate("count_distinct", _get("user")),
    "sum(n)": aggregate("sum", _get("n")),
    "sum(amount)": aggregate("sum", _get("amount")),
    "sum(ratio)": aggregate("sum", _get("ratio")),
    "min(seen)": aggregate("min", _get("seen")),
    'max("user")': aggregate("max", _get("user")),
    "min(amount)": aggregate("min", _get("amount")),
    "avg(n)": aggregate("avg", _get("n")),
    "avg(amount)": aggregate("avg", _get("amount")),
    "bool_and(n > 2)": aggregate("bool_and", _when("n", lambda n: n > 2)),
    "bool_or(kind = 'buy')": aggregate("bool_or", _when("kind", lambda kind: kind == "buy")),
    "max_by(kind, n)": aggregate("max_by", _get("kind"), _get("n")),
    "min_by(n, seen)": aggregate("min_by", _get("n"), _get("seen")),
    "mode(kind)": aggregate("mode", _get("kind")),
    "mode(n)": aggregate("mode", _get("n")),
    "var_samp(n)": aggregate("var_samp", _get("n")),
    "stddev_pop(n)": aggregate("stddev_pop", _get("n")),
    "quantile_cont(n, 0.5)": aggregate("quantile_cont", _get("n"), share="0.5"),
    "quantile_disc(n, 0.9)": aggregate("quantile_disc", _get("n"), share="0.9"),
    "sum(n) FILTER (WHERE kind = 'buy')": aggregate(
        "sum", _get("n"), where=_when("kind", lambda kind: kind == "buy")
    ),
    "count(*) FILTER (WHERE n > 2)": count_rows(where=_when("n", lambda n: n > 2)),
}
_WINDOWS: dict[str, Window | None] = {
    "": None,
    "window(seen, '1 minute')": Window(timedelta(minutes=1)),
    "window(seen, '7 minutes')": Window(timedelta(minutes=7)),
    "window(seen, '90 seconds')": Window(timedelta(seconds=90)),
    "window(seen, '3 minutes', '1 minute')": Window(timedelta(minutes=3), timedelta(minutes=1)),
    "window(seen, '2 minutes', '50 seconds')": Window(timedelta(minutes=2), timedelta(seconds=50)),
    "session_window(seen, '20 seconds')": Window(timedelta(seconds=20), session=True),
    "session_window(seen, '1 minute')": Window(timedelta(minutes=1), session=True),
    "session_window(seen, '4 minutes')": Window(timedelta(minutes=4), session=True),
}
_HAVINGS: dict[str, Callable[[Row], Any] | None] = {
    "": None,
    " HAVING count(*) > 1": lambda row: row["_count"] > 1,
    " HAVING sum(n) > 5": _when("_sum", lambda total: total > 5),
}


@st.composite
def grouped(draw: st.DrawFn) -> Described:
    """A windowed, session or keyed table."""
    window_sql = draw(st.sampled_from(sorted(_WINDOWS)))
    keys = draw(st.lists(st.sampled_from(sorted(_KEYS)), unique=True, max_size=2))
    chosen = draw(st.lists(st.sampled_from(sorted(_AGGREGATES)), unique=True, min_size=1, max_size=4))
    where = draw(st.sampled_from(sorted(_WHERES)))
    having = draw(st.sampled_from(sorted(_HAVINGS)))
    window = _WINDOWS[window_sql]
    shown = {f"key_{number}": key for number, key in enumerate(keys)}
    values = {f"value_{number}": name for number, name in enumerate(chosen)}
    bounds = ["window_start", "window_end"] if window else []
    select = [*bounds, *(f"{sql} AS {name}" for name, sql in (shown | values).items())]
    groups = [window_sql] * bool(window) + keys
    group_by = f" GROUP BY {', '.join(groups)}" if groups else ""
    names = [*bounds, *shown, *values]
    return Described(
        f"SELECT {', '.join(select)} FROM events{where}{group_by}{having}",
        Grouped(
            "events",
            {name: _get(name) for name in names},
            {name: _AGGREGATES[sql] for name, sql in values.items()}
            | {"_count": count_rows(), "_sum": aggregate("sum", _get("n"))},
            {name: _KEYS[sql] for name, sql in shown.items()},
            window,
            _WHERES[where],
            having=_HAVINGS[having],
        ),
    )


@st.composite
def plain(draw: st.DrawFn) -> Described:
    """A table of class rows."""
    key = draw(st.sampled_from([(), ("user",), ("user", "kind")]))
    where = draw(st.sampled_from(sorted(_WHERES)))
    names = ["user", "kind", "id", "seen", "n", "amount", "twice"]
    return Described(
        f'SELECT "user", kind, id, seen, n, amount, twice FROM events{where}',
        Plain("events", {name: _get(name) for name in names}, _WHERES[where], key=key),
        key,
    )


tables = st.lists(st.one_of(grouped(), grouped(), grouped(), plain()), min_size=1, max_size=4).map(
    lambda found: {f"t{number}": one for number, one in enumerate(found)}
)

_POISON = [
    "",
    "{",
    "[]",
    '{"seen": 7}',
    '{"seen": "%s", "kind": "view", "n": 1.5}',
    '{"seen": "%s"}',
    "\u0000",
]


@dataclass(frozen=True)
class Sent:
    """What a random record is made of, before its times are known."""

    gap: float
    lag: float
    id: str | None
    partition: int
    content: int
    poison: int | None


sent = st.builds(
    Sent,
    gap=st.sampled_from([0, 0, 0.000001, 1, 5, 20, 60, 200, -30, 900]),
    lag=st.sampled_from(
        [0, 0, 0, 1, 10, 30, 59, 60, 119, 120, 120.000001, 121, 300, -30, -60, -60.000001, -3600]
    ),
    id=st.sampled_from([None, "d0", "d1", "d2", "c0", "c1", "", "", ""]),
    partition=st.integers(0, 2),
    content=st.integers(0, 30),
    poison=st.sampled_from([None] * 12 + list(range(len(_POISON)))),
)
streams = st.lists(sent, min_size=1, max_size=40)


def arrivals_of(found: list[Sent]) -> list[Arrival]:
    """The records of a random stream, in the order in which they are appended.

    Identical copies (ids `d…`) come in any partition; copies of other content (ids `c…`) only in one, because
    which of them counts is settled by their order there.
    """
    arrivals: list[Arrival] = []
    ends = [0, 0, 0]
    clock = NOON
    for number, one in enumerate(found):
        clock += timedelta(seconds=one.gap)
        time = clock - timedelta(seconds=one.lag)
        if one.id is not None and one.id.startswith(
            "d"
        ):  # a grid, so that copies of one event time are likely
            time = NOON + timedelta(seconds=(time - NOON).total_seconds() // 60 * 60)
        partition = 0 if one.id is not None and one.id.startswith("c") else one.partition
        value = _value(one, number, time)
        arrivals.append(Arrival("events", partition, ends[partition], clock, value))
        ends[partition] += 1
    return arrivals


def _value(one: Sent, number: int, time: datetime) -> bytes:
    if one.poison is not None:
        return _POISON[one.poison].replace("%s", time.isoformat()).encode()
    identity = f"u{number}" if one.id == "" else one.id
    content = one.content
    if identity is not None and identity.startswith("d"):
        content = zlib.crc32(f"{identity}{time}".encode()) % 31
    user = (
        identity
        if identity is not None and identity.startswith("d")
        else ("é", "e\u0301", None, "b")[content % 4]
    )
    record = {
        "id": identity,
        "seen": time.isoformat(),
        "user": user,
        "kind": ("view", "buy", "back", "view", "buy", "odd")[content % 6],
        "n": (None, content % 7, 5000)[0 if content % 5 == 0 else 2 if content == 29 else 1],
        "amount": None if content % 7 == 0 else float(Decimal(content) / 8 - 1),
        "ratio": content / 10,
    }
    return json.dumps(record, ensure_ascii=False).encode()
