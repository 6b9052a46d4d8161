"""The row stage on several threads gives what it gives on one."""

from __future__ import annotations

import threading
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from row_stages import NOON, PLACE, records, stream_plan, told

from headrace.declare import Expect, Function
from headrace.rows import RowStage
from headrace.rows.framing import Documents
from headrace.rows.parallel import ParallelStage

ROWS = 9_001
"""Two parts of more than four thousand, one of them larger."""


def _mixed() -> pa.Table:
    """Records of every outcome, some of them next to where the slice is cut."""
    values: list[bytes | None] = []
    for row in range(ROWS):
        good = f'{{"id":"e{row}","at":"2026-01-01T12:00:00Z","count":{row % 7}}}'.encode()
        late = good.replace(b"T12:00", b"T11:50")
        future = good.replace(b"T12:00", b"T13:00")
        strange = [b"{", b"\xff", None, b'{"id":1}', b" " + good, late, future, good.replace(b"e", b'"')]
        values.append(strange[row % 8] if row % 5 == 0 or 4_490 < row < 4_510 else good)
    return records(values, at=[NOON + timedelta(seconds=row) / 100 for row in range(ROWS)])


def test_what_a_slice_gives_does_not_depend_on_how_many_threads_decode_it():
    plan = stream_plan(unique=("id",), expect=[("few", Expect("count < 6", "reject"))])
    given = _mixed()
    one, several = RowStage(plan), ParallelStage(plan, threads=2)
    expected, found = one.run(given), several.run(given)
    assert told(found) == told(expected)
    rules = [("minute", "ascending"), ("rule", "ascending")]
    assert found.rules.sort_by(rules).to_pylist() == expected.rules.sort_by(rules).to_pylist()
    assert found.dead["offset"].to_pylist() == expected.dead["offset"].to_pylist()
    one.close()
    several.close()


def test_a_part_that_fails_fails_the_slice_once_the_others_are_done(monkeypatch):
    stage = ParallelStage(stream_plan(), threads=2)
    run, failing, done = RowStage.run, threading.Event(), threading.Event()

    def half(self: RowStage, given: pa.Table, *, lane: str = "main"):
        if not given["offset"][0].as_py():
            failing.set()
            raise RuntimeError("the first part")
        assert failing.wait(60)
        found = run(self, given, lane=lane)
        done.set()
        return found

    monkeypatch.setattr(RowStage, "run", half)
    with pytest.raises(RuntimeError, match="the first part"):
        stage.run(_mixed())
    assert done.is_set()
    monkeypatch.undo()
    assert stage.run(_mixed()).timely.num_rows
    stage.close()


def test_a_registry_is_asked_by_one_thread_at_a_time():
    asked: list[str] = []

    class Noting:
        def documents(self, given: pa.Table) -> Documents:
            asked.append(threading.current_thread().name)
            return Documents(given["value"].combine_chunks(), {})

        def close(self) -> None:
            pass

    good = [b'{"id":"e","at":"2026-01-01T12:00:00Z"}'] * ROWS
    stage = ParallelStage(stream_plan(), Noting(), threads=2)
    assert stage.run(records(good)).timely.num_rows == ROWS
    assert asked == [threading.current_thread().name]
    stage.close()


def test_the_code_of_a_user_is_called_by_one_thread_at_a_time():
    called: list[str] = []

    def doubled(values: pa.Array) -> pa.Array:
        called.append(threading.current_thread().name)
        return pc.multiply(values, 2)

    function = Function("doubled", ("BIGINT",), "BIGINT", doubled, PLACE)
    plan = stream_plan(derive=[("twice", "doubled(count)", "BIGINT")], functions=(function,))
    stage = ParallelStage(plan, threads=2)
    good = [b'{"id":"e","at":"2026-01-01T12:00:00Z","count":1}'] * ROWS
    assert stage.run(records(good)).timely.num_rows == ROWS
    assert not [name for name in called if name.startswith("headrace-rows")]
    assert called
    stage.close()
