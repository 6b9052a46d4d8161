"""Dead letters follow the store into a topic: as they were, with their reasons, whatever goes down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from headrace.errors import RefusedError, TransientError
from headrace.log import Appended, EmbeddedLog, Log, open_embedded_log
from headrace.replicate.dead_letters import DeadLetterTarget, DeadLetterTopic

NOON = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
DEADLINE_S = 30


class Letters:
    """The one relation of a store that the copy reads."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:")
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute(
            'CREATE TABLE dead_letters (stream VARCHAR, lane VARCHAR, partition INTEGER, "offset" BIGINT, '
            'record_time TIMESTAMPTZ, outcome VARCHAR, reasons STRUCT("rule" VARCHAR, detail VARCHAR)[], '
            'event_time TIMESTAMPTZ, "key" BLOB, "value" BLOB, '
            'headers STRUCT("key" VARCHAR, "value" BLOB)[], epoch BIGINT)'
        )
        self.connection.execute("CREATE VIEW epochs AS SELECT DISTINCT epoch FROM dead_letters")
        self.asked: list[pa.Table] = []
        self.lock = threading.Lock()

    def add(self, epoch: int, offset: int, **changes: Any) -> None:
        letter = {
            "stream": "events", "lane": "main", "partition": 2, "offset": offset, "record_time": NOON,
            "outcome": "rejected", "reasons": [{"rule": "expect:known", "detail": "is not true"}],
            "event_time": None, "key": b"k", "value": b'{"n":%d}' % offset, "headers": None, "epoch": epoch,
            **changes,
        }  # fmt: skip
        with self.lock:
            self.connection.execute(
                f"INSERT INTO dead_letters VALUES ({', '.join('?' * len(letter))})", list(letter.values())
            )

    def query(self, sql: str, *, rows_max: int | None = None, seconds_max: float = 5.0) -> pa.Table:
        with self.lock:
            self.asked.append(self.connection.sql(sql).to_arrow_table())
            return self.asked[-1]


