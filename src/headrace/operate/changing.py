"""What of a run's settings may change while it runs: alerts' thresholds, the journal's level, rates.

A change still holds when the pipeline starts again: it is kept in `settings.json` of the data folder, and the
profile is never written. It ends when it is undone, or when somebody writes another value into the profile.
The rate of a generator is the generator's own, and ends with it. Each change is told in the journal.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.declare.durations import format_duration
from headrace.errors import ProfileError, RefusedError
from headrace.operate.alert_options import AlertOptions
from headrace.operate.alerting import rules_of
from headrace.operate.options import Kind, read_options
from headrace.operate.producing import change_rate, rate_from, rate_of, rate_text

if TYPE_CHECKING:
    from headrace.observe.alerts import Alerts
    from headrace.observe.rules import Rule
    from headrace.operate.journal import Journal
    from headrace.operate.project import Project

__all__ = ["CHANGEABLE", "JOURNAL_LEVEL", "Change", "RunSettings", "rate_key"]

JOURNAL_LEVEL = "journal.level"
_SCHEDULE = ("defaults", "every", "group", "repeat", "notify")  # how alerts are looked at and told
CHANGEABLE = (
    JOURNAL_LEVEL,
    *(f"alerts.{each.name}" for each in dataclasses.fields(AlertOptions) if each.name not in _SCHEDULE),
)
"""Dotted keys of what may change; everything else takes effect with the next run."""

_PRODUCERS = "producers."
_RATE = ".rate"
_LEVELS = ("info", "warning")  # a change is told as a warning, so there is no way to change something unheard
_PERCENT_MAX = 100
_KEPT_MAX = 100


def rate_key(stream: str) -> str:
    """Return the key of the rate of a stream's generator."""
    return f"{_PRODUCERS}{stream}{_RATE}"


def _stream_of(key: str) -> str | None:
    """Return the stream whose generator's rate the key is; None for another setting."""
    fits = key.startswith(_PRODUCERS) and key.endswith(_RATE)
    return key[len(_PRODUCERS) : -len(_RATE)] if fits else None


@dataclass(frozen=True)
class Change:
    """One change, done or to be done. `profile` is the line of headrace.toml that says the same."""

    key: str
    before: str
    after: str
    effect: str
    profile: str
    at: str = ""


@dataclass(frozen=True)
class _Done:
    """A change, and what was before it."""

    change: Change
    options: AlertOptions
    level: str


