"""The embedded registry: what Apicurio cannot be asked for, bad input, and several processes on one file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from registry_support import RunningRegistry, field, record_schema

from headrace.errors import RefusedError
from headrace.log.registry.rules import Registry, RegistryRefusal, Request
from headrace.log.registry.storage import Storage
from headrace.web.registry import BODY_BYTES_MAX, RegistryServer

V1 = record_schema(field("id", "string"))
V2 = record_schema(field("id", "string"), field("n", "int", default=0))
V3 = record_schema(field("id", "string"), field("m", "int", default=0))
LEVELS = (
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
    "NONE",
)


@pytest.fixture
def http(registry: RunningRegistry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=registry.url) as client:
        yield client


def body(schema: Any, **more: Any) -> dict[str, Any]:
    return {"schema": schema if isinstance(schema, str) else json.dumps(schema), **more}


def register(http: httpx.Client, subject: str, schema: Any, **more: Any) -> int:
    answer = http.post(f"/subjects/{subject}/versions", json=body(schema, **more))
    assert answer.status_code == 200, answer.text
    number: int = answer.json()["id"]
    return number


def code(answer: httpx.Response) -> tuple[int, int]:
    assert answer.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
    return answer.status_code, answer.json()["error_code"]


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_compares_with_the_versions_that_it_names(http: httpx.Client, level: str) -> None:
    # a: has a default nowhere; b adds one with a default; c drops it again.
    a = record_schema(field("id", "string"), field("x", "int"))
    b = record_schema(field("id", "string"), field("x", "int", default=1))
    http.put("/config/s", json={"compatibility": "NONE"})
    register(http, "s", a)
    register(http, "s", b)
    assert http.put("/config/s", json={"compatibility": level}).json() == {"compatibility": level}
    without = record_schema(field("id", "string"))
    wider = record_schema(field("id", "string"), field("x", "int", default=1), field("y", "int"))
    # Without x: reads both; b, whose x has a default, reads it; a, whose x has none, does not.
    refused = {"FORWARD_TRANSITIVE", "FULL_TRANSITIVE"}
    verdict = http.post("/compatibility/subjects/s/versions", json=body(without)).json()["is_compatible"]
    assert verdict == (level not in refused)
    # With a y that has no default: read by both, reads neither.
    refused = {"BACKWARD", "BACKWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"}
    verdict = http.post("/compatibility/subjects/s/versions?verbose=true", json=body(wider)).json()
    assert verdict["is_compatible"] == (level not in refused)
    assert bool(verdict["messages"]) == (level in refused)
    if verdict["messages"]:
        assert (
            "READER_FIELD_MISSING_DEFAULT_VALUE" in verdict["messages"][0] and "'y'" in verdict["messages"][0]
        )
        assert f"{{compatibility: '{level}'}}" in verdict["messages"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_transitive_level_refuses_what_reads_the_last_version_alone(http: httpx.Client, level: str) -> None:
    first = record_schema(field("id", "string"))
    last = record_schema(field("id", "string"), field("z", "string"))
    wider = record_schema(field("id", "string"), field("z", "string"), field("w", "int", default=0))
    http.put("/config/s", json={"compatibility": "NONE"})
    register(http, "s", first)
    register(http, "s", last)
    http.put("/config/s", json={"compatibility": level})
    # It asks for a z without a default, which the last version writes and the first does not; both read it.
    refused = level in {"BACKWARD_TRANSITIVE", "FULL_TRANSITIVE"}
    verdict = http.post("/compatibility/subjects/s/versions", json=body(wider)).json()["is_compatible"]
    assert verdict == (not refused)
    assert http.post("/subjects/s/versions", json=body(wider)).status_code == (409 if refused else 200)


def test_ids_follow_contents_and_versions_follow_subjects(http: httpx.Client) -> None:
    first, second = register(http, "a", V1), register(http, "a", V2)
    assert register(http, "b", V1) == first and register(http, "a", V1) == first
    assert second > first
    spelled = (
        '{ "name": "Event", "fields": [ {"type": {"type": "string"}, "name": "id"} ], "type": "record" }'
    )
    assert register(http, "a", spelled) == first
    assert http.get("/subjects/a/versions").json() == [1, 2]
    where = http.get(f"/schemas/ids/{first}/versions").json()
    assert where == [{"subject": "a", "version": 1}, {"subject": "b", "version": 1}]
    guid = http.get(f"/schemas/ids/{first}").json()["guid"]
    assert json.loads(http.get(f"/schemas/guids/{guid}").json()["schema"]) == V1


def test_a_deleted_version_comes_back_under_a_new_number(http: httpx.Client) -> None:
    first = register(http, "s", V1)
    register(http, "s", V2)
    assert http.delete("/subjects/s/versions/1").json() == 1
    assert http.get("/subjects/s/versions?deletedOnly=true").json() == [1]
    assert http.get("/subjects/s/versions/1?deleted=true").json()["id"] == first
    assert register(http, "s", V1) == first
    assert http.get("/subjects/s/versions").json() == [2, 3]
    assert http.delete("/subjects/s").json() == [2, 3]
    assert code(http.get("/subjects/s/versions")) == (404, 40401)
    assert http.get(f"/schemas/ids/{first}").status_code == 200
    assert http.delete("/subjects/s?permanent=true").json() == [1, 2, 3]
    assert code(http.get(f"/schemas/ids/{first}")) == (404, 40403)
    register(http, "s", V3)
    assert http.get("/subjects/s/versions").json() == [1]


def test_modes_say_who_may_write(http: httpx.Client) -> None:
    register(http, "s", V1)
    assert http.put("/mode/s", json={"mode": "READONLY"}).json() == {"mode": "READONLY"}
    assert code(http.post("/subjects/s/versions", json=body(V2))) == (422, 42205)
    assert code(http.delete("/subjects/s")) == (422, 42205)
    assert register(http, "s", V1)  # what is there already is found, not written
    register(http, "other", V1)
    assert http.delete("/mode/s").json() == {"mode": "READONLY"}
    assert code(http.get("/mode/s")) == (404, 40409)
    assert http.put("/mode", json={"mode": "READONLY_OVERRIDE"}).status_code == 200
    http.put("/mode/s", json={"mode": "READWRITE"})
    assert code(http.post("/subjects/s/versions", json=body(V2))) == (422, 42205)
    assert code(http.put("/mode/s", json={"mode": "READONLY_OVERRIDE"})) == (422, 42204)


def test_importing_keeps_ids_and_versions(http: httpx.Client) -> None:
    register(http, "s", V1)
    assert code(http.put("/mode", json={"mode": "IMPORT"})) == (422, 42205)
    assert code(http.post("/subjects/t/versions", json=body(V2, id=40))) == (422, 42205)
    assert http.put("/mode/t", json={"mode": "IMPORT"}).status_code == 200
    assert code(http.post("/subjects/t/versions", json=body(V2))) == (422, 42205)
    assert register(http, "t", V2, id=40, version=7) == 40
    assert http.get("/subjects/t/versions").json() == [7]
    assert code(http.post("/subjects/t/versions", json=body(V3, id=40, version=8))) == (422, 42205)
    assert code(http.post("/subjects/t/versions", json=body(V3, id=41, version=7))) == (422, 42205)
    http.put("/mode/t", json={"mode": "READWRITE"})
    assert register(http, "t", record_schema(field("id", "string"), field("z", "int", default=1))) == 41
    assert http.get("/subjects/t/versions").json() == [7, 8]
    assert http.put("/mode?force=true", json={"mode": "IMPORT"}).status_code == 200


def test_normalizing_makes_one_of_two_spellings(http: httpx.Client) -> None:
    plain = {**V1, "b": 1, "a": 2, "aliases": []}
    turned = {**V1, "a": 2, "b": 1}
    first = http.post("/subjects/s/versions?normalize=true", json=body(plain)).json()["id"]
    assert http.post("/subjects/s/versions?normalize=true", json=body(turned)).json()["id"] == first
    assert http.post("/subjects/s?normalize=true", json=body(plain)).json()["version"] == 1
    one = {"type": "object", "title": "x"}
    other = {"title": "x", "type": "object"}
    ids = {
        http.post("/subjects/j/versions?normalize=true", json=body(each, schemaType="JSON")).json()["id"]
        for each in (one, other)
    }
    assert len(ids) == 1


def test_json_schemas_refer_to_each_other(http: httpx.Client) -> None:
    register(http, "money", {"type": "number", "minimum": 0}, schemaType="JSON")
    order = {"type": "object", "properties": {"total": {"$ref": "money.json"}}, "additionalProperties": False}
    references = [{"name": "money.json", "subject": "money", "version": 1}]
    assert code(http.post("/subjects/order/versions", json=body(order, schemaType="JSON"))) == (422, 42201)
    number = register(http, "order", order, schemaType="JSON", references=references)
    assert http.get(f"/schemas/ids/{number}").json()["references"] == references
    assert http.get("/subjects/money/versions/1/referencedby").json() == [number]
    assert code(http.delete("/subjects/money")) == (422, 42206)
    text = {**order, "properties": {"total": {"type": "string"}}}
    verdict = http.post("/compatibility/subjects/order/versions", json=body(text, schemaType="JSON")).json()
    assert verdict == {"is_compatible": False}


def test_a_subject_may_have_any_name(http: httpx.Client) -> None:
    for name in ("a b", "a/b", "ü", ":.ctx:x", "versions"):
        quoted = httpx.URL("/").join("/").path and name
        path = "".join(f"%{byte:02X}" for byte in quoted.encode())
        assert http.post(f"/subjects/{path}/versions", json=body(V1)).status_code == 200, name
        assert http.get(f"/subjects/{path}/versions/latest").json()["subject"] == name
    assert sorted(http.get("/subjects").json()) == sorted(["a b", "a/b", "ü", ":.ctx:x", "versions"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (422, 422)),
        (b"{", (422, 422)),
        (b"\xff\xfe", (422, 422)),
        (b"[" * 100_000, (422, 422)),
        (b"null", (422, 42201)),
        (b"[]", (422, 42201)),
        (b'{"schema": 1}', (422, 42201)),
        (b'{"schema": " "}', (422, 42201)),
        (b'{"schema": "\\"int\\"", "references": 5}', (422, 42201)),
        (b'{"schema": "\\"int\\"", "references": [{"name": "x"}]}', (422, 42201)),
        (b'{"schema": "\\"int\\"", "references": [{"name": "x", "subject": "no", "version": 1}]}',
         (422, 42201)),
        (b'{"schema": "\\"int\\"", "id": "x"}', (422, 42202)),
        (b'{"schema": "syntax = \\"proto3\\";", "schemaType": "PROTOBUF"}', (422, 42201)),
        (b'{"schema": "' + b" " * BODY_BYTES_MAX + b'"}', (413, 413)),
    ],
)  # fmt: skip
def test_a_bad_body_is_refused_with_a_code(
    http: httpx.Client, content: bytes, expected: tuple[int, int]
) -> None:
    for path in ("/subjects/s/versions", "/compatibility/subjects/s/versions/latest"):
        assert code(http.post(path, content=content)) == expected
    assert http.get("/subjects").json() == []


def test_a_place_or_a_method_that_there_is_not_is_an_error_in_json(http: httpx.Client) -> None:
    assert code(http.get("/nowhere")) == (404, 404)
    assert code(http.patch("/subjects")) == (405, 405)
    assert code(http.get("/schemas/ids/x")) == (404, 404)
    assert code(http.get("/schemas/ids/99999999999999999999")) == (404, 404)
    assert code(http.get("/subjects/s/versions/99999999999")) == (422, 42202)


def test_a_page_in_a_browser_cannot_write(http: httpx.Client) -> None:
    sent = http.post("/subjects/s/versions", json=body(V1), headers={"Origin": "http://elsewhere.example"})
    assert code(sent) == (403, 403)
    assert http.get("/subjects").json() == []


def test_what_was_registered_is_there_after_a_restart(registry: RunningRegistry, http: httpx.Client) -> None:
    number = register(http, "s", V1)
    http.put("/config", json={"compatibility": "FULL"})
    registry.stop()
    registry.start()
    assert json.loads(http.get(f"/schemas/ids/{number}").json()["schema"]) == V1
    assert http.get("/config").json() == {"compatibilityLevel": "FULL"}
    assert http.delete("/config").json() == {"compatibilityLevel": "BACKWARD"}


def test_it_listens_on_loopback_and_says_when_it_cannot(registry: RunningRegistry, tmp_path: Path) -> None:
    assert registry.url.startswith("http://127.0.0.1:")
    with pytest.raises(RefusedError, match="cannot listen on"):
        RegistryServer(tmp_path / "other.db", port=registry.port)
    (tmp_path / "text").write_text("no database\n" * 1000)
    with pytest.raises(RefusedError, match="cannot be opened as a schema registry"):
        RegistryServer(tmp_path / "text")


WRITER = """
import json, sys
from pathlib import Path
from headrace.log.registry.rules import Registry, Request
from headrace.log.registry.storage import Storage

