"""Streams in Avro and JSON Schema from producer to table: command line, engine and registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from registry_support import RunningRegistry, encoded, field, record_schema

from headrace.cli.app import run as headrace
from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.log.protocol import APPEND_SCHEMA
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.wire import frame
from headrace.operate import Runtime, load_project, open_log
from headrace.operate.formats import open_producer_log
from headrace.testing.records import append_table

pytestmark = pytest.mark.slow

COLUMNS = "id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, amount DECIMAL(12,2), tags VARCHAR[]"
PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="{columns}", event_time="at", contract="{contract}",
                allowed_lateness="1000 days")
pipeline.table("total", "SELECT count(*) AS n, sum(amount) AS amount FROM events")
"""
RECORDS = [
    {"id": f"e{n}", "at": "2026-03-01T12:00:00.123456Z", "amount": 1.10 * n, "tags": ["x"] if n % 2 else None}
    for n in range(1, 5)
]
NEWER = record_schema(
    field("at", {"type": "long", "logicalType": "timestamp-millis"}),
    field("id", "string"),
    field("amount", ["null", {"type": "bytes", "logicalType": "decimal", "precision": 14, "scale": 4}]),
    field("device", "string", default=""),
    name="events",
)


def newer(number: int, name: str) -> bytes:
    stored = record_schema(
        field("at", "long"),
        field("id", "string"),
        field("amount", ["null", "bytes"]),
        field("device", "string"),
    )
    return frame(
        number, encoded(stored, {"at": 1772366400123, "id": name, "amount": b"\x27\x10", "device": "m"})
    )


class Shop:
    """A project whose stream is bound to a registry."""

    def __init__(self, folder: Path, registry: RunningRegistry) -> None:
        self.folder = folder
        self.registry = registry

    def declare(
        self, form: str = "avro", *, columns: str = COLUMNS, contract: str = "evolve", more: str = ""
    ) -> Shop:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "pipeline.py").write_text(PIPELINE.format(columns=columns, contract=contract))
        binding = f'streams.events = {{ format = "{form}", registry = "{self.registry.url}"{more} }}'
        (self.folder / "headrace.toml").write_text(f"[profiles.local]\n{binding}\n")
        return self

    def produce(self, records: list[dict[str, Any]] | None = None) -> int:
        file = self.folder / "records.ndjson"
        file.write_text("".join(json.dumps(each) + "\n" for each in (records or RECORDS)))
        return headrace(["produce", "events", str(file), "-C", str(self.folder)])

    def append(self, *values: bytes) -> None:
        log = open_log(load_project(self.folder), "events")
        try:
            log.append(append_table(list(values)))
        finally:
            log.close()

    def run(self, on_waiting: Callable[[Any], None] | None = None) -> Answer:
        runtime = Runtime.open(load_project(self.folder))
        try:
            runtime.run(threading.Event(), until_caught_up=True, on_waiting=on_waiting)
            (row,) = runtime.store.query("SELECT * FROM total").to_pylist()
            letters = runtime.store.dead_letters(limit=100).to_pylist()
            assert runtime.store.ledger().balanced
            return Answer(row, letters)
        finally:
            runtime.close()


class Answer:
    def __init__(self, total: dict[str, Any], letters: list[dict[str, Any]]) -> None:
        self.total = total
        self.letters = letters
        self.rules = sorted(reason["rule"] for letter in letters for reason in letter["reasons"])


@pytest.fixture
def shop(tmp_path: Path, registry: RunningRegistry) -> Shop:
    return Shop(tmp_path / "shop", registry)


