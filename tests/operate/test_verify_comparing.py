"""What a comparison of two stores says: the table, the key, the column, both values, the records behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import headrace as hr
from headrace.operate.verify.behind import RecordsBehind
from headrace.operate.verify.comparing import ABSENT, ROW, Compared, compare_stores, same
from headrace.sql import plan_pipeline
from headrace.store.schema import state_columns
from headrace.testing import PipelineTest

pytestmark = pytest.mark.slow

NOON = "2026-03-01T12:00:00"


def _pipeline() -> hr.Pipeline:
    pipeline = hr.Pipeline("compared")
    pipeline.stream(
        "events",
        schema="id VARCHAR, seen TIMESTAMP NOT NULL, shop VARCHAR, price DECIMAL(8,2), weight DOUBLE",
        event_time="seen",
        allowed_lateness="2 minutes",
        expect={"cheap": "price IS NULL OR price < 1000"},
    )
    pipeline.table(
        "by_minute",
        "SELECT window_start, shop, count(*) AS sales, sum(price) AS price, sum(weight) AS weight "
        "FROM events GROUP BY window(seen, '1 minute'), shop",
    )
    pipeline.table(
        "visits", "SELECT window_start, count(*) AS n FROM events GROUP BY session_window(seen, '5 s')"
    )
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    pipeline.table("sales", "SELECT id, shop, price FROM events")
    pipeline.table("shops", "SELECT shop, sum(sales) AS sales FROM by_minute GROUP BY shop")
    return pipeline


def _sale(number: int, second: int, shop: str | None, price: int = 5) -> dict[str, object]:
    seen = datetime(2026, 3, 1, 12, second // 60, second % 60, tzinfo=UTC)
    return {"id": f"s{number}", "seen": seen, "shop": shop, "price": price, "weight": number / 10}


SALES = [
    _sale(0, 1, "a"),
    _sale(1, 2, "b"),
    _sale(2, 3, "a", 5000),
    _sale(3, 50, "a"),
    _sale(4, 70, None),
    _sale(5, 71, "a"),
]


@contextmanager
def _two() -> Iterator[tuple[PipelineTest, PipelineTest]]:
    with PipelineTest(_pipeline(), start=NOON) as one, PipelineTest(_pipeline(), start=NOON, cuts=3) as other:
        for test in (one, other):
            test.send("events", SALES, at="2026-03-01T12:01:20")
            test.send("events", _sale(6, 5, "late"), at="2026-03-01T12:09:00")
            test.run()
        yield one, other


def _compared(one: PipelineTest, other: PipelineTest) -> dict[str, Compared]:
    plan = plan_pipeline(one.pipeline)
    logs = {"events": one.log("events")}

    def address(stream: str, partition: int, offset: int) -> str:
        return f"{stream}/{partition}/{offset + 100}"

    behind = RecordsBehind(plan, logs, one.store, address, {})
    return {each.title: behind.added(each) for each in compare_stores(plan, one.store, other.store)}


def _state_column(test: PipelineTest, table: str, aggregate: str) -> str:
    plan = next(each for each in plan_pipeline(test.pipeline).tables if each.name == table)
    return next(name for name, _ in state_columns(plan) if name.startswith(aggregate))


def _only(compared: dict[str, Compared], *titles: str) -> list[Compared]:
    assert {title for title, each in compared.items() if each.different} == set(titles)
    return [compared[title] for title in titles]


def test_stores_of_two_ways_to_cut_a_run_are_equal_in_everything() -> None:
    with _two() as (one, other):
        compared = _compared(one, other)
    assert _only(compared) == []
    assert {title: each.rows_local for title, each in compared.items()} == {
        "outcomes": 3,
        "counts": 16,
        "table 'by_minute'": 4,
        "table 'visits'": 3,
        "table 'total'": 1,
        "table 'sales'": 5,
        "view 'shops'": 3,
        "dead letters": 1,
        "late rows 'events'": 1,
    }


def test_another_value_is_told_with_its_key_its_column_both_values_and_the_records() -> None:
    with _two() as (one, other):
        name = _state_column(other, "by_minute", "g1")
        other.store.connection.execute(
            f"UPDATE _state.by_minute SET {name} = {name} + 1 "
            "WHERE k0 = 'a' AND window_start = '2026-03-01 12:00Z'"
        )
        [found] = _only(_compared(one, other), "table 'by_minute'")
    [difference] = found.differences
    assert found.different == 1
    assert difference.key == {"window_start": datetime(2026, 3, 1, 12, tzinfo=UTC), "shop": "a"}
    assert (difference.column, difference.local, difference.spark) == ("price", Decimal(10), Decimal(11))
    assert (difference.records, difference.behind) == (("events/0/100", "events/0/103"), 2)


def test_a_row_that_one_store_lacks_is_told_as_a_row() -> None:
    with _two() as (one, other):
        other.store.connection.execute("DELETE FROM _state.by_minute WHERE k0 IS NULL")
        table, view = _only(_compared(one, other), "table 'by_minute'", "view 'shops'")
    [missing] = table.differences
    assert missing.key == {"window_start": datetime(2026, 3, 1, 12, 1, tzinfo=UTC), "shop": None}
    assert (missing.column, missing.spark, missing.records) == (ROW, ABSENT, ("events/0/104",))
    assert missing.local["sales"] == 1
    [of_view] = view.differences
    assert (of_view.key, of_view.column) == ({"shop": None, "sales": 1}, ROW)


def test_a_row_too_many_of_a_table_without_key_is_told_with_its_record() -> None:
    with _two() as (one, other):
        other.store.connection.execute("INSERT INTO _state.sales FROM _state.sales WHERE id = 's1'")
        [found] = _only(_compared(one, other), "table 'sales'")
    [twice] = found.differences
    assert (found.rows_local, found.rows_spark) == (5, 6)
    assert twice.key == {"id": "s1", "shop": "b", "price": Decimal("5.00")}
    assert (twice.column, twice.local, twice.records) == (ROW, ABSENT, ("events/0/101",))


def test_a_session_names_the_records_of_its_length() -> None:
    with _two() as (one, other):
        name = _state_column(other, "visits", "g0")
        other.store.connection.execute(f"UPDATE _state.visits SET {name} = 9 WHERE {name} = 2")
        [found] = _only(_compared(one, other), "table 'visits'")
    assert [(each.local, each.spark) for each in found.differences] == [(2, 9), (2, 9)]
    assert [each.records for each in found.differences] == [
        ("events/0/100", "events/0/101"),
        ("events/0/104", "events/0/105"),
    ]


def loud(texts: pa.Array) -> pa.Array:
    return pc.utf8_upper(texts)


def test_records_are_found_through_functions_references_and_rows_that_fail(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("looked_up")
    pipeline.stream("events", schema="shop VARCHAR, n VARCHAR")
    towns = tmp_path / "towns.csv"
    towns.write_text("shop,town\na,Ulm\nb,Ulm\nc,Bonn\n")
    pipeline.reference("towns", path=str(towns), key="shop", schema="shop VARCHAR, town VARCHAR")

    pipeline.function(arguments=["VARCHAR"], returns="VARCHAR")(loud)
    pipeline.table(
        "by_town",
        "SELECT loud(t.town) AS town, sum(CAST(n AS INT)) AS n "
        "FROM events e JOIN towns t ON e.shop = t.shop GROUP BY loud(t.town)",
    )
    with PipelineTest(pipeline, start=NOON) as one, PipelineTest(pipeline, start=NOON) as other:
        for test in (one, other):
            test.send("events", [{"shop": shop, "n": n} for shop, n in zip("abcax", "1234z", strict=True)])
            test.send("events", {"shop": "a", "n": "no number"})
            test.run()
        name = _state_column(other, "by_town", "g0")
        other.store.connection.execute(f"UPDATE _state.by_town SET {name} = 0 WHERE k0 = 'ULM'")
        [found] = _only(_compared(one, other), "table 'by_town'")
    [difference] = found.differences
    assert difference.key == {"town": "ULM"}
    assert (difference.local, difference.spark) == (7, 0)
    assert difference.records == ("events/0/100", "events/0/101", "events/0/103")


def test_records_are_found_by_keys_and_references_of_types_that_arrow_has_no_word_for(tmp_path: Path) -> None:
    name, most = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 2**127 - 1
    pipeline = hr.Pipeline("typed")
    pipeline.stream("events", schema="id UUID, huge HUGEINT, doc JSON")
    owners = tmp_path / "owners.csv"
    owners.write_text(f"id,number\n{name},7\n")
    pipeline.reference("owners", path=str(owners), key="id", schema="id UUID NOT NULL, number HUGEINT")
    pipeline.table(
        "owned",
        "SELECT e.id, e.huge, json_object('in', e.doc) AS doc, count(*) AS n "
        "FROM events e JOIN owners o ON e.id = o.id WHERE o.number & 1 = 1 "
        "GROUP BY e.id, e.huge, json_object('in', e.doc)",
    )
    with PipelineTest(pipeline, start=NOON) as one, PipelineTest(pipeline, start=NOON) as other:
        for test in (one, other):
            test.send("events", [{"id": name, "huge": huge, "doc": [1]} for huge in (most, 5, most)])
            test.run()
        other.store.connection.execute(f"UPDATE _state.owned SET {_state_column(other, 'owned', 'g0')} = 9")
        [found] = _only(_compared(one, other), "table 'owned'")
    told = {each.local: (each.key, each.records) for each in found.differences}
    assert told[2] == (
        {"id": name, "huge": Decimal(most), "doc": '{"in":[1]}'},
        ("events/0/100", "events/0/102"),
    )
    assert told[1][1] == ("events/0/101",)


def test_a_table_of_one_row_and_dead_letters_and_late_rows_are_compared() -> None:
    with _two() as (one, other):
        name = _state_column(other, "total", "g0")
        other.store.connection.execute(f"UPDATE _state.total SET {name} = 0")
        other.store.connection.execute("UPDATE _headrace.dead_letters SET outcome = 'future'")
        other.store.connection.execute("DELETE FROM _state.late_events")
        total, letters, late = _only(
            _compared(one, other), "table 'total'", "dead letters", "late rows 'events'"
        )
    [difference] = total.differences
    assert (difference.key, difference.local, difference.spark, difference.behind) == ({}, 5, 0, 5)
    [letter] = letters.differences
    assert letter.key == {"record": "events/0/102"}
    assert (letter.column, letter.local, letter.spark) == ("outcome", "rejected", "future")
    [row] = late.differences
    assert (row.key, row.column, row.spark) == ({"record": "events/0/106"}, ROW, ABSENT)


def test_other_outcomes_and_counts_are_told() -> None:
    with _two() as (one, other):
        other.send("events", _sale(7, 75, "c"), at="2026-03-01T12:01:30")
        other.run()
        compared = _compared(one, other)
    [accepted] = compared["outcomes"].differences
    assert accepted.key == {"stream": "events", "outcome": "accepted"}
    assert (accepted.column, accepted.local, accepted.spark) == ("records", 5, 6)
    assert compared["counts"].different == 8


def test_doubles_may_differ_in_their_last_bits_and_nothing_else_may() -> None:
    with _two() as (one, other):
        name = _state_column(other, "by_minute", "g2")
        tamper = f"UPDATE _state.by_minute SET {name} = {name} * (1 + {{}}) WHERE k0 = 'b'"
        other.store.connection.execute(tamper.format("1e-13"))
        _only(_compared(one, other))
        other.store.connection.execute(tamper.format("1e-6"))
        _only(_compared(one, other), "table 'by_minute'")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1.0, 1.0 + 1e-12, True),
        (1.0, 1.00001, False),
        (float("nan"), float("nan"), True),
        (float("inf"), 5.0, False),
        (1, 1.0, False),
        ([0.1, {"a": 0.3}], [0.1, {"a": 0.1 + 0.2}], True),
        ([0.1], [0.1, 0.2], False),
        (None, 0, False),
        (Decimal("1.50"), Decimal("1.5"), True),
        (Decimal("1.500000001"), Decimal("1.5"), False),
    ],
)
def test_cells_are_equal_by_value_and_kind(one: object, other: object, equal: bool) -> None:
    assert same(one, other) is equal
