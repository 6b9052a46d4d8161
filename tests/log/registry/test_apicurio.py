"""The embedded registry and Apicurio's answer the same calls, one by one; differences have reasons.

Where the two differ, Confluent's "Schema Registry API Reference" decides, and both answers stand in the table
below. The table is strict: a difference that is gone fails, so that the table stays true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import pytest
from registry_support import RunningRegistry, field, record_schema

pytestmark = pytest.mark.server


class Call(NamedTuple):
    """A request; its name is what the table of differences calls it."""

    name: str
    method: str
    path: str
    body: Any = None


def schema(value: Any, kind: str = "AVRO", **more: Any) -> dict[str, Any]:
    return {"schema": json.dumps(value), **({} if kind == "AVRO" else {"schemaType": kind}), **more}


V1 = record_schema(field("id", "string"))
WITH_DEFAULT = record_schema(field("id", "string"), field("n", "int", default=0))
WITHOUT_DEFAULT = record_schema(field("id", "string"), field("m", "int"))
NO_ID = record_schema(field("n", "int", default=0))
OPEN = {"type": "object", "properties": {"id": {"type": "string"}}}
CLOSED = {**OPEN, "additionalProperties": False}
CLOSED_MORE = {**CLOSED, "properties": {**CLOSED["properties"], "n": {"type": "integer"}}}
CLOSED_REQUIRED = {**CLOSED, "required": ["id"]}
CLOSED_NUMBER = {**CLOSED, "properties": {"id": {"type": "number"}}}
ADDRESS = record_schema(field("city", "string"), name="Address")
PERSON = record_schema(field("lives", "Address"), name="Person")
REFERENCES = [{"name": "Address", "subject": "address", "version": 1}]
S = "/subjects/s"
C = "/compatibility/subjects"


def calls() -> Iterator[Call]:
    yield Call("no subjects yet", "GET", "/subjects")
    yield Call("kinds of schema", "GET", "/schemas/types")
    yield Call("level of the whole at first", "GET", "/config")
    yield Call("mode of the whole at first", "GET", "/mode")
    yield Call("set the level of the whole", "PUT", "/config", {"compatibility": "BACKWARD"})
    yield Call("level of the whole", "GET", "/config")
    yield Call("a level that there is not", "PUT", "/config", {"compatibility": "SIDEWAYS"})
    yield Call("versions of an unknown subject", "GET", f"{S}/versions")
    yield Call("latest of an unknown subject", "GET", f"{S}/versions/latest")
    yield Call("look up in an unknown subject", "POST", S, schema(V1))
    yield Call("delete an unknown subject", "DELETE", S)
    yield Call("an unknown id", "GET", "/schemas/ids/99")
    yield Call("an unknown id's versions", "GET", "/schemas/ids/99/versions")
    yield Call("register", "POST", f"{S}/versions", schema(V1))
    yield Call("register again", "POST", f"{S}/versions", schema(V1))
    yield Call("register what is not JSON", "POST", f"{S}/versions", {"schema": "{nonsense"})
    yield Call("register what is not Avro", "POST", f"{S}/versions", schema({"type": "record"}))
    yield Call("register an unknown kind", "POST", f"{S}/versions", schema(V1, "THRIFT"))
    yield Call("register without a schema", "POST", f"{S}/versions", {})
    yield Call("look up", "POST", S, schema(V1))
    yield Call("look up another one", "POST", S, schema(WITH_DEFAULT))
    yield Call("by id", "GET", "/schemas/ids/1")
    yield Call("text by id", "GET", "/schemas/ids/1/schema")
    yield Call("versions by id", "GET", "/schemas/ids/1/versions")
    yield Call("subjects by id", "GET", "/schemas/ids/1/subjects")
    yield Call("version 1", "GET", f"{S}/versions/1")
    yield Call("text of version 1", "GET", f"{S}/versions/1/schema")
    yield Call("latest", "GET", f"{S}/versions/latest")
    yield Call("version -1", "GET", f"{S}/versions/-1")
    yield Call("version 7", "GET", f"{S}/versions/7")
    yield Call("version 0", "GET", f"{S}/versions/0")
    yield Call("version x", "GET", f"{S}/versions/x")
    yield Call("compatible with a default", "POST", f"{C}/s/versions/latest", schema(WITH_DEFAULT))
    yield Call("incompatible without one", "POST", f"{C}/s/versions/latest", schema(WITHOUT_DEFAULT))
    yield Call(
        "incompatible, in words", "POST", f"{C}/s/versions/latest?verbose=true", schema(WITHOUT_DEFAULT)
    )
    yield Call("compatible with all", "POST", f"{C}/s/versions", schema(WITH_DEFAULT))
    yield Call("check against version 9", "POST", f"{C}/s/versions/9", schema(WITH_DEFAULT))
    yield Call("check against an unknown subject", "POST", f"{C}/unknown/versions/latest", schema(V1))
    yield Call("check what is not Avro", "POST", f"{C}/s/versions/latest", schema({"type": "record"}))
    yield Call("register an incompatible one", "POST", f"{S}/versions", schema(WITHOUT_DEFAULT))
    yield Call("register a compatible one", "POST", f"{S}/versions", schema(WITH_DEFAULT))
    yield Call("both versions", "GET", f"{S}/versions")
    yield Call("the same under another subject", "POST", "/subjects/t/versions", schema(V1))
    yield Call("subjects", "GET", "/subjects")
    yield Call("subjects with a prefix", "GET", "/subjects?subjectPrefix=t")
    yield Call("level of a subject without one", "GET", "/config/s")
    yield Call("level of a subject or the whole", "GET", "/config/s?defaultToGlobal=true")
    for level, reader in (("FORWARD", NO_ID), ("FULL", NO_ID), ("NONE", WITHOUT_DEFAULT)):
        yield Call(f"set {level}", "PUT", "/config/s", {"compatibility": level})
        yield Call(f"check by {level}", "POST", f"{C}/s/versions/latest", schema(reader))
    yield Call("set FULL_TRANSITIVE", "PUT", "/config/s", {"compatibility": "FULL_TRANSITIVE"})
    yield Call("level of the subject", "GET", "/config/s")
    yield Call("check all by FULL_TRANSITIVE", "POST", f"{C}/s/versions", schema(NO_ID))
    yield Call("drop the level of the subject", "DELETE", "/config/s")
    yield Call("mode of a subject without one", "GET", "/mode/s")
    yield Call("a mode that there is not", "PUT", "/mode", {"mode": "SIDEWAYS"})
    yield Call("delete version 1 for good too early", "DELETE", f"{S}/versions/1?permanent=true")
    yield Call("delete version 1", "DELETE", f"{S}/versions/1")
    yield Call("delete version 1 again", "DELETE", f"{S}/versions/1")
    yield Call("versions that are left", "GET", f"{S}/versions")
    yield Call("versions, deleted ones too", "GET", f"{S}/versions?deleted=true")
    yield Call("a deleted version", "GET", f"{S}/versions/1")
    yield Call("its id still reads", "GET", "/schemas/ids/1")
    yield Call("delete version 1 for good", "DELETE", f"{S}/versions/1?permanent=true")
    yield Call("delete version 9", "DELETE", f"{S}/versions/9")
    yield Call("delete the subject for good too early", "DELETE", f"{S}?permanent=true")
    yield Call("delete the subject", "DELETE", S)
    yield Call("subjects that are left", "GET", "/subjects")
    yield Call("subjects, deleted ones too", "GET", "/subjects?deleted=true")
    yield Call("delete the subject again", "DELETE", S)
    yield Call("delete the subject for good", "DELETE", f"{S}?permanent=true")
    yield Call("subjects at the end", "GET", "/subjects?deleted=true")
    yield Call("register JSON Schema", "POST", "/subjects/j/versions", schema(CLOSED, "JSON"))
    yield Call("JSON Schema, latest", "GET", "/subjects/j/versions/latest")
    yield Call(
        "JSON: a property more in a closed model",
        "POST",
        f"{C}/j/versions/latest",
        schema(CLOSED_MORE, "JSON"),
    )
    yield Call("JSON: closed becomes open", "POST", f"{C}/j/versions/latest", schema(OPEN, "JSON"))
    yield Call("JSON: required now", "POST", f"{C}/j/versions/latest", schema(CLOSED_REQUIRED, "JSON"))
    yield Call("JSON: another type", "POST", f"{C}/j/versions/latest", schema(CLOSED_NUMBER, "JSON"))
    yield Call("JSON: not a schema", "POST", "/subjects/j/versions", schema({"type": "nonsense"}, "JSON"))
    yield Call("Avro after JSON", "POST", "/subjects/j/versions", schema(V1))
    yield Call("register what is referred to", "POST", "/subjects/address/versions", schema(ADDRESS))
    yield Call(
        "register with a reference",
        "POST",
        "/subjects/person/versions",
        schema(PERSON, references=REFERENCES),
    )
    yield Call("register without the reference", "POST", "/subjects/person2/versions", schema(PERSON))
    yield Call("what refers to it", "GET", "/subjects/address/versions/1/referencedby")
    yield Call("delete what is referred to", "DELETE", "/subjects/address/versions/1")
    yield Call("a version with a reference", "GET", "/subjects/person/versions/1")
    yield Call("set READONLY", "PUT", "/mode", {"mode": "READONLY"})
    yield Call("register when it is read only", "POST", "/subjects/r/versions", schema(V1))
    yield Call("set READWRITE", "PUT", "/mode", {"mode": "READWRITE"})
    yield Call("a place that there is not", "GET", "/nowhere")


Answer = tuple[int, Any]

NOT_DEFAULT = "the reference says that a registry that was told nothing is BACKWARD"
OWN_LEVEL = "the reference has a code for a subject without a level of its own (40408)"
VERSION_WORDS = "the reference says 42202 for what is no version number"
SOFT_FIRST = "the reference lists these codes under 404"
DIFFERENCES: Mapping[str, tuple[Answer, Answer, str]] = {
    "kinds of schema": (
        (200, ["JSON", "AVRO"]),
        (200, ["JSON", "PROTOBUF", "AVRO"]),
        "Protobuf is a gap of ours: it needs a compiler for .proto files",
    ),
    "level of the whole at first": (
        (200, {"compatibilityLevel": "BACKWARD"}),
        (200, {"compatibilityLevel": "NONE"}),
        NOT_DEFAULT,
    ),
    "level of a subject without one": (
        (404, {"error_code": 40408}),
        (200, {"compatibilityLevel": "NONE"}),
        OWN_LEVEL,
    ),
    "register an unknown kind": (
        (422, {"error_code": 42201}),
        (200, {"id": 1}),
        "Apicurio takes a kind that it does not know for Avro",
    ),
    "register without a schema": (
        (422, {"error_code": 42201}),
        (500, {"error_code": 0}),
        "a bad request is the client's, and the reference says 42201",
    ),
    "version 0": ((422, {"error_code": 42202}), (404, {"error_code": 40402}), VERSION_WORDS),
    "version x": ((422, {"error_code": 42202}), (404, {"error_code": 40402}), VERSION_WORDS),
    "incompatible, in words": (
        (200, {"is_compatible": False, "messages": True}),
        (200, {"is_compatible": False}),
        "the reference says that verbose=true gives the reasons",
    ),
    "subjects with a prefix": (
        (200, ["t"]),
        (200, ["s", "t"]),
        "the reference has subjectPrefix; Apicurio passes it over",
    ),
    "mode of a subject without one": (
        (404, {"error_code": 40409}),
        (200, {"mode": "READWRITE"}),
        "as with levels, a subject without a mode of its own has a code (40409)",
    ),
    "a mode that there is not": (
        (422, {"error_code": 42204}),
        (422, {"error_code": 42201}),
        "the reference says 42204 for a mode that there is not",
    ),
    "delete version 1 for good too early": (
        (404, {"error_code": 40407}),
        (409, {"error_code": 40407}),
        SOFT_FIRST,
    ),
    "delete version 1 again": ((404, {"error_code": 40406}), (409, {"error_code": 40406}), SOFT_FIRST),
    "delete the subject for good too early": (
        (404, {"error_code": 40405}),
        (409, {"error_code": 40405}),
        SOFT_FIRST,
    ),
    "Avro after JSON": (
        (409, {"error_code": 409}),
        (422, {"error_code": 42201}),
        "the schema is one, but not a compatible one",
    ),
    "register when it is read only": (
        (422, {"error_code": 42205}),
        (200, {"id": 1}),
        "Apicurio keeps the mode and does not go by it",
    ),
    "a place that there is not": (
        (404, {"error_code": 404}),
        (404, None),
        "every error of the reference is JSON with a code",
    ),
}
"""What we answer, what Apicurio answers, and why we do."""


def asked(url: str) -> dict[str, Answer]:
    order: dict[int, int] = {}
    with httpx.Client(
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"}, timeout=20
    ) as client:
        return {
            call.name: told(
                client.request(
                    call.method, url + call.path, content=None if call.body is None else json.dumps(call.body)
                ),
                order,
            )
            for call in calls()
        }


def told(answer: httpx.Response, order: dict[int, int]) -> Answer:
    """The status and what a client goes by: codes and not sentences, schemas and not their white space.

    Ids are counted in the order in which they come up: Apicurio uses some up for what it refuses. Of a
    registration, whose answer newer registries fill with all they know, the id alone is compared.
    """
    try:
        body = answer.json()
    except ValueError:
        return answer.status_code, None
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in ("message", "guid", "normalize")}
        if "id" in body:
            body["id"] = order.setdefault(body["id"], len(order) + 1)
            if answer.request.url.path.endswith("/versions"):
                body = {"id": body["id"]}
        if isinstance(body.get("schema"), str):
            body["schema"] = json.loads(body["schema"])
        if "messages" in body:
            body["messages"] = bool(body["messages"])
    elif answer.request.url.path.endswith("/referencedby"):
        body = [order.get(each) for each in body]
    return answer.status_code, body


def test_the_two_registries_answer_alike(registry: RunningRegistry, apicurio_registry: str) -> None:
    ours, theirs = asked(registry.url), asked(apicurio_registry)
    found = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    expected = {name: (our, their) for name, (our, their, _) in DIFFERENCES.items()}
    assert found == expected


def test_every_difference_has_a_reason_and_a_call() -> None:
    names = [call.name for call in calls()]
    assert len(set(names)) == len(names) and set(DIFFERENCES) <= set(names)
    assert all(our != their and len(why) > 20 for our, their, why in DIFFERENCES.values())
