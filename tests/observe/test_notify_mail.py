"""Mail goes to a real server that wants STARTTLS and a login: encrypted and as its user, or not at all."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from headrace.observe import notify
from headrace.observe.alerts import Notice
from headrace.observe.notify import Email, Notifying
from headrace.testing.clock import instant
from observe.observed import START
from servers.guard import free_ports

PASSWORD = "a password that nobody guesses"


def notice(state: str = "firing") -> Notice:
    alert = {
        "name": "many", "origin": "pipeline", "severity": "warning", "summary": "Too many.", "help": "Look.",
        "state": state, "since": START, "value": 0.25, "subject": "events",
        "problem": "", "silenced_until": None,
    }  # fmt: skip
    return Notice("shop", instant(START), (alert,))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    both = tmp_path / "both.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(both), "-out", str(both)]
    subprocess.run([*words.split(), *names], check=True, capture_output=True)
    return both


class Mailbox:
    """What a server got: mails, with whether they came encrypted and as whom; and logins."""

    def __init__(self) -> None:
        self.mails: Queue[tuple[bool, str, list[str], bytes]] = Queue()
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        user = session.auth_data.login.decode() if session.auth_data else ""
        self.mails.put((session.ssl is not None, user, envelope.rcpt_tos, envelope.content))
        return "250 fine"

    def log_in(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.logins.append((given.login, given.password))
        known = given.password == PASSWORD.encode()
        return AuthResult(success=known, handled=False, auth_data=given if known else None)


@contextmanager
def mail_server(certificate: Path | None) -> Iterator[tuple[Email, Mailbox]]:
    """Serve mail after a login, over STARTTLS where there is a certificate; give how to send there."""
    tls, box, (port,) = None, Mailbox(), free_ports(1)
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    server = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        authenticator=box.log_in,
        auth_required=True,
        auth_require_tls=tls is not None,
        require_starttls=tls is not None,
        tls_context=tls,
    )
    server.start()
    try:
        yield (
            Email(
                host="127.0.0.1",
                port=port,
                encryption="starttls",
                sender="headrace@example.com",
                to=("a@example.com",),
                user="headrace",
                password=PASSWORD,
            ),
            box,
        )
    finally:
        server.stop()


def test_a_mail_goes_over_starttls_and_as_its_user(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(certificate) as (email, box):
        telling = Notifying([("mail", email, "info")], lambda name, why: None)
        telling.tell(notice())
        encrypted, user, to, body = box.mails.get(timeout=30)
        telling.stop()
    assert (encrypted, user, to) == (True, "headrace", ["a@example.com"])
    assert b"Subject: [headrace] shop: FIRING: many" in body
    assert box.logins == [(b"headrace", PASSWORD.encode())]


def test_a_server_that_nobody_vouches_for_is_not_told_the_password(certificate: Path) -> None:
    with mail_server(certificate) as (email, box):
        with pytest.raises(ssl.SSLCertVerificationError):
            email.send(notice())
        assert (box.logins, box.mails.qsize()) == ([], 0)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_server_without_starttls_is_told_neither_password_nor_mail() -> None:
    with mail_server(None) as (email, box):
        with pytest.raises(smtplib.SMTPNotSupportedError):
            email.send(notice())
        assert (box.logins, box.mails.qsize()) == ([], 0)
        replace(email, encryption="none").send(notice())  # whoever says so, sends it in the clear
        assert box.mails.get(timeout=30)[:2] == (False, "headrace")


def test_a_wrong_password_is_said_without_it_and_keeps_nobody_from_the_next(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_PAUSE_FIRST_S", 0.01)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    failures: Queue[tuple[str, str]] = Queue()
    with mail_server(certificate) as (email, box):
        wrong = replace(email, password="another secret")
        telling = Notifying([("mail", wrong, "info")], lambda name, why: failures.put((name, why)))
        telling.tell(notice())
        telling.tell(notice("resolved"))
        said = [failures.get(timeout=60) for _ in range(2)]
        telling.stop()
        assert box.mails.qsize() == 0
    assert [name for name, _ in said] == ["mail", "mail"]
    assert all(why.startswith("not told after 4 tries: SMTPAuthenticationError: (535") for _, why in said)
    assert "secret" not in str(said)
