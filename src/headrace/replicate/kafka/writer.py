"""Writes chunks to topics: the rows of a chunk and the cursor of its table in one transaction.

A table's writer has the transactional id of the table, so the brokers themselves end what another one has
begun, and refuse it from then on. Cursors are records of one compacted topic, `PREFIX` + `cursors`, by table.
Each names the topic that its rows are in, by Kafka's id: of a topic that was deleted and made again, nothing
is copied, whatever the cursor says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.log.kafka.connection import Connection, callbacks
from headrace.replicate.kafka.topics import (
    OpenTransactionError,
    ensure_topics,
    identities,
    policies,
    record_at,
    records_of,
)
from headrace.replicate.plain import json_bytes, objects, sound
from headrace.replicate.protocol import (
    REFUSED_MAX,
    Chunk,
    Cursor,
    Position,
    Refusal,
    TableShape,
    Task,
    fenced,
)

if TYPE_CHECKING:
    from headrace.replicate.kafka import KafkaReplica

__all__ = ["VERSION_HEADER", "KafkaWriter"]

VERSION_HEADER = "headrace.version"
"""Carries `_version` in ASCII digits, of rows and of removals."""

_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
"""What a record gets that was not sent because its transaction had failed before."""
_FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1"}
_ANSWER_S = 30.0
_OVERHEAD_BYTES = 256
_TRANSACTION_MS = 60_000
_QUEUE_FULL_S = 0.1


class KafkaWriter:
    """See `ReplicaWriter`."""

    def __init__(self, options: KafkaReplica, task: Task) -> None:
        self._options = options
        self._task = task
        self._connection = Connection(options.settings(), f"replica '{task.replica}'")
        self._producers: dict[str, Producer] = {}
        self._known: dict[str, Cursor | None] = {}
        self._cursors = f"{options.prefix}cursors"
        kept = _FOR_EVER if options.mode == "append" else {"cleanup.policy": "compact"}
        wanted = {self._cursors: (1, {"cleanup.policy": "compact"})}
        for shape in task.tables:
            name = self._topic(shape.name)
            if name in wanted:
                raise ProfileError(
                    f"replica '{task.replica}': the topic '{name}' of the table '{shape.name}' is that of "
                    f"{'the cursors' if name == self._cursors else 'another table'}",
                    fix="leave the table out (tables = …), or give it another name",
                )
            wanted[name] = (options.partitions, kept)
        self._identities = ensure_topics(self._connection, wanted, options.replication)
        self._refuse_forgetful(name for name, (_, config) in wanted.items() if config != _FOR_EVER)

    def _refuse_forgetful(self, names: Iterable[str]) -> None:
        """Raise RefusedError when a topic, which somebody else has made, loses rows that have not changed."""
        for name, policy in policies(self._connection, names).items():
            if "compact" not in policy:
                raise RefusedError(
                    f"the topic '{name}' deletes old records, also of rows that stand "
                    f"(cleanup.policy={policy})",
                    fix="set cleanup.policy=compact for it; or delete the topic: it is made and filled anew",
                )

    def _topic(self, table: str) -> str:
        name = self._options.prefix + table
        return "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name
        )

    # --- cursors

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`. Ends transactions that a run of this very store has left behind."""
        for _ in self._task.tables:
            try:
                return self._committed()
            except OpenTransactionError as error:
                if not self._ended(error):
                    raise
        return self._committed()

    def _ended(self, error: OpenTransactionError) -> bool:
        """End an open transaction, if it is of this store; whoever began it is dead, or will be refused."""
        names = {shape.name for shape in self._task.tables}
        record = record_at(self._connection, self._cursors, error.partition, error.offset)
        if record is None or record.value() is None or (table := record.key().decode()) not in names:
            return False
        store_id = json.loads(record.value()).get("store_id")
        if not self._task.store_id or store_id != self._task.store_id:
            return False
        self._forget(table)
        self._begin(table)
        return True

    def _committed(self) -> dict[str, Cursor]:
        names = {shape.name for shape in self._task.tables}
        found: dict[str, Cursor] = {}
        for record in records_of(self._connection, self._cursors):
            table = record.key().decode()
            if table in names and record.value() is not None:
                facts = json.loads(record.value())
                same = facts.pop("topic", None) == self._identities[self._topic(table)]
                cursor = Cursor.of(facts)
                found[table] = cursor if same else replace(cursor, position=Position())
        return found

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        if self._committed().get(table) != seen:
            raise fenced(table)  # without ending what somebody else does
        if seen is None:
            self._refuse_rows_without_cursor(table)
        self._forget(table)
        producer = self._producer(table)
        if self._known[table] != seen:
            raise fenced(table)
        self._commit(table, producer, cursor, ())

    def _refuse_rows_without_cursor(self, table: str) -> None:
        """Raise RefusedError when the topic has rows of a replica: versions may be above all of ours."""
        topic = self._topic(table)
        with closing(records_of(self._connection, topic)) as records:
            if any(VERSION_HEADER in dict(record.headers() or ()) for record in records):
                raise RefusedError(
                    f"the topic '{topic}' has rows of a replica, and '{self._cursors}' says nothing of them",
                    fix=f"delete the topic '{topic}': it is made and filled again; or give another prefix",
                )

    def _refuse_another_topic(self, table: str) -> None:
        """Raise TransientError when the topic is not the one that was there when this writer began."""
        topic = self._topic(table)
        if identities(self._connection, [topic]).get(topic) != self._identities[topic]:
            raise TransientError(f"the topic '{topic}' was deleted", fix="it is made and filled anew")

    def _producer(self, table: str) -> Producer:
        """Return the table's producer; nobody else's is good any more, and the cursor is known."""
        if table not in self._producers:
            self._begin(table)
        if table not in self._known:
            self._known[table] = self._committed().get(table)
        return self._producers[table]

    def _begin(self, table: str) -> None:
        """Make the table's producer, which ends what the one before has begun."""
        producer: Producer = self._connection.made(
            Producer,
            **{
                "transactional.id": f"headrace {self._options.prefix}{table}",
                "transaction.timeout.ms": _TRANSACTION_MS,
                "allow.auto.create.topics": False,  # a broker's own have other settings
                "partitioner": "murmur2_random",  # as Java's clients do
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.max.bytes": self._options.record_bytes_max,
            },
        )
        try:
            producer.init_transactions(_ANSWER_S)
        except KafkaException as error:
            self._raise(table, error.args[0])
        self._producers[table] = producer

    def _forget(self, table: str) -> None:
        self._producers.pop(table, None)
        self._known.pop(table, None)

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table = chunk.table.name
        producer = self._producer(table)
        there, cursor = self._known[table], chunk.cursor
        if there == cursor:
            return
        if not cursor.same_writer(there):
            raise fenced(table)
        self._refuse_another_topic(table)
        # Before the transaction begins: brokers give one up that is open for long.
        standing = self._versions(chunk.table) if chunk.sweep_below else {}
        records = self._records(sound(chunk, self._task.set_aside), standing)
        self._commit(table, producer, cursor, records)

    def _records(
        self, chunk: Chunk, standing: Mapping[bytes, int]
    ) -> Iterator[tuple[bytes, bytes | None, int]]:
        """Give key, value and version of a chunk's records; rows that make too large ones are set aside.

        `standing` has the versions of the rows in the topic, of which some may be swept out.
        """
        refusals: list[Refusal] = []
        shape = chunk.table
        gone = objects(chunk.removed, shape, shape.key)
        for known, version in zip(gone, chunk.removed.column("_version").to_pylist(), strict=True):
            yield known.encode(), None, version
        keys = set()
        values, versions = objects(chunk.rows, shape), chunk.rows.column("_version").to_pylist()
        for known, text, version in zip(_keys(chunk), values, versions, strict=True):
            key, value = known.encode(), text.encode()
            keys.add(key)
            if len(key) + len(value) + _OVERHEAD_BYTES > self._options.record_bytes_max:
                reason = f"the record has {len(key) + len(value):,} bytes (record_bytes_max)"
                refusals.append(Refusal(chunk.table.name, known, version, reason))
                if len(refusals) > REFUSED_MAX:
                    what = f"more than {REFUSED_MAX} rows of '{chunk.table.name}' are too large at once"
                    raise RefusedError(what, fix="raise record_bytes_max here and in the topic, then resume")
                continue
            yield key, value, version
        if chunk.sweep_below:
            for key, version in standing.items():
                if chunk.cursor.kept_below <= version < chunk.sweep_below and key not in keys:
                    yield key, None, chunk.sweep_below
        if refusals:
            self._task.set_aside(refusals)

    def _versions(self, shape: TableShape) -> dict[bytes, int]:
        """Return the version of every row that is in the table's topic."""
        found: dict[bytes, int] = {}
        for record in records_of(self._connection, self._topic(shape.name)):
            if record.value() is None:
                found.pop(record.key(), None)
            elif record.key() is not None:
                found[record.key()] = int(dict(record.headers() or ()).get(VERSION_HEADER, b"0"))
        return found

    def _commit(self, table: str, producer: Producer, cursor: Cursor, records: Any) -> None:
        topic, failed, began = self._topic(table), list[KafkaError](), time.monotonic()

        def delivered(error: KafkaError | None, _: Any) -> None:
            if error is not None:
                failed.append(error)

        try:
            producer.begin_transaction()
            for key, value, version in records:
                headers = {VERSION_HEADER: str(version).encode()}
                while True:
                    try:
                        producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
                        break
                    except BufferError:
                        with callbacks():
                            producer.poll(_QUEUE_FULL_S)
                if failed:
                    break
            told = json_bytes(cursor.facts() | {"topic": self._identities[topic]})
            producer.produce(self._cursors, told, table.encode(), on_delivery=delivered)
            with callbacks():
                producer.flush(_ANSWER_S)
            if failed and failed[0].code() not in _PURGED:
                raise KafkaException(failed[0])
            producer.commit_transaction(_ANSWER_S)  # of a transaction that was given up it says why
            if failed:
                raise KafkaException(failed[0])
        except KafkaException as error:
            self._raise(table, error.args[0], seconds=time.monotonic() - began)
        except BaseException:
            self._give_up(table)
            raise
        self._connection.answered()
        self._known[table] = cursor

    def _give_up(self, table: str) -> None:
        """Take back a transaction that was begun."""
        producer = self._producers.get(table)
        self._forget(table)
        if producer is not None:
            with suppress(KafkaException):
                producer.abort_transaction(_ANSWER_S)

    def _raise(self, table: str, error: KafkaError, *, seconds: float = 0) -> NoReturn:
        if error.code() in _FENCED:
            self._forget(table)
            if seconds * 1000 >= _TRANSACTION_MS:  # the brokers gave it up, in the same words
                what = f"a transaction of '{self._topic(table)}' took longer than the brokers allow"
                raise TransientError(what, fix="it is tried again; a lower chunk_bytes_max takes less time")
            raise fenced(table) from None
        self._give_up(table)
        self._connection.raise_refused()
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            what = f"topic '{self._topic(table)}' takes smaller records than record_bytes_max"
            raise RefusedError(what, fix="lower record_bytes_max, or raise the topic's max.message.bytes")
        found = self._connection.error_of(error)
        if isinstance(found, RefusedError):
            raise found
        raise TransientError(found.message, fix=found.fix or "it is tried again") from None

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""

    def close(self) -> None:
        """See `ReplicaWriter`."""
        for table in list(self._producers):
            self._forget(table)


def _keys(chunk: Chunk) -> list[str]:
    """Return the keys of the rows' records: the table's key, in its order, else what no other chunk gives."""
    if chunk.table.key:
        return objects(chunk.rows, chunk.table, chunk.table.key)
    at, generation = chunk.cursor.position, chunk.cursor.generation
    place = f"{generation}-{at.epoch}-{at.through}-{at.after}"
    return [f'{{"_row":"{place}-{number}"}}' for number in range(chunk.rows.num_rows)]
