"""The `alerts` section of a profile: thresholds of the alerts that every pipeline has, and who is told."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from headrace.declare.words import did_you_mean
from headrace.operate.options import Kind, Report, option, read_options
from headrace.operate.secrets import Secret

__all__ = ["NOTIFIERS", "AlertOptions", "EmailOptions", "NotifierOptions", "WebhookOptions", "read_alerts"]


@dataclass(frozen=True)
class NotifierOptions:
    """What every notifier takes."""

    severity: str = option(
        Kind.CHOICE,
        "info",
        "alerts of at least this severity are told",
        choices={"info": "", "warning": "", "critical": ""},
    )


@dataclass(frozen=True)
class WebhookOptions(NotifierOptions):
    """`kind = "webhook"` posts JSON; `kind = "slack"` the same facts as a message of Slack's shape."""

    url: Secret | None = option(Kind.SECRET, None, "where to post")
    token: Secret | None = option(Kind.SECRET, None, "shown as `Authorization: Bearer …`")


@dataclass(frozen=True)
class EmailOptions(NotifierOptions):
    """`kind = "email"` sends plain text through an SMTP server."""

    host: str = option(Kind.TEXT, "localhost", "the SMTP server")
    port: int = option(Kind.WHOLE, 587, "its port")
    encryption: str = option(
        Kind.CHOICE,
        "starttls",
        "how the connection is encrypted",
        choices={"starttls": "", "tls": "", "none": ""},
    )
    user: str | None = option(Kind.TEXT, None, "who logs in; none: nobody")
    password: Secret | None = option(Kind.SECRET, None, "the password of that user")
    sender: str = option(Kind.TEXT, "headrace@localhost", "the address that it comes from")
    to: tuple[str, ...] = option(Kind.LIST, (), "the addresses that it goes to")


NOTIFIERS: Mapping[str, type[NotifierOptions]] = {
    "webhook": WebhookOptions,
    "slack": WebhookOptions,
    "email": EmailOptions,
}


@dataclass(frozen=True)
class AlertOptions:
    """Alerts that every pipeline has, and how alerts are told. Every alert is told in the journal."""

    defaults: str = option(
        Kind.CHOICE,
        "on",
        "whether there are alerts beside those of the pipeline",
        choices={"on": "", "off": ""},
    )
    every: timedelta = option(Kind.DURATION, timedelta(seconds=5), "how often alerts are looked at")
    group: timedelta = option(
        Kind.DURATION, timedelta(seconds=10), "changes within so long are told in one message"
    )
    repeat: timedelta = option(
        Kind.DURATION, timedelta(hours=4), "an alert that still fires is told again after so long"
    )
    not_committing: timedelta = option(
        Kind.DURATION, timedelta(seconds=60), "records wait, and nothing was committed for so long"
    )
    delay: timedelta = option(
        Kind.DURATION, timedelta(seconds=30), "records take longer than that, for 2 minutes"
    )
    bad_percent: int = option(Kind.WHOLE, 5, "more records of 5 minutes than that were set aside")
    late_percent: int = option(Kind.WHOLE, 2, "more records of 5 minutes than that were late")
    lag_records: int = option(Kind.WHOLE, 10_000, "more records wait than that, and more every minute")
    replica_behind: timedelta = option(Kind.DURATION, timedelta(minutes=5), "a replica is further behind")
    disk_full: timedelta = option(
        Kind.DURATION, timedelta(hours=4), "the disk will be full within so long, if it goes on like this"
    )
    clock_skew: timedelta = option(
        Kind.DURATION, timedelta(seconds=30), "the log's clock is further ahead of this machine's"
    )
    notify: Mapping[str, tuple[str, NotifierOptions]] = field(default_factory=dict)
    """Who is told, by name: the kind and its options."""


def read_alerts(raw: object, path: str, folder: Path, report: Report) -> AlertOptions:
    """Read the section; a problem goes to `report`."""
    if not isinstance(raw, Mapping):
        return read_options(AlertOptions, raw, path=path, folder=folder, report=report)
    plain = {name: value for name, value in raw.items() if name != "notify"}
    read = read_options(AlertOptions, plain, path=path, folder=folder, report=report)
    notify: dict[str, tuple[str, NotifierOptions]] = {}
    named = raw.get("notify", {})
    if not isinstance(named, Mapping):
        report(f"{path}.notify", "takes a table", 'write notify.NAME = { kind = "webhook", url = "…" }')
        named = {}
    for name, options in named.items():
        made = _read_notifier(options, f"{path}.notify.{name}", folder, report)
        if made is not None:
            notify[name] = made
    facts: dict[str, Any] = {**vars(read), "notify": notify}
    return AlertOptions(**facts)


def _read_notifier(
    raw: object, path: str, folder: Path, report: Report
) -> tuple[str, NotifierOptions] | None:
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(kind, str) or kind not in NOTIFIERS:
        hint = did_you_mean(kind, NOTIFIERS) if isinstance(kind, str) else ""
        report(path, f"needs a kind of notifier{hint}", "kind = one of: " + ", ".join(NOTIFIERS))
        return None
    plain = {name: value for name, value in raw.items() if name != "kind"}
    options = read_options(NOTIFIERS[kind], plain, path=path, folder=folder, report=report)
    if isinstance(options, WebhookOptions) and options.url is None:
        report(path, "needs 'url'", 'add url = "${env:NAME}": where to post')
    if isinstance(options, EmailOptions) and not options.to:
        report(path, "needs 'to'", 'add to = ["someone@example.com"]')
    return kind, options
