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
