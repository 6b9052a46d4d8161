"""The topics that a verification reads: made for it, filled with the slice, and deleted afterwards.

Both engines read the same topics, so both see the same bytes, keys, headers, partitions and record times.
"""

from __future__ import annotations

import threading
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import HeadraceError, IntegrityError
from headrace.log.headers import RECORD_TIME_HEADER
from headrace.log.protocol import APPEND_SCHEMA
from headrace.operate.verify.slices import Recorded

if TYPE_CHECKING:
    from headrace.log.kafka import KafkaLog, KafkaSettings

__all__ = ["Copied", "copied_to_topics"]

_PREFIX = "headrace-verify"


@dataclass
class Copied:
    """A slice in topics of its own. `clock` says what time it is in there: behind every record."""

    logs: dict[str, KafkaLog]
    records: int = 0
    clock: datetime = field(default_factory=lambda: datetime.now(UTC))
    _offsets: dict[tuple[str, int], array[int]] = field(default_factory=dict)

    def address(self, stream: str, partition: int, offset: int) -> str:
        """Return the address that a record of a topic has in the log, or file, that it was copied from."""
        known = self._offsets.get((stream, partition))
        return f"{stream}/{partition}/{known[offset] if known and offset < len(known) else offset}"

    def take(self, stream: str, records: pa.Table) -> None:
        """Append records, those of a partition in the order of their offsets."""
        names = ("partition", "record_time", "key", "value")
        columns = {name: records.column(name) for name in names} | {"headers": _headers(records)}
        self.logs[stream].append(pa.table(columns).select(APPEND_SCHEMA.names).cast(APPEND_SCHEMA))
        for partition in pc.unique(records.column("partition")).to_pylist():
            mine = records.filter(pc.equal(records.column("partition"), partition))
            self._offsets.setdefault((stream, partition), array("q")).extend(
                mine.column("offset").to_pylist()
            )
        self.clock = max(self.clock, pc.max(records.column("record_time")).as_py())
        self.records += records.num_rows

    def check(self) -> None:
        """Raise IntegrityError when a topic does not hold what was appended: addresses would be wrong."""
        for stream, log in self.logs.items():
            for held in log.partitions():
                known = len(self._offsets.get((stream, held.partition), ()))
                if held.end != known:
                    raise IntegrityError(
                        f"stream '{stream}', partition {held.partition}: {known} records were copied, and "
                        f"the temporary topic holds {held.end}",
                        fix="verify again; a broker that comes and goes may write a record twice",
                    )


def _headers(records: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Return the headers without the one that says the record's time: the topic's log writes it anew."""
    headers = records.column("headers")
    if headers.null_count == len(headers):
        return headers
    kept = [
        None if each is None else [one for one in each if one["key"] != RECORD_TIME_HEADER]
        for each in headers.to_pylist()
    ]
    return pa.array([each or None for each in kept], APPEND_SCHEMA.field("headers").type)


@contextmanager
def copied_to_topics(
    settings: Mapping[str, KafkaSettings],
    slice_: Recorded,
    *,
    stop: threading.Event,
    on_copied: Callable[[int], None],
    tell: Callable[[str], None],
) -> Iterator[Copied]:
    """Give the slice in topics beside those that `settings` name, by stream; they are deleted at the end.

    While it is given, the streams count as being loaded: the end of a partition says nothing about time, so
    that both engines, whenever they run, come to the same frontiers.
    """
    from headrace.log.kafka import open_kafka_log

    run = uuid.uuid4().hex[:12]
    copied = Copied({})
    with ExitStack() as undo:
        undo.callback(_delete, run, copied.logs, tell)
        for stream, known in settings.items():
            own = replace(
                known,
                topic=f"{_PREFIX}-{run}-{stream}",
                partitions=slice_.partitions[stream],
                record_time="header",
                retention=None,
                group=None,
            )
            log = open_kafka_log(own, stream, clock=lambda: copied.clock)
            copied.logs[stream] = log
            undo.callback(log.close)
            undo.enter_context(log.load())
        for stream, records in slice_.records():
            if stop.is_set():
                break
            copied.take(stream, records)
            on_copied(copied.records)
        if not stop.is_set():
            copied.check()
        yield copied


def _delete(run: str, logs: Mapping[str, KafkaLog], tell: Callable[[str], None]) -> None:
    """Delete the topics of a run and the consumer groups that readers made; says what could not be."""
    from confluent_kafka import KafkaException

    from headrace.log.kafka.connection import Connection

    for stream, log in logs.items():
        connection = Connection(log.settings, f"the temporary topic of stream '{stream}'")
        try:
            admin = connection.admin
            listed = connection.ask({"groups": admin.list_consumer_groups()})["groups"].valid
            groups = [each.group_id for each in listed if run in each.group_id]
            found = admin.list_topics(timeout=10).topics
            topics = [name for name in found if name.startswith(log.settings.topic)]
            if groups:
                connection.ask(admin.delete_consumer_groups(groups))
            if topics:
                connection.ask(admin.delete_topics(topics))
        except (KafkaException, HeadraceError) as error:
            tell(f"the topic {log.settings.topic} could not be deleted ({type(error).__name__}): delete it")