class RunSettings:
    """The changeable settings of one run. Calls may come from any thread."""

    def __init__(self, project: Project, alerts: Alerts, journal: Journal) -> None:
        self._project = project
        self._alerts = alerts
        self._journal = journal
        self._path = project.data / "settings.json"
        self._lock = threading.Lock()
        self._options: AlertOptions = project.profile.alerts
        self._level_said = journal.level
        self._done: list[_Done] = []
        self._restore()

    def rates(self) -> dict[str, str]:
        """Return the rates of the generators that run, by their streams."""
        found = {each.name: rate_of(self._project.data, each.name) for each in self._project.pipeline.streams}
        return {stream: rate for stream, rate in found.items() if rate is not None}

    def value(self, key: str) -> str:
        """Return what a setting is now."""
        if key == JOURNAL_LEVEL:
            return self._journal.level
        return _text(getattr(self._options, key.partition(".")[2]))

    def changed(self, key: str) -> bool:
        """Return whether a setting has another value than the profile gives it."""
        return self.value(key) != self._said(key)

    def changes(self) -> list[Change]:
        """Return what was changed, still holds and was not undone; the newest first."""
        with self._lock:
            self._forget_rates()
            return [each.change for each in reversed(self._done)]

    def preview(self, key: str, text: str) -> Change:
        """Return what a change would do. Raises RefusedError for a setting or a value that may not be."""
        return self._planned(key, text)[0]

    def change(self, key: str, text: str) -> Change:
        """Change a setting, in this run and in later ones. Raises RefusedError as `preview` does."""
        with self._lock:
            if len(self._done) >= _KEPT_MAX:
                raise RefusedError(
                    f"{_KEPT_MAX} changes were made and not undone",
                    fix="write what is to stay into headrace.toml, and undo the others",
                )
            change = self._make(key, text, datetime.now(UTC).isoformat(timespec="seconds"))
            self._save()
        self._tell("setting changed", change.key, change.before, change.after)
        return change

    def undo(self) -> Change:
        """Take the last change back. Raises RefusedError when there is none, or its generator ended."""
        with self._lock:
            if not self._done:
                raise RefusedError("nothing is changed", fix="there is nothing to undo")
            last = self._done[-1]
            stream = _stream_of(last.change.key)
            self._forget_rates()
            if last not in self._done:
                raise RefusedError(
                    f"the generator of '{stream}' that was given this rate does not run any more",
                    fix="there is nothing to undo of it",
                )
            if stream is not None:
                change_rate(self._project.data, stream, last.change.before)
            self._done.pop()
            self._put(last.options, last.level)
            self._save()
        change = last.change
        self._tell("setting changed back", change.key, change.after, change.before)
        return change

    def _forget_rates(self) -> None:
        """Forget the changes of a rate that no generator has: it ended, or one came with its own."""
        last = {each.change.key: each.change.after for each in self._done}
        ended = {
            key
            for key, after in last.items()
            if (stream := _stream_of(key)) is not None and rate_of(self._project.data, stream) != after
        }
        self._done = [each for each in self._done if each.change.key not in ended]

    def _make(self, key: str, text: str, at: str) -> Change:
        change, options = self._planned(key, text)
        stream = _stream_of(key)
        if stream is not None:
            change_rate(self._project.data, stream, change.after)
        change = replace(change, at=at)
        self._done.append(_Done(change, self._options, self._journal.level))
        self._put(options, change.after if key == JOURNAL_LEVEL else self._journal.level)
        return change

    def _said(self, key: str) -> str:
        """Return what the profile, or its default, says of a setting."""
        if key == JOURNAL_LEVEL:
            return self._level_said
        return _text(getattr(self._project.profile.alerts, key.partition(".")[2]))

    def _restore(self) -> None:
        """Make the changes of earlier runs again, but for those of which the profile says otherwise now."""
        for each in _saved(self._path, self._project.profile.name):
            key, value, said = each.get("key", ""), each.get("value", ""), each.get("said", "")
            try:
                if key in CHANGEABLE and self._said(key) != said:
                    raise RefusedError(f"the profile says {self._said(key)} by now, and said {said}")
                self._make(key, value, each.get("at", ""))
            except RefusedError as error:
                self._journal.warning(
                    "change of a setting ended", setting=key, value=value, why=error.message
                )
        self._save()

    def _save(self) -> None:
        mine = [
            {
                "key": each.change.key,
                "value": each.change.after,
                "said": self._said(each.change.key),
                "at": each.change.at,
            }
            for each in self._done
            if each.change.key in CHANGEABLE
        ]
        kept = {**_document(self._path), self._project.profile.name: mine}
        with suppress(OSError):  # a full disk: the change holds in this run
            if any(kept.values()):
                beside = self._path.with_name(self._path.name + ".new")
                beside.write_text(json.dumps(kept) + "\n", encoding="utf-8")
                beside.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)

    def _tell(self, event: str, key: str, before: str, after: str) -> None:
        self._journal.warning(event, setting=key, before=before, after=after, by="page")

    def _put(self, options: AlertOptions, level: str) -> None:
        self._alerts.retune(self._retuned(self._options, options))
        self._options = options
        self._journal.level = level

    def _planned(self, key: str, text: str) -> tuple[Change, AlertOptions]:
        stream, rates = _stream_of(key), self.rates()
        if stream in rates:
            try:
                after = rate_text(rate_from(text))
            except ProfileError as error:
                raise RefusedError(error.message, fix=error.fix) from None
            effect = f"the generator of '{stream}' makes {after} events a second, until it ends"
            if rate_from(after) == 0:
                effect = f"the generator of '{stream}' makes nothing until it is given another rate"
            return Change(key, rates[stream], after, effect, ""), self._options
        if key not in CHANGEABLE:
            raise RefusedError(
                f"'{key[:100]}' cannot change while the pipeline runs",
                fix="change it in headrace.toml and run again; at run time: " + ", ".join(CHANGEABLE),
            )
        before = self.value(key)
        if key == JOURNAL_LEVEL:
            level = text.strip()
            if level not in _LEVELS:
                raise RefusedError("there is no such level", fix="one of: " + ", ".join(_LEVELS))
            effect = (
                f"lines below '{level}' are not written any more" if level != "info" else "all is written"
            )
            return Change(key, before, level, effect, ""), self._options
        name = key.partition(".")[2]
        options = replace(self._options, **{name: _read(name, text)})
        rules = self._retuned(self._options, options)
        words = "; ".join(f"{rule.name}: {rule.summary}" for rule in rules)
        after = _text(getattr(options, name))
        if not rules and after != before:
            words = "nothing: the pipeline's own alert stands in its place, or alerts are off"
        line = f"alerts.{name} = {after if after.isdecimal() else repr(after).replace(chr(39), chr(34))}"
        return Change(key, before, after, words or "nothing: it is so already", line), options

    def _retuned(self, before: AlertOptions, after: AlertOptions) -> list[Rule]:
        """Return the rules of this run that are others after a change."""
        project = self._project

        def rules(options: AlertOptions) -> tuple[Rule, ...]:
            return rules_of(replace(project, profile=replace(project.profile, alerts=options)))

        old = rules(before)
        known = {each["name"] for each in self._alerts.states()}
        return [rule for rule in rules(after) if rule not in old and rule.name in known]


def _read(name: str, text: str) -> Any:
    """Read a value as the profile does, without its references: nobody reads a file through the page."""
    if "$" in text:
        raise RefusedError("a value from the page takes no reference", fix="write the value itself")
    problems: list[tuple[str, str]] = []
    kind = next(each.metadata["kind"] for each in dataclasses.fields(AlertOptions) if each.name == name)
    raw: object = int(text) if kind is Kind.WHOLE and text.strip().isdecimal() else text.strip()
    read = read_options(
        AlertOptions,
        {name: raw},
        path="alerts",
        folder=Path(),
        report=lambda key, wrong, fix: problems.append((f"{key} {wrong}", fix)),
    )
    if problems:
        raise RefusedError(problems[0][0], fix=problems[0][1] or "give another value")
    value = getattr(read, name)
    if name.endswith("_percent") and value > _PERCENT_MAX:
        raise RefusedError(f"alerts.{name} is a share of records", fix="give 1 to 100")
    return value


def _document(path: Path) -> dict[str, Any]:
    """Return the changes of each profile, by its name; nothing when the file is none of ours."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _saved(path: Path, profile: str) -> list[dict[str, str]]:
    changes = _document(path).get(profile, [])
    if not isinstance(changes, list):
        return []
    return [
        each
        for each in changes[:_KEPT_MAX]
        if isinstance(each, dict) and all(isinstance(value, str) for value in each.values())
    ]


def _text(value: Any) -> str:
    return format_duration(value) if isinstance(value, timedelta) else str(value)
