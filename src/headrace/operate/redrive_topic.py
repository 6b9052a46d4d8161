"""Redrive from a dead-letter topic: records that somebody corrected there go back to their streams.

A record says what it stands for in the header `headrace.dead-letter`, or in Kafka Connect's headers. The
bytes are the topic's; everything else is what the store knows of the dead letter. How far a topic was taken
is published there as the position of the reader `redrive`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.errors import RefusedError
from headrace.log.between import clamped, read_between
from headrace.log.headers import CONNECT_PREFIX, LETTER_HEADER
from headrace.operate.redrive import Address, Redriven, prepare, replace_exactly

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.operate.client import StoreClient

__all__ = ["READER", "Chosen", "TopicLetters", "read_topic", "redriven_of"]

READER = "redrive"
_ADDRESSES_AT_ONCE = 500


@dataclass
class TopicLetters:
    """What a topic holds behind the place up to which it was taken before.

    corrected   the latest bytes for each address
    nameless    records without a usable address
    ends        where the topic ended: to be published once the records are given back
    """

    corrected: dict[Address, bytes | None] = field(default_factory=dict)
    nameless: int = 0
    records: int = 0
    ends: dict[int, int] = field(default_factory=dict)


def read_topic(topic: Log, streams: Mapping[str, str], *, from_beginning: bool = False) -> TopicLetters:
    """Read what was not taken yet. `streams` has the stream of each topic, for Kafka Connect's headers."""
    ranges = topic.partitions()
    taken = {} if from_beginning else topic.readers(READER).get(READER, {})
    starts = clamped({each.partition: taken.get(each.partition, 0) for each in ranges}, ranges)
    found = TopicLetters(ends={each.partition: each.end for each in ranges})
    for records in read_between(topic, starts, found.ends):
        for row in records.sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pylist():
            found.records += 1
            address = _address_of(row["headers"] or (), streams)
            if address is None:
                found.nameless += 1
            else:
                found.corrected[address] = row["value"]
    return found


def _address_of(headers: Any, streams: Mapping[str, str]) -> Address | None:
    said = {each["key"]: each["value"] for each in headers}
    try:
        if LETTER_HEADER in said:
            return Address.parse(said[LETTER_HEADER].decode())
        topic, partition, offset = (
            said[f"{CONNECT_PREFIX}{name}"].decode() for name in ("topic", "partition", "offset")
        )
        if topic in streams:
            return Address(streams[topic], "main", int(partition), int(offset))
    except (KeyError, ValueError, AttributeError, RefusedError):
        pass
    return None


@dataclass(frozen=True)
class Chosen:
    """What would be given back, and how many records of the topic would not, and why."""

    records: list[Redriven]
    unchanged: int
    unknown: int


def redriven_of(client: StoreClient, letters: TopicLetters, *, unchanged: bool = False) -> Chosen:
    """Return the corrected records; with `unchanged`, those with the same bytes as before too.

    An address of which the store has no dead letter is passed over: it belongs to another store, or the
    record was never set aside.
    """
    records: list[Redriven] = []
    same = known = 0
    for letter in _stored(client, list(letters.corrected)):
        known += 1
        value = letters.corrected[Address.of(letter)]
        if value == letter["value"] and not unchanged:
            same += 1
            continue
        records += prepare([letter], replace_exactly(value))
    return Chosen(records, same, len(letters.corrected) - known)


def _stored(client: StoreClient, addresses: list[Address]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(addresses), _ADDRESSES_AT_ONCE):
        some = addresses[start : start + _ADDRESSES_AT_ONCE]
        wanted = [(each.stream, each.lane, each.partition, each.offset) for each in some]
        yield from client.dead_letters(addresses=wanted, limit=len(wanted)).to_pylist()
