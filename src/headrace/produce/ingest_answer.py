"""What a sender is told of a request that was taken: where its records are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["IngestAnswer", "bounds_of"]


@dataclass(frozen=True)
class IngestAnswer:
    """What became of a request: offsets per partition, first and next. `repeated`: it was appended before.

    Where other writers append to the same Kafka partition at that moment, the offsets of a request are a
    range in which its records lie; else they are exactly its records.
    """

    stream: str
    records: int
    offsets: Mapping[int, tuple[int, int]]
    repeated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain values."""
        places = sorted(self.offsets.items())
        return {
            "stream": self.stream,
            "records": self.records,
            "partitions": [{"partition": p, "first": first, "next": next_} for p, (first, next_) in places],
        }

    @classmethod
    def repeating(cls, stream: str, facts: Mapping[str, Any]) -> IngestAnswer:
        """Return the answer that `to_json` once made `facts` of, as that of a request that was repeated."""
        offsets = {each["partition"]: (each["first"], each["next"]) for each in facts["partitions"]}
        return cls(stream, facts["records"], offsets, repeated=True)


def bounds_of(places: Iterable[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Return, by partition, first and next offset of records at these (partition, offset)."""
    offsets: dict[int, tuple[int, int]] = {}
    for partition, offset in places:
        first, next_ = offsets.get(partition, (offset, offset + 1))
        offsets[partition] = (min(first, offset), max(next_, offset + 1))
    return offsets
