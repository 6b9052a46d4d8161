"""Framed records end in the same outcomes whatever the cuts, and after a crash at every step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from registry_support import encoded, field, record_schema

from headrace.declare import Pipeline
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.framing import RegistryFraming, StreamFormat
from headrace.log.registry.wire import frame
from headrace.testing import PipelineTest, every_step

OLD = record_schema(field("id", "string"), field("n", "int"))
NEW = record_schema(
    field("n", "long"), field("id", "string"), field("more", ["null", "string"], default=None)
)


def pipeline() -> Pipeline:
    declared = Pipeline("p")
    declared.stream("events", schema="id VARCHAR NOT NULL, n BIGINT", unique="id")
    declared.table("totals", "SELECT id, count(*) AS events, sum(n) AS n FROM events GROUP BY id")
    return declared


def values(client: RegistryClient) -> list[bytes | None]:
    old = client.register("events-value", "AVRO", json.dumps(OLD))
    new = client.register("events-value", "AVRO", json.dumps(NEW))
    found: list[bytes | None] = []
    for n in range(60):
        if n % 3:
            found.append(frame(old, encoded(OLD, {"id": f"{n}", "n": n})))
        else:
            found.append(frame(new, encoded(NEW, {"id": f'"{n}"', "n": n, "more": "x" if n % 2 else None})))
        if n % 20 == 0:
            found += [frame(777, b"\x00"), None, found[-1], (found[-1] or b"")[:-1]]
    return found


def answer(client: RegistryClient, folder: Path, sent: list[bytes | None], **how: Any) -> Any:
    declared = pipeline()
    framing = RegistryFraming(client, StreamFormat(declared.streams[0], "avro", "events-value"))
    with PipelineTest(declared, folder=folder, framings={"events": framing}, **how) as test:
        test.send_bytes("events", sent)
        test.run()
        assert test.ledger().balanced
        letters = [(each["offset"], each["value"], each["reasons"]) for each in test.dead_letters("events")]
        return test.table("totals"), test.outcomes("events"), sorted(letters, key=lambda each: each[0])


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"cuts": 1}, id="cuts"),
        pytest.param(
            {"cuts": 3, "crashes": every_step(share=0.3, seed=1)}, id="crashes", marks=pytest.mark.slow
        ),
    ],
)
def test_neither_cuts_nor_crashes_change_what_framed_records_are(
    client: RegistryClient, tmp_path: Path, how: dict[str, Any]
) -> None:
    sent = values(client)
    calm = answer(client, tmp_path / "calm", sent)
    assert calm[1] == {"accepted": 60, "duplicate": 3, "malformed": 9}
    assert answer(client, tmp_path / "cut", sent, **how) == calm
