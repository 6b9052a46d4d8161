"""Computing tables again from the log: interrupted, with failing rows, from a log that was cut."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.engine.local import EngineSettings, LocalEngine
from headrace.engine.local.start import first_known
from headrace.errors import RefusedError
from headrace.log import open_embedded_log
from headrace.log.protocol import Log
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.store.instants import micros_of
from headrace.testing import VirtualClock
from headrace.testing.records import append_table, record_json

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = "SELECT count(*) AS n FROM events"
BY_TEN_MINUTES = "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '10 minutes')"
SESSIONS = "SELECT window_start, count(*) AS n FROM events GROUP BY session_window(seen, '5 minutes')"


class Project:
    """One stream, its log with the retention of a test, and a store that is opened again and again."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder, self.limits = folder, limits
        self.clock = VirtualClock(START)
        self.close: Callable[[], None] = lambda: None

    def open(
        self,
        *rebuild: str,
        settings: EngineSettings | None = None,
        unique: str | None = None,
        lateness: str = "5 minutes",
        expect: dict[str, str] | None = None,
        more: str = "",
        keys: dict[str, str] | None = None,
        **tables: Any,
    ) -> "Project":
        self.close()
        pipeline = hr.Pipeline("p")
        schema = f"id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL{more}"
        pipeline.stream(
            "events",
            schema=schema,
            event_time="seen",
            allowed_lateness=lateness,
            unique=unique,
            expect=expect or {},
        )
        for name, query in tables.items():
            sql, keep = query if isinstance(query, tuple) else (query, None)
            pipeline.table(name, sql, key=(keys or {}).get(name, ()), keep=keep)
        plan = plan_pipeline(pipeline)
        self.log: Log = open_embedded_log(
            self.folder / "log.db", "events", clock=self.clock, durable=False, **self.limits
        )
        opened: list[Any] = [self.log]
        self.close = lambda: [one.close() for one in reversed(opened)] and None
        identities = {"events": self.log.identity}
        self.store = Store.open(self.folder / "store.duckdb", plan, identities=identities, rebuild=rebuild)
        opened.append(self.store)
        engine = LocalEngine(plan, {"events": self.log}, self.store, settings=settings)
        opened.append(engine)
        self.engine = engine
        return self

    def send(self, *records: tuple[Any, float], at: float | None = None) -> None:
        """Append records (id, minute), at the minute `at`."""
        if at is not None:
            self.clock.time = START + timedelta(minutes=at)
        values = [self._value(*record) for record in records]
        self.log.append(append_table(values))

    def redrive(self, identifier: Any, minute: float, address: str) -> None:
        value = self._value(identifier, minute)
        self.log.lane("redrive").append(append_table([value], address=address))

    def _value(self, identifier: Any, minute: float) -> bytes:
        return record_json({"id": str(identifier), "seen": START + timedelta(minutes=minute)}).encode()

    def run(self, rows_max: int | None = None) -> None:
        while self.engine.step(rows_max=rows_max) is not None:
            pass
        assert self.store.ledger().balanced

    def retain(self) -> None:
        self.log.retain()  # type: ignore[attr-defined]

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        found = self.store.query(f"FROM {table} ORDER BY ALL").to_pylist()
        return [tuple(row.values()) for row in found]

    def counts(self, table: str) -> dict[int, int]:
        """Return the counts of a windowed table by the minute at which a window begins."""
        return {int((start - START).total_seconds()) // 60: n for start, n in self.rows(table)}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    made: list[Project] = []

    def make(**limits: Any) -> Project:
        made.append(Project(tmp_path, **limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_rebuild_that_was_interrupted_and_is_asked_for_again_loses_nothing(
    project: Callable[..., Project],
) -> None:
    run = project().open(t=COUNT, unique="id")
    run.send(*((n, 0) for n in range(100)))
    run.send(*((n, 0) for n in range(10)))
    run.run()
    run.open("t", t=COUNT, unique="id").engine.step(rows_max=40)
    run.open("t", t=COUNT, unique="id").run(rows_max=30)
    assert run.rows("t") == [(100,)]


def test_a_rebuild_that_was_interrupted_goes_on_where_it_stood(project: Callable[..., Project]) -> None:
    run = project().open(t=COUNT, unique="id")
    run.send(*((n % 70, 0) for n in range(100)))
    run.run()
    run.open("t", t=COUNT, unique="id").engine.step(rows_max=40)
    run.open(t=COUNT, unique="id").run(rows_max=30)
    assert run.rows("t") == [(70,)]


def test_a_row_that_fails_in_the_table_fails_in_its_rebuild_too(project: Callable[..., Project]) -> None:
    query = "SELECT sum(CAST(id AS INT)) AS s FROM events"
    run = project().open(t=query)
    run.send((1, 0), ("x", 0), (3, 0))
    run.run()
    before = (run.rows("t"), run.store.ledger().tables)
    assert before[1][0].failed == 1
    run.open("t", t=query).run()
    assert (run.rows("t"), run.store.ledger().tables) == before
    failed = run.store.connection.execute("SELECT count(*) FROM _headrace.failed_rows WHERE \"table\" = 't'")
    assert failed.fetchall() == [(2,)]


def test_retention_leaves_what_a_rebuild_still_reads(project: Callable[..., Project]) -> None:
    run = project(retention_bytes=1).open(t=COUNT)
    for number in range(50):
        run.send((number, 0))
    run.run()
    run.open("t", t=COUNT).engine.step(rows_max=20)
    run.retain()
    assert run.log.partitions()[0].start <= 20
    run.open(t=COUNT)
    run.retain()
    run.run()
    assert run.rows("t") == [(50,)]
    run.retain()
    assert run.log.partitions()[0].start == 50, "and afterwards it takes them"


def test_records_that_are_lost_in_a_rebuild_leave_no_partial_window(project: Callable[..., Project]) -> None:
    tables = {"w": BY_TEN_MINUTES, "t": COUNT}
    run = project(retention_bytes=1).open(**tables)
    for minute in range(40):
        run.send((minute, minute), at=minute)
    run.run()
    run.open("w", "t", **tables).engine.step(rows_max=5)
    run.log.publish("engine", {0: 12})  # as if retention had not known of the rebuild
    run.retain()
    run.open(settings=EngineSettings(on_data_loss="continue"), **tables).run()
    assert run.log.partitions()[0].start >= 12
    assert run.counts("w") == {20: 10, 30: 10}
    assert run.store.progress.tables["t"].partial_since is not None


def test_a_table_that_lacks_lost_records_says_so_as_long_as_it_keeps_what_lacks_them(
    project: Callable[..., Project],
) -> None:
    tables, settings = {"w": BY_TEN_MINUTES, "t": COUNT}, EngineSettings(on_data_loss="continue")
    run = project(retention_bytes=1).open(settings=settings, **tables)
    for minute in range(40):
        run.send((minute, minute), at=minute)
        if minute == 5:
            run.run()
    run.log.publish("engine", {0: 15})  # as if retention had not known of the run
    run.retain()
    run.run()
    lost = micros_of(START + timedelta(minutes=run.log.partitions()[0].start))
    assert [run.store.progress.tables[name].lost_before for name in tables] == [lost, lost]
    with pytest.raises(RefusedError, match="its answer would lose them"):
        run.open("t", **tables)
    run.open("w", **tables).run()
    assert run.counts("w")[0] == 6, "a window that the log no longer holds stays as it is"
    assert run.store.progress.tables["w"].lost_before == lost


def test_a_closed_window_that_a_rebuild_keeps_counts_what_was_redriven_meanwhile(
    project: Callable[..., Project],
) -> None:
    query = "SELECT window_start, count(DISTINCT id) AS n FROM events GROUP BY window(seen, '10 minutes')"
    run = project(retention_age=timedelta(minutes=25)).open(w=query)
    for minute in range(0, 60, 5):
        run.send((minute, minute), at=minute)
        if minute == 0:
            run.log.append(append_table([b"half a rec"]))
        run.run()
    run.retain()
    assert run.log.partitions()[0].start > 2
    assert run.counts("w")[0] == 2
    run.redrive("mended", 1, "0:1")
    run.open("w", w=query).run()
    assert run.counts("w") == {0: 3, **dict.fromkeys(range(10, 60, 10), 2)}
    run.send((60, 90), at=90)
    run.run()
    assert run.counts("w")[0] == 3, "also when windows were closed again"


@pytest.mark.parametrize("window", ["'10 minutes'", "'10 minutes', '5 minutes'"])
def test_what_is_redriven_into_a_closed_window_that_a_rebuild_keeps_is_a_correction(
    project: Callable[..., Project], window: str
) -> None:
    query = f"SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, {window})"
    run = project(retention_age=timedelta(minutes=25)).open(w=query)
    for minute in range(0, 60, 5):
        run.send((minute, minute), at=minute)
        if minute == 0:
            run.log.append(append_table([b"half a rec"]))
        run.run()
    run.retain()
    run.redrive("mended", 1, "0:1")
    run.open("w", w=query).run()
    again = run.store.progress.tables["w"]
    assert (again.rebuild, again.corrections) == (None, 1)
    (revisions,) = run.store.connection.execute(
        "SELECT list(DISTINCT _revision ORDER BY _revision) FILTER (WHERE window_start <= $1::TIMESTAMPTZ), "
        "max(_revision) FILTER (WHERE window_start > $1::TIMESTAMPTZ) FROM _state.w",
        [START],
    ).fetchall()
    assert revisions == ([1], 0)


def test_totals_sessions_and_rows_by_key_are_not_computed_again_from_a_log_that_was_cut(
    project: Callable[..., Project],
) -> None:
    tables: dict[str, Any] = {"t": COUNT, "s": SESSIONS, "latest": "SELECT id, seen FROM events"}
    tables["keys"] = {"latest": "id"}
    run = project(retention_bytes=1).open(**tables)
    for minute in range(10):
        run.send((minute, minute), at=minute)
    run.run()
    run.retain()
    run.send((10, 10), at=10)
    run.run()
    before = [run.rows(name) for name in ("t", "s", "latest")]
    for name in ("t", "s", "latest"):
        with pytest.raises(RefusedError, match=f"'{name}' cannot be computed again"):
            run.open(name, **tables)
    run.open(**tables).run()
    assert [run.rows(name) for name in ("t", "s", "latest")] == before
    assert len(before[2]) == 11


def test_totals_that_began_where_the_log_begins_are_computed_again(project: Callable[..., Project]) -> None:
    run = project(retention_bytes=1).open(t=COUNT)
    for minute in range(10):
        run.send((minute, minute), at=minute)
    run.run()
    run.retain()
    run.send((10, 10), at=10)
    run.open(t=COUNT, later=COUNT).run()
    assert run.rows("later") == [(1,)]
    assert run.rows("t") == [(11,)]
    run.open("later", t=COUNT, later=COUNT).run()
    assert run.rows("later") == [(1,)]


def test_windows_from_before_the_log_begins_stay_when_a_table_is_computed_again(
    project: Callable[..., Project],
) -> None:
    query = (
        "SELECT window_start, count(DISTINCT id) AS n FROM events GROUP BY window(seen, '10 minutes')",
        None,
    )
    run = project(retention_age=timedelta(minutes=25)).open(w=query)
    for minute in range(60):
        run.send((minute, minute), (minute, minute), at=minute)
    run.run()
    run.retain()
    assert run.log.partitions()[0].start > 0
    before = run.counts("w")
    assert len(before) == 6
    run.open("w", w=query).run(rows_max=7)
    assert run.counts("w") == before
    assert run.store.progress.tables["w"].floor is None, "and each may be corrected"
    run.open("w", w=query).engine.step(rows_max=7)
    run.open("w", w=query).run()
    assert run.counts("w") == before


def test_sliding_windows_that_began_before_the_log_are_not_shown(project: Callable[..., Project]) -> None:
    query = "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '10 minutes', '2 minutes')"
    run = project(retention_bytes=1).open(t=COUNT)
    for minute in range(20):
        run.send((minute, minute), at=minute)
    run.run()
    run.retain()
    for minute in range(20, 60):
        run.send((minute, minute), at=minute)
    run.run()
    run.open(t=COUNT, w=query).run()
    complete = {start: n for start, n in run.counts("w").items() if start + 10 <= 60}
    assert complete
    assert set(complete.values()) == {10}


def test_an_expired_record_stays_out_when_another_table_is_computed_again(
    project: Callable[..., Project],
) -> None:
    tables = {"w": (BY_TEN_MINUTES, "1 hour"), "t": COUNT}
    run = project().open(**tables)
    run.log.append(append_table([b"broken"]))
    for minute in range(0, 240, 10):
        run.send((minute, minute), at=minute)
        run.run()
    run.redrive(1, 0, "0:0")
    run.run()
    assert run.store.ledger().outcomes("events")["expired"] == 1
    before = run.rows("t")
    run.open("t", **tables).run()
    assert run.rows("t") == before


def test_redriven_records_and_their_copies_get_the_outcomes_of_the_first_time(
    project: Callable[..., Project],
) -> None:
    run = project().open(w=BY_TEN_MINUTES, unique="id")
    run.log.append(append_table([b"broken", b"broken"]))
    for minute in (0, 60, 120):
        run.send((minute, minute), at=minute)
        run.run()
    run.redrive(0, 0, "0:0")
    run.redrive(120, 120, "0:1")  # this one is a copy
    run.run()
    run.send((121, 121), (120, 120), at=121)
    run.run()
    before = run.counts("w")
    run.open("w", w=BY_TEN_MINUTES, unique="id").run(rows_max=2)
    assert run.counts("w") == before


@pytest.mark.parametrize(
    ("before", "since"),
    [
        ({"expect": {"known": "id <> 'odd'"}}, {}),
        ({}, {"lateness": "3 hours"}),
        ({}, {"lateness": "3 hours", "more": ", note VARCHAR"}),
    ],
    ids=["rejected", "late", "late of other columns"],
)
def test_a_record_that_was_set_aside_is_in_tables_computed_since_once_it_is_given_back_and_not_before(
    project: Callable[..., Project], before: dict[str, Any], since: dict[str, Any]
) -> None:
    run = project().open(t=COUNT, **before)
    run.send(("usual", 60), ("odd", 0), at=60)
    run.run()
    run.open("t", t=COUNT, u=COUNT, **since).run()
    assert (run.rows("t"), run.rows("u")) == ([(1,)], [(1,)]), "its outcome was another one"
    run.redrive("odd", 0, "0:1")
    run.run()
    assert (run.rows("t"), run.rows("u")) == ([(2,)], [(2,)])
    run.open("t", t=COUNT, u=COUNT, **since).run()
    assert run.rows("t") == [(2,)]


def _missing_of(run: Project, rows_max: int | None = None, steps: int | None = None) -> dict[str, int]:
    """Work until everything was read, or some steps; return what tables were said to lack."""
    missing: dict[str, int] = {}
    while steps != 0 and (report := run.engine.step(rows_max=rows_max)) is not None:
        missing |= report.missing
        steps = None if steps is None else steps - 1
    return missing


@pytest.mark.parametrize(
    ("since", "lacks"),
    [
        ({}, {}),
        ({"expect": {"known": "id <> 'odd'"}}, {"t": 2, "u": 2}),
        ({"lateness": "1 minute"}, {"t": 1, "u": 1}),
    ],
    ids=["as before", "rejected", "late"],
)
def test_records_that_were_accepted_and_that_todays_rules_refuse_are_counted_when_a_table_is_computed_again(
    project: Callable[..., Project], since: dict[str, Any], lacks: dict[str, int]
) -> None:
    run = project().open(t=COUNT, unique="id")
    run.log.append(append_table([b"broken"]))
    run.send(
        ("usual", 60), ("odd", 57), ("odd", 57), ("odd", 60), ("odd", 0), at=60
    )  # a copy, and a late one
    run.run()
    assert run.rows("t") == [(3,)]
    run.open("t", t=COUNT, u=COUNT, unique="id", **since)
    assert _missing_of(run, rows_max=1, steps=4) == {}, "told once, at the end"
    run.open(t=COUNT, u=COUNT, unique="id", **since)
    assert _missing_of(run, rows_max=1) == lacks
    assert run.rows("t") == run.rows("u") == [(3 - lacks.get("t", 0),)]
    assert run.store.ledger().outcomes("events")["accepted"] == 3, "records keep their outcomes"


def test_outcomes_of_records_that_the_log_lost_are_forgotten_at_the_next_start(
    project: Callable[..., Project],
) -> None:
    run = project(retention_bytes=1).open(t=COUNT, unique="id")
    for _ in range(3):
        run.send((1, 0))
    run.run()
    taken = 'SELECT "offset" FROM _headrace.taken ORDER BY 1'
    assert run.store.connection.execute(taken).fetchall() == [(1,), (2,)]
    run.retain()
    run.open(t=COUNT, unique="id")
    assert run.store.connection.execute(taken).fetchall() == []


def test_they_are_forgotten_by_a_run_that_goes_on_too_within_an_hour_of_the_logs_clock(
    project: Callable[..., Project],
) -> None:
    run = project(retention_age=timedelta(hours=2)).open(t=COUNT, unique="id")
    taken = "SELECT count(*) FROM _headrace.taken"
    held = []
    for hour in range(24):
        run.send(*[(hour, 60 * hour)] * 50, at=60 * hour)
        run.retain()
        run.run()
        held += [n for (n,) in run.store.connection.execute(taken).fetchall()]
    assert held[0] == 49
    assert max(held) <= 4 * 49
    assert run.rows("t") == [(24,)]


def test_the_first_record_of_a_partition_is_found_behind_those_of_another(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    log = open_embedded_log(
        tmp_path / "log.db", "events", partitions=2, retention_bytes=1, clock=clock, durable=False
    )
    for partition in (0, 1):
        log.append(append_table([b"{}"], partition=partition))
    log.retain()
    clock.time = START + timedelta(minutes=7)
    log.append(append_table([b"{}"], partition=1))
    ranges = log.partitions()
    clock.time = START + timedelta(minutes=9)
    log.append(append_table([b"{}"] * 30, partition=0, record_time=START))
    seen = iter([ranges])
    known = type("Behind", (), {"__getattr__": lambda self, name: getattr(log, name)})()
    known.partitions = lambda: next(seen)
    assert all(held.start == 1 for held in ranges)
    assert first_known(known) == int((START + timedelta(minutes=9)).timestamp() * 1_000_000)
    log.close()
