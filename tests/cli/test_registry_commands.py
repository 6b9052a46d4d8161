"""`headrace registry`: a registry served by the command itself, filled and asked by the others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.app import run

RECORD = {"type": "record", "name": "Event", "fields": [{"name": "id", "type": "string"}]}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "headrace",
        "registry",
        "serve",
        "--port",
        "0",
        "--path",
        str(tmp_path / "r.db"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("schema registry at http://127.0.0.1:"), line
        yield line.split()[3].rstrip(",")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130, -signal.SIGINT)


def file(folder: Path, schema: object, name: str = "event.avsc") -> str:
    (folder / name).write_text(json.dumps(schema))
    return str(folder / name)


def test_schemas_are_registered_listed_and_checked(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, expected: int = 0) -> str:
        assert run(["registry", *words, "--url", url]) == expected
        return capsys.readouterr().out

    assert json.loads(said("list", "--json")) == []
    first = file(tmp_path, RECORD)
    assert said("check", "events-value", first) == "compatible with 'events-value'\n"
    assert said("register", "events-value", first) == "'events-value' version 1, id 1\n"
    assert json.loads(said("register", "events-value", first, "--json"))["version"] == 1
    broken = file(tmp_path, {**RECORD, "fields": [{"name": "n", "type": "int"}]}, "broken.avsc")
    told = said("check", "events-value", broken, expected=1)
    assert told.startswith("incompatible with 'events-value':") and "'n' has no default" in told
    verdict = json.loads(said("check", "events-value", broken, "--json", expected=1))
    assert not verdict["compatible"] and verdict["reasons"]
    assert run(["registry", "register", "events-value", broken, "--url", url]) == 1
    assert "incompatible with subject 'events-value'" in capsys.readouterr().err
    said("register", "orders", file(tmp_path, {"type": "object"}, "order.json"))
    rows = json.loads(said("list", "--json"))
    assert [(row["subject"], row["type"], row["version"]) for row in rows] == [
        ("events-value", "AVRO", 1),
        ("orders", "JSON", 1),
    ]
    assert "BACKWARD" in said("list")


def test_a_file_that_is_no_schema_and_a_registry_that_is_not_there_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["registry", "register", "s", file(tmp_path, {}, "x.proto")]) == 2
    assert "Protobuf is not supported" in capsys.readouterr().err
    assert run(["registry", "register", "s", str(tmp_path / "none.avsc")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert run(["registry", "list", "--url", "http://127.0.0.1:9"]) == 75
    told = capsys.readouterr().err
    assert "does not answer" in told
    assert "fix: start it, or correct --url" in told


NO_SCHEMAS = [
    ("a.avsc", '{"type": "record",\n  "name": oops}', "not JSON: Expecting value (line 2, column 11)"),
    ("b.avsc", "", "not JSON: Expecting value (line 1, column 1)"),
    ("c.avsc", '{"type": "recrd", "name": "E", "fields": []}', "the schema is not Avro: "),
    ("d.json", '{"type": "object",\n}', "not JSON: "),
    ("e.json", '{"type": 5}', "not JSON Schema: 'anyOf' is not met (at /type)"),
]


def test_a_schema_that_is_none_is_told_with_its_file_and_place(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text, where in NO_SCHEMAS:
        path = tmp_path / name
        path.write_text(text)
        for command in ("check", "register"):
            assert run(["registry", command, "events-value", str(path), "--url", url]) == 1
            told = capsys.readouterr().err
            assert told.startswith(f"error: {path}: the schema is ")
            assert where in told
            assert "fix: correct the schema there" in told


@pytest.mark.parametrize("url", ["nonsense", "ftp://here", "http://[", "http://me:pass/word@here:8081", ""])
def test_an_address_that_is_none_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["registry", "list", "--url", url]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the address of the schema registry is no URL")
    assert "fix: " in said
    assert "pass" not in said.partition("fix: ")[0]
