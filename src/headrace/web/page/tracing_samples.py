"""Records as an answer shows them: how many there are of a kind, and the first of them with their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headrace.web.page.values import bytes_text, plain

__all__ = ["ADDRESS", "SAMPLES", "SAMPLE_CHARACTERS", "Heap", "Texts", "document_of", "text_of"]

ADDRESS = ("_partition", "_offset", "_record_time")
"""The columns of a row that say which record it is."""
SAMPLES = 50
SAMPLE_CHARACTERS = 4_000


@dataclass
class Heap:
    """Records of one kind: how many, and the first of them."""

    records: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: pa.Table, texts: Mapping[tuple[int, int], str], place: str) -> None:
        """Count rows with `_partition`, `_offset`, `_record_time` and `_event_time`."""
        self.records += found.num_rows
        for row in found.slice(0, SAMPLES - len(self.samples)).to_pylist():
            at = (row["_partition"], row["_offset"])
            self.samples.append(
                {
                    "address": f"{place}:{at[0]}:{at[1]}",
                    "record_time": row["_record_time"].isoformat(),
                    "event_time": row["_event_time"] and row["_event_time"].isoformat(),
                    "value": texts.get(at, ""),
                }
            )


class Texts(dict[tuple[int, int], str]):
    """Values of a slice's records by address, made to text only for those that are asked for."""

    def __init__(self, records: pa.Table) -> None:
        super().__init__()
        places = zip(
            records.column("partition").to_pylist(), records.column("offset").to_pylist(), strict=True
        )
        self._rows = {place: row for row, place in enumerate(places)}
        self._values = records.column("value")

    def get(self, place: tuple[int, int], default: Any = None) -> Any:
        """Return the text of the record there."""
        row = self._rows.get(place)
        return default if row is None else text_of(self._values[row].as_py())


def document_of(row: Mapping[str, Any]) -> str:
    """Return a row's columns as text, where the record that it was is not read."""
    facts = {name: plain(value) for name, value in row.items() if value is not None and name[0] != "_"}
    return json.dumps(facts, ensure_ascii=False)[:SAMPLE_CHARACTERS]


def text_of(value: bytes | None) -> str:
    """Return the value of a record, or the beginning of a long one, as text."""
    return "" if value is None else bytes_text(value)[:SAMPLE_CHARACTERS]
