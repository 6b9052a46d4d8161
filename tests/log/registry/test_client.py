"""The client: what is asked once, what is waited for, what needs an operator, and what is never told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from registry_support import RunningRegistry

from headrace.errors import RefusedError, TransientError
from headrace.log.registry.client import AnswerRefused, RegistryClient

PASSWORD = "pa55word"


class Odd(ThreadingHTTPServer):
    """A server that answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Odd

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        status, content = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[Odd]:
    with Odd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_id_is_asked_once_and_an_unknown_one_again_later(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(RegistryClient(odd.url)) as client:
        odd.answer = (404, b'{"error_code": 40403, "message": "Schema not found"}')
        assert client.schema(1) is None and client.schema(1) is None
        assert len(odd.asked) == 1
        odd.answer = (200, b'{"schema": "\\"string\\""}')
        assert client.schema(1) is None  # for a while
        monkeypatch.setattr("headrace.log.registry.client._UNKNOWN_FOR_S", -1.0)
        odd.answer = (404, b'{"error_code": 40403, "message": "Schema not found"}')
        assert client.schema(2) is None
        odd.answer = (200, b'{"schema": "\\"string\\""}')
        assert client.schema(2) is not None and client.schema(2) is not None
        assert len(odd.asked) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_an_answer_that_may_be_better_later_is_transient(odd: Odd, status: int) -> None:
    odd.answer = (status, b"out of order")
    with closing(RegistryClient(odd.url)) as client, pytest.raises(TransientError, match=str(status)):
        client.schema(1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_user_is_an_operators_business_and_the_password_is_not_told(odd: Odd, status: int) -> None:
    odd.answer = (status, f'{{"error_code": {status}, "message": "{PASSWORD}"}}'.encode())
    client = RegistryClient(odd.url, user="u", password=PASSWORD)
    with closing(client), pytest.raises(RefusedError, match="refuses this user") as refused:
        client.schema(1)
    assert PASSWORD not in str(refused.value) and "registry_password" in refused.value.fix
    assert odd.asked[0][1] == "Basic " + base64.b64encode(f"u:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    "answer", [(404, b"<html>"), (200, b"<html>"), (404, b'{"detail": "Not Found"}'), (302, b"")]
)
def test_what_is_no_registry_makes_no_dead_letters(odd: Odd, answer: tuple[int, bytes]) -> None:
    odd.answer = answer
    with closing(RegistryClient(odd.url)) as client, pytest.raises(RefusedError, match="no schema registry"):
        client.schema(1)


def test_a_registry_that_is_not_there_is_transient(registry: RunningRegistry) -> None:
    registry.stop()
    with closing(RegistryClient(registry.url)) as client:
        with pytest.raises(TransientError, match="does not answer"):
            client.schema(1)
        registry.start()
        assert client.schema(1) is None


def test_a_registry_that_is_silent_is_transient(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.log.registry.client._ANSWER_S", 0.2)
    silent = threading.Event()

    def wait(handler: Any) -> None:
        silent.wait(10)

    monkeypatch.setattr(_Handler, "do_GET", wait)
    try:
        with closing(RegistryClient(odd.url)) as client, pytest.raises(TransientError, match="in time"):
            client.schema(1)
    finally:
        silent.set()


def test_a_password_in_the_address_is_used_and_never_told(odd: Odd) -> None:
    odd.answer = (500, b"")
    client = RegistryClient(odd.url.replace("http://", f"http://u:{PASSWORD}@"))
    with closing(client), pytest.raises(TransientError) as error:
        client.schema(1)
    assert PASSWORD not in str(error.value) and odd.asked[0][1] is not None
    for address in ("localhost:8081", "ftp://x", "", f"http://u:{PASSWORD}/more@host:8081"):
        with pytest.raises(RefusedError, match="is no URL") as refused:
            RegistryClient(address)
        assert PASSWORD not in str(refused.value)


def test_a_refusal_tells_the_registrys_reasons(client: RegistryClient) -> None:
    one = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
    assert client.register("s", "AVRO", json.dumps(one)) == client.register("s", "AVRO", json.dumps(one))
    other = {**one, "fields": [{"name": "b", "type": "int"}]}
    with pytest.raises(AnswerRefused, match="READER_FIELD_MISSING_DEFAULT_VALUE") as refused:
        client.register("s", "AVRO", json.dumps(other))
    assert refused.value.code == 409
    assert client.check("s", "AVRO", json.dumps(other)) and not client.check("new", "AVRO", json.dumps(other))
    found = client.version("s")
    assert found is not None and client.find("s", "AVRO", json.dumps(one)) == found
    assert client.find("s", "AVRO", json.dumps(other)) is None and client.version("none") is None
    assert client.compatibility("s") == "BACKWARD"
