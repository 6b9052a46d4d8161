"""The store as a file: who holds it, what it refuses, and what can be asked of it."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.sql import plan_pipeline
from headrace.sql.plan import PipelinePlan
from headrace.store import Store, database, open_store_readonly
from headrace.store.duplicates import RememberedKeys
from headrace.store.ledger import check_balance
from headrace.store.progress import LaneProgress, Progress, RebuildProgress, TableProgress
from headrace.store.schema import keys_relation


def plan(query: str = "SELECT count(*) AS n FROM events") -> PipelinePlan:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen", unique="id")
    pipeline.table("counted", query)
    return plan_pipeline(pipeline)


def opened(path: Path, **more: object) -> Store:
    return Store.open(path / "s.duckdb", plan(), identities={"events": "log-1"}, **more)  # type: ignore[arg-type]


def test_a_second_process_is_told_which_one_holds_the_store(tmp_path: Path) -> None:
    store = opened(tmp_path)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from headrace.store import open_store_readonly, Store; from headrace.errors import RefusedError;"
        "import test_store as t\n"
        "for attempt in (lambda p: t.opened(p), lambda p: open_store_readonly(p / 's.duckdb')):\n"
        "    try:\n        attempt(Path(sys.argv[1]))\n    except RefusedError as error:\n "
        "       print(error.message)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.count(f"process {os.getpid()} on") == 2
    store.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open to read, until its input ends."""
    opened(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from headrace.store import open_store_readonly\n"
        "store = open_store_readonly(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.stdin.close()  # type: ignore[union-attr]


def test_an_engine_is_told_that_a_reader_has_the_store_open(
    tmp_path: Path, reader: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "READER_PATIENCE_S", 0.0)
    with pytest.raises(RefusedError, match=f"is being read by process {reader.pid}"):
        opened(tmp_path)


def test_an_engine_waits_for_a_reader_that_is_about_to_end(
    tmp_path: Path, reader: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_reader(seconds: float) -> None:
        reader.stdin.close()  # type: ignore[union-attr]
        reader.wait(timeout=30)

    monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=end_reader))
    opened(tmp_path).close()


def test_only_its_owner_may_read_who_holds_the_store(tmp_path: Path) -> None:
    lock = tmp_path / "s.duckdb.lock"
    lock.write_text("")
    lock.chmod(0o644)
    opened(tmp_path).close()
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_a_lock_file_left_by_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "s.duckdb.lock").write_text(json.dumps({"pid": 1, "host": "h", "command": "c"}))
    opened(tmp_path).close()
    opened(tmp_path).close()


def test_a_store_of_another_log_is_an_integrity_error(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(IntegrityError, match="another log"):
        Store.open(tmp_path / "s.duckdb", plan(), identities={"events": "log-2"})


def test_nothing_is_written_into_a_database_that_is_somebodys(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    with duckdb.connect(path) as theirs:
        theirs.execute("CREATE TABLE orders AS SELECT 1 AS n")
    with pytest.raises(RefusedError, match="no store of a pipeline"):
        opened(tmp_path)
    with duckdb.connect(path) as theirs:
        assert theirs.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("orders",)]


def test_a_changed_query_is_refused_by_name_and_an_unknown_rebuild_too(tmp_path: Path) -> None:
    opened(tmp_path).close()
    other = plan("SELECT id, count(*) AS n FROM events GROUP BY id")
    with pytest.raises(RefusedError, match="'counted'") as refused:
        Store.open(tmp_path / "s.duckdb", other, identities={"events": "log-1"})
    assert "headrace run --rebuild counted" in str(refused.value)
    Store.open(tmp_path / "s.duckdb", other, identities={"events": "log-1"}, rebuild=("counted",)).close()
    with pytest.raises(RefusedError, match="called 'countd'") as refused:
        Store.open(tmp_path / "s.duckdb", other, identities={"events": "log-1"}, rebuild=("countd",))
    assert "did you mean 'counted'" in refused.value.fix


def declared(schema: str = "id VARCHAR, seen TIMESTAMP NOT NULL", **more: object) -> PipelinePlan:
    pipeline = hr.Pipeline("p")
    given = {"event_time": "seen", "unique": "id", **more}
    pipeline.stream("events", schema=schema, **given)  # type: ignore[arg-type]
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    return plan_pipeline(pipeline)


def reopened(path: Path, plan: PipelinePlan) -> Store:
    return Store.open(path / "s.duckdb", plan, identities={"events": "log-1"})


def read_some(store: Store) -> None:
    """Let the store believe that a record of the stream was read."""
    store.progress.lane("events", "main")[0] = LaneProgress(0, 1, counts={"accepted": 1})
    with store.transaction():
        store.save(store.progress)


def test_a_stream_that_is_declared_otherwise_is_told_once_and_written_down(tmp_path: Path) -> None:
    store = reopened(tmp_path, declared())
    read_some(store)
    store.close()
    changed = declared(allowed_lateness="7 minutes", expect={"named": "id IS NOT NULL"}, derive={"d": "id"})
    store = reopened(tmp_path, changed)
    (notice,) = store.notices
    assert "allowed_lateness was '1 minute' and is '7 minutes'" in notice
    assert "expect: 'named' is new" in notice
    assert "derive: 'd' is new" in notice
    assert "keep their outcomes" in notice
    (written,) = store.query("SELECT * FROM _headrace.changes").to_pylist()
    assert (written["epoch"], written["stream"]) == (0, "events")
    assert "7 minutes" in written["what"]
    store.close()
    store = reopened(tmp_path, changed)
    assert not store.notices
    store.close()


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({"unique": ("id", "seen")}, 'unique="id"'),
        ({"unique": ()}, 'unique="id"'),
        ({"event_time": "noted"}, 'event_time="seen"'),
    ],
)
def test_other_values_to_tell_records_apart_are_refused_once_records_were_read(
    tmp_path: Path, change: dict[str, object], before: str
) -> None:
    schema = "id VARCHAR, seen TIMESTAMP NOT NULL, noted TIMESTAMP NOT NULL"
    if "unique" in change:
        reopened(tmp_path, declared(schema, **change)).close()  # nothing was read yet, so it may change
    store = reopened(tmp_path, declared(schema))
    read_some(store)
    store.close()
    with pytest.raises(RefusedError, match="stream 'events' was read with another declaration") as refused:
        reopened(tmp_path, declared(schema, **change))
    assert next(iter(change)) in refused.value.message
    place = declared(schema).streams["events"].stream.place
    assert Path(place.file).resolve() == Path(__file__)
    assert refused.value.fix.startswith(
        f"{place.file}:{place.line}: declare {before}; or move the store away"
    )
    reopened(tmp_path, declared(schema)).close()


