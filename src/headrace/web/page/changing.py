"""What of a run's settings may change while it runs: thresholds of alerts, and the journal's level.

A change holds until the run ends; the profile is never written. Each is told in the journal, and can be
undone.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.declare.durations import format_duration
from headrace.errors import RefusedError
from headrace.operate.alert_options import AlertOptions
from headrace.operate.alerting import rules_of
from headrace.operate.options import Kind, read_options

if TYPE_CHECKING:
    from headrace.observe.rules import Rule
    from headrace.operate import Runtime

__all__ = ["CHANGEABLE", "JOURNAL_LEVEL", "Change", "RunSettings"]

JOURNAL_LEVEL = "journal.level"
_SCHEDULE = ("defaults", "every", "group", "repeat", "notify")  # how alerts are looked at and told
CHANGEABLE = (
    JOURNAL_LEVEL,
    *(f"alerts.{each.name}" for each in dataclasses.fields(AlertOptions) if each.name not in _SCHEDULE),
)
"""Dotted keys of what may change; everything else takes effect with the next run."""

_LEVELS = ("info", "warning")  # a change is told as a warning, so there is no way to change something unheard
_PERCENT_MAX = 100
_KEPT_MAX = 100


@dataclass(frozen=True)
class Change:
    """One change, done or to be done. `profile` is the line of headrace.toml that makes it last."""

    key: str
    before: str
    after: str
    effect: str
    profile: str
    at: str = ""


class RunSettings:
    """The changeable settings of one run. Calls may come from any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._options: AlertOptions = runtime.project.profile.alerts
        self._done: deque[tuple[Change, AlertOptions, str]] = deque(maxlen=_KEPT_MAX)

    def value(self, key: str) -> str:
        """Return what a setting is now."""
        if key == JOURNAL_LEVEL:
            return self._runtime.journal.level
        return _text(getattr(self._options, key.partition(".")[2]))

    def changes(self) -> list[Change]:
        """Return what was changed and not undone, the newest first."""
        with self._lock:
            return [change for change, _, _ in reversed(self._done)]

    def preview(self, key: str, text: str) -> Change:
        """Return what a change would do. Raises RefusedError for a setting or a value that may not be."""
        return self._planned(key, text)[0]

    def change(self, key: str, text: str) -> Change:
        """Change a setting, until the run ends."""
        with self._lock:
            change, options = self._planned(key, text)
            change = replace(change, at=datetime.now(UTC).isoformat(timespec="seconds"))
            self._done.append((change, self._options, self._runtime.journal.level))
            self._put(options, text.strip() if key == JOURNAL_LEVEL else self._runtime.journal.level)
        self._tell("setting changed", change.key, change.before, change.after)
        return change

    def undo(self) -> Change:
        """Take the last change back. Raises RefusedError when there is none."""
        with self._lock:
            if not self._done:
                raise RefusedError("nothing was changed in this run", fix="there is nothing to undo")
            change, options, level = self._done.pop()
            self._put(options, level)
        self._tell("setting changed back", change.key, change.after, change.before)
        return change

    def _tell(self, event: str, key: str, before: str, after: str) -> None:
        self._runtime.journal.warning(event, setting=key, before=before, after=after, by="page")

    def _put(self, options: AlertOptions, level: str) -> None:
        self._runtime.alerts.retune(self._retuned(self._options, options))
        self._options = options
        self._runtime.journal.level = level

    def _planned(self, key: str, text: str) -> tuple[Change, AlertOptions]:
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
        project = self._runtime.project

        def rules(options: AlertOptions) -> tuple[Rule, ...]:
            return rules_of(replace(project, profile=replace(project.profile, alerts=options)))

        old = rules(before)
        known = {each["name"] for each in self._runtime.alerts.states()}
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


def _text(value: Any) -> str:
    return format_duration(value) if isinstance(value, timedelta) else str(value)