registry = Registry(Storage(Path(sys.argv[1])))
sys.stdin.readline()
for n in range(40):
    fields = [{"name": f"f{n}_{sys.argv[2] if n % 2 else 'both'}", "type": "int"}]
    schema = json.dumps({"type": "record", "name": "R", "fields": fields})
    found = registry.register(f"s{n % 3}", Request("AVRO", schema, ()))
    print(found.subject, found.version, found.schema.id, schema, sep="\\t")
registry.close()
"""


def test_several_processes_on_one_file_give_no_id_and_no_version_twice(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = Registry(Storage(path))
    registry.set_setting("compatibility", "NONE")
    registry.close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [
        line.split("\t") for process in processes for line in process.communicate(timeout=60)[0].splitlines()
    ]
    assert [process.returncode for process in processes] == [0, 0] and len(lines) == 80
    by_version: dict[tuple[str, str], str] = {}
    by_id: dict[str, str] = {}
    for subject, version, number, schema in lines:
        assert by_version.setdefault((subject, version), schema) == schema
        assert by_id.setdefault(number, schema) == schema
    assert len(by_id) == len(set(by_id.values())) == 60


def test_a_change_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path / "registry.db")
    registry = Registry(storage)

    def fail(*arguments: Any) -> None:
        raise RegistryRefusal(500, 50001, "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "add_version", fail)
        with pytest.raises(RegistryRefusal):
            registry.register("s", Request("AVRO", '"int"', ()))
    assert storage.last_id() == 0
    assert registry.register("s", Request("AVRO", '"int"', ())).schema.id == 1
    registry.close()
