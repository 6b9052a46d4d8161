"""Records become Avro many at a time or one by one: the bytes are the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from headrace.declare import Pipeline
from headrace.errors import RefusedError
from headrace.log.registry.framing import StreamFormat
from headrace.produce.encoding import Encoder, Unfit

COLUMNS = (
    "id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, n BIGINT NOT NULL, amount DECIMAL(12,2), "
    "price DECIMAL(18,0), yes BOOLEAN, small TINYINT, whole INT, u UINTEGER, d DOUBLE, day DATE, tod TIME, "
    "raw BLOB, tags VARCHAR[], items STRUCT(product VARCHAR, quantity INT, price DECIMAL(10,2))[], "
    "place STRUCT(x DOUBLE, more STRUCT(note VARCHAR))"
)
FULL: dict[str, Any] = {
    "id": "ä日", "at": "2026-03-01T13:00:00.000001+01:00", "n": 2**63 - 1, "amount": -1.28,
    "price": -(10**17), "yes": True, "small": -128, "whole": 64, "u": 2**32 - 1, "d": 1e300,
    "day": "1912-06-23", "tod": "01:02:03.000004", "raw": "AP8=", "tags": ["a", None, ""],
    "items": [{"product": "p", "quantity": 3, "price": 0.005}, None, {}],
    "place": {"x": -0.0, "more": {"note": "n"}}, "not declared": 1,
}  # fmt: skip
ROWS = [
    FULL,
    {"id": "", "at": "1812-01-01T00:00:00Z", "n": -(2**63)},
    {
        **FULL,
        "tags": [],
        "items": None,
        "place": {"more": None},
        "amount": 1.275,
        "at": "1969-12-31 23:59:59.9",
    },
    {**FULL, "n": "twelve"},
    {
        **FULL,
        "n": 0,
        "amount": 9999999999.99,
        "price": 127,
        "small": 63,
        "whole": -65,
        "tags": ["x" * 200] * 70,
    },
    {"id": "x", "n": 1},
    {**FULL, "amount": 1e2, "d": 7, "whole": -1, "day": "9999-12-31", "price": 128, "yes": False},
]


def encoder(columns: str = COLUMNS, unfit: Unfit = "keep") -> Encoder:
    pipeline = Pipeline("p")
    pipeline.stream("events", schema=columns, event_time="at", unique="id", expect={"never": "n < 0"})
    assert not pipeline.problems
    return Encoder(StreamFormat(pipeline.streams[0], "avro", "events-value"), 7, unfit=unfit)


@pytest.fixture
def written() -> Iterator[Encoder]:
    with closing(encoder()) as made:
        yield made


def test_many_records_have_the_bytes_that_single_ones_have(written: Encoder) -> None:
    values = [None if row is None else json.dumps(row).encode() for row in [*ROWS, None] * 20]
    singly = [written.encode([value])[0] for value in values]
    assert written.encode(values) == singly
    assert [value[:5] if value else None for value in singly[:8]] == [
        b"\0\0\0\0\7" if fits else (None if value is None else value[:5])
        for fits, value in zip((1, 1, 1, 0, 1, 0, 1, 0), values, strict=False)
    ]


def test_records_that_fit_are_not_written_one_by_one(
    written: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one: list[int] = []
    real = written._encoded

    def encoded(at: int, value: bytes | None) -> bytes | None:
        one_by_one.append(at)
        return real(at, value)

    monkeypatch.setattr(written, "_encoded", encoded)
    fitting = [json.dumps(row).encode() for row in ROWS if isinstance(row["n"], int) and "at" in row]
    written.encode(fitting * 20)
    assert one_by_one == []


def test_a_record_among_many_that_does_not_fit_is_refused_with_its_number() -> None:
    values: list[bytes | None] = [json.dumps(FULL).encode()] * 60
    values[41] = json.dumps(ROWS[3]).encode()
    with (
        closing(encoder(unfit="refuse")) as refusing,
        pytest.raises(RefusedError, match=r"column:n: expected BIGINT.*number 42 of those"),
    ):
        refusing.encode(values)