def test_a_schema_may_change_twice_within_an_epoch(tmp_path: Path) -> None:
    for column in ("a", "b", "c"):
        reopened(tmp_path, declared(f"id VARCHAR, seen TIMESTAMP NOT NULL, {column} INT")).close()
    store = open_store_readonly(tmp_path / "s.duckdb")
    assert "c" in store.query("FROM late_events").column_names
    kept = store.query(
        "SELECT count(*) AS n FROM duckdb_tables() WHERE table_name LIKE 'late_events__until%'"
    )
    assert kept.to_pylist() == [{"n": 2}]
    store.close()


def test_a_table_that_is_no_longer_declared_is_dropped_aloud_and_its_views_with_it(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen", unique="id")
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    pipeline.table("other", "SELECT id, count(*) AS n FROM events GROUP BY id")
    pipeline.table("best", "SELECT * FROM other ORDER BY n DESC LIMIT 1")
    reopened(tmp_path, plan_pipeline(pipeline)).close()
    store = reopened(tmp_path, declared())
    (notice,) = store.notices
    assert "table 'other' is not declared any more" in notice
    for name in ("other", "best"):
        with pytest.raises(RefusedError, match=name):
            store.query(f"FROM {name}")
    assert [table.table for table in store.status().tables] == ["counted"]
    assert store.query("FROM late_events").num_rows == 0
    store.close()


def test_views_are_listed_beside_the_tables_with_no_rows_of_their_own(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen", unique="id")
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    pipeline.table("doubled", "SELECT 2 * n AS n FROM counted")
    store = reopened(tmp_path, plan_pipeline(pipeline))
    running = store.status()
    store.close()
    stopped = open_store_readonly(tmp_path / "s.duckdb")
    for status in (running, stopped.status()):
        assert [(t.table, t.kind, t.rows) for t in status.tables] == [
            ("counted", "keyed", 1),
            ("doubled", "view", None),
        ]
    stopped.close()


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="cannot be written"):
        Store.open(tmp_path / "file" / "s.duckdb", plan(), identities={})


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO _headrace.meta VALUES ('a', 'b')",
        "DROP VIEW counted",
        "SELECT 1; SELECT 2",
        "SET threads = 1",
        "COPY (SELECT 1) TO '/tmp/x'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT nothing FROM counted",
        "ATTACH '/tmp/other.duckdb'",
        "EXPLAIN ANALYZE DELETE FROM _headrace.meta",
        "/* a */ explain -- b\n analyze DELETE FROM _headrace.meta",
        "EXPLAIN ANALYZE UPDATE _headrace.meta SET value = ''",
        "EXPLAIN (FORMAT json) SET threads = 1",
        "WITH gone AS (DELETE FROM _headrace.meta RETURNING *) FROM gone",
        "FROM checkpoint()",
        'SELECT (SELECT count(*) FROM "system".main."force_Checkpoint"())',
        "EXPLAIN ANALYZE SELECT * FROM checkpoint()",
        "FROM enable_logging()",
        "FROM truncate_duckdb_logs()",
        "SELECT write_log('x')",
        "FROM range(3) WHERE range IN (SELECT length(write_log('x')))",
        "FROM query('FROM checkpoint()')",
        "CALL force_checkpoint()",
        "PRAGMA enable_profiling",
    ],
)
def test_a_query_may_only_read_the_store(tmp_path: Path, sql: str) -> None:
    store = opened(tmp_path)
    with pytest.raises(RefusedError):
        store.query(sql)
    assert store.query("SELECT count(*) AS n FROM _headrace.meta WHERE value <> ''").to_pylist()[0]["n"] > 5
    store.close()


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN SELECT n FROM counted",
        "EXPLAIN ANALYZE SELECT n FROM counted",
        "EXPLAIN (FORMAT json) FROM counted",
        "DESCRIBE counted",
        "SUMMARIZE counted",
        "SHOW TABLES",
        "PIVOT counted ON n IN (0, 1) USING count(*)",
        "FROM duckdb_tables(), generate_series(1, 2)",
        "SELECT unnest([1, 2]); -- two",
        "WITH RECURSIVE r AS (SELECT 1 x UNION ALL SELECT x + 1 FROM r WHERE x < 3) FROM r",
    ],
)
def test_whatever_only_reads_is_answered(tmp_path: Path, sql: str) -> None:
    store = opened(tmp_path)
    assert store.query(sql).num_rows
    assert store.query(sql, rows_max=1).num_rows == 1
    store.close()
    stopped = open_store_readonly(tmp_path / "s.duckdb")
    assert stopped.query(sql, rows_max=1).num_rows == 1
    stopped.close()


