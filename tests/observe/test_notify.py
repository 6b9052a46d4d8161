"""Notices reach real servers: a webhook, Slack's shape, a mail server; one that is away stops nobody."""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from headrace.observe import notify
from headrace.observe.alerts import Notice
from headrace.observe.notify import Email, Notifying, Slack, Webhook, notice_text
from headrace.testing.clock import instant
from observe.observed import START


def notice(state: str = "firing", severity: str = "warning", summary: str = "Too <many> & more.") -> Notice:
    alert = {
        "name": "many", "origin": "pipeline", "severity": severity, "summary": summary, "help": "Look.",
        "state": state, "since": START, "value": 0.25, "subject": "events",
        "problem": "", "silenced_until": None,
    }  # fmt: skip
    return Notice("shop", instant(START), (alert,))


@contextmanager
def web(statuses: list[int]) -> Iterator[tuple[str, Queue[tuple[dict[str, str], Any]]]]:
    """A web server that answers with these statuses, the last one for ever."""
    got: Queue[tuple[dict[str, str], Any]] = Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.put((dict(self.headers), json.loads(body)))
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def mail(
    tls: ssl.SSLContext | None = None, unknown: int = 0
) -> Iterator[tuple[int, Queue[tuple[list[str], bytes]]]]:
    """A mail server that knows all but the first `unknown` receivers it is told.

    It speaks the part of RFC 5321 that a client without STARTTLS uses.
    """
    got: Queue[tuple[list[str], bytes]] = Queue()
    left = [unknown]

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            if tls is not None:
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def handle(self) -> None:
            self.say("220 here")
            to: list[str] = []
            while line := self.rfile.readline():
                verb = line.split(maxsplit=1)[0].upper()
                if verb == b"RCPT" and left[0]:
                    left[0] -= 1
                    self.say("550 nobody of that name")
                    continue
                if verb == b"RCPT":
                    to.append(line.decode().split("<")[1].split(">")[0])
                if verb == b"DATA":
                    self.say("354 go on")
                    body = b""
                    while (line := self.rfile.readline()) != b".\r\n":
                        body += line
                    got.put((to, body))
                self.say("221 bye" if verb == b"QUIT" else "250 fine")
                if verb == b"QUIT":
                    return

        def say(self, words: str) -> None:
            self.wfile.write(f"{words}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        def handle_error(self, *_: object) -> None:
            """A client that does not trust us hangs up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1], got
        finally:
            server.shutdown()
            thread.join()


def email_to(port: int) -> Email:
    return Email(
        host="127.0.0.1",
        port=port,
        encryption="none",
        sender="headrace@example.com",
        to=("a@example.com", "b@example.com"),
    )


def test_a_webhook_gets_facts_and_slack_gets_its_own_shape() -> None:
    failures: list[tuple[str, str]] = []
    with web([200]) as (url, got):
        telling = Notifying(
            [("hook", Webhook(url, "secret"), "info"), ("chat", Slack(url), "critical")],
            lambda name, why: failures.append((name, why)),
        )
        telling.tell(notice())
        headers, document = got.get(timeout=10)
        assert headers["Authorization"] == "Bearer secret"
        assert (document["pipeline"], document["status"]) == ("shop", "firing")
        assert document["alerts"][0]["name"] == "many"
        telling.tell(notice("resolved", "critical"))
        both = [got.get(timeout=10)[1] for _ in range(2)]
        (slack,) = [each for each in both if "blocks" in each]
        assert slack["text"] == "[headrace] shop: resolved: many"
        assert "Too &lt;many&gt; &amp; more." in slack["blocks"][0]["text"]["text"]
        telling.stop()
    assert failures == []


def test_a_mail_says_what_fires_and_what_to_do() -> None:
    with mail() as (port, got):
        telling = Notifying([("mail", email_to(port), "info")], lambda name, why: None)
        telling.tell(notice(summary="Grüße, zu viele."))
        to, body = got.get(timeout=10)
        telling.stop()
    message = message_from_bytes(body, policy=policy.default)
    assert to == ["a@example.com", "b@example.com"]
    assert message["Subject"] == "[headrace] shop: FIRING: many"
    text = message.get_content()  # type: ignore[attr-defined]
    assert "Grüße, zu viele." in text and "what to do: Look." in text and "value: 0.25 (events)" in text


def test_a_mail_server_that_nobody_vouches_for_gets_neither_password_nor_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = str(tmp_path / "both.pem")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", both, "-out", both]
    subprocess.run([*words.split(), *names], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(both)
    with mail(tls) as (port, got):
        sends = replace(email_to(port), encryption="tls")
        with pytest.raises(ssl.SSLCertVerificationError):
            sends.send(notice())
        assert got.empty()
        monkeypatch.setenv("SSL_CERT_FILE", both)
        sends.send(notice())
        assert got.get(timeout=10)[0] == ["a@example.com", "b@example.com"]


def test_a_server_that_fails_for_a_while_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_PAUSE_FIRST_S", 0.01)
    failures: list[tuple[str, str]] = []
    with web([503, 503, 200]) as (url, got):
        telling = Notifying([("hook", Webhook(url), "info")], lambda name, why: failures.append((name, why)))
        telling.tell(notice())
        for _ in range(3):
            got.get(timeout=10)
        telling.stop()
    assert failures == []


def test_the_end_of_an_alert_is_told_though_the_receiver_was_away_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "_PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(notify, "_PAUSE_LONGEST_S", 0.01)
    failures: list[tuple[str, str]] = []
    with web([503] * (2 * notify.TRIES_MAX) + [200]) as (url, got):
        telling = Notifying([("hook", Webhook(url), "info")], lambda name, why: failures.append((name, why)))
        telling.tell(notice())
        telling.tell(notice("resolved"))
        told = [got.get(timeout=10)[1]["status"] for _ in range(2 * notify.TRIES_MAX + 2)]
        telling.stop()
    assert told[-2:] == ["firing", "resolved"]
    assert failures == [("hook", "not told after 4 tries: ConnectionError: status 503")]


def test_a_notice_that_is_refused_keeps_nobody_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_PAUSE_FIRST_S", 0.01)
    with web([503] + [400] * (notify.TRIES_MAX - 1) + [200]) as (url, got):
        telling = Notifying([("hook", Webhook(url), "info")], lambda name, why: None)
        telling.tell(notice())
        telling.tell(notice("resolved"))
        told = [got.get(timeout=10)[1]["status"] for _ in range(notify.TRIES_MAX + 1)]
        telling.stop()
    assert told == ["firing"] * notify.TRIES_MAX + ["resolved"]


def test_a_mail_that_no_receiver_is_known_for_keeps_nobody_from_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "_PAUSE_FIRST_S", 0.01)
    with mail(unknown=2 * notify.TRIES_MAX) as (port, got):
        telling = Notifying([("mail", email_to(port), "info")], lambda name, why: None)
        telling.tell(notice())
        telling.tell(notice("resolved"))
        _, body = got.get(timeout=30)
        telling.stop()
    assert b"resolved: many" in body


def test_one_that_is_away_is_told_in_the_journal_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_PAUSE_FIRST_S", 0.01)
    failures: Queue[tuple[str, str]] = Queue()
    url = "http://127.0.0.1:9/a-secret-token"
    with web([200]) as (other, got):
        telling = Notifying(
            [("away", Webhook(url), "info"), ("mail", email_to(9), "info"), ("hook", Webhook(other), "info")],
            lambda name, why: failures.put((name, why)),
        )
        telling.tell(notice())
        got.get(timeout=10)
        told = dict([failures.get(timeout=10), failures.get(timeout=10)])
        assert told["away"] == "not told after 4 tries: ConnectionError: ConnectError"
        assert "after 4 tries: ConnectionRefusedError" in told["mail"]
        assert "secret" not in repr(Webhook(url, "secret"))
        telling.stop()


def test_more_notices_than_may_wait_are_dropped_and_said() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def send(self, notice: Notice) -> None:
            begun.set()
            go_on.wait(10)

    failures: Queue[tuple[str, str]] = Queue()
    telling = Notifying([("slow", Slow(), "info")], lambda name, why: failures.put((name, why)))
    telling.tell(notice())
    assert begun.wait(10)
    for _ in range(notify.QUEUE_MAX):
        telling.tell(notice())
    with pytest.raises(Empty):
        failures.get_nowait()
    telling.tell(notice())
    assert failures.get(timeout=10)[1] == "100 notices wait already; one was dropped"
    go_on.set()
    telling.stop()


def test_what_waits_for_a_receiver_is_kept_from_the_moment_on_at_which_it_was_told(tmp_path: Path) -> None:
    kept, begun, go_on = tmp_path / "notices.json", threading.Event(), threading.Event()

    class Away:
        def send(self, notice: Notice) -> None:
            begun.set()
            go_on.wait(10)
            raise ConnectionError

    # What a process leaves behind that is killed now:
    telling = Notifying([("hook", Away(), "info")], lambda name, why: None, kept=kept)
    telling.tell(notice())
    telling.tell(notice("resolved"))
    assert begun.wait(10)
    left = kept.read_bytes()
    go_on.set()
    telling.stop()
    kept.write_bytes(left)
    with web([200]) as (url, got):
        again = Notifying([("hook", Webhook(url), "info")], lambda name, why: None, kept=kept)
        told = [got.get(timeout=10)[1] for _ in range(2)]
        again.stop()
        assert [each["status"] for each in told] == ["firing", "resolved"]
        assert (told[0]["pipeline"], told[0]["alerts"][0]["summary"]) == ("shop", "Too <many> & more.")
        assert json.loads(kept.read_text()) == {"hook": []}


@pytest.mark.parametrize("found", ["", "[]", '{"hook": 3}', '{"hook": [{"time": "soon"}]}'])
def test_what_is_kept_and_cannot_be_read_keeps_nobody_from_being_told(tmp_path: Path, found: str) -> None:
    (tmp_path / "notices.json").write_text(found)
    with web([200]) as (url, got):
        telling = Notifying(
            [("hook", Webhook(url), "info")], lambda name, why: None, kept=tmp_path / "notices.json"
        )
        telling.tell(notice())
        assert got.get(timeout=10)[1]["status"] == "firing"
        telling.stop()


def test_a_subject_is_one_line_whatever_an_alert_is_called() -> None:
    alert = dict(notice().alerts[0]) | {"name": "two\nlines"}
    subject, _ = notice_text(Notice("shop", instant(START), (alert,)))
    assert "\n" not in subject