@pytest.mark.parametrize("form", ["avro", "json_schema"])
def test_what_is_produced_in_a_format_is_read_in_it(
    shop: Shop, client: RegistryClient, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.declare(form).produce() == 0
    assert client.versions("events-value") == [1]
    assert shop.produce() == 0  # the same schema again: no second version
    assert client.versions("events-value") == [1]
    answer = shop.run()
    assert answer.total == {"n": 8, "amount": Decimal("22.00")} and not answer.letters


def test_a_newer_writer_is_read_and_every_spoilt_record_is_set_aside(
    shop: Shop, client: RegistryClient
) -> None:
    assert shop.declare().produce() == 0
    number = client.register("elsewhere", "AVRO", json.dumps(NEWER))
    linked = record_schema(field("id", "string"), field("at", ["null", "events"]), name="events")
    recursive = client.register("recursive", "AVRO", json.dumps(linked))
    good = newer(number, "e9")
    bad = [
        frame(4_000_000, good[5:]),  # unknown id
        b"\0\xff\xff\xff\xff" + good[5:],  # an id that no registry gives
        good[:-1],  # truncated
        b"\x09" + good[1:],  # wrong magic
        frame(recursive, b"\x02a\x02" * 50_000),  # too deep
        b'{"id": "x"}',  # no schema at all
    ]
    shop.append(good, *bad, newer(number, "e10"))
    answer = shop.run()
    assert answer.total == {"n": 6, "amount": Decimal("13.00")}
    assert answer.rules == ["avro", "avro", "framing", "framing", "schema", "schema"]
    assert [letter["value"] for letter in answer.letters] == bad  # their own bytes, as they were


def test_a_registry_that_is_down_is_waited_for_and_nothing_is_set_aside(
    shop: Shop, client: RegistryClient
) -> None:
    assert shop.declare().produce() == 0
    number = client.register("elsewhere", "AVRO", json.dumps(NEWER))
    shop.append(newer(number, "e9"))
    shop.registry.stop()
    waits: list[str] = []

    def waiting(pause: Any) -> None:
        if pause is not None:
            waits.append(str(pause))
            if len(waits) == 2:
                shop.registry.start()

    answer = shop.run(waiting)
    assert len(waits) >= 2 and "does not answer" in waits[0] and shop.registry.url in waits[0]
    assert answer.total == {"n": 5, "amount": Decimal("12.00")} and not answer.letters


def test_dead_letters_are_given_back_as_they_were_and_corrected(shop: Shop, client: RegistryClient) -> None:
    assert shop.declare().produce() == 0
    unknown = client.register("elsewhere", "AVRO", json.dumps(NEWER)) + 1
    shop.append(newer(unknown, "e9"), b"\x09rubbish")
    first = shop.run()
    assert first.rules == ["framing", "schema"] and first.total["n"] == 4
    addresses = {letter["value"][:1]: f"events:0:{letter['offset']}" for letter in first.letters}
    again = record_schema(*NEWER["fields"], name="events")
    again["doc"] = "registered too late"
    assert client.register("late", "AVRO", json.dumps(again)) == unknown
    corrected = shop.folder / "corrected.json"
    corrected.write_text('{"id": "e11", "at": "2026-03-01T12:00:00Z", "amount": 3}')
    place = ["-C", str(shop.folder), "--yes"]
    assert headrace(["dead-letters", "redrive", addresses[b"\x00"], *place]) == 0
    assert headrace(["dead-letters", "redrive", addresses[b"\x09"], "--with", str(corrected), *place]) == 0
    second = shop.run()
    assert second.total == {"n": 6, "amount": Decimal("15.00")}


def test_a_frozen_stream_takes_what_producers_of_the_declaration_write(
    shop: Shop, client: RegistryClient
) -> None:
    assert shop.declare(contract="freeze").produce() == 0
    number = client.register("elsewhere", "AVRO", json.dumps(NEWER))
    shop.append(newer(number, "e9"))
    answer = shop.run()
    assert answer.total["n"] == 4 and answer.rules == ["schema"]
    assert "freeze" in answer.letters[0]["reasons"][0]["detail"]


def test_a_frozen_stream_of_json_schema_checks_the_documents(shop: Shop, client: RegistryClient) -> None:
    assert shop.declare("json_schema", contract="freeze").produce() == 0
    found = client.version("events-value")
    assert found is not None
    fine = {"id": "e8", "at": "2026-03-01T12:00:00Z", "amount": 1}
    shop.append(*(frame(found.id, json.dumps(each).encode()) for each in (fine, {**fine, "unknown": 1})))
    answer = shop.run()
    assert answer.total["n"] == 5 and answer.rules == ["schema"]


def test_a_producer_whose_schema_is_incompatible_is_refused_before_its_first_record(
    shop: Shop, client: RegistryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.declare().produce() == 0
    shop.declare(columns=COLUMNS + ", device VARCHAR NOT NULL")
    assert shop.produce([{**RECORDS[0], "device": "m"}]) == 1
    told = capsys.readouterr().err
    assert "incompatible with subject 'events-value'" in told and "'device'" in told and "fix:" in told
    assert client.versions("events-value") == [1]
    assert shop.declare().run().total["n"] == 4
    assert shop.declare(columns=COLUMNS + ", device VARCHAR").produce() == 0
    assert client.versions("events-value") == [1, 2]


def test_a_producer_that_may_not_register_looks_its_schema_up(shop: Shop, client: RegistryClient) -> None:
    shop.declare(more=', registry_auto_register = "no"')
    with pytest.raises(RefusedError, match="not registered under 'events-value'"):
        open_producer_log(load_project(shop.folder), "events")
    assert shop.declare().produce() == 0
    assert shop.declare(more=', registry_auto_register = "no"').produce() == 0
    assert shop.run().total["n"] == 8


def test_a_record_that_does_not_fit_is_refused_with_its_column_or_kept(
    shop: Shop, client: RegistryClient
) -> None:
    project = load_project(shop.declare().folder)
    log = open_producer_log(project, "events")
    try:
        bad = append_table([json.dumps({**RECORDS[0], "amount": "many"}).encode()])
        with pytest.raises(RefusedError, match="column:amount: expected DECIMAL") as refused:
            log.append(bad)
        assert "many" not in str(refused.value)
    finally:
        log.close()
    kept = open_producer_log(project, "events", unfit="keep")
    try:
        kept.append(bad.select(bad.schema.names).cast(APPEND_SCHEMA) if bad.schema != APPEND_SCHEMA else bad)
    finally:
        kept.close()
    assert shop.run().rules == ["framing"]


def test_a_schema_of_ones_own_is_what_producers_register(shop: Shop, client: RegistryClient) -> None:
    own = record_schema(
        field("id", "string"),
        field("at", {"type": "long", "logicalType": "timestamp-millis"}),
        field("amount", ["null", {"type": "fixed", "name": "Money", "size": 8, "logicalType": "decimal",
                                  "precision": 12, "scale": 2}], default=None),
        field("source", "string", default="headrace"),
        name="Order",
    )  # fmt: skip
    shop.declare(more=', registry_schema = "order.avsc", registry_subject = "orders"')
    (shop.folder / "order.avsc").write_text(json.dumps(own))
    assert shop.produce() == 0
    assert client.subjects() == ["orders"]
    answer = shop.run()
    assert answer.total == {"n": 4, "amount": Decimal("11.00")} and not answer.letters


def test_every_type_of_a_declaration_survives_the_way_through_avro(
    shop: Shop, client: RegistryClient
) -> None:
    columns = (
        "id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, amount DECIMAL(12,2), b BOOLEAN, i INT, "
        "u UBIGINT, h HUGEINT, d DOUBLE, day DATE, tod TIME, key UUID, raw BLOB, "
        "s STRUCT(x INT, y STRUCT(z VARCHAR)), m MAP(VARCHAR, BIGINT), l STRUCT(p VARCHAR)[]"
    )
    values = {
        "id": "a", "at": "2026-03-01T13:00:00.000001+01:00", "amount": -0.05, "b": True, "i": -1,
        "u": 2**64 - 1, "h": -(2**127), "d": 1e300, "day": "1912-06-23", "tod": "01:02:03.000004",
        "key": "0f3e4567-e89b-12d3-a456-426614174000", "s": {"x": 1, "y": {"z": "ü"}},
        "m": {"k": None, "j": 2}, "raw": "AP8=",
        "l": [{"p": "q"}, {}],
    }  # fmt: skip
    read = {}
    for form in ("avro", "json_schema", "json"):
        folder = shop.folder.parent / form
        other = Shop(folder, shop.registry).declare(form, columns=columns)
        pipeline = (folder / "pipeline.py").read_text()
        (folder / "pipeline.py").write_text(pipeline + 'pipeline.table("rows", "SELECT * FROM events")\n')
        if form == "json":
            (folder / "headrace.toml").unlink()
        elif form == "json_schema":
            client._ask("DELETE", "/subjects/events-value")
        assert other.produce([values, {"id": "b", "at": "2026-03-01T12:00:00Z"}]) == 0
        runtime = Runtime.open(load_project(folder))
        try:
            runtime.run(threading.Event(), until_caught_up=True)
            rows = runtime.store.query("SELECT * FROM rows ORDER BY id").to_pylist()
            read[form] = [{k: v for k, v in row.items() if k[0] != "_"} for row in rows]
        finally:
            runtime.close()
    assert len(read["json"]) == 2
    assert read["avro"] == read["json"] == read["json_schema"]


def test_a_format_without_a_registry_and_protobuf_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(PIPELINE.format(columns=COLUMNS, contract="evolve"))
    for binding, words in (
        ('{ format = "avro" }', "avro needs a schema registry"),
        ('{ format = "protobuf" }', "no compiler for .proto files"),
        ('{ format = "avor" }', "did you mean 'avro'"),
    ):
        (tmp_path / "headrace.toml").write_text(f"[profiles.local]\nstreams.events = {binding}\n")
        with pytest.raises(ProfileError, match=words):
            load_project(tmp_path)


def test_a_producer_says_when_the_registry_does_not_answer(shop: Shop) -> None:
    shop.declare()
    shop.registry.stop()
    with pytest.raises(TransientError, match="does not answer"):
        open_producer_log(load_project(shop.folder), "events")
    assert shop.produce() == 75
