"""Writes chunks to topics: rows and cursors of all tables that are written together, in one transaction.

Cursors are records of one compacted topic, `PREFIX` + `cursors`, by table. Each names the topic that its
rows are in, by Kafka's id: of a topic that was deleted and made again, nothing is copied, whatever the cursor
says.

Who may write a table is settled by transactional ids, each of which the brokers let one producer use, the
latest:

- A writer has one of its own, with a random end, and no other one ever writes under it. It is what a cursor
  names as its `writer`. To use that id again is to end what the writer has begun, and to shut it out.
- A table has one, too: its *gate*. Who takes the table comes through it, one at a time: shuts out the writer
  that the cursor names, looks at the cursor again, and puts its own there, in a transaction of the gate. Who
  comes later shuts that transaction out, or finds the other writer's name in the cursor.

The brokers forget an id that nobody uses after `transactional.id.expiration.ms` (a week): a writer's next
transaction fails then, and is tried again by a new one.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError
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
_OF_OTHERS = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE, KafkaError._FATAL)
"""What a record gets that was not sent because its transaction, or the producer, had failed before."""
_FOR_EVER = {"cleanup.policy": "delete", "retention.ms": "-1"}
_ANSWER_S = 30.0
_TO_SEND_S = 60.0
_OVERHEAD_BYTES = 256
_TRANSACTION_MS = 60_000
_QUEUE_FULL_S = 0.1

_Record = tuple[bytes, bytes | None, int]
"""Key, value (None: the row left) and version of a row."""
_Part = tuple[str, Cursor, Iterable[_Record]]
"""What a transaction has of a table."""
_Message = tuple[str, bytes, bytes | None, dict[str, bytes]]
"""Topic, key, value and headers."""
_Failure = tuple[KafkaError, str]
"""What became of a record, and its topic."""


class KafkaWriter:
    """See `ReplicaWriter`."""

    def __init__(self, options: KafkaReplica, task: Task) -> None:
        self._options = options
        self._task = task
        self._connection = Connection(options.settings(), f"replica '{task.replica}'")
        self._id = ""
        self._producer: Producer | None = None
        self._known: dict[str, Cursor] = {}
        """The cursors of the tables that are this writer's."""
        self._writers: dict[str, str] = {}
        """The writers that cursors name, as they were read last."""
        self._shut_out: set[str] = set()
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
        ended = set[tuple[int, int]]()
        while True:
            try:
                return self._committed()
            except OpenTransactionError as error:
                place = (error.partition, error.offset)
                if place in ended or not self._ended(error):
                    raise
                ended.add(place)

    def _ended(self, error: OpenTransactionError) -> bool:
        """End an open transaction, if it is of this store; whoever began it is dead, or will be refused.

        Of a table that is not copied any more, only this replica's: another one of the store may copy it.
        """
        names = {shape.name for shape in self._task.tables}
        record = record_at(self._connection, self._cursors, error.partition, error.offset)
        if record is None or record.value() is None:
            return False
        table, facts = record.key().decode(), json.loads(record.value())
        if not self._task.store_id or facts.get("store_id") != self._task.store_id:
            return False
        if table not in names and facts.get("replica") != self._task.replica:
            return False
        self._begun(self._gate(table), table)
        if writer := facts.get("writer"):
            self._shut(writer, table)
        return True

    def _committed(self) -> dict[str, Cursor]:
        names = {shape.name for shape in self._task.tables}
        found: dict[str, Cursor] = {}
        for record in records_of(self._connection, self._cursors):
            table = record.key().decode()
            if table in names and record.value() is not None:
                facts = json.loads(record.value())
                same = facts.pop("topic", None) == self._identities[self._topic(table)]
                self._writers[table] = facts.pop("writer", "")
                cursor = Cursor.of(facts)
                found[table] = cursor if same else replace(cursor, position=Position())
        return found

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        if self._committed().get(table) != seen:
            raise fenced(table)  # without ending what somebody else does
        if seen is None:
            self._refuse_rows_without_cursor(table)
        self._own(table, seen, cursor)

    def _own(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """Put `cursor` in the place of `seen`, in this writer's name, and shut out who wrote the table."""
        self._known.pop(table, None)
        if self._producer is None:  # before a cursor names its id, or who comes next shuts out nobody
            self._id = f"headrace {self._options.prefix}{self._task.replica} {secrets.token_hex(8)}"
            self._producer = self._begun(self._id, table)
        gate = self._begun(self._gate(table), table)
        while True:
            if self._committed().get(table) != seen:
                raise fenced(table)
            writer = self._writers.get(table, "")
            if writer in ("", self._id) or writer in self._shut_out:
                break
            self._shut(writer, table)  # and look again: it may have written until now
        self._commit(gate, [(table, cursor, ())])

    def _refuse_rows_without_cursor(self, table: str) -> None:
        """Raise RefusedError when the topic has rows of a replica: versions may be above all of ours."""
        topic = self._topic(table)
        with closing(records_of(self._connection, topic)) as records:
            if any(VERSION_HEADER in dict(record.headers() or ()) for record in records):
                raise RefusedError(
                    f"the topic '{topic}' has rows of a replica, and '{self._cursors}' says nothing of them",
                    fix=f"delete the topic '{topic}': it is made and filled again; or give another prefix",
                )

    def _refuse_other_topics(self, tables: Sequence[str]) -> None:
        """Raise TransientError when a topic is not the one that was there when this writer began.

        Of the cursors neither: who takes a table through new ones finds nobody there to shut out.
        """
        names = [self._cursors, *map(self._topic, tables)]
        there = identities(self._connection, names)
        for name in names:
            if there.get(name) != self._identities[name]:
                raise TransientError(f"the topic '{name}' was deleted", fix="it is made and filled anew")

    def _gate(self, table: str) -> str:
        """Return the transactional id through which the table is taken."""
        return f"headrace {self._options.prefix}{table}"

    def _shut(self, writer: str, table: str) -> None:
        """End what a writer has begun; it writes nothing any more."""
        self._begun(writer, table)
        self._shut_out.add(writer)

    def _begun(self, identity: str, table: str) -> Producer:
        """Return a producer with a transactional id: what the one before has begun is ended."""
        producer: Producer = self._connection.made(
            Producer,
            **{
                "transactional.id": identity,
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
            raise self._error_of([table], error.args[0]) from None
        return producer

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        self.write_together([chunk])

    def write_together(self, chunks: Sequence[Chunk]) -> None:
        """See `TogetherWriter`. Here it is all of them or none."""
        due = [chunk for chunk in chunks if self._due(chunk)]
        if not due:
            return
        assert self._producer is not None  # noqa: S101 - it owns their tables
        self._refuse_other_topics([chunk.table.name for chunk in due])
        # Before the transaction begins: brokers give one up that is open for long.
        standing = [self._versions(chunk.table) if chunk.sweep_below else {} for chunk in due]
        refusals: list[Refusal] = []
        taken = [sound(chunk, refusals.extend) for chunk in due]
        parts = [
            (chunk.table.name, chunk.cursor, self._records(chunk, versions, refusals))
            for chunk, versions in zip(taken, standing, strict=True)
        ]
        self._commit(self._producer, parts, refusals)

    def _due(self, chunk: Chunk) -> bool:
        """Return whether a chunk is still to be written; the table is this writer's from then on."""
        table = chunk.table.name
        if table not in self._known:
            there = self._committed().get(table)
            if not chunk.cursor.same_writer(there):
                raise fenced(table)
            assert there is not None  # noqa: S101 - it has the same writer
            self._own(table, there, there)
        if not chunk.cursor.same_writer(self._known[table]):
            raise fenced(table)
        return chunk.cursor != self._known[table]

    def _records(
        self, chunk: Chunk, standing: Mapping[bytes, int], refusals: list[Refusal]
    ) -> Iterator[_Record]:
        """Give key, value and version of a chunk's records; rows that make too large ones go to `refusals`.

        `standing` has the versions of the rows in the topic, of which some may be swept out.
        """
        shape, refused = chunk.table, 0
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
                refused += 1
                if refused > REFUSED_MAX:
                    what = f"more than {REFUSED_MAX} rows of '{chunk.table.name}' are too large at once"
                    raise RefusedError(what, fix="raise record_bytes_max here and in the topic, then resume")
                continue
            yield key, value, version
        if chunk.sweep_below:
            for key, version in standing.items():
                if chunk.cursor.kept_below <= version < chunk.sweep_below and key not in keys:
                    yield key, None, chunk.sweep_below

    def _versions(self, shape: TableShape) -> dict[bytes, int]:
        """Return the version of every row that is in the table's topic."""
        found: dict[bytes, int] = {}
        for record in records_of(self._connection, self._topic(shape.name)):
            if record.value() is None:
                found.pop(record.key(), None)
            elif record.key() is not None:
                found[record.key()] = int(dict(record.headers() or ()).get(VERSION_HEADER, b"0"))
        return found

    def _commit(self, producer: Producer, parts: Sequence[_Part], refusals: Sequence[Refusal] = ()) -> None:
        """Send rows and cursors of these tables in one transaction; `refusals` are told before its end."""
        tables, failed, began = [table for table, _, _ in parts], list[_Failure](), time.monotonic()
        try:
            self._send(producer, parts, failed)
            if refusals:  # not sooner: of what is taken back they are told when it comes again
                self._task.set_aside(refusals)
            with callbacks():
                producer.commit_transaction(_ANSWER_S)  # of a transaction that failed it says why
            if failed:
                raise KafkaException(failed[0][0])
        except KafkaException as error:
            why, seconds = _reason(producer, error.args[0]), time.monotonic() - began
            self._give_up(producer)  # which tells what became of each record, too
            said = [failure for failure in failed if failure[0].code() not in _OF_OTHERS]
            same = [topic for told, topic in said if told.code() == why.code()]
            topic = next(iter(same or [topic for _, topic in said]), "")
            raise self._error_of(tables, why, topic=topic, seconds=seconds) from None
        except BaseException:
            self._give_up(producer)
            raise
        self._connection.answered()
        self._known.update((table, cursor) for table, cursor, _ in parts)

    def _send(self, producer: Producer, parts: Sequence[_Part], failed: list[_Failure]) -> None:
        """Begin a transaction and send its records. Raises KafkaException when one was not taken."""

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failed.append((error, message.topic()))

        messages: Iterable[_Message] = self._messages(parts)
        if len(parts) > 1:
            # Made before and sent in one go: what comes bit by bit costs the brokers a request each time.
            messages = list(messages)
        producer.begin_transaction()
        for topic, key, value, headers in messages:
            while True:
                try:
                    producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
                    break
                except BufferError:
                    with callbacks():
                        producer.poll(_QUEUE_FULL_S)
                except KafkaException as error:
                    failed.append((error.args[0], topic))
                    raise
            if failed:
                break
        with callbacks():
            left = producer.flush(_TO_SEND_S)
        if failed:
            own = [error for error, _ in failed if error.code() not in _OF_OTHERS]
            raise KafkaException(own[0] if own else failed[0][0])
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def _messages(self, parts: Sequence[_Part]) -> Iterator[_Message]:
        """Give the messages of a transaction: the rows of each table, then the cursors."""
        for table, _, records in parts:
            topic = self._topic(table)
            for key, value, version in records:
                yield topic, key, value, {VERSION_HEADER: str(version).encode()}
        for table, cursor, _ in parts:
            facts = cursor.facts() | {"topic": self._identities[self._topic(table)], "writer": self._id}
            yield self._cursors, table.encode(), json_bytes(facts), {}

    def _give_up(self, producer: Producer) -> None:
        """Take back a transaction. No table is this writer's any more."""
        self._producer = None
        self._known.clear()
        with suppress(KafkaException), callbacks():
            producer.abort_transaction(_ANSWER_S)

    def _error_of(
        self, tables: Sequence[str], error: KafkaError, *, topic: str = "", seconds: float = 0
    ) -> HeadraceError:
        """Return what an error means of a transaction with these tables; of a record it says to which topic.

        Whatever is not known here passes with a new producer: so it is of what librdkafka calls retriable,
        of what is taken back (`txn_requires_abort`), and of what is the end of one producer (`fatal`).
        """
        code, place = error.code(), self._connection.place
        if code in _FENCED:
            if seconds * 1000 >= _TRANSACTION_MS:  # the brokers gave it up, in the same words
                names = ", ".join(f"'{self._topic(table)}'" for table in tables)
                what = f"a transaction of {names} took longer than the brokers allow"
                return TransientError(what, fix="it is tried again; a lower chunk_bytes_max takes less time")
            return fenced(*self._lost(tables))
        if code == KafkaError.INVALID_PRODUCER_ID_MAPPING:
            what = f"{place}: unused for transactional.id.expiration.ms, its transactional id was forgotten"
            return TransientError(what, fix="it is tried again with a new one")
        if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            what = f"{place}: the user may not use this replica's transactional ids"
            return RefusedError(
                what,
                fix="allow the user WRITE and DESCRIBE on transactional ids that begin with "
                f"'headrace {self._options.prefix}' (a rule of the pattern type PREFIXED), then resume",
            )
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED and topic:
            what = f"{place}: the user may not write to the topic '{topic}'"
            return RefusedError(what, fix="allow the user WRITE and DESCRIBE on it, then resume")
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            named = f"topic '{topic}'" if topic else "a topic of " + ", ".join(map(repr, tables))
            what = f"{named} takes smaller records than record_bytes_max"
            return RefusedError(what, fix="lower record_bytes_max, or raise the topic's max.message.bytes")
        try:
            self._connection.raise_refused()
        except HeadraceError as told:
            return told
        found = self._connection.error_of(error)
        if isinstance(found, RefusedError):
            return found
        return TransientError(found.message, fix=found.fix or "it is tried again")

    def _lost(self, tables: Sequence[str]) -> Sequence[str]:
        """Return those of these tables that are another writer's; all of them where that is not known."""
        if len(tables) > 1:
            with suppress(HeadraceError):
                self._committed()
                return [name for name in tables if self._writers.get(name) != self._id] or tables
        return tables

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""

    def close(self) -> None:
        """See `ReplicaWriter`."""
        self._producer = None
        self._known.clear()


def _reason(producer: Producer, error: KafkaError) -> KafkaError:
    """Return why a producer takes no more; `error` may say no more than that it does not."""
    if error.code() in _OF_OTHERS:
        try:
            producer.begin_transaction()  # not while there is one: it answers what became of that
        except KafkaException as told:
            said: KafkaError = told.args[0]
            if said.code() != KafkaError._STATE:
                return said
    return error


def _keys(chunk: Chunk) -> list[str]:
    """Return the keys of the rows' records: the table's key, in its order, else what no other chunk gives."""
    if chunk.table.key:
        return objects(chunk.rows, chunk.table, chunk.table.key)
    at, generation = chunk.cursor.position, chunk.cursor.generation
    place = f"{generation}-{at.epoch}-{at.through}-{at.after}"
    return [f'{{"_row":"{place}-{number}"}}' for number in range(chunk.rows.num_rows)]
