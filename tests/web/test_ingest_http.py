"""Records over HTTP, from a real server on loopback; and the command in a process of its own."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.app import run
from headrace.log import open_embedded_log
from headrace.log.answered import AnsweredKeys
from headrace.produce.ingest import Ingest, IngestLimits
from headrace.web.ingest import ingest_app
from headrace.web.serving import bound_socket, serving
from log.certificates import Authority

TOKEN = "a token for tests"
SECRET = "s3cret-s3cret-s3cret"
JSON = {"Content-Type": "application/json"}
DEADLINE_S = 30


class Server:
    def __init__(self, port: int, ingest: Ingest, told: list[str]) -> None:
        self.port, self.ingest, self.told = port, ingest, told

    def post(
        self, body: bytes, headers: dict[str, str] | None = None, *, path: str = "/streams/events/records"
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        given = {"Authorization": f"Bearer {TOKEN}", **JSON, **(headers or {})}
        return ask(self.port, "POST", path, body, given)


def ask(port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


@contextmanager
def served(folder: Path, *, token: str | None = TOKEN, **limits: Any) -> Iterator[Server]:
    logs = {name: open_embedded_log(folder / "log.db", name, partitions=2) for name in ("events", "orders")}
    answered = AnsweredKeys(folder / "ingest.db", kept_us=3_600_000_000, keys_max=100)
    ingest = Ingest(logs, answered=answered, limits=IngestLimits(**limits))
    told: list[str] = []
    fields = {"events": "user", "orders": None}
    app = ingest_app(ingest, key_fields=fields, token=token, tell=told.append)
    listening = bound_socket("127.0.0.1", 0)
    try:
        with serving(app, listening):
            yield Server(listening.getsockname()[1], ingest, told)
    finally:
        ingest.close()
        answered.close()
        for log in logs.values():
            log.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with served(tmp_path, body_bytes_max=10_000, record_bytes_max=1000) as made:
        yield made


def test_an_answer_counts_what_is_durable(server: Server, tmp_path: Path) -> None:
    status, answer, _ = server.post(b'[{"user": "a", "n": 1}, {"user": "a", "n": 2}]')
    assert status == 200
    assert answer["records"] == 2
    [place] = answer["partitions"]
    assert place["next"] - place["first"] == 2
    lines = b'{"user": "a"}\n{"user": "a"}\n'
    status, answer, _ = server.post(lines, {"Content-Type": "application/x-ndjson"})
    assert answer["partitions"] == [{"partition": place["partition"], "first": 2, "next": 4}]
    log = open_embedded_log(tmp_path / "log.db", "events")
    assert [each.end for each in log.partitions() if each.partition == place["partition"]] == [4]
    log.close()


def test_without_a_token_only_an_address_or_localhost_is_a_host_name(tmp_path: Path) -> None:
    with served(tmp_path, token=None) as open_server:
        for host, status in (
            ("127.0.0.1:8080", 200),
            ("localhost", 200),
            ("[::1]:80", 200),
            ("evil.example", 421),
        ):
            assert open_server.post(b'{"user": "a"}', {"Host": host})[0] == status


def test_a_field_that_the_sender_names_chooses_the_partition(server: Server) -> None:
    path = "/streams/orders/records?key=shop"
    found = set()
    for number in range(16):
        partitions = set()
        for _ in range(3):
            _, answer, _ = server.post(b'{"shop": "s%d"}' % number, path=path)
            partitions |= {each["partition"] for each in answer["partitions"]}
        assert len(partitions) == 1
        found |= partitions
    assert found == {0, 1}


def test_a_key_makes_sending_again_harmless(server: Server) -> None:
    first = server.post(b'{"user": "a"}', {"Idempotency-Key": "one"})
    again = server.post(b'{"user": "a"}', {"Idempotency-Key": "one"})
    assert first[:2] == again[:2]
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert server.post(b'{"user": "b"}', {"Idempotency-Key": "one"})[0] == 422


@pytest.mark.parametrize(
    ("body", "headers", "path", "status", "words"),
    [
        (b"{", {}, "/streams/events/records", 400, "the object: not JSON"),
        (b"[1,2,]", {}, "/streams/events/records", 400, "element 3"),
        (b"1", {"Authorization": "Bearer a token for test"}, "/streams/events/records", 401, "Bearer TOKEN"),
        (b"1", {"Authorization": f"Basic {TOKEN}"}, "/streams/events/records", 401, "token"),
        (b"{}", {}, "/streams/event/records", 404, "did you mean 'events'"),
        (b"{}", {}, "/records", 404, "POST /streams/NAME/records"),
        (b"{}", {"Content-Type": "text/plain"}, "/streams/events/records", 415, "text/plain"),
        (b'["' + b"x" * 2000 + b'"]', {}, "/streams/events/records", 413, "a record of 2,002 bytes"),
        (b" " * 20_000, {}, "/streams/events/records", 413, "larger than 10,000 bytes"),
    ],
)
def test_what_is_not_taken_is_answered_with_status_and_fix(
    server: Server, body: bytes, headers: dict[str, str], path: str, status: int, words: str
) -> None:
    found, answer, _ = server.post(body, headers, path=path)
    assert found == status
    assert words in answer["error"] + answer["fix"]
    server.ingest.require_stream("events")
    assert server.post(b'{"user": "a"}')[1]["partitions"][0]["first"] == 0  # nothing of it was appended


def test_a_body_that_does_not_say_its_size_is_bounded_too(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        head = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json"
        connection.sendall(
            f"POST /streams/events/records HTTP/1.1\r\n{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(3):
            connection.sendall(b"1388\r\n" + b" " * 5000 + b"\r\n")
        assert b" 413 " in connection.recv(4096).splitlines()[0]


def test_a_body_that_is_cut_off_appends_nothing(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        head = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/x-ndjson"
        connection.sendall(
            f"POST /streams/events/records HTTP/1.1\r\n{head}\r\nContent-Length: 100\r\n\r\n".encode()
        )
        connection.sendall(b'{"user": "a"}\n')
    assert server.post(b'{"user": "a"}')[1]["partitions"][0]["first"] == 0


def test_too_much_in_flight_says_when_to_come_again(tmp_path: Path) -> None:
    with served(tmp_path, waiting_bytes_max=10) as server, server.ingest.admitted(1):
        status, answer, headers = server.post(b'{"user": "abc"}')
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "too much waits" in answer["error"]


def test_what_waits_is_counted_as_it_is_held_and_not_as_it_was_sent(tmp_path: Path) -> None:
    body = b"[" + b",".join(b'{"user": "%d"}' % number for number in range(1000)) + b"]"
    packed = gzip.compress(b" " * 200_000 + body)
    tiny = b"[" + b",".join([b"1"] * 1000) + b"]"
    assert len(packed) < 20_000 and len(tiny) < 10_000
    with served(tmp_path, waiting_bytes_max=40_000) as server:
        assert server.post(packed, {"Content-Encoding": "gzip"})[0] == 200  # it waits alone
        with server.ingest.admitted(100):
            status, answer, _ = server.post(packed, {"Content-Encoding": "gzip"})
            assert (status, answer["error"]) == (429, "too much waits to be appended")
            assert server.post(tiny)[0] == 429  # a record takes more than its one byte
            assert server.post(b"[1]")[0] == 200
        assert server.post(tiny)[0] == 200  # and nothing of what was refused is counted any more


def test_health_says_whether_the_log_answers_and_needs_no_token(server: Server, tmp_path: Path) -> None:
    assert ask(server.port, "GET", "/health")[:2] == (200, {"status": "ok"})
    (tmp_path / "log.db").unlink()
    status, answer, _ = server.post(b'{"user": "a"}')
    assert (status, answer["error"]) == (503, "the log refused the records")
    assert "log.db" not in json.dumps(answer)  # a sender learns nothing of our files; the operator does
    assert "deleted or replaced" in "".join(server.told)


def test_a_port_that_is_taken_is_said_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["new", str(tmp_path / "w")]) == 0
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(["ingest", "--port", port, "-C", str(tmp_path / "w")]) == 1
    assert "choose another one with --port" in capsys.readouterr().err


def test_a_port_for_everybody_needs_a_token(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["new", str(tmp_path / "w")]) == 0
    here = ("-C", str(tmp_path / "w"), "--port", "0")
    assert run(["ingest", "--host", "0.0.0.0", *here]) == 2
    assert "without a token" in capsys.readouterr().err
    monkeypatch.setenv("EMPTY", "")
    assert run(["ingest", "--host", "0.0.0.0", "--token-env", "EMPTY", *here]) == 2
    assert "is not set or empty" in capsys.readouterr().err
    monkeypatch.setenv("SHORT", "s3cret")
    assert run(["ingest", "--token-env", "SHORT", *here]) == 2
    said = capsys.readouterr().err
    assert "less than 16 characters" in said and "s3cret" not in said


def test_a_port_for_everybody_needs_tls_or_the_word_that_a_proxy_has_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["new", str(tmp_path / "w")]) == 0
    monkeypatch.setenv("LONG", SECRET)
    everybody = [
        "ingest",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--token-env",
        "LONG",
        "-C",
        str(tmp_path / "w"),
    ]
    assert run(everybody) == 2
    assert "without TLS would send token and records in the clear" in capsys.readouterr().err
    profile = tmp_path / "w" / "headrace.toml"
    profile.write_text('[profiles.local]\ningest.certificate = "c.pem"\n')
    assert run(everybody) == 2
    assert "ingest.certificate and ingest.certificate_key go together" in capsys.readouterr().err
    profile.write_text('[profiles.local]\ningest = { certificate = "c.pem", certificate_key = "k.pem" }\n')
    assert run(everybody) == 1
    assert "the TLS certificate cannot be used" in capsys.readouterr().err
    with bound_socket("0.0.0.0", 0) as taken:
        profile.write_text('[profiles.local]\ningest.plain_http = "anywhere"\n')
        everybody[everybody.index("--port") + 1] = str(taken.getsockname()[1])
        assert run(everybody) == 1  # it got as far as listening
    assert "choose another one with --port" in capsys.readouterr().err


@pytest.mark.slow
def test_records_are_taken_over_tls(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    assert run(["new", str(folder)]) == 0
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.signed("ingest")
    options = f'certificate = "{certificate}", certificate_key = "{key}", token = "${{env:TOKEN}}"'
    (folder / "headrace.toml").write_text(f"[profiles.local]\ningest = {{ {options} }}\n")
    command = Command(folder, TOKEN=SECRET)
    try:
        trust = ssl.create_default_context(cafile=str(authority.ca))
        sender = http.client.HTTPSConnection("127.0.0.1", command.port, timeout=DEADLINE_S, context=trust)
        headers = {**JSON, "Authorization": f"Bearer {SECRET}"}
        sender.request("POST", "/streams/readings/records", b'{"n": 1}', headers)
        answer = sender.getresponse()
        assert (answer.status, json.loads(answer.read())["records"]) == (200, 1)
        sender.close()
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(command.port, "GET", "/health")
    finally:
        out = command.end(signal.SIGINT)
    assert SECRET not in out


class Command:
    """`headrace ingest` in a process of its own; made when it listens."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "ingest", "--port", "0"],
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"https?://127\.0\.0\.1:(\d+)/", line)
        assert found, line + self.process.stdout.read()
        self.port = int(found.group(1))

    def end(self, number: int) -> str:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        return out


