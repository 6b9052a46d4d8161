"""What every log must do: subclass `LogConformance` and give it an `open_log` fixture.

`open_log(name="events", partitions=1, clock=...)` opens a log of that stream; the same name, the same log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from headrace.errors import IntegrityError, RefusedError
from headrace.log import APPEND_SCHEMA, RECORD_SCHEMA, Log
from headrace.log.protocol import ORDERED_ROWS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NO_WAIT = timedelta(0)
A_WHILE = timedelta(seconds=20)
OpenLog = Callable[..., Log]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def advance(self, **length: float) -> None:
        self.at += timedelta(**length)


def records(*values: bytes | None, **columns: list) -> pa.Table:
    return pa.table({"value": pa.array(values, pa.binary()), **columns})


def after_noon(*seconds: float | None) -> pa.Array:
    times = [None if s is None else NOON + timedelta(seconds=s) for s in seconds]
    return pa.array(times, pa.timestamp("us", "UTC"))


def read_all(log: Log, positions: dict[int, int] | None = None, rows_max: int = 1000) -> pa.Table:
    """Read to the end in steps of `rows_max`."""
    tables, positions = [], dict(positions or {})
    while True:
        given = log.read(positions, rows_max=rows_max, bytes_max=1 << 30, wait=NO_WAIT)
        if not given.records.num_rows:
            return pa.concat_tables([RECORD_SCHEMA.empty_table(), *tables])
        tables.append(given.records)
        positions = dict(given.next)


def column(table: pa.Table, name: str) -> list:
    return table.column(name).to_pylist()


class LogConformance:
    own_clock = True
    """Whether the log keeps a clock of its own, which never goes back."""
    keeps_empty_headers = True
    """Whether an empty list of headers is told from none."""

    def test_what_was_appended_is_read_in_order_with_its_keys_and_headers(self, open_log: OpenLog) -> None:
        log = open_log()
        headers = [None, [{"key": "a", "value": b"1"}, {"key": "b", "value": None}], []]
        log.append(
            records(
                b"one",
                None,
                b"",
                key=pa.array([b"k", None, b""]),
                headers=pa.array(headers, APPEND_SCHEMA.field("headers").type),
            )
        )
        found = read_all(log)
        assert found.schema == RECORD_SCHEMA
        found.validate(full=True)
        assert column(found, "value") == [b"one", None, b""]
        assert column(found, "key") == [b"k", None, b""]
        kept = headers if self.keeps_empty_headers else [each or None for each in headers]
        assert column(found, "headers") == kept
        assert column(found, "offset") == [0, 1, 2]

    def test_appending_tells_the_offsets_that_records_got(self, open_log: OpenLog) -> None:
        log = open_log(partitions=2)
        log.append(records(b"a", partition=[1]))
        appended = log.append(records(b"b", b"c", b"d", partition=[1, 0, 1]))
        assert appended.offsets == {0: (0, 1), 1: (1, 3)}

    def test_appending_nothing_changes_nothing(self, open_log: OpenLog) -> None:
        log = open_log()
        assert log.append(APPEND_SCHEMA.empty_table()).offsets == {}
        assert [(held.start, held.end) for held in log.partitions()] == [(0, 0)]

    def test_reading_from_any_offset_gives_the_rest(self, open_log: OpenLog) -> None:
        log = open_log()
        values = [b"%d" % at for at in range(50)]
        for start in (0, 7, 8, 30):
            end = {0: 7, 7: 8, 8: 30, 30: 50}[start]
            log.append(records(*values[start:end], key=[b"k%d" % at for at in range(start, end)]))
        for position in range(51):
            found = read_all(log, {0: position})
            assert column(found, "value") == values[position:]
            assert column(found, "key") == [b"k%d" % at for at in range(position, 50)]

    @pytest.mark.parametrize("rows_max", [1, 2, 3, 7, 1000])
    def test_how_much_is_read_at_once_does_not_change_what_is_read(
        self, open_log: OpenLog, rows_max: int
    ) -> None:
        log = open_log(partitions=3)
        for batch in range(12):
            times = after_noon(*[batch * 10 + at * 3 % 11 for at in range(batch)])
            values = [b"%d/%d" % (batch, at) for at in range(batch)]
            log.append(
                records(*values, partition=[(batch * at) % 3 for at in range(batch)], record_time=times)
            )
        whole = read_all(log)
        stepwise = read_all(log, rows_max=rows_max)
        order = [("partition", "ascending"), ("offset", "ascending")]
        assert stepwise.sort_by(order) == whole.sort_by(order)
        for partition in range(3):
            offsets = [row["offset"] for row in stepwise.to_pylist() if row["partition"] == partition]
            assert sorted(offsets) == list(range(len(offsets)))

    def test_a_read_keeps_to_its_bounds_but_gives_at_least_one_record(self, open_log: OpenLog) -> None:
        log = open_log()
        log.append(records(*[b"x" * 100] * 10))
        given = log.read({}, rows_max=4, bytes_max=1 << 20, wait=NO_WAIT)
        assert given.records.num_rows == 4
        assert given.next == {0: 4}
        assert log.read({}, rows_max=100, bytes_max=250, wait=NO_WAIT).records.num_rows == 2
        assert log.read({}, rows_max=100, bytes_max=5, wait=NO_WAIT).records.num_rows == 1

    def test_one_read_is_in_the_order_of_record_time_partition_and_offset(self, open_log: OpenLog) -> None:
        log = open_log(partitions=2)
        log.append(records(b"a", b"b", b"c", partition=[1, 1, 1], record_time=after_noon(0, 2, 4)))
        log.append(records(b"d", b"e", b"f", partition=[0, 0, 0], record_time=after_noon(2, 3, 9)))
        assert column(read_all(log), "value") == [b"a", b"d", b"b", b"e", b"c", b"f"]

    def test_a_read_of_many_records_gives_of_every_partition_all_from_its_position_on(
        self, open_log: OpenLog
    ) -> None:
        log = open_log(partitions=2)
        count = 2 * ORDERED_ROWS
        for begin in range(0, count, 4_000):
            span = range(begin, min(begin + 4_000, count))
            log.append(
                records(
                    *(b"%d" % at if at % 7 else None for at in span),
                    key=pa.array([b"k%d" % at if at % 3 else None for at in span]),
                    partition=[at % 2 for at in span],
                    record_time=after_noon(*span),
                )
            )
        positions, found = {0: 10, 1: 11}, dict[int, list[dict]]()
        while positions != {0: count // 2, 1: count // 2}:
            given = log.read(positions, rows_max=count - 3_000, bytes_max=1 << 30, wait=A_WHILE)
            given.records.validate(full=True)
            for row in given.records.to_pylist():
                found.setdefault(row["partition"], []).append(row)
            positions = dict(given.next)
        for partition, first in ((0, 10), (1, 11)):
            rows = found[partition]
            assert [row["offset"] for row in rows] == list(range(first, count // 2))
            for row in rows:
                at = row["offset"] * 2 + partition
                assert row["value"] == (b"%d" % at if at % 7 else None)
                assert row["key"] == (b"k%d" % at if at % 3 else None)
                assert row["record_time"] == NOON + timedelta(seconds=at)

    def test_partitions_advance_together_in_record_time(self, open_log: OpenLog) -> None:
        log = open_log(partitions=2)
        for partition in (0, 1):
            for minute in range(60):
                times = after_noon(*[minute * 60 + at for at in range(10)])
                log.append(records(*[b"v"] * 10, partition=[partition] * 10, record_time=times))
        positions: dict[int, int] = {}
        while True:
            given = log.read(positions, rows_max=100, bytes_max=1 << 20, wait=NO_WAIT)
            if not given.records.num_rows:
                break
            positions = dict(given.next)
            assert abs(positions[0] - positions[1]) <= 10

    def test_partitions_whose_batches_span_hours_advance_together_too(self, open_log: OpenLog) -> None:
        log = open_log(partitions=2)
        for partition in (0, 1):
            times = after_noon(*[at * 7 + partition for at in range(500)])
            log.append(records(*[b"v"] * 500, partition=[partition] * 500, record_time=times))
        positions: dict[int, int] = {}
        while sum(positions.values()) < 90:  # what came first of one partition bounds a read of both
            given = log.read(positions, rows_max=100, bytes_max=1 << 20, wait=A_WHILE)
            assert given.records.num_rows
            positions = dict(given.next)
            assert abs(positions[0] - positions[1]) <= 1

    def test_record_time_is_the_logs_clock_unless_given(self, open_log: OpenLog) -> None:
        clock = Clock()
        log = open_log(clock=clock)
        log.append(records(b"a"))
        clock.advance(seconds=5)
        log.append(records(b"b", b"c", record_time=after_noon(-3600, None)))
        assert column(read_all(log).sort_by("offset"), "record_time") == after_noon(0, -3600, 5).to_pylist()

    def test_a_clock_that_steps_back_a_little_does_not_take_record_time_back(self, open_log: OpenLog) -> None:
        if not self.own_clock:
            pytest.skip("the clock of this log is kept by its brokers")
        clock = Clock()
        log = open_log(clock=clock)
        log.append(records(b"a"))
        clock.advance(seconds=-4)
        log.append(records(b"b"))
        clock.advance(hours=1)
        log.append(records(b"c"))
        assert column(read_all(log), "record_time") == after_noon(0, 0, 3596).to_pylist()

    def test_a_clock_that_was_ahead_and_is_put_right_gives_right_record_times(
        self, open_log: OpenLog
    ) -> None:
        if not self.own_clock:
            pytest.skip("the clock of this log is kept by its brokers")
        clock = Clock()
        log = open_log(clock=clock)
        clock.advance(days=1)
        log.append(records(b"a"))
        clock.advance(days=-1)
        log.append(records(b"b"))
        clock.advance(seconds=10)
        log.append(records(b"c"))
        assert column(read_all(log).sort_by("offset"), "record_time") == after_noon(86400, 0, 10).to_pylist()

    def test_a_given_record_time_in_the_future_does_not_move_the_logs_own(self, open_log: OpenLog) -> None:
        log = open_log(clock=Clock())
        log.append(records(b"a", record_time=after_noon(86400)))
        log.append(records(b"b"))
        assert column(read_all(log, {0: 1}), "record_time") == [NOON]

    def test_records_with_the_same_key_share_a_partition(self, open_log: OpenLog) -> None:
        log = open_log(partitions=3)
        keys = [b"user_%d" % (at % 17) for at in range(400)]
        log.append(records(*[b"v"] * 400, key=keys))
        log.append(records(*[b"w"] * 400, key=keys))
        placed: dict[bytes, set[int]] = {}
        for row in read_all(log).to_pylist():
            placed.setdefault(row["key"], set()).add(row["partition"])
        assert {len(partitions) for partitions in placed.values()} == {1}
        assert {partition for (partition,) in placed.values()} == {0, 1, 2}

    def test_records_without_a_key_are_spread_over_the_partitions(self, open_log: OpenLog) -> None:
        log = open_log(partitions=3)
        for _ in range(6):
            log.append(records(b"v"))
        assert [held.end for held in log.partitions()] == [2, 2, 2]

    def test_a_position_beyond_the_end_is_an_integrity_error(self, open_log: OpenLog) -> None:
        log = open_log()
        log.append(records(b"a"))
        with pytest.raises(IntegrityError, match="beyond the log's end 1"):
            log.read({0: 2}, rows_max=1, bytes_max=1, wait=NO_WAIT)

    def test_a_position_in_a_partition_that_is_not_there_is_an_integrity_error(
        self, open_log: OpenLog
    ) -> None:
        with pytest.raises(IntegrityError, match="partition 4"):
            open_log().read({4: 0}, rows_max=1, bytes_max=1, wait=NO_WAIT)

    def test_a_record_for_a_partition_that_is_not_there_is_refused(self, open_log: OpenLog) -> None:
        log = open_log(partitions=2)
        with pytest.raises(RefusedError, match="partition 2"):
            log.append(records(b"a", b"b", partition=[0, 2]))
        assert read_all(log).num_rows == 0

    def test_an_idle_partition_says_since_when(self, open_log: OpenLog) -> None:
        clock = Clock()
        log = open_log(partitions=2, clock=clock)
        log.append(records(b"a", b"b", partition=[0, 0]))
        clock.advance(minutes=1)
        given = log.read({}, rows_max=1, bytes_max=1 << 20, wait=NO_WAIT)
        assert given.idle_since == {1: clock.at}
        given = log.read(given.next, rows_max=9, bytes_max=1 << 20, wait=NO_WAIT)
        assert given.idle_since == {0: clock.at, 1: clock.at}

    def test_the_idle_time_is_taken_before_the_end_is_asked_for(self, open_log: OpenLog) -> None:
        asked: list[datetime] = []
        log = open_log(clock=lambda: asked.append(NOON + timedelta(seconds=len(asked))) or asked[-1])
        given = log.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT)
        assert given.idle_since == {0: asked[0]}

    def test_a_stream_that_is_being_loaded_is_never_idle(self, open_log: OpenLog) -> None:
        log = open_log()

        def idle() -> bool:
            return bool(log.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT).idle_since)

        with log.load():
            assert not idle()
            with log.load():
                assert not idle()
            assert not idle()
        assert idle()

    def test_a_load_ends_also_when_it_fails(self, open_log: OpenLog) -> None:
        log = open_log()
        with pytest.raises(ZeroDivisionError), log.load():
            raise ZeroDivisionError
        assert log.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT).idle_since

    def test_a_waiting_read_returns_when_records_arrive(self, open_log: OpenLog) -> None:
        log = open_log()
        given = []
        reader = threading.Thread(
            target=lambda: given.append(log.read({}, rows_max=9, bytes_max=1 << 20, wait=A_WHILE))
        )
        reader.start()
        log.append(records(b"a"))
        reader.join(A_WHILE.total_seconds() / 2)
        assert not reader.is_alive()
        assert column(given[0].records, "value") == [b"a"]

    def test_a_read_that_waited_in_vain_is_empty_and_keeps_its_position(self, open_log: OpenLog) -> None:
        log = open_log()
        log.append(records(b"a"))
        given = log.read({0: 1}, rows_max=9, bytes_max=1 << 20, wait=timedelta(milliseconds=20))
        assert given.records.num_rows == 0
        assert given.next == {0: 1}
        assert given.records.schema == RECORD_SCHEMA

    def test_published_positions_are_seen_by_others(self, open_log: OpenLog) -> None:
        log = open_log(partitions=2)
        log.publish("engine", {0: 3, 1: 0})
        log.publish("engine", {0: 5})
        log.publish("copy", {1: 1})
        log.close()
        assert open_log().readers() == {"engine": {0: 5, 1: 0}, "copy": {1: 1}}
        assert open_log().readers("copy") == {"copy": {1: 1}}
        assert open_log().readers("nobody") == {}

    def test_a_lane_has_offsets_and_an_identity_of_its_own(self, open_log: OpenLog) -> None:
        log = open_log(partitions=3)
        log.append(records(b"main", b"main"))
        lane = log.lane("redrive")
        assert lane.stream == log.stream
        assert lane.identity != log.identity
        assert lane.append(records(b"again")).offsets == {0: (0, 1)}
        assert column(read_all(lane), "value") == [b"again"]
        assert read_all(log).num_rows == 2
        assert column(read_all(open_log().lane("redrive")), "value") == [b"again"]

    def test_streams_do_not_see_each_others_records(self, open_log: OpenLog) -> None:
        log, other = open_log(), open_log(name="orders", partitions=2)
        log.append(records(b"a"))
        assert other.identity != log.identity
        assert read_all(other).num_rows == 0

    def test_opening_again_finds_the_same_log(self, open_log: OpenLog) -> None:
        log = open_log(partitions=3)
        log.append(records(b"a"))
        again = open_log()
        assert again.identity == log.identity
        assert again.partitions() == log.partitions()

    def test_a_log_that_was_closed_says_so(self, open_log: OpenLog) -> None:
        log = open_log()
        log.close()
        log.close()
        with pytest.raises(RefusedError, match="closed"):
            log.append(records(b"a"))

    def test_large_records_and_large_appends_come_back_whole(self, open_log: OpenLog) -> None:
        log = open_log()
        large = bytes(range(256)) * 40_000
        log.append(records(b"small", large, b"small"))
        log.append(records(*[b"%06d" % at for at in range(150_000)]))
        found = read_all(log, rows_max=40_000)
        assert found.num_rows == 150_003
        assert found.column("value")[1].as_py() == large
        assert column(found.slice(3), "value") == [b"%06d" % at for at in range(150_000)]