def test_a_query_has_a_limit_of_rows_and_of_seconds(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.query("FROM range(100000)", rows_max=10).num_rows == 10
    with pytest.raises(TransientError, match="more than"):
        store.query("SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b", seconds_max=0.1)
    with pytest.raises(TransientError, match="more than"):
        store.query("SELECT md5(a.range || b.range) FROM range(30000) a, range(30000) b", seconds_max=0.3)
    assert store.query("SELECT n FROM counted").to_pylist() == [{"n": 0}]
    store.close()


def test_a_query_that_fails_in_the_middle_of_its_rows_is_refused_with_the_reason(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(RefusedError, match="Could not convert string 'x'"):
        store.query("SELECT CAST(CASE range WHEN 9000 THEN 'x' ELSE '1' END AS INT) FROM range(20000)")
    assert store.query("SELECT n FROM counted").to_pylist() == [{"n": 0}]
    store.close()


def test_a_stopped_store_can_be_read(tmp_path: Path) -> None:
    opened(tmp_path).close()
    store = open_store_readonly(tmp_path / "s.duckdb")
    assert store.query("SELECT n FROM counted").to_pylist() == [{"n": 0}]
    assert store.ledger().balanced
    assert [table.table for table in store.status().tables] == ["counted"]
    assert store.dead_letters(rule="json", stream="events", after=("events", "main", 0, 1)).num_rows == 0
    json.dumps(store.status().to_json())
    json.dumps(store.ledger().to_json())
    store.close()


def test_dead_letters_are_found_by_their_addresses(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.connection.execute(
        "INSERT INTO _headrace.dead_letters "
        "SELECT 'events', lane, p, o, NULL, 'malformed', [], NULL, NULL, NULL, NULL, 1 "
        "FROM (VALUES ('main'), ('redrive')) a(lane), range(2) b(p), range(1000) c(o)"
    )
    wanted = [("events", "redrive", 1, 999), ("events", "main", 0, 7), ("events", "main", 5, 7)]
    for reader in (store, None):
        if reader is None:
            store.close()
        asked = reader or open_store_readonly(tmp_path / "s.duckdb")
        found = asked.dead_letters(addresses=wanted).to_pylist()
        assert [(r["lane"], r["partition"], r["offset"]) for r in found] == [
            ("main", 0, 7),
            ("redrive", 1, 999),
        ]
        assert asked.dead_letters(addresses=[]).num_rows == 0
    asked.close()


def test_progress_survives_being_written_and_read() -> None:
    lane = LaneProgress(0, 7, gaps=1, counts={"accepted": 6})
    table = TableProgress("f", rebuild=RebuildProgress({"main": {0: 3}}, {"main": {0: 7}}))
    progress = Progress(3, {"events": {"main": {0: lane}}}, {"counted": table})
    assert Progress.from_json(progress.to_json()) == progress
    copy = progress.copy()
    copy.lane("events", "main")[0].next = 9
    assert progress.positions("events") == {0: 7}


def test_a_ledger_that_does_not_balance_stops_the_epoch() -> None:
    progress = Progress(1, {"events": {"main": {0: LaneProgress(0, 7, counts={"accepted": 6})}}})
    with pytest.raises(IntegrityError, match="partition 0"):
        check_balance(progress)
    with pytest.raises(IntegrityError, match="table 't'"):
        check_balance(Progress(1, {}, {"t": TableProgress("f", accepted=2, kept=1)}))


def rows(values: list[str | None], *, at: int = 0, content: int = 1) -> pa.Table:
    count = len(values)
    hashes = [None if value is None else hash(value) % 2**63 for value in values]
    instants = pa.array([at] * count, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "id": pa.array(values, pa.string()),
            "_event_time": instants,
            "_record_time": instants,
            "_partition": pa.array([0] * count, pa.int32()),
            "_offset": pa.array(range(count), pa.int64()),
            "_key_hash": pa.array(hashes, pa.uint64()),
            "_content_hash": pa.array([content] * count, pa.uint64()),
        }
    )


def test_copies_are_found_within_a_batch_and_across_batches_and_null_is_none(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.connection.execute(keys_relation('_headrace."k"'))
    keys = RememberedKeys(store.connection, '_headrace."k"', ("id",))
    batch = rows(["a", "b", "a", None, None])
    assert keys.decide(batch).duplicate.tolist() == [False, False, True, False, False]
    keys.remember(batch.slice(0, 2))
    again = RememberedKeys(store.connection, '_headrace."k"', ("id",))
    for memory in (keys, again):
        found = memory.decide(rows(["b", "c"], content=2))
        assert (found.duplicate.tolist(), found.conflicting.tolist()) == ([True, False], [True, False])
        assert not memory.decide(rows(["b"], at=5)).any
    keys.forget(1, step=1)
    assert not keys.decide(rows(["b"])).any
    store.close()


def test_the_filter_of_remembered_keys_lets_few_new_ones_through(tmp_path: Path) -> None:
    from headrace.store.duplicates import _Filter

    chance = np.random.default_rng(1)
    known, new = (chance.integers(0, 2**63, 200_000).astype(np.uint64) for _ in range(2))
    made = _Filter(200_000)
    made.add(known)
    assert made.may_hold(known).all()
    assert made.may_hold(new).mean() < 0.05


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "jemalloc" if "jemalloc" in pa.supported_memory_backends() else "system"),
        ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc"),
    ],
)
def test_an_engines_process_gives_freed_memory_back_unless_the_user_chose_an_allocator(
    tmp_path: Path, given: dict[str, str], used: str
) -> None:
    code = (
        "import sys; from pathlib import Path; import pyarrow as pa;"
        "from headrace.store.database import connect_engine;"
        "connect_engine(Path(sys.argv[1])).close();"
        "print(pa.default_memory_pool().backend_name)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.duckdb")],
        capture_output=True, text=True, check=True, env=environment | given,
    )  # fmt: skip
    assert said.stdout.split() == [used]


