"""Alerts: each rule is looked at every few seconds, and changes are told in groups.

A rule that becomes true is `pending`, and `firing` once it was true for its `hold`; what is not true any more
is `resolved`, and `ok` an hour later. A rule that cannot be asked keeps its state and says why; so does one
whose figures are missing, for a quarter of an hour. That a run failed is told as it ends, and fires until one
works. Time is an argument; nothing here waits, sends or writes: notices go to `Notifying`, documents to
whoever saves them.
"""

from __future__ import annotations

import math
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from headrace.declare.values import SEVERITIES, Alert
from headrace.declare.words import did_you_mean
from headrace.errors import HeadraceError, RefusedError
from headrace.observe.figures import LOOKED_BACK, Figures, figures_at
from headrace.observe.history import Queried
from headrace.observe.rules import Rule, Verdict

__all__ = ["Alerts", "Notice", "rule_of"]

_RECENT_MAX = 200
_RESOLVED_SHOWN = timedelta(hours=1)
_WORKS_AFTER = timedelta(minutes=1)
"""A run that ends by an error mostly does so at once: one that was looked at for so long works."""
_QUERY_S = 2.0
_NUMBERS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+")
_STATES = ("ok", "pending", "firing", "resolved")


def rule_of(alert: Alert) -> Rule:
    """Return the rule that a pipeline's declaration stands for."""
    return Rule(
        name=alert.name,
        severity=alert.severity,
        summary=alert.summary or f"The alert '{alert.name}' of the pipeline is true.",
        hold=alert.hold,
        origin="pipeline",
        query=alert.query,
    )


@dataclass(frozen=True)
class Notice:
    """What is told at once: alerts that fire, fire on, or are resolved; each as `Alerts.states` shows it."""

    pipeline: str
    time: datetime
    alerts: tuple[Mapping[str, Any], ...]

    def at_least(self, severity: str) -> Notice:
        """Return the notice without alerts of less severity."""
        least = SEVERITIES.index(severity)
        kept = tuple(one for one in self.alerts if SEVERITIES.index(one["severity"]) >= least)
        return Notice(self.pipeline, self.time, kept)


class _Kept:
    """What is remembered of one rule."""

    def __init__(self, rule: Rule, facts: Mapping[str, Any]) -> None:
        self.rule = rule
        self.state: str = facts.get("state") if facts.get("state") in _STATES else "ok"  # type: ignore[assignment]
        self.since = _time_of(facts.get("since"))
        self.told = _time_of(facts.get("told"))
        """When it was last told that it fires; None once it was told that it is resolved."""
        self.silenced_until = _time_of(facts.get("silenced_until"))
        self.summary, self.help = str(facts.get("summary", "")), str(facts.get("help", ""))
        """What is said in the place of the rule's words, until it is `ok`; none: the rule's are."""
        self.value: float | None = None
        self.subject = ""
        self.problem = ""
        self.known: datetime | None = None
        """When figures of it were last seen, or first missed."""

    def document(self) -> dict[str, Any]:
        words = {"summary": self.summary, "help": self.help} if self.summary else {}
        return {
            "state": self.state,
            "since": _text_of(self.since),
            "told": _text_of(self.told),
            "silenced_until": _text_of(self.silenced_until),
            **words,
        }


