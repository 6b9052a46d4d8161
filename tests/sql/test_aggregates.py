"""Every aggregate of the short list: cut into batches, merged or combined, it is DuckDB's own over all rows."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_cases import Batches, table_of

from headrace.sql.aggregates import build_aggregate
from headrace.sql.plan import NamedColumn

pytestmark = pytest.mark.slow

COLUMNS = {
    "user_id": "VARCHAR", "kind": "VARCHAR", "i": "INT", "b": "BIGINT", "h": "HUGEINT", "d": "DOUBLE", "f": "FLOAT",
    "m": "DECIMAL(12,2)", "w": "DECIMAL(38,6)", "z": "DECIMAL(9,0)", "ok": "BOOLEAN", "t": "TIMESTAMPTZ",
    "day": "DATE", "seen": "TIMESTAMPTZ",
}  # fmt: skip

EXACT = [
    "count(*)", "count(i)", "count(1)", "count(kind)", "count(DISTINCT kind)", "count(DISTINCT m)",
    "sum(i)", "sum(b)", "sum(h)", "sum(m)", "sum(w)", "sum(z)", "sum(ok)", "sum(DISTINCT i)",
    "min(i)", "max(i)", "min(kind)", "max(kind)", "min(m)", "max(t)", "min(t)", "max(day)", "min(d)", "max(d)",
    "min(ok)", "max(ok)", "avg(i)", "avg(b)", "bool_and(ok)", "bool_or(ok)",
    "quantile_cont(i, 0.5)", "quantile_cont(m, 0.9)", "quantile_disc(i, 0.25)", "quantile_cont(t, 0.5)",
    "quantile_disc(kind, 0.5)", "median(i)", "median(m)", "median(d)",
    "count(*) FILTER (WHERE i > 0)", "sum(m) FILTER (WHERE ok)", "count(DISTINCT kind) FILTER (WHERE i > 0)",
    "max(t) FILTER (WHERE kind = 'a')", "min(DISTINCT i)",
    "sum(i) / count(*)", "CASE WHEN count(*) > 2 THEN max(kind) ELSE 'few' END", "sum(m) * 2 - min(m)",
    "coalesce(sum(i), 0) + count(*)", "sum(CASE WHEN ok THEN i ELSE 0 END)", "round(avg(i), 2)",
]  # fmt: skip
CLOSE = [
    "sum(d)", "avg(d)", "avg(f)", "sum(f)", "stddev(d)", "stddev_samp(i)", "stddev_pop(m)", "variance(d)", "var_samp(m)",
    "var_pop(d)", "variance(b)", "quantile_cont(d, 0.95)", "avg(DISTINCT i)", "avg(h)",
]  # fmt: skip


def random_rows(seed: int, count: int) -> list[tuple[Any, ...]]:
    draw = random.Random(seed)
    start = datetime(2024, 3, 31, tzinfo=UTC)

    def maybe(value: Any) -> Any:
        return None if draw.random() < 0.2 else value

    rows = []
    for _ in range(count):
        rows.append((
            draw.choice(["u1", "u2", "u3", None]), maybe(draw.choice(["a", "b", "c", "é", ""])),
            maybe(draw.randint(-5, 5)), maybe(draw.randint(-(2**62), 2**62)), maybe(draw.randint(-(10**20), 10**20)),
            maybe(draw.uniform(-1e3, 1e3)), maybe(float(draw.randint(-100, 100))),
            maybe(Decimal(draw.randint(-10**6, 10**6)).scaleb(-2)), maybe(Decimal(draw.randint(-10**12, 10**12)).scaleb(-6)),
            maybe(Decimal(draw.randint(-10**6, 10**6))), maybe(draw.random() < 0.5),
            maybe(start + timedelta(seconds=draw.randint(0, 9))), maybe(date(2024, 1, draw.randint(1, 9))),
            start + timedelta(seconds=draw.randint(0, 999)),
        ))  # fmt: skip
    return rows


def run(expression: str, seed: int, *, keyed: bool, rows: list[tuple[Any, ...]] | None = None) -> list[Any]:
    query = f"SELECT {'user_id, ' if keyed else ''}{expression} AS v FROM events{' GROUP BY user_id' if keyed else ''}"
    plan = table_of(query)
    batches = Batches(plan, COLUMNS)
    draw = random.Random(seed)
    rows = random_rows(seed, draw.choice([0, 1, 2, 7, 40])) if rows is None else rows
    batches.add(rows)
    parts = batches.partials([draw.randint(0, len(rows) + 1) for _ in range(draw.randint(0, 5))])
    merged = batches.merged(parts)
    declared = {column.name: column.type for column in batches.columns}
    assert {k: v for k, v in batches.types_of(merged).items() if k in declared} == declared
    by_merge = batches.result(merged, parts)
    combined = batches.combined(parts)
    assert {k: v for k, v in batches.types_of(combined).items() if k in declared} == declared
    by_combine = batches.result(combined, parts)
    return [by_merge, by_combine, batches.one_shot(query), plan, batches]


@pytest.mark.parametrize("expression", EXACT)
def test_batches_merged_or_combined_equal_one_query_over_all_rows(expression: str) -> None:
    for seed, keyed in ((0, True), (2, False), (5, True), (6, False)):
        merged, combined, expected, plan, batches = run(expression, seed, keyed=keyed)
        assert merged == expected, (seed, keyed)
        assert combined == expected, (seed, keyed)
        kind = batches.connection.execute(f"DESCRIBE SELECT {expression} AS v FROM events").fetchall()[0][1]
        assert plan.columns[-1].type == kind


@pytest.mark.parametrize("expression", CLOSE)
def test_batches_of_doubles_come_close_to_one_query_over_all_rows(expression: str) -> None:
    for seed, keyed in ((0, True), (2, False), (5, True), (6, False)):
        *both, expected, plan, batches = run(expression, seed, keyed=keyed)
        for found in both:
            assert len(found) == len(expected)
            for row, other in zip(found, expected, strict=True):
                assert row[:-1] == other[:-1]
                if other[-1] is None:
                    assert row[-1] is None
                else:
                    assert math.isclose(row[-1], other[-1], rel_tol=1e-9, abs_tol=1e-9)
        kind = batches.connection.execute(f"DESCRIBE SELECT {expression} AS v FROM events").fetchall()[0][1]
        assert plan.columns[-1].type == kind


@pytest.mark.parametrize(("column", "scale"), [("m", 6), ("w", 10), ("z", 4)])
def test_an_average_of_decimals_is_exact_and_rounds_half_away_from_zero(column: str, scale: int) -> None:
    at = list(COLUMNS).index(column)
    for seed in range(12):
        merged, combined, _, plan, _ = run(f"avg({column})", seed, keyed=False)
        assert plan.columns[-1].type == f"DECIMAL(38,{scale})"
        draw = random.Random(seed)
        values = [row[at] for row in random_rows(seed, draw.choice([0, 1, 2, 7, 40])) if row[at] is not None]
        expected = None
        if values:
            unit = Decimal(1).scaleb(-scale)
            with_digits = sum(values) * 10**scale
            sign = -1 if with_digits < 0 else 1
            whole = (abs(int(with_digits)) * 2 + len(values)) // (2 * len(values))
            expected = (sign * whole * unit).quantize(unit, ROUND_HALF_UP)
        assert merged == combined == [(expected,)], seed


def test_nothing_counted_is_zero_where_duckdb_says_null() -> None:
    at = list(COLUMNS).index("ok")
    for seed in range(6):
        merged, combined, *_ = run("count_if(ok)", seed, keyed=False)
        draw = random.Random(seed)
        rows = random_rows(seed, draw.choice([0, 1, 2, 7, 40]))
        assert merged == combined == [(sum(1 for row in rows if row[at]),)]


def test_an_average_of_decimals_rounds_a_half_up_and_a_negative_half_down() -> None:
    blank = (None,) * len(COLUMNS)
    at = list(COLUMNS).index("z")

    def rows(values: list[int]) -> list[tuple[Any, ...]]:
        return [(*blank[:at], Decimal(value), *blank[at + 1 :]) for value in values]

    for values, expected in [
        ([1] + [0] * 15, "0.0625"), ([1] + [0] * 31, "0.0313"), ([-1] + [0] * 31, "-0.0313"), ([1, 1, 0], "0.6667"),
        ([2, 0, 0], "0.6667"), ([-2, 0, 0], "-0.6667"), ([-1, 0, 0], "-0.3333"), ([999999999], "999999999.0000"),
    ]:  # fmt: skip
        merged, combined, *_ = run("avg(z)", 1, keyed=False, rows=rows(values))
        assert merged == combined == [(Decimal(expected),)]


@pytest.mark.parametrize("name", ["max_by", "min_by"])
@pytest.mark.parametrize(
    ("value", "order"), [("kind", "i"), ("i", "kind"), ("m", "t"), ("kind", "m"), ("b", "ok")]
)
def test_the_value_of_the_best_order_is_the_least_among_ties_and_nulls_are_skipped(
    name: str, value: str, order: str
) -> None:
    names = list(COLUMNS)
    for seed in range(4):
        merged, combined, *_ = run(f"{name}({value}, {order})", seed, keyed=True)
        draw = random.Random(seed)
        best: dict[Any, Any] = {}
        for row in random_rows(seed, draw.choice([0, 1, 2, 7, 40])):
            held = best.setdefault(row[0], [])
            if row[names.index(value)] is not None and row[names.index(order)] is not None:
                held.append((row[names.index(order)], row[names.index(value)]))
        expected = {
            user: min(v for o, v in held if o == (max if name == "max_by" else min)(held)[0])
            if held
            else None
            for user, held in best.items()
        }
        assert dict(merged) == expected
        assert dict(combined) == expected


def test_the_mode_is_the_least_of_the_most_frequent() -> None:
    at = list(COLUMNS).index("kind")
    for seed in range(10):
        merged, combined, *_ = run("mode(kind)", seed, keyed=False)
        draw = random.Random(seed)
        values = [row[at] for row in random_rows(seed, draw.choice([0, 1, 2, 7, 40])) if row[at] is not None]
        expected = min(set(values), key=lambda value: (-values.count(value), value)) if values else None
        assert merged == combined == [(expected,)]


def test_a_variance_keeps_its_digits_far_from_zero() -> None:
    blank = (None,) * len(COLUMNS)
    at = list(COLUMNS).index("d")
    rows = [(*blank[:at], 1e9 + value, *blank[at + 1 :]) for value in (4.0, 7.0, 13.0, 16.0) * 5]
    for seed in range(5):
        merged, combined, *_ = run("var_pop(d)", seed, keyed=False, rows=rows)
        assert math.isclose(merged[0][0], 22.5, rel_tol=1e-7)
        assert math.isclose(combined[0][0], 22.5, rel_tol=1e-7)


@pytest.mark.parametrize("expression", ["approx_count_distinct(kind)", "approx_quantile(i, 0.5)"])
def test_approximate_aggregates_are_marked_and_have_duckdbs_type(expression: str) -> None:
    merged, _, _, plan, batches = run(expression, 3, keyed=False)
    assert [aggregate.approximate for aggregate in plan.aggregates] == [True]
    kind = batches.connection.execute(f"DESCRIBE SELECT {expression} AS v FROM events").fetchall()[0][1]
    assert plan.columns[0].type == kind
    assert len(merged) == 1


def test_numbers_too_wide_to_be_summed_safely_are_narrowed_in_the_row_part() -> None:
    plan = table_of("SELECT sum(w) AS s, sum(h) AS t FROM events")
    assert "DECIMAL(28, 6)" in plan.row_sql
    assert [column.type for column in plan.columns] == ["DECIMAL(38,6)", "HUGEINT"]


def test_an_aggregate_that_stands_twice_is_computed_once() -> None:
    plan = table_of(
        "SELECT sum(i) AS a, SUM( i ) * 2 AS b, count(*) AS c, count(1) AS d FROM events HAVING sum(i) > 1"
    )
    assert sorted(aggregate.function for aggregate in plan.aggregates) == ["count", "sum"]


TYPES = st.sampled_from([
    ("BIGINT", st.integers(-(2**45), 2**45)), ("UTINYINT", st.integers(0, 255)), ("HUGEINT", st.integers(-(2**45), 2**45)),
    ("DOUBLE", st.integers(-(2**45), 2**45).map(lambda number: number / 8)), ("DOUBLE", st.sampled_from(["inf", "-inf", "nan", 0])),
    ("FLOAT", st.integers(-(2**18), 2**18).map(lambda number: number / 4)),
    ("DECIMAL(4,2)", st.decimals(-99, 99, places=2)), ("DECIMAL(15,3)", st.decimals(-(10**11), 10**11, places=3)),
    ("DECIMAL(38,6)", st.decimals(-(10**30), 10**30, places=6)), ("DECIMAL(38,38)", st.integers(-(10**37), 10**37).map(lambda digits: f"{Decimal(digits).scaleb(-38):f}")),
    ("DECIMAL(38,0)", st.sampled_from(["9" * 38, "-" + "9" * 38, 5])),
    ("DATE", st.dates(date(1900, 1, 1), date(2100, 1, 1))), ("TIMESTAMP", st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))),  # noqa: DTZ001
    ("TIMESTAMP_S", st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))),  # noqa: DTZ001
    ("TIMESTAMPTZ", st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))), ("TIME", st.times()),  # noqa: DTZ001
    ("VARCHAR", st.text("ab\u00e9", max_size=2)), ("BOOLEAN", st.booleans()), ("INTEGER[]", st.sampled_from(["[1]", "[]", "[NULL]"])),
])  # fmt: skip
# Parts of which every digit is there in a DOUBLE: for others a processor may round the last digit of what lies between.
FRACTIONS = ["0", "0.25", "0.5", "0.75", "1", "0.75::DOUBLE", "-0.25", "[0.25, 0.5, 1]", "[]"]
PLACES = [*FRACTIONS, "0.1", "0.3", "0.77::DOUBLE", "0.999", "1e-9", "-0.9", "[0.9, 0.1]"]
QUANTILES = [
    "median(x)", *(f"quantile_disc(x, {at})" for at in PLACES), *(f"quantile_cont(x, {at})" for at in FRACTIONS)
]  # fmt: skip


def counted(connection: duckdb.DuckDBPyConnection, aggregate: str, kind: str) -> str:
    """Return the query that gives the value of an aggregate over the counted values in `counted`."""
    function, _, parameter = aggregate.partition("(x")
    text = parameter.removesuffix(")").removeprefix(", ")
    fractions = connection.execute(f"SELECT {text}").fetchall()[0][0] if text else ()
    argument = NamedColumn("a0", kind)
    side = build_aggregate(
        "g0", function, (argument,), parameters=(text,), type=kind, fractions=fractions
    ).side
    assert side is not None
    return (
        f"SELECT {side.value} FROM (SELECT *, CAST(sum(_count) OVER (ORDER BY _value) AS BIGINT) AS _upto, "
        "CAST(sum(_count) OVER () AS BIGINT) AS _all FROM counted) HAVING count(*) > 0"
    )


@settings(max_examples=100, deadline=None)
@given(TYPES, st.sampled_from(QUANTILES), st.data())
def test_quantiles_of_counted_values_are_those_of_duckdb(
    typed: tuple[str, Any], aggregate: str, data: st.DataObject
) -> None:
    kind, values = typed
    drawn = data.draw(st.lists(st.tuples(values, st.integers(1, 3)), min_size=1, max_size=5))
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE plain (x {kind})")
        for value, times in drawn:
            connection.execute(
                f"INSERT INTO plain SELECT CAST(?::VARCHAR AS {kind}) FROM range({times})", [str(value)]
            )
        connection.execute(
            "CREATE TABLE counted AS SELECT x AS _value, count(*) AS _count FROM plain GROUP BY x"
        )
        (named,) = connection.execute("SELECT any_value(typeof(x)) FROM plain").fetchall()[0]
        own = f"SELECT typeof(v), v FROM (SELECT {aggregate} AS v FROM plain)"
        try:
            expected = connection.execute(own).fetchall()
        except duckdb.BinderException:  # this type has no such quantile
            return
        found = f"SELECT typeof(v), v FROM ({counted(connection, aggregate, named)}) AS t(v)"
        assert repr(connection.execute(found).fetchall()) == repr(expected)


@pytest.mark.parametrize(
    "aggregate", ["median(x)", "quantile_disc(x, 0.3)", "quantile_cont(x, 0.9)", "approx_quantile(x, 0.3)"]
)
def test_a_quantile_needs_no_more_memory_when_its_values_are_counted_more(aggregate: str) -> None:
    with duckdb.connect(config={"threads": 1, "memory_limit": "64MiB"}) as connection:
        connection.execute("CREATE TABLE counted AS SELECT 200 AS _value, 4_000_000_000 AS _count")
        connection.execute("INSERT INTO counted VALUES (404, 3_999_999_999), (500, 1)")
        query = counted(connection, aggregate, "INTEGER")
        assert connection.execute(query).fetchall()[0][0] in (200, 302, 404)