@pytest.mark.slow
def test_a_killed_process_has_what_it_answered_and_knows_its_keys_again(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    assert run(["new", str(folder)]) == 0
    (folder / "headrace.toml").write_text('[profiles.local]\ningest.token = "${env:TOKEN}"\n')
    path, headers = "/streams/readings/records", {**JSON, "Authorization": f"Bearer {SECRET}"}
    command = Command(folder, TOKEN=SECRET)
    try:
        assert ask(command.port, "POST", path, b"{}", JSON)[0] == 401
        answers = [
            ask(command.port, "POST", path, b'{"n": %d}' % n, {**headers, "Idempotency-Key": f"k{n}"})[1]
            for n in range(20)
        ]
        second = subprocess.run(
            [sys.executable, "-m", "headrace", "ingest", "--port", "0"],
            cwd=folder,
            env={**os.environ, "TOKEN": SECRET},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert second.returncode == 1
        assert str(command.process.pid) in second.stderr
    finally:
        command.end(signal.SIGKILL)
    command = Command(folder, TOKEN=SECRET)
    for n, before in enumerate(answers):
        status, answer, found = ask(
            command.port, "POST", path, b'{"n": %d}' % n, {**headers, "Idempotency-Key": f"k{n}"}
        )
        assert (status, answer, found["Idempotent-Replayed"]) == (200, before, "true")
    out = command.end(signal.SIGINT)
    assert command.process.returncode == 0
    assert "stopped; what was answered is in the log" in out
    assert SECRET not in out
    log = open_embedded_log(folder / ".headrace" / "log.db", "readings")
    assert [each.end for each in log.partitions()] == [20]
    log.close()
