"""Tells people of alerts: by webhook, in Slack's shape, or by e-mail. Bounded, and never in anybody's way.

Each notifier has a thread and a short queue. A receiver that is away is said in the journal after several
tries, and gets what waits once it is back, or in the next run; when too much waits, the oldest is dropped,
and so is what a receiver refuses.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol

from headrace.observe.alerts import Notice
from headrace.observe.kept import write_kept

__all__ = ["Email", "Notifying", "Sends", "Slack", "Webhook", "notice_text"]

QUEUE_MAX = 100
TRIES_MAX = 4
_PAUSE_FIRST_S = 1.0
_PAUSE_LONGEST_S = 60.0
_TIMEOUT_S = 10.0
_STOP_S = 2.0
_ICONS = {"firing": ":red_circle:", "resolved": ":large_green_circle:"}


_LATER = (408, 425, 429)


class _NotTakenError(ConnectionError):
    """The receiver answered that it does not take this, which another try does not change."""


class Sends(Protocol):
    """One way to tell people."""

    def send(self, notice: Notice) -> None:
        """Deliver, or raise an OSError (of which httpx's and smtplib's errors are made here)."""


def notice_document(notice: Notice) -> dict[str, Any]:
    """Return what a webhook gets."""
    firing = any(one["state"] == "firing" for one in notice.alerts)
    return {
        "version": 1,
        "pipeline": notice.pipeline,
        "time": notice.time.isoformat(),
        "status": "firing" if firing else "resolved",
        "alerts": [dict(one) for one in notice.alerts],
    }


def notice_text(notice: Notice) -> tuple[str, str]:
    """Return a subject and a text for people."""
    firing = [one for one in notice.alerts if one["state"] == "firing"]
    names = ", ".join(one["name"] for one in (firing or notice.alerts))
    subject = f"[headrace] {notice.pipeline}: {'FIRING' if firing else 'resolved'}: {names}"
    return subject.replace("\n", " "), "\n\n".join(_lines(one) for one in notice.alerts) + "\n"


def _lines(alert: Any) -> str:
    value, whose = alert["value"], alert["subject"]
    if value is None:
        found = f"\n  about: {whose}" if whose else ""
    else:
        found = f"\n  value: {value:g}" + (f" ({whose})" if whose else "")
    help_line = f"\n  what to do: {alert['help']}" if alert["help"] and alert["state"] == "firing" else ""
    head = f"{alert['state']}: {alert['name']} ({alert['severity']}), since {alert['since']}"
    return f"{head}\n  {alert['summary']}{found}{help_line}"


@dataclass(frozen=True)
class Webhook:
    """Posts `notice_document` as JSON."""

    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def send(self, notice: Notice) -> None:
        """See `Sends`."""
        _post(self.url, self.token, notice_document(notice))


@dataclass(frozen=True)
class Slack:
    """Posts a message of the shape that Slack's incoming webhooks take."""

    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    def send(self, notice: Notice) -> None:
        """See `Sends`."""
        subject, _ = notice_text(notice)
        blocks = [
            {"type": "section", "text": {"type": "mrkdwn", "text": _slack_text(one)}} for one in notice.alerts
        ]
        _post(self.url, self.token, {"text": _escaped(subject), "blocks": blocks[:50]})


def _slack_text(alert: Any) -> str:
    head, _, rest = _lines(alert).partition("\n")
    return f"{_ICONS.get(alert['state'], '')} *{_escaped(head)}*\n{_escaped(rest)}"[:3000]