class Shop:
    """A store with letters and a topic that can be down."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "topic.db"
        self.place_file = folder / "place.json"
        self.letters = Letters()
        self.store_id = "store-1"
        self.said: list[tuple[str, str]] = []
        self.failing: list[Exception] = []
        self.waits = threading.Event()

    def open(self) -> Log:
        if self.failing:
            raise self.failing[0]
        return open_embedded_log(self.path, "dead")

    def tell(self, event: str, why: str) -> None:
        self.said.append((event, why))
        if "waits" in event:
            self.waits.set()

    def follower(self, opened: Any = None) -> DeadLetterTopic:
        topics = {"events": "shop-events", "orders": "shop-orders"}
        target = DeadLetterTarget("dead", topics, "shop", self.store_id, self.place_file, opened or self.open)
        return DeadLetterTopic(target, self.letters, tell=self.tell)

    def copied(self, drain_s: float = DEADLINE_S) -> DeadLetterTopic:
        follower = self.follower()
        follower.start()
        assert follower.close(drain_s)
        return follower

    def topic(self) -> list[dict[str, Any]]:
        log = open_embedded_log(self.path, "dead")
        rows = log.read({}, rows_max=10_000, bytes_max=1 << 28, wait=timedelta()).records.to_pylist()
        log.close()
        return sorted(rows, key=lambda row: row["offset"])

    def values(self) -> list[bytes | None]:
        return [row["value"] for row in self.topic()]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.letters.connection.close()


def said(row: dict[str, Any]) -> dict[str, str]:
    return {header["key"]: header["value"].decode() for header in row["headers"]}


def test_a_letter_keeps_its_bytes_and_key_and_says_why(shop: Shop) -> None:
    own = [{"key": "trace", "value": b"1"}]
    shop.letters.add(3, 7, value=b"\xff\x00", outcome="malformed", headers=own)
    shop.letters.add(3, 9, lane="redrive", partition=0, key=None, value=None)
    shop.letters.add(4, 1, stream="unbound")
    assert shop.copied().facts() == {"topic": "dead", "sent": 2, "refused": 0, "waiting": ""}
    first, second = shop.topic()
    assert (first["key"], first["value"]) == (b"k", b"\xff\x00")
    assert said(first) == {
        "trace": "1",
        "__connect.errors.topic": "shop-events",
        "__connect.errors.partition": "2",
        "__connect.errors.offset": "7",
        "__connect.errors.connector.name": "shop",
        "__connect.errors.task.id": "0",
        "__connect.errors.stage": "VALUE_CONVERTER",
        "__connect.errors.class.name": "headrace.rows.stage.RowStage",
        "__connect.errors.exception.class.name": "headrace.errors.RecordError",
        "__connect.errors.exception.message": "malformed: expect:known: is not true",
        "__connect.errors.exception.stacktrace": "",
        "headrace.dead-letter": "events:2:7",
        "headrace.outcome": "malformed",
        "headrace.rule": "expect:known",
        "headrace.original-record-time": str(int(NOON.timestamp()) * 1_000_000 + 5),
        "headrace.store": "store-1",
        "headrace.place": "3:events:main:2:7",
    }
    assert (second["key"], second["value"]) == (None, None)
    assert said(second)["headrace.dead-letter"] == "events@redrive:0:9"
    assert said(second)["__connect.errors.topic"] == "shop-events.redrive"
    assert said(second)["__connect.errors.stage"] == "TRANSFORMATION"


def test_a_later_run_goes_on_where_the_topic_says(shop: Shop) -> None:
    for offset in range(1200):
        shop.letters.add(1 + offset // 700, offset)
    shop.copied()
    assert shop.values() == [b'{"n":%d}' % offset for offset in range(1200)]
    shop.letters.add(2, 1200)
    shop.letters.add(3, 0, stream="orders")
    shop.copied()
    assert shop.values()[1200:] == [b'{"n":1200}', b'{"n":0}']
    assert len(shop.topic()) == 1202


def test_letters_that_retention_took_from_the_topic_are_not_copied_again(shop: Shop) -> None:
    shop.letters.add(1, 1)
    shop.copied()
    shop.path.unlink()
    shop.letters.add(2, 2)
    shop.copied()
    assert shop.values() == [b'{"n":2}']


@pytest.mark.parametrize("lost", ["nothing", "the file", "the topic"])
def test_letters_of_a_store_that_was_set_back_are_copied_from_its_beginning(shop: Shop, lost: str) -> None:
    shop.letters.add(1, 1)
    shop.letters.add(9, 2)
    shop.copied()
    shop.letters.connection.execute("DELETE FROM dead_letters WHERE epoch > 1")  # an older copy is restored
    shop.letters.add(3, 3)
    if lost == "the file":
        shop.place_file.unlink()
    elif lost == "the topic":
        shop.path.unlink()
    before = 0 if lost == "the topic" else 2
    shop.copied()
    assert shop.values()[before:] == [b'{"n":1}', b'{"n":3}']
    ((event, why),) = shop.said
    assert event == "dead letters are copied again"
    assert "up to epoch 9, and the store was at 3" in why
    shop.letters.add(4, 4)
    shop.copied()
    assert shop.values()[before + 2 :] == [b'{"n":4}']
    assert len(shop.said) == 1


def test_letters_of_a_store_that_was_set_back_are_copied_though_it_passes_the_old_place_first(
    shop: Shop,
) -> None:
    shop.letters.add(1, 1)
    shop.letters.add(9, 2)
    shop.copied()
    shop.letters.connection.execute("DELETE FROM dead_letters WHERE epoch > 1")  # an older copy is restored
    shop.failing.append(TransientError("the topic is away", fix="wait"))
    follower = shop.follower()
    follower.start()
    assert shop.waits.wait(DEADLINE_S)
    shop.letters.add(3, 3)
    shop.letters.add(12, 4)
    shop.failing.clear()
    assert follower.close(DEADLINE_S)
    assert shop.values()[2:] == [b'{"n":1}', b'{"n":3}', b'{"n":4}']


def test_a_place_that_is_not_understood_is_none(shop: Shop) -> None:
    shop.letters.add(1, 1)
    shop.copied()
    for text in (
        "",
        "[]",
        '{"place": [1, "events", "main", 2, 1]}',
        '{"store_id": "store-1"}',
        '{"store_id": "store-1", "place": [1, "events"]}',
    ):
        shop.place_file.write_text(text)
        shop.letters.add(2, len(shop.topic()) + 1)
        shop.copied()
        assert shop.values()[-1] == b'{"n":%d}' % len(shop.topic())
    assert len(shop.topic()) == 6


def test_large_letters_are_copied_a_few_at_a_time(shop: Shop) -> None:
    large = b"x" * 6_000_000
    for offset in range(5):
        shop.letters.add(1, offset, value=large)
    shop.letters.add(1, 5, value=b"x" * 20_000_000)
    header = [{"key": "trace", "value": large}]
    for offset in range(6, 9):
        shop.letters.add(1, offset, headers=header, key=large)
    shop.copied()
    assert [said(row)["headrace.dead-letter"] for row in shop.topic()] == [
        f"events:2:{offset}" for offset in range(9)
    ]
    assert max(table.nbytes for table in shop.letters.asked) < 21_000_000
    assert max(table.num_rows for table in shop.letters.asked if "value" in table.column_names) == 2


def test_letters_of_other_stores_in_the_topic_do_not_move_ours(shop: Shop) -> None:
    shop.letters.add(5, 1)
    shop.copied()
    shop.store_id = "store-2"
    for epoch in range(1, 301):
        shop.letters.add(epoch, 100 + epoch)
    shop.copied()
    shop.store_id = "store-1"
    before = len(shop.topic())
    shop.letters.add(400, 2)
    shop.copied()
    # What lies behind (epoch 5, offset 1): epochs 6 to 300 of the other adds, and the last one.
    assert shop.values()[before:] == [
        *(b'{"n":%d}' % (100 + epoch) for epoch in range(5, 301)),
        b'{"n":2}',
    ]


def test_a_running_copy_takes_a_letter_when_it_is_woken(shop: Shop) -> None:
    arrived = threading.Event()

    class Watched:
        def __init__(self, log: EmbeddedLog) -> None:
            self.log = log

        def __getattr__(self, name: str) -> Any:
            return getattr(self.log, name)

        def append(self, records: pa.Table) -> Appended:
            appended = self.log.append(records)
            arrived.set()
            return appended

    follower = shop.follower(lambda: Watched(open_embedded_log(shop.path, "dead")))
    follower.start()
    shop.letters.add(1, 1)
    follower.wake()
    assert arrived.wait(DEADLINE_S)
    assert follower.close(DEADLINE_S)
    assert shop.values() == [b'{"n":1}']


@pytest.mark.parametrize("error", [TransientError("no broker"), RefusedError("not allowed")])
def test_a_topic_that_is_down_is_waited_for_and_holds_up_nothing(shop: Shop, error: Exception) -> None:
    shop.failing.append(error)
    shop.letters.add(1, 1)
    follower = shop.follower()
    follower.start()
    assert shop.waits.wait(DEADLINE_S)
    assert "try 1 failed" in follower.facts()["waiting"] or error.args[0] in follower.facts()["waiting"]
    assert follower.close(0.01) is False
    assert not shop.path.exists()
    shop.failing.clear()
    shop.copied()
    assert shop.values() == [b'{"n":1}']


def test_a_topic_that_comes_back_gets_what_it_missed(shop: Shop) -> None:
    shop.failing.append(TransientError("no broker"))
    shop.letters.add(1, 1)
    follower = shop.follower()
    follower.start()
    assert shop.waits.wait(DEADLINE_S)
    shop.failing.clear()
    assert follower.close(DEADLINE_S)
    assert follower.facts()["waiting"] == ""
    assert shop.values() == [b'{"n":1}']


def flaky(shop: Shop, refuse: Any) -> Any:
    class Flaky:
        def __init__(self) -> None:
            self.log = open_embedded_log(shop.path, "dead")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.log, name)

        def append(self, records: pa.Table) -> Appended:
            return refuse(self.log, records)

    return Flaky


def test_a_letter_that_the_topic_refuses_is_counted_and_passed_over(shop: Shop) -> None:
    def refuse(log: EmbeddedLog, records: pa.Table) -> Appended:
        if b"large" in records.column("value").to_pylist():
            raise RefusedError("too large")
        return log.append(records)

    for offset, value in enumerate((b"a", b"large", b"b")):
        shop.letters.add(1, offset, value=value)
    follower = shop.follower(flaky(shop, refuse))
    follower.start()
    assert follower.close(DEADLINE_S)
    assert shop.values() == [b"a", b"b"]
    assert (follower.facts()["sent"], follower.facts()["refused"]) == (2, 1)
    assert shop.said[-1][0] == "dead letters refused"


def test_an_append_whose_answer_was_lost_is_looked_up_in_the_topic(shop: Shop) -> None:
    failures = [True, True]

    def lose(log: EmbeddedLog, records: pa.Table) -> Appended:
        appended = log.append(records)
        if failures:
            failures.pop()
            raise TransientError("the broker went away")
        return appended

    for offset in range(3):
        shop.letters.add(1, offset)
    follower = shop.follower(flaky(shop, lose))
    follower.start()
    assert follower.close(DEADLINE_S)
    shop.letters.add(2, 9)
    shop.copied()
    assert shop.values() == [b'{"n":0}', b'{"n":1}', b'{"n":2}', b'{"n":9}']
