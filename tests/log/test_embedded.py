from __future__ import annotations

import os
import pickle
import random
import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from conformance import NO_WAIT, NOON, Clock, after_noon, column, read_all, records

from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.log import EmbeddedLog, database, open_embedded_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "log.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened() -> Iterator[list[EmbeddedLog]]:
    logs: list[EmbeddedLog] = []
    yield logs
    for log in logs:
        log.close()


def starts(log: EmbeddedLog) -> list[int]:
    return [held.start for held in log.partitions()]


def test_the_identity_is_gone_with_the_file(path: Path) -> None:
    log = open_embedded_log(path, "events")
    first = log.identity
    log.close()
    for file in path.parent.iterdir():
        file.unlink()
    again = open_embedded_log(path, "events")
    assert again.identity != first
    again.close()


def test_an_append_waits_for_the_disk(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    log.append(records(b"a"))
    with log._writer.held() as sqlite:
        (mode,), (full,) = (
            sqlite.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous")
        )
    assert (mode, full) == ("wal", 2)


def test_partitions_can_be_added_and_not_taken_away(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events", partitions=2)
    opened.append(log)
    log.append(records(b"a", partition=[1]))
    opened.append(open_embedded_log(path, "events", partitions=4))
    assert [held.end for held in log.partitions()] == [0, 1, 0, 0]
    assert log.append(records(b"b", partition=[3])).offsets == {3: (0, 1)}
    with pytest.raises(RefusedError, match=r"has 4 partitions, asked for 3[\s\S]*partitions = 4"):
        open_embedded_log(path, "events", partitions=3)
    with pytest.raises(RefusedError, match="give 1 or more"):
        open_embedded_log(path, "other", partitions=0)


def test_a_file_that_is_deleted_while_it_is_open_is_noticed(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    path.unlink()
    with pytest.raises(IntegrityError, match="deleted or replaced"):
        log.append(records(b"a"))
    opened.append(open_embedded_log(path, "events"))
    with pytest.raises(IntegrityError, match="deleted or replaced"):
        read_all(log)


@pytest.mark.parametrize("blob", ['"values"', "value_lengths", "key_lengths", "keys", "headers", "times"])
def test_damage_on_disk_is_an_integrity_error_that_names_the_place(
    path: Path, opened: list[EmbeddedLog], blob: str
) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    headers = pa.array(
        [[{"key": "h", "value": b"1"}]] * 200,
        pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])),
    )
    log.append(records(b"good"))
    log.append(
        records(
            *[b"x%d" % at * 10 for at in range(200)],
            key=[b"k"] * 200,
            headers=headers,
            record_time=after_noon(*range(200)),
        )
    )
    with sqlite3.connect(path) as raw:
        (stored,) = raw.execute(f"SELECT {blob} FROM batches WHERE first_offset = 1").fetchone()
        damaged = stored[:-3] + bytes([stored[-3] ^ 1]) + stored[-2:]
        raw.execute(f"UPDATE batches SET {blob} = ? WHERE first_offset = 1", (damaged,))
    raw.close()
    assert log.read({}, rows_max=1, bytes_max=10, wait=NO_WAIT).next == {0: 1}
    with pytest.raises(IntegrityError, match=r"stream 'events', partition 0, offsets 1 to 200: the checksum"):
        log.read({0: 1}, rows_max=1, bytes_max=10, wait=NO_WAIT)


