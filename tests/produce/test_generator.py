from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.log.protocol import Appended
from headrace.produce.generator import BATCH_ROWS_MAX, Rate, load_history, run_generator
from headrace.produce.kernels import binary_of, constant_rows, digit_rows, power_law, write_millis, write_uuid

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """Seconds that pass only when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class StopOnClock(Event):
    """A stop event whose waits move the clock instead of taking time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.seconds += timeout or 0.0
        return self.is_set()


class Counting:
    """Numbers its records; arrivals are spaced by the rate."""

    stream = "events"

    def __init__(self) -> None:
        self.made = 0

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        first = round(start.timestamp() * 1e6)
        arrivals = first + (np.arange(count) * (1e6 / rate)).astype(np.int64)
        values = [str(self.made + at).encode() for at in range(count)]
        self.made += count
        return pa.table(
            {
                "record_time": pa.array(arrivals, pa.timestamp("us", "UTC")),
                "value": pa.array(values, pa.binary()),
            }
        )

    def activity(self, at: datetime) -> float:
        return 2.0 if at.hour < 12 else 0.5


class Listing:
    """A log that keeps what is appended, and refuses when told to."""

    stream, identity = "events", "one"

    def __init__(self, clock: Clock, errors: list[Exception] | None = None) -> None:
        self.clock, self.errors, self.loading = clock, errors or [], False
        self.appends: list[pa.Table] = []
        self.loads: list[bool] = []

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.clock.seconds)

    def append(self, records: pa.Table) -> Appended:
        if self.errors:
            raise self.errors.pop(0)
        self.appends.append(records)
        self.loads.append(self.loading)
        return Appended({})

    @contextmanager
    def load(self) -> Iterator[None]:
        self.loading = True
        yield
        self.loading = False

    @property
    def values(self) -> list[bytes]:
        return [value for table in self.appends for value in table["value"].to_pylist()]


def run(log: Listing, **options: object) -> Mapping[str, object]:
    stop = options.pop("stop", None) or StopOnClock(log.clock)
    return run_generator(Counting(), log, stop=stop, clock=log.clock, **options)  # type: ignore[arg-type]


def test_a_low_rate_appends_every_event_by_itself_and_on_time() -> None:
    log = Listing(Clock())
    report = run(log, rate=14.0, duration=timedelta(seconds=10))
    assert [len(table) for table in log.appends] == [1] * 140
    assert report.events == 140
    assert report.rate == pytest.approx(14, rel=0.01)


def test_a_high_rate_appends_what_a_few_milliseconds_give() -> None:
    log = Listing(Clock())
    report = run(log, rate=65_000.0, duration=timedelta(seconds=2))
    assert report.events == pytest.approx(130_000, rel=0.02)
    assert max(len(table) for table in log.appends) <= 65_000 * 0.02 + 1


def test_a_rate_that_changes_is_kept_from_then_on() -> None:
    log, rate = Listing(Clock()), Rate(100.0)
    began, appended = log.clock(), list[tuple[float, int]]()

    def changed(records: int, done: bool, seconds: float) -> None:
        appended.append((log.clock() - began, records))
        rate.events_per_second = 100.0 if log.clock() - began < 10 else 10.0

    run(log, rate=rate, duration=timedelta(seconds=20), on_append=changed)
    assert sum(records for at, records in appended if at < 10) == pytest.approx(1_000, rel=0.02)
    assert sum(records for at, records in appended if at >= 10) == pytest.approx(100, rel=0.1)


def test_a_run_that_is_paused_makes_nothing_and_catches_nothing_up() -> None:
    log, rate = Listing(Clock()), Rate(100.0)

    class Pausing(StopOnClock):
        def wait(self, timeout: float | None = None) -> bool:
            ended = super().wait(timeout)
            rate.events_per_second = 0.0 if 10 <= self.clock() < 15 else 100.0
            return ended

    report = run(log, rate=rate, duration=timedelta(seconds=20), stop=Pausing(log.clock))
    assert report.events == pytest.approx(1_500, rel=0.02)


def test_the_count_is_met_exactly_without_a_rate() -> None:
    log = Listing(Clock())
    report = run(log, rate=None, count=BATCH_ROWS_MAX * 2 + 7)
    assert report.events == len(log.values) == BATCH_ROWS_MAX * 2 + 7
    assert [len(table) for table in log.appends] == [BATCH_ROWS_MAX, BATCH_ROWS_MAX, 7]


def test_the_count_is_met_exactly_at_a_rate() -> None:
    log = Listing(Clock())
    assert run(log, rate=1000.0, count=333).events == 333
    assert log.values == [str(number).encode() for number in range(333)]


def test_the_log_gives_the_record_times_of_a_live_run() -> None:
    log = Listing(Clock())
    run(log, rate=14.0, count=3)
    assert all("record_time" not in table.column_names for table in log.appends)


