"""The oracle against answers worked out by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import canonical
import pytest
from batch_oracle import answer, windows_of
from oracle_aggregates import aggregate, count_rows, round_half_up
from oracle_model import Arrival, Column, Grouped, Plain, Rule, Stream, Window
from oracle_values import (
    NumberToken,
    WrongValueError,
    decimal,
    double,
    instant,
    integer,
    parse_json,
    text,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STREAM = Stream(
    "events",
    (Column("id", text), Column("at", instant, nullable=False), Column("n", integer)),
    event_time="at",
    allowed_lateness=timedelta(minutes=5),
    unique=("id",),
    expect={"small": Rule(lambda row: row["n"] < 100)},
)


def arrival(offset: int, id: str | None, seconds: float, n: Any = 1, *, record: float = 0) -> Arrival:
    at = (NOON + timedelta(seconds=seconds)).isoformat()
    value = f'{{"id": {"null" if id is None else chr(34) + id + chr(34)}, "at": "{at}", "n": {n}}}'
    return Arrival("events", 0, offset, NOON + timedelta(seconds=record), value.encode())


def outcomes(*arrivals: Arrival) -> list[str]:
    judged = answer([STREAM], {}, arrivals).judged
    return [one.outcome for one in sorted(judged, key=lambda one: one.arrival.offset)]


def test_the_bounds_of_lateness_and_tolerance_belong_to_the_accepted() -> None:
    bounds = [
        arrival(0, "a", -300),
        arrival(1, "b", -300.000001),
        arrival(2, "c", 60),
        arrival(3, "d", 60.000001),
    ]
    assert outcomes(*bounds) == ["accepted", "late", "accepted", "future"]


def test_checks_come_in_their_order() -> None:
    assert outcomes(arrival(0, "a", -999, '"x"')) == ["malformed"]
    assert outcomes(arrival(0, "a", -999, 100)) == ["rejected"]
    assert outcomes(arrival(0, "a", 999, 100)) == ["rejected"]
    assert outcomes(arrival(0, "a", 0, "null")) == ["rejected"]


def test_only_an_accepted_record_makes_another_one_a_duplicate() -> None:
    assert outcomes(arrival(0, "a", 0, 100), arrival(1, "a", 0), arrival(2, "a", 0)) == [
        "rejected",
        "accepted",
        "duplicate",
    ]
    assert (
        outcomes(arrival(0, "a", 0), arrival(1, "a", 1), arrival(2, None, 0), arrival(3, None, 0))
        == ["accepted"] * 4
    )


def test_windows_hold_their_start_and_not_their_end() -> None:
    minute = timedelta(minutes=1)
    assert windows_of(Window(minute), NOON) == [(NOON, NOON + minute)]
    assert windows_of(Window(minute), NOON - timedelta(microseconds=1)) == [(NOON - minute, NOON)]
    assert [start for start, _ in windows_of(Window(5 * minute, 2 * minute), NOON)] == [
        NOON,
        NOON - 2 * minute,
        NOON - 4 * minute,
    ]
    before_1970 = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert windows_of(Window(7 * minute), before_1970)[0][1] == datetime(1970, 1, 1, tzinfo=UTC)


def test_sessions_that_touch_are_one() -> None:
    table = Grouped(
        "events",
        {name: lambda row, name=name: row[name] for name in ("window_start", "window_end", "events")},
        {"events": count_rows()},
        window=Window(timedelta(seconds=10), session=True),
    )
    found = answer([STREAM], {"t": table}, [arrival(0, "a", 0), arrival(1, "b", 20.1), arrival(2, "c", 10)])
    assert [(row["window_start"], row["events"]) for row in found.tables["t"]] == [
        (NOON, 2),
        (NOON + timedelta(seconds=20.1), 1),
    ]
    assert found.tables["t"][0]["window_end"] == NOON + timedelta(seconds=20)


def test_the_latest_row_of_a_key_is_the_one_with_the_greatest_event_time() -> None:
    table = Plain("events", {"id": lambda row: row["id"], "n": lambda row: row["n"]}, key=("id",))
    found = answer(
        [STREAM], {"t": table}, [arrival(0, "a", 5, 1), arrival(1, "a", 3, 2), arrival(2, "a", 4, 3)]
    )
    assert found.tables["t"] == [{"id": "a", "n": 1}]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("sum", [(None,)], None),
        ("sum", [(1,), (None,), (2,)], 3),
        ("avg", [(Decimal("0.01"),), (Decimal("0.02"),), (Decimal("0.02"),)], Decimal("0.016667")),
        ("avg", [(1,), (2,)], 1.5),
        ("count_distinct", [(1,), (1,), (None,), (2,)], 2),
        ("max_by", [("b", 2), ("a", 2), (None, 9), ("c", None)], "a"),
        ("min_by", [("b", 2), ("a", 1)], "a"),
        ("mode", [("y",), ("x",), ("y",), ("x",), (None,)], "x"),
        ("var_pop", [(10**9,), (10**9 + 2,)], 1.0),
        ("var_samp", [(5,)], None),
        ("quantile_cont", [(1,), (2,), (4,), (10,)], 3.0),
        ("quantile_disc", [(1,), (2,), (4,), (10,)], 2),
        ("bool_and", [(True,), (None,)], True),
        ("bool_or", [(None,)], None),
    ],
)
def test_an_aggregate_gives_what_a_hand_computes(
    name: str, rows: list[tuple[Any, ...]], expected: Any
) -> None:
    given = aggregate(name).call(rows)
    assert given == expected
    assert type(given) is type(expected)


def test_halves_go_away_from_zero() -> None:
    assert round_half_up(Fraction(1, 8), 2) == Decimal("0.13")
    assert round_half_up(Fraction(-1, 8), 2) == Decimal("-0.13")
    assert decimal(4, 2)(NumberToken("-0.005")) == Decimal("-0.01")


@pytest.mark.parametrize("token", ["1.0", "1e2", "2147483648", "-2147483649"])
def test_a_number_that_is_not_whole_or_does_not_fit_is_wrong(token: str) -> None:
    with pytest.raises(WrongValueError):
        integer(NumberToken(token))


def test_wrong_values_are_wrong() -> None:
    for read, value in [
        (double, NumberToken("1e999")),
        (decimal(4, 2), NumberToken("99.995")),
        (instant, "soon"),
    ]:
        with pytest.raises(WrongValueError):
            read(value)


def test_texts_without_a_zone_are_utc() -> None:
    assert instant("2026-03-01T12:00:00") == instant("2026-03-01T14:00:00+02:00") == NOON


def test_what_is_not_strict_json_is_refused() -> None:
    for value in (b"", b"{", b"NaN", b'{"a": NaN}', b"[]", b'{"a": 01}'):
        with pytest.raises(ValueError):
            parse_json(value)


def test_answers_are_compared_by_value_and_kind() -> None:
    assert canonical.same([1, {"a": 0.1}], [1, {"a": 0.1 + 1e-17}])
    assert not canonical.same(1, 1.0)
    assert not canonical.same("1", 1)
    assert canonical.differences({"t": [1, 2]}, {"t": [2, 3]}) == ["/t: missing 1", "/t: not expected 3"]
    assert canonical.plain(Decimal("12.50")) == "12.50"
    assert canonical.plain(Decimal("12")) == 12