def test_a_store_is_closed_after_a_reader_who_is_being_given_a_cursor(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store._root_lock:  # as held while a cursor is made
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        store._root.execute("SELECT 1").fetchall()
    closing.join(30)
    assert not closing.is_alive()
    with pytest.raises(duckdb.ConnectionException):
        store._root.execute("SELECT 1")


def test_a_store_that_is_read_at_that_moment_is_closed_and_its_readers_are_told(tmp_path: Path) -> None:
    store = opened(tmp_path)
    long = "SELECT count(*) FROM range(1_000_000_000_000)"
    said: list[str] = []
    begun = threading.Barrier(3)

    def within_a_snapshot() -> None:
        with store.snapshot() as cursor:
            begun.wait()
            cursor.execute(long).fetchall()

    def by_a_query() -> None:
        begun.wait()
        store.query(long, seconds_max=60)

    def read(how: Callable[[], None]) -> None:
        with pytest.raises(TransientError) as error:
            how()
        said.append(error.value.message)

    readers = [threading.Thread(target=read, args=(how,)) for how in (within_a_snapshot, by_a_query)]
    for reader in readers:
        reader.start()
    begun.wait()
    store.close()
    for reader in readers:
        reader.join(30)
    assert [text.endswith("was closed before it had answered") for text in said] == [True, True]
    opened(tmp_path).close()
