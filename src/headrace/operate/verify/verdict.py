"""What a verification found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.operate.verify.comparing import Compared

__all__ = ["EngineRun", "Verdict"]


@dataclass(frozen=True)
class EngineRun:
    """How one engine went through the slice: epochs (on Spark: micro-batches) and seconds."""

    epochs: int
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """Whether both engines gave the same.

    spans        by stream and partition, the offsets that were read: first and next
    conflicting  copies with other content under the same unique value: which of them counts is not settled
                 when they lie in different partitions, so they may be why answers differ
    notices      what could not be cleared away
    """

    pipeline: str
    profile: str
    master: str
    records: int
    spans: Mapping[str, Mapping[int, tuple[int, int]]]
    local: EngineRun
    spark: EngineRun
    compared: tuple[Compared, ...]
    conflicting: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def different(self) -> int:
        """How many cells and rows differ."""
        return sum(one.different for one in self.compared)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.different == 0

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain values, for `--json`."""
        return {
            "equal": self.equal,
            "different": self.different,
            **{name: getattr(self, name) for name in ("pipeline", "profile", "master", "records")},
            "slice": [
                {"stream": stream, "partition": partition, "start": start, "end": end}
                for stream, places in self.spans.items()
                for partition, (start, end) in sorted(places.items())
            ],
            "local": asdict(self.local),
            "spark": asdict(self.spark),
            "conflicting": self.conflicting,
            "compared": [
                {
                    **{name: getattr(one, name) for name in ("kind", "name", "rows_local", "rows_spark")},
                    "different": one.different,
                    "differences": [
                        {
                            "key": dict(each.key), "column": each.column, "local": each.local,
                            "spark": each.spark, "records": list(each.records), "records_behind": each.behind,
                        }
                        for each in one.differences
                    ],
                }
                for one in self.compared
            ],
            "notices": self.notices,
        }  # fmt: skip
