"""What `watch` shows, in words: the four questions, the flow, outcomes, tables, replicas, the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.cli.output import spell_number
from headrace.cli.view import OUTCOMES
from headrace.declare.words import counted, printable

__all__ = ["Question", "flow_of", "line_of", "outcome_rows", "questions_of", "replica_rows", "table_rows"]

_HEAD = ("timestamp", "level", "event")
_SET_ASIDE = ("malformed", "rejected", "future")
_BAD_SHARE = 0.02
_BEHIND_S = 30.0


@dataclass(frozen=True)
class Question:
    """One of the four: what is asked, the answer, what stands beside it, and `good`, `warn` or `bad`."""

    name: str
    answer: str
    beside: str
    grade: str = "good"


def questions_of(status: Mapping[str, Any], rate: float) -> tuple[Question, ...]:
    """Return how many, any errors, what delay, is it healthy. `rate` is in records a second."""
    totals = _totals(status)
    read = sum(totals.values())
    aside = sum(totals.get(name, 0) for name in _SET_ASIDE)
    lag = sum(each["lag_records"] or 0 for each in status["streams"].values())
    waits = _waits(status) if status["running"] else None
    problems = _problems(status, aside, read)
    return (
        Question(
            "how many", spell_number(read), f"{spell_number(rate)}/s, {spell_number(rate * 3600)} an hour"
        ),
        Question(
            "any errors",
            spell_number(aside) if aside else "none",
            f"{100 * aside / read:.2f} % set aside" if read else "",
            "warn" if read and aside / read > _BAD_SHARE else "good",
        ),
        Question(
            "what delay",
            "-" if waits is None else f"{waits:.1f} s",
            f"{counted(lag, 'records')} to read",
            "warn" if (waits or 0) > _BEHIND_S else "good",
        ),
        Question(
            "is it healthy",
            ("yes" if not problems else "look here") if status["running"] else "stopped",
            "; ".join(problems) or ("every record is accounted for" if read else "nothing has been read yet"),
            "good" if status["running"] and not problems else "bad" if status["waiting"] else "warn",
        ),
    )


def _totals(status: Mapping[str, Any]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for stream in status["streams"].values():
        for outcome, records in stream["outcomes"].items():
            totals[outcome] = totals.get(outcome, 0) + records
    return totals


def _waits(status: Mapping[str, Any]) -> float | None:
    """Return how long the oldest record waits to be read; None where no log says. Of an idle source, 0.

    Not how far a frontier lies behind the clock: one that nobody sends to stands still, and nothing is late.
    """
    said = [each["lag_seconds"] for each in status["streams"].values() if each["lag_seconds"] is not None]
    return max(said, default=None)


def _problems(status: Mapping[str, Any], aside: int, read: int) -> list[str]:
    found = [status[name] for name in ("waiting", "log_problem") if status[name]]
    found += [
        f"replica {each['replica']} is {each['state']}"
        for each in status["replicas"]
        if each["state"] in ("waiting", "refused")
    ]
    found += [f"alert {each['name']}" for each in status["alerts"] if each["state"] == "firing"]
    if read and aside / read > _BAD_SHARE:
        found.append("many records are set aside: headrace dead-letters list")
    if (_waits(status) or 0) > _BEHIND_S and not status["throughput"]["records"]:
        found.append("records wait, and none was read in the last minute")
    return found


def flow_of(status: Mapping[str, Any], rate: float) -> str:
    """Return the way of a record in one line."""
    lag = sum(each["lag_records"] or 0 for each in status["streams"].values())
    accepted = _totals(status).get("accepted", 0)
    following = sum(each["state"] == "following" for each in status["replicas"])
    replicas = (
        f"{following} of {len(status['replicas'])} replicas follow" if status["replicas"] else "no replicas"
    )
    return (
        f"log {spell_number(lag)} to read  ->  row stage {spell_number(rate)}/s  ->  "
        f"{counted(len(status['tables']), 'tables')}, {spell_number(accepted)} accepted  ->  {replicas}"
    )


def outcome_rows(status: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return outcome, records and share; what did not occur is left out."""
    totals = _totals(status)
    read = sum(totals.values())
    return [
        (name, spell_number(totals[name]), f"{100 * totals[name] / read:.2f} %")
        for name in OUTCOMES
        if totals.get(name)
    ]


def table_rows(status: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return table, class, rows and up to when it is closed."""
    return [
        (
            each["table"],
            each["kind"],
            "" if each["rows"] is None else spell_number(each["rows"]),
            (each["closed_through"] or "")[11:19],
        )
        for each in status["tables"]
    ]


def replica_rows(status: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return replica, state and how far it is behind."""
    return [
        (
            each["replica"],
            each["state"],
            f"{counted(each['lag_epochs'], 'epochs')}, {each['lag_seconds']:.1f} s"
            if each["lag_epochs"]
            else "none",
        )
        for each in status["replicas"]
    ]


def line_of(line: Mapping[str, Any]) -> str:
    """Return a line of the journal as text: time, level, event, facts; nothing that moves a cursor."""
    facts: Sequence[str] = [f"{name}={value}" for name, value in line.items() if name not in _HEAD]
    at, level, event = (str(line.get(name, "")) for name in _HEAD)
    return printable(" ".join((at[:19].replace("T", " "), f"{level:<7}", event, *facts)))