def _escaped(text: str) -> str:
    """Return text as Slack's markup wants it: https://api.slack.com/reference/surfaces/formatting."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(url: str, token: str | None, document: dict[str, Any]) -> None:
    import httpx

    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        answer = httpx.post(url, json=document, headers=headers, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # its text may hold the address, which is a secret
        raise ConnectionError(type(error).__name__) from None
    if answer.status_code >= 300:
        kind = (
            ConnectionError if answer.status_code in _LATER or answer.status_code >= 500 else _NotTakenError
        )
        raise kind(f"status {answer.status_code}")


@dataclass(frozen=True, kw_only=True)
class Email:
    """Sends plain text; `encryption` is "starttls", "tls" or "none"."""

    host: str
    port: int
    encryption: str
    sender: str
    to: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def send(self, notice: Notice) -> None:
        """See `Sends`."""
        import smtplib
        import ssl

        message = EmailMessage()
        message["Subject"], text = notice_text(notice)
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message.set_content(text)
        trusted = ssl.create_default_context()  # smtplib's own would take any certificate
        with (
            smtplib.SMTP_SSL(self.host, self.port, timeout=_TIMEOUT_S, context=trusted)
            if self.encryption == "tls"
            else smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT_S)
        ) as server:
            if self.encryption == "starttls":
                server.starttls(context=trusted)
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(message)


class _Told:
    """A notifier with its thread and what it was not told yet; `changed` is called when that is other."""

    def __init__(
        self,
        name: str,
        sends: Sends,
        severity: str,
        failed: Callable[[str, str], None],
        *,
        before: Iterable[Notice],
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self._sends = sends
        self._severity = severity
        self._failed = failed
        self._told_of_change = changed
        self._open = deque(before)
        """What was not told yet, oldest first; while `_sending`, the first of them is on its way."""
        self._sending = False
        self._lock = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headrace-notify-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def open(self) -> list[Notice]:
        with self._lock:
            return list(self._open)

    def tell(self, notice: Notice) -> None:
        mine = notice.at_least(self._severity)
        if not mine.alerts:
            return
        with self._lock:
            full = len(self._open) - self._sending >= QUEUE_MAX
            if full:  # what is newest says where things stand
                del self._open[int(self._sending)]
            self._open.append(mine)
            self._lock.notify_all()
        if full:
            self._failed(self.name, f"{QUEUE_MAX} notices wait already; one was dropped")

    def stop(self, until: float) -> None:
        """Give what is being sent until then (of the monotonic clock), and leave the thread behind."""
        with self._lock:
            done = self._lock.wait_for(lambda: not self._open, max(0.0, until - time.monotonic()))
            self._ended.set()
            self._lock.notify_all()
        if done:
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._open or self._ended.is_set())
                if self._ended.is_set():
                    return
                notice, self._sending = self._open[0], True
            over = self._send(notice)
            with self._lock:
                self._sending = False
                if over:
                    self._open.popleft()
                self._lock.notify_all()
            if not over:
                return
            self._told_of_change()

    def _send(self, notice: Notice) -> bool:
        """Return whether it was told, or never will be; not so: this ends before."""
        pause, attempt = _PAUSE_FIRST_S, 0
        while True:
            attempt += 1
            try:
                self._sends.send(notice)
            except Exception as error:  # noqa: BLE001 - nobody may be kept from the next notice
                why = (
                    f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
                )
                if attempt == TRIES_MAX:
                    self._failed(self.name, f"not told after {attempt} tries: {why}")
                if attempt >= TRIES_MAX and _is_final(error):
                    return True
                if self._ended.wait(pause):
                    if attempt < TRIES_MAX:
                        self._failed(self.name, f"not told after {attempt} tries: {why}")
                    return False
                pause = min(2 * pause, _PAUSE_LONGEST_S)
            else:
                return True


def _is_final(error: Exception) -> bool:
    """Return whether the receiver will not take it later either; a password is not tried for ever."""
    import ssl

    if isinstance(error, (_NotTakenError, ssl.SSLCertVerificationError)) or not isinstance(error, OSError):
        return True
    recipients: dict[str, tuple[int, bytes]] = getattr(error, "recipients", {})
    codes = [getattr(error, "smtp_code", 0)] if not recipients else [code for code, _ in recipients.values()]
    return min(codes) >= 500


class Notifying:
    """All notifiers of a run: (name, way, least severity). `failed` is told (name, why).

    What a notifier was not told yet stands in the file `kept`, and is told by whoever takes that file over:
    an end that nobody was told would leave people with an alert that is over. A notice may come twice.
    """

    def __init__(
        self,
        notifiers: Iterable[tuple[str, Sends, str]],
        failed: Callable[[str, str], None],
        *,
        kept: Path | None = None,
    ) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._closed = False
        before = {} if kept is None else _notices_of(kept)
        self._told = [
            _Told(name, sends, severity, failed, before=before.get(name, ()), changed=self._save)
            for name, sends, severity in notifiers
        ]
        self._save()  # a disk that gets full has room for what is saved then
        for each in self._told:
            each.start()

    def tell(self, notice: Notice) -> None:
        """Queue a notice for everybody who wants it. Returns at once."""
        for each in self._told:
            each.tell(notice)
        self._save()

    def stop(self, *, seconds: float = _STOP_S) -> None:
        """End the threads, all of them within so long; what was not told by then is kept."""
        until = time.monotonic() + seconds
        for each in self._told:
            each.stop(until)
        self._save()
        with self._lock:
            self._closed = True  # a thread that was left behind may end when another run has the file

    def _save(self) -> None:
        with self._lock:
            if self._kept is None or self._closed:
                return
            document = {each.name: [_stored(notice) for notice in each.open()] for each in self._told}
            with suppress(OSError):  # then it is told, or lost with this process
                write_kept(self._kept, json.dumps(document) + "\n")


def _stored(notice: Notice) -> dict[str, Any]:
    alerts = [dict(one) for one in notice.alerts]
    return {"pipeline": notice.pipeline, "time": notice.time.isoformat(), "alerts": alerts}


def _notices_of(path: Path) -> dict[str, list[Notice]]:
    """Return what a file keeps; nothing where it is not there, or not ours."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        return {
            str(name): [
                Notice(each["pipeline"], datetime.fromisoformat(each["time"]), tuple(each["alerts"]))
                for each in notices[-QUEUE_MAX:]
            ]
            for name, notices in json.loads(path.read_text(encoding="utf-8")).items()
        }
    return {}
