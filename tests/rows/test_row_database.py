"""How statements run: on several threads, with long lists, with and without DuckDB's short way to Arrow."""

from __future__ import annotations

import json

import pytest
from row_stages import NOON, records, stream_plan

from headrace.declare import Expect
from headrace.rows import RowStage, database

SCHEMA = "id INT, kind VARCHAR, at TIMESTAMP"


def record(at):
    return json.dumps({"id": at, "kind": f"k{at % 7}", "at": NOON.isoformat()}).encode()


def run(plan, values, *, threads=1):
    stage = RowStage(plan, threads=threads)
    try:
        return stage.run(records(values))
    finally:
        stage.close()


@pytest.mark.parametrize("constants", [6, 600])
def test_rows_stay_with_their_records_on_two_threads_when_a_rule_has_a_list_of_constants(constants):
    kinds = ", ".join(f"'k{at}'" for at in range(1, constants + 1))
    plan = stream_plan(
        SCHEMA,
        derive=[("known", f"kind IN ({kinds})", "BOOLEAN")],
        expect=[("known_kind", Expect(f"kind IN ({kinds})", on_violation="warn"))],
    )
    result = run(plan, [record(at) for at in range(100_000)], threads=2)
    rows = result.timely
    assert rows.column("id").to_pylist() == rows.column("_offset").to_pylist() == list(range(100_000))
    assert rows.column("known").to_pylist() == [0 < at % 7 <= constants for at in range(100_000)]


def test_the_public_way_to_arrow_gives_the_same_rows(monkeypatch):
    plan = stream_plan(SCHEMA, unique=("id",), expect=[("small", Expect("id < 5"))])
    values = [*map(record, range(9)), b"{", b' {"id":1}']
    short = run(plan, values)
    monkeypatch.setattr(database, "_SHORT_WAY", "_no_such_method")
    public = run(plan, values)
    assert short.timely.equals(public.timely)
    assert short.dead.equals(public.dead)


def test_strings_that_look_like_numbers_are_not_read_one_by_one(monkeypatch):
    def refuse(*_):
        raise AssertionError("a record went to the exact reading")

    plan = stream_plan("id VARCHAR, phone VARCHAR, parts VARCHAR[]", event_time=None)
    phones = ["5551234", "555-1234", "2026-01-01", "1e5", "true", "[1]", "+1", "-1-1", "-5", "1.5"]
    texts = [json.dumps({"id": str(at), "phone": phones[at % 10], "parts": [str(at)]}) for at in range(6_000)]
    values = [text.encode() for text in texts]
    numbers = [f'{{"id":{at}}}'.encode() for at in range(3)]
    mixed = run(plan, values + numbers)
    assert mixed.timely.column("phone").to_pylist() == phones * 600
    assert [letter["reasons"][0]["rule"] for letter in mixed.dead.to_pylist()] == ["column:id"] * 3
    monkeypatch.setattr("headrace.rows.stage.read_record", refuse)
    assert run(plan, values).timely.num_rows == 6_000