def test_a_stop_ends_the_run_after_the_append_in_hand() -> None:
    log = Listing(Clock())
    stop = StopOnClock(log.clock)
    report = run(log, rate=None, stop=stop, on_batch=lambda table: stop.set())
    assert report.events == BATCH_ROWS_MAX


def test_a_log_that_is_not_ready_is_tried_again() -> None:
    log = Listing(Clock(), [TransientError("busy"), TransientError("busy")])
    report = run(log, rate=None, count=5)
    assert (report.events, report.failed) == (5, 0)
    assert report.append_p99_s == pytest.approx(0.3)


def test_a_batch_is_given_up_after_bounded_retries_and_the_run_goes_on() -> None:
    log = Listing(Clock(), [TransientError("busy")] * 9)
    report = run(log, rate=1.0, count=3)
    assert (report.events, report.failed) == (2, 1)


def test_a_log_that_refuses_ends_the_run() -> None:
    with pytest.raises(RefusedError, match="full"):
        run(Listing(Clock(), [RefusedError("full")]), rate=None, count=5)


def test_progress_is_told_every_thousand_events() -> None:
    log, told = Listing(Clock()), []
    run(log, rate=500.0, count=2500, on_progress=told.append)
    assert [progress.events // 1000 for progress in told] == [1, 2]
    assert told[-1].rate == pytest.approx(500, rel=0.02)


def test_a_pace_that_was_lost_is_not_caught_up_with_by_a_burst() -> None:
    log = Listing(Clock())

    def fall_behind(table: pa.Table) -> None:
        log.clock.seconds += 3600 if len(log.values) == 1 else 0

    run(log, rate=14.0, count=100, on_batch=fall_behind)
    assert max(len(table) for table in log.appends) <= 14 * 5 + 1


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_that_is_not_positive_is_refused(rate: float) -> None:
    with pytest.raises(ProfileError, match="rate"):
        run(Listing(Clock()), rate=rate)


def test_history_is_loaded_in_record_time_order_up_to_its_end() -> None:
    log = Listing(Clock())
    report = load_history(Counting(), log, hours=6, until=NOON + timedelta(hours=3), rate=14.0)
    times = [time for table in log.appends for time in table["record_time"].cast(pa.int64()).to_pylist()]
    assert times == sorted(times)
    assert report.events == len(times)
    assert NOON - timedelta(hours=3) <= log.appends[0]["record_time"][0].as_py()
    assert log.appends[-1]["record_time"][-1].as_py() < NOON + timedelta(hours=3)
    assert all(log.loads)
    assert not log.loading


@pytest.mark.slow
def test_history_has_a_day_and_a_night() -> None:
    log = Listing(Clock())
    load_history(Counting(), log, hours=6, until=NOON + timedelta(hours=3), rate=2.0)
    hours = [time.hour for table in log.appends for time in table["record_time"].to_pylist()]
    busy, quiet = sum(hour < 12 for hour in hours), sum(hour >= 12 for hour in hours)
    assert busy == pytest.approx(2 * 2.0 * 3 * 3600, abs=2)
    assert quiet == pytest.approx(2 * 0.5 * 3 * 3600, abs=2)


def test_times_are_written_as_python_writes_them() -> None:
    moments = np.array([0, 951_782_399_999, 1_767_225_600_000, -1, 1_709_210_096_007], np.int64)
    rows = constant_rows(len(moments), "x" * 25)
    write_millis(rows, 1, moments)
    expected = [
        "x" + datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:23] + "x"
        for ms in moments.tolist()
    ]
    assert [text.decode() for text in binary_of(rows).to_pylist()] == expected


def test_no_times_at_all_are_written_without_complaint() -> None:
    rows = constant_rows(0, "x" * 23)
    write_millis(rows, 0, np.empty(0, np.int64))
    assert len(binary_of(rows)) == 0


def test_uuids_have_the_form_of_version_4() -> None:
    rows = constant_rows(100, "0" * 36)
    write_uuid(rows, 0, np.random.default_rng(1).integers(0, 2**64, (100, 2), dtype=np.uint64))
    texts = [text.decode() for text in binary_of(rows).to_pylist()]
    assert len(set(texts)) == 100
    assert all([len(part) for part in text.split("-")] == [8, 4, 4, 4, 12] for text in texts)
    assert all(text[14] == "4" and text[19] in "89ab" for text in texts)


def test_digits_are_padded_with_zeros() -> None:
    rows = digit_rows(np.array([0, 42, 9999], np.int64), 4)
    assert binary_of(rows).to_pylist() == [b"0000", b"0042", b"9999"]


def test_popularity_follows_zipf() -> None:
    shares = np.diff(power_law(1000, 1.0), prepend=0.0)
    assert shares[0] / shares[9] == pytest.approx(10)
    assert power_law(1000, 1.0)[-1] == 1.0