class Alerts:
    """The states of all rules. `look` is called by one thread; everything else by any.

    `saved` is what the run before gave to `save`, so that an alert that fired goes on and is not told twice.
    """

    def __init__(
        self,
        store: Queried,
        rules: Sequence[Rule],
        *,
        pipeline: str,
        group: timedelta,
        repeat: timedelta,
        saved: Mapping[str, Any] | None = None,
        save: Callable[[dict[str, Any]], None] = lambda document: None,
        notify: Callable[[Notice], None] = lambda notice: None,
    ) -> None:
        self.on_change: list[Callable[[dict[str, Any]], None]] = []
        """Told every change of a state, in the thread that looks; to return at once."""
        self._store = store
        self._pipeline = pipeline
        self._group = group
        self._repeat = repeat
        self._save = save
        self._notify = notify
        self._lock = threading.Lock()
        facts = saved or {}
        self._kept = {rule.name: _Kept(rule, facts.get(rule.name, {})) for rule in rules}
        self._recent: deque[dict[str, Any]] = deque(maxlen=_RECENT_MAX)
        self._to_tell: dict[str, None] = {}
        self._tell_at: datetime | None = None
        self._works = False
        self._looked_first: datetime | None = None

    # --- asked and told by others

    def states(self) -> list[dict[str, Any]]:
        """Return every alert as plain values; times are ISO 8601 texts."""
        with self._lock:
            return [self._shown(kept) for kept in self._kept.values()]

    def recent(self) -> list[dict[str, Any]]:
        """Return the last changes, the newest first."""
        with self._lock:
            return list(reversed(self._recent))

    def silence(self, name: str, until: datetime) -> None:
        """Tell nobody of this alert until then; it is still looked at. Raises RefusedError: no such alert."""
        with self._lock:
            self._named(name).silenced_until = until
            self._saved()

    def unsilence(self, name: str) -> None:
        """End a silence: if the alert fires, that is told by the next look."""
        with self._lock:
            self._named(name).silenced_until = None
            self._saved()

    def save(self) -> None:
        """Have the states saved as they are."""
        with self._lock:
            self._saved()

    def worked(self) -> None:
        """Note that this run works: that the one before failed is over with the next look, or at the end."""
        self._works = True

    def retune(self, rules: Sequence[Rule]) -> None:
        """Put rules in the place of those with their names; states stay until the next look."""
        with self._lock:
            for rule in rules:
                self._named(rule.name).rule = rule

    def _named(self, name: str) -> _Kept:
        if name not in self._kept:
            raise RefusedError(
                f"there is no alert '{name}'{did_you_mean(name, self._kept)}",
                fix="one of: " + ", ".join(self._kept),
            )
        return self._kept[name]

    # --- the thread that looks

    def ended(self, now: datetime, *, error: str = "", fix: str = "") -> None:
        """Say that the run ends, and by what error; called once `look` is called no more.

        An error is told at once, without waiting for a group; not again when the run before has told its own
        less than `repeat` ago, and none worked since, or when this one worked and ended by the same words but
        for numbers and identifiers.
        """
        changes = []
        notice = None
        with self._lock:
            for kept in self._kept.values():
                if kept.rule.ending:
                    another = False
                    if error:
                        summary = f"{kept.rule.summary.removesuffix('.')}: {error}"
                        # That the one before is over may not be told yet, or not seen.
                        another = self._works and not _alike(summary, kept.summary)
                        kept.since = now if another else kept.since
                        kept.summary = summary
                        kept.help = fix or kept.rule.help
                    changes += self._enter(kept, bool(error) or self._failed_before(kept), now)
                    self._remind(kept, now)
                    if another and kept.silenced_until is None:
                        self._to_tell[kept.rule.name] = None
                    if kept.rule.name in self._to_tell:
                        notice = self._notice(now)
        self._spread(changes)
        if notice is not None:
            self._notify(notice)
        with self._lock:
            self._saved()

    def _failed_before(self, kept: _Kept) -> bool:
        """Return whether the run before failed, and this one does not work yet."""
        return kept.state in ("pending", "firing") and not self._works

    def look(self, now: datetime) -> None:
        """Look at every rule, and give what has changed to whoever is to be told."""
        self._looked_first = min(self._looked_first or now, now)
        if now - self._looked_first >= _WORKS_AFTER:
            self.worked()
        figures, problem = self._figures(now)
        changes = []
        with self._lock:
            self._set_back(now)
            rules = [kept.rule for kept in self._kept.values()]
        for rule in rules:
            verdict, why = self._ask(rule, figures, now, problem)
            with self._lock:
                kept = self._kept[rule.name]
                kept.problem = why
                if verdict is None and not why:
                    verdict = self._missed(kept, now)
                elif not why:
                    kept.known = now
                if verdict is not None:
                    kept.value, kept.subject = verdict.value, verdict.subject
                    changes += self._enter(kept, verdict.active, now)
                self._remind(kept, now)
        self._spread(changes)
        notice = None
        with self._lock:
            if changes:
                self._saved()
            if self._to_tell and self._tell_at is not None and now >= self._tell_at:
                notice = self._notice(now)
        if notice is None:
            return
        if notice.alerts:
            self._notify(notice)
        with self._lock:  # not before it was taken: what is told twice does less harm than what never is
            self._saved()

    def _spread(self, changes: Sequence[dict[str, Any]]) -> None:
        for change in changes:
            for listener in list(self.on_change):
                listener(change)

    def _set_back(self, now: datetime) -> None:
        """Let nothing wait for a time that a clock was ahead by, and that is to come again."""
        for kept in self._kept.values():
            kept.since = kept.since and min(kept.since, now)
            kept.told = kept.told and min(kept.told, now)
            kept.known = kept.known and min(kept.known, now)
        if self._tell_at is not None:
            self._tell_at = min(self._tell_at, now + self._group)

    def _figures(self, now: datetime) -> tuple[Figures | None, str]:
        try:
            return figures_at(self._store, now), ""
        except HeadraceError as error:
            return None, error.message

    def _ask(
        self, rule: Rule, figures: Figures | None, now: datetime, problem: str
    ) -> tuple[Verdict | None, str]:
        if rule.ending:
            return Verdict(self._failed_before(self._kept[rule.name])), ""
        if rule.check is not None:
            return (None, problem) if figures is None else (rule.check(figures, now), "")
        try:
            rows = self._store.query(rule.query, rows_max=2, seconds_max=_QUERY_S)
        except HeadraceError as error:
            return None, error.message
        if rows.num_columns != 1 or rows.num_rows > 1:
            return None, "the query gives not one value, but several"
        value = rows.column(0)[0].as_py() if rows.num_rows else None
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return Verdict(bool(value)), ""
        number = float(value)
        if not math.isfinite(number):  # JSON has no word for it; 0 / 0 says that there is nothing to judge
            return Verdict(math.isinf(number)), ""
        return Verdict(bool(value), number), ""

    def _missed(self, kept: _Kept, now: datetime) -> Verdict | None:
        """Return what to think of a rule without figures: after a restart, or of what is there no more."""
        if kept.known is None:
            kept.known = now
        if now - kept.known >= LOOKED_BACK:
            return Verdict(False)
        if kept.state in ("pending", "firing"):
            kept.problem = "its figures are missing"
        return None

    def _enter(self, kept: _Kept, active: bool, now: datetime) -> list[dict[str, Any]]:
        """Move a rule to its next state; return the change, if it is one."""
        before = kept.state
        if active:
            if before in ("ok", "resolved"):
                kept.state, kept.since = "pending", now
            held = kept.since is None or now - kept.since >= kept.rule.hold
            if kept.state == "pending" and held:
                kept.state, kept.since = "firing", now
        elif before == "pending":  # whoever was told that it fires is told its end
            kept.state, kept.since = ("ok", None) if kept.told is None else ("resolved", now)
        elif before == "firing":
            kept.state, kept.since = "resolved", now
        elif before == "resolved" and kept.told is None and now - (kept.since or now) >= _RESOLVED_SHOWN:
            kept.state, kept.since = "ok", None
            kept.summary = kept.help = ""
        if kept.state == before:
            return []
        change = {
            "time": _text_of(now),
            "name": kept.rule.name,
            "from": before,
            "to": kept.state,
            "value": kept.value,
            "subject": kept.subject,
        }
        self._recent.append(change)
        return [change]

    def _remind(self, kept: _Kept, now: datetime) -> None:
        """Put an alert into the next notice, if it is due to be told."""
        if kept.silenced_until is not None:
            if now < kept.silenced_until:
                self._to_tell.pop(kept.rule.name, None)
                return
            kept.silenced_until = None
        if kept.state == "firing":
            due = kept.told is None or now - kept.told >= self._repeat
        else:
            due = kept.told is not None and kept.state != "pending"
        if due and kept.rule.name not in self._to_tell:
            self._to_tell[kept.rule.name] = None
            if self._tell_at is None:
                self._tell_at = now + self._group
        elif not due:
            self._to_tell.pop(kept.rule.name, None)
        if not self._to_tell:
            self._tell_at = None

    def _notice(self, now: datetime) -> Notice:
        told = []
        for name in self._to_tell:
            kept = self._kept[name]
            told.append(self._shown(kept))
            kept.told = now if kept.state == "firing" else None
        self._to_tell, self._tell_at = {}, None
        return Notice(self._pipeline, now, tuple(told))

    def _shown(self, kept: _Kept) -> dict[str, Any]:
        rule = kept.rule
        return {
            "name": rule.name,
            "origin": rule.origin,
            "severity": rule.severity,
            "summary": kept.summary or rule.summary,
            "help": kept.help or rule.help,
            "state": kept.state,
            "since": _text_of(kept.since),
            "value": kept.value,
            "subject": kept.subject,
            "problem": kept.problem,
            "silenced_until": _text_of(kept.silenced_until),
        }

    def _saved(self) -> None:
        self._save({name: kept.document() for name, kept in self._kept.items()})


def _time_of(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _alike(first: str, second: str) -> bool:
    """Return whether two texts are the same but for numbers and what looks like an identifier."""
    return _NUMBERS.sub("#", first) == _NUMBERS.sub("#", second)


def _text_of(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