def test_a_batch_that_is_gone_is_an_integrity_error(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    for value in (b"a", b"b", b"c"):
        log.append(records(value))
    with sqlite3.connect(path) as raw:
        raw.execute("DELETE FROM batches WHERE first_offset = 1")
    raw.close()
    with pytest.raises(IntegrityError, match="partition 0"):
        read_all(log)


def test_retention_by_age_deletes_whole_batches_that_nobody_needs(
    path: Path, clock: Clock, opened: list[EmbeddedLog]
) -> None:
    log = open_embedded_log(path, "events", retention_age=timedelta(hours=1), clock=clock)
    opened.append(log)
    for _ in range(4):
        log.append(records(b"a", b"b"))
        clock.advance(minutes=30)
    log.publish("engine", {0: 3})
    clock.advance(hours=9)
    log.retain()
    assert starts(log) == [2]  # the engine stands in the middle of the second batch
    log.publish("engine", {0: 8})
    log.retain()
    assert starts(log) == [8]
    with pytest.raises(
        RefusedError, match=r"records 7 to 7 are gone, retention deleted them[\s\S]*on_data_loss"
    ):
        log.read({0: 7}, rows_max=1, bytes_max=1, wait=NO_WAIT)
    assert log.append(records(b"c")).offsets == {0: (8, 9)}


def test_retention_waits_for_the_slowest_reader_in_every_partition(
    path: Path, clock: Clock, opened: list[EmbeddedLog]
) -> None:
    log = open_embedded_log(path, "events", partitions=2, retention_age=timedelta(0), clock=clock)
    opened.append(log)
    log.append(records(b"a", b"b", partition=[0, 1]))
    log.publish("engine", {0: 1, 1: 1})
    log.publish("copy", {0: 1})  # has not begun to read partition 1
    clock.advance(hours=1)
    log.retain()
    assert starts(log) == [1, 0]


def test_a_batch_of_a_clock_that_was_ahead_does_not_hold_back_retention(
    path: Path, clock: Clock, opened: list[EmbeddedLog]
) -> None:
    log = open_embedded_log(path, "events", retention_age=timedelta(hours=1), clock=clock)
    opened.append(log)
    log.append(records(b"a"))
    clock.advance(days=365)
    log.append(records(b"ahead"))
    log.append(records(b"ahead, too"))
    clock.advance(days=-365, minutes=10)
    log.retain()
    assert starts(log) == [0]
    log.append(records(b"b"))
    clock.advance(minutes=55)
    log.retain()
    assert starts(log) == [1]  # what is behind it is young yet
    log.append(records(b"c"))
    clock.advance(minutes=10)
    log.retain()
    assert starts(log) == [4]
    assert [bytes(value) for value in column(read_all(log), "value")] == [b"c"]


def test_retention_by_size_keeps_the_newest(path: Path, clock: Clock, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events", partitions=2, retention_bytes=10_000, clock=clock)
    opened.append(log)
    for at in range(40):
        log.append(records(os.urandom(1000), partition=[at % 2]))
        clock.advance(seconds=1)
    log.retain()
    assert starts(log) == [16, 15]  # 9 records of about 1,012 bytes fit
    assert read_all(log).num_rows == 9


def test_retention_happens_by_itself_while_appending(
    path: Path, clock: Clock, opened: list[EmbeddedLog]
) -> None:
    log = open_embedded_log(path, "events", retention_bytes=8_000_000, clock=clock, durable=False)
    opened.append(log)
    batch = records(*[os.urandom(1_000_000) for _ in range(5)])
    for _ in range(16):
        log.append(batch)
    assert starts(log)[0] > 0
    assert path.stat().st_size < 50_000_000


def test_an_append_whose_records_are_in_the_log_is_no_failure_when_retention_is(
    path: Path, clock: Clock, opened: list[EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> bool:
        raise TransientError("the file is busy")

    monkeypatch.setattr("headrace.log.embedded._RETENTION_EVERY_S", 0.0)
    log = open_embedded_log(path, "events", retention_age=timedelta(hours=1), clock=clock)
    opened.append(log)
    with monkeypatch.context() as patched:
        patched.setattr("headrace.log.retention.Retention.apply", busy)
        assert log.append(records(b"a")).offsets == {0: (0, 1)}
    clock.advance(hours=2)
    log.append(records(b"b"))
    assert starts(log) == [1]  # the next one took it


def test_a_log_that_held_much_shrinks_by_itself_while_little_is_appended(
    path: Path, clock: Clock, opened: list[EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_embedded_log(path, "events", retention_age=timedelta(hours=1), clock=clock, durable=False)
    opened.append(log)
    monkeypatch.setattr("headrace.log.embedded._RETENTION_EVERY_S", 0.0)
    log.append(records(*[os.urandom(1_000_000) for _ in range(40)]))
    assert path.stat().st_size > 40_000_000
    clock.advance(hours=2)
    for _ in range(3):
        log.append(records(b"a"))
    assert path.stat().st_size < 1_000_000


def test_space_of_deleted_records_goes_back_to_the_disk(
    path: Path, clock: Clock, opened: list[EmbeddedLog]
) -> None:
    log = open_embedded_log(path, "events", retention_age=timedelta(hours=1), clock=clock, durable=False)
    opened.append(log)
    log.append(records(*[os.urandom(1_000_000) for _ in range(8)]))
    assert sum(file.stat().st_size for file in path.parent.iterdir()) > 8_000_000
    clock.advance(hours=2)
    log.retain()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 1_000_000


def test_a_full_log_refuses_and_says_what_to_do(path: Path, clock: Clock, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events", retention_age=timedelta(0), bytes_max=5000, clock=clock)
    opened.append(log)
    log.publish("engine", {0: 0})
    for _ in range(4):
        log.append(records(os.urandom(1000)))
        clock.advance(seconds=1)
    with pytest.raises(RefusedError, match=r"is full[\s\S]*'engine' catch up[\s\S]*bytes_max"):
        log.append(records(os.urandom(1000)))
    assert [held.end for held in log.partitions()] == [4]
    log.publish("engine", {0: 4})
    assert log.append(records(os.urandom(1000))).offsets == {0: (4, 5)}


def test_a_record_that_is_too_large_is_refused(
    path: Path, opened: list[EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.log.appending._RECORD_BYTES_MAX", 1000)
    log = open_embedded_log(path, "events")
    opened.append(log)
    with pytest.raises(RefusedError, match="1,001 bytes"):
        log.append(records(b"small", b"x" * 1001))
    assert [held.end for held in log.partitions()] == [0]


def test_what_is_not_a_table_of_records_is_refused(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    with pytest.raises(RefusedError, match="column 'valeu'"):
        log.append(pa.table({"valeu": [b"a"]}))
    with pytest.raises(RefusedError, match="other types"):
        log.append(pa.table({"value": [b"a"], "partition": ["first"]}))
    assert log.append(pa.table({"value": pa.array(["text"], pa.large_string())})).offsets == {0: (0, 1)}


def test_a_disk_that_is_full_leaves_nothing_half_written(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events", partitions=2)
    opened.append(log)
    log.append(records(b"a"))
    with log._writer.held() as sqlite:
        pages = sqlite.execute("PRAGMA page_count").fetchone()[0]
        sqlite.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(RefusedError, match="disk is full; nothing of this call was written"):
        log.append(records(*[os.urandom(100_000) for _ in range(5)], partition=[0, 1, 0, 1, 0]))
    assert column(read_all(log), "value") == [b"a"]
    with log._writer.held() as sqlite:
        sqlite.execute("PRAGMA max_page_count = 1000000")
    log.append(records(b"b"))
    assert sorted(column(read_all(log), "value")) == [b"a", b"b"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("not a folder")
    with pytest.raises(RefusedError, match=r"a file/log\.db"):
        open_embedded_log(blocked / "log.db", "events")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(RefusedError, match="write access"):
            open_embedded_log(tmp_path / "log.db", "events")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_files_that_are_not_logs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is some text, and it goes on for more than a hundred bytes. " * 3)
    with pytest.raises(IntegrityError, match="not a log file"):
        open_embedded_log(tmp_path / "text", "events")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE users (id INTEGER)")
    other.close()
    with pytest.raises(RefusedError, match="not a Headrace log"):
        open_embedded_log(tmp_path / "other.db", "events")
    open_embedded_log(tmp_path / "newer.db", "events").close()
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(RefusedError, match="newer Headrace"):
        open_embedded_log(tmp_path / "newer.db", "events")


def test_a_write_lock_that_is_held_for_too_long_is_transient(
    path: Path, opened: list[EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 30)
    log = open_embedded_log(path, "events")
    opened.append(log)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="write lock"):
        log.append(records(b"a"))
    assert read_all(log).num_rows == 0  # readers do not wait for writers
    holder.execute("ROLLBACK")
    holder.close()
    log.append(records(b"a"))


def test_a_load_of_one_stream_does_not_stop_the_idle_clock_of_another(
    path: Path, opened: list[EmbeddedLog]
) -> None:
    log, other = open_embedded_log(path, "events"), open_embedded_log(path, "orders")
    opened += [log, other]
    with log.load():
        assert other.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT).idle_since
        assert log.lane("redrive").read({}, rows_max=1, bytes_max=1, wait=NO_WAIT).idle_since


def test_a_waiting_read_ends_when_the_log_is_closed(path: Path) -> None:
    waiting = threading.Event()

    def clock_that_tells() -> datetime:
        waiting.set()
        return NOON

    log = open_embedded_log(path, "events", clock=clock_that_tells)
    reader = threading.Thread(
        target=lambda: log.read({}, rows_max=1, bytes_max=1, wait=timedelta(seconds=60))
    )
    reader.start()
    assert waiting.wait(20)
    log.close()
    reader.join(20)
    assert not reader.is_alive()


def test_lanes_have_no_lanes(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    lane = log.lane("redrive")
    assert log.lane("redrive") is lane
    with pytest.raises(RefusedError, match="has no lanes"):
        lane.lane("deeper")
    with pytest.raises(RefusedError, match="without a name"):
        log.lane("")


def test_the_idle_time_of_a_waiting_read_is_that_of_its_last_look(
    path: Path, opened: list[EmbeddedLog]
) -> None:
    asked = []

    def clock_of_looks() -> object:
        asked.append(NOON + timedelta(seconds=len(asked)))
        return asked[-1]

    log = open_embedded_log(path, "events", clock=clock_of_looks)  # type: ignore[arg-type]
    opened.append(log)
    given = log.read({}, rows_max=1, bytes_max=1, wait=timedelta(milliseconds=5))
    assert given.idle_since == {0: asked[-1]}


def test_random_batches_and_cuts_give_every_record_once(path: Path, opened: list[EmbeddedLog]) -> None:
    for seed in range(8):
        chance = random.Random(seed)
        log = open_embedded_log(path, f"stream{seed}", partitions=chance.randint(1, 4), durable=False)
        opened.append(log)
        partitions = len(log.partitions())
        expected: dict[int, list[dict]] = {partition: [] for partition in range(partitions)}
        for _ in range(chance.randint(1, 30)):
            count = chance.randint(1, 40)
            rows = {
                "partition": [chance.randrange(partitions) for _ in range(count)],
                "key": [chance.choice([None, b"", chance.randbytes(9)]) for _ in range(count)],
                "value": [
                    chance.choice([None, b"", chance.randbytes(chance.randint(0, 300))]) for _ in range(count)
                ],
                "record_time": after_noon(*[chance.randint(0, 500) for _ in range(count)]),
            }
            if chance.random() < 0.3:
                rows["key"] = [None] * count
            table = pa.table(
                {
                    name: pa.array(cells, pa.binary()) if name in ("key", "value") else cells
                    for name, cells in rows.items()
                }
            )
            log.append(table)
            for row in table.to_pylist():
                expected[row["partition"]].append(row)
        positions: dict[int, int] = {}
        found: dict[int, list[dict]] = {partition: [] for partition in range(partitions)}
        while True:
            given = log.read(
                positions, rows_max=chance.randint(1, 60), bytes_max=chance.randint(1, 9000), wait=NO_WAIT
            )
            if not given.records.num_rows:
                break
            positions = dict(given.next)
            rows_given = given.records.to_pylist()
            keys = [(row["record_time"], row["partition"], row["offset"]) for row in rows_given]
            assert keys == sorted(keys)
            for row in sorted(rows_given, key=lambda row: row["offset"]):
                assert row.pop("offset") == len(found[row["partition"]])
                row.pop("headers")
                found[row["partition"]].append(row)
        assert found == {
            p: [{k: row[k] for k in ("partition", "record_time", "key", "value")} for row in rows]
            for p, rows in expected.items()
        }


def test_errors_survive_a_trip_to_another_process(path: Path, opened: list[EmbeddedLog]) -> None:
    log = open_embedded_log(path, "events")
    opened.append(log)
    with pytest.raises(IntegrityError) as refused:
        log.read({0: 9}, rows_max=1, bytes_max=1, wait=NO_WAIT)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert str(path) in str(refused.value)
