"""What of a run's settings may change while it runs: thresholds, bounds of an epoch, rates, who pauses.

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
from headrace.operate.engines import engine_settings
from headrace.operate.options import Kind, read_options
from headrace.operate.producing import change_rate, rate_from, rate_of, rate_text
from headrace.operate.profiles import EngineOptions, Profile

if TYPE_CHECKING:
    from headrace.engine.local import LocalEngine
    from headrace.observe.alerts import Alerts
    from headrace.observe.rules import Rule
    from headrace.operate.journal import Journal
    from headrace.operate.pollers import Pollers
    from headrace.operate.project import Project

__all__ = ["JOURNAL_LEVEL", "Change", "RunSettings", "poller_key", "rate_key"]

JOURNAL_LEVEL = "journal.level"
_SCHEDULE = ("defaults", "every", "group", "repeat", "notify")  # how alerts are looked at and told
_ALERTS = tuple(
    f"alerts.{each.name}" for each in dataclasses.fields(AlertOptions) if each.name not in _SCHEDULE
)
# Not its memory: DuckDB refuses a limit below what it holds, and the run would end by that.
_BOUNDS = tuple(f"engine_settings.{name}" for name in ("epoch_rows_max", "epoch_bytes_max", "linger"))
_SECTIONS: dict[str, Any] = {"alerts": AlertOptions, "engine_settings": EngineOptions}

_PRODUCERS = "producers."
_RATE = ".rate"
_POLLER = ".poller"
_LEVELS = ("info", "warning")  # a change is told as a warning, so there is no way to change something unheard
_POLLING, _PAUSED = "polling", "paused"
_PERCENT_MAX = 100
_WHOLE_MAX = 1 << 53
"""What a browser's numbers hold exactly; a log's own are not much larger."""

_LENGTH_MAX = timedelta(days=366)
"""Of a longer time, nobody can say any more when it began."""

_KEPT_MAX = 100


def rate_key(stream: str) -> str:
    """Return the key of the rate of a stream's generator."""
    return f"{_PRODUCERS}{stream}{_RATE}"


def poller_key(stream: str) -> str:
    """Return the key that says whether a stream's poller works: `polling` or `paused`."""
    return f"{_PRODUCERS}{stream}{_POLLER}"


def _stream_of(key: str, end: str = _RATE) -> str | None:
    """Return the stream whose generator's rate, or poller, the key is; None for another setting."""
    fits = key.startswith(_PRODUCERS) and key.endswith(end)
    return key[len(_PRODUCERS) : -len(end)] if fits else None


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
class _State:
    """What all settings are: those of the profile, the journal's level, the streams whose pollers pause."""

    profile: Profile
    level: str
    paused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Done:
    """A change, and what was before it."""

    change: Change
    before: _State


class RunSettings:
    """The changeable settings of one run. Calls may come from any thread."""

    def __init__(
        self, project: Project, alerts: Alerts, journal: Journal, engine: LocalEngine, pollers: Pollers
    ) -> None:
        self._project = project
        self._alerts = alerts
        self._journal = journal
        self._engine = engine
        self._pollers = pollers
        self._path = project.data / "settings.json"
        self._lock = threading.Lock()
        self._state = self._said_state = _State(project.profile, journal.level)
        self._done: list[_Done] = []
        # Spark's query is given its bounds when it starts.
        bounds = _BOUNDS if project.profile.engine == "local" else ()
        self.keys: tuple[str, ...] = (JOURNAL_LEVEL, *_ALERTS, *bounds, *map(poller_key, pollers.streams))
        """Dotted keys of what may change beside rates; everything else takes effect with the next run."""
        self._restore()

    def rates(self) -> dict[str, str]:
        """Return the rates of the generators that run, by their streams."""
        found = {each.name: rate_of(self._project.data, each.name) for each in self._project.pipeline.streams}
        return {stream: rate for stream, rate in found.items() if rate is not None}

    def pollers(self) -> tuple[str, ...]:
        """Return the streams whose pollers work beside the run, or pause."""
        return self._pollers.streams

    def choices(self, key: str) -> tuple[str, ...]:
        """Return the words that a setting may be; nothing where it takes more than words."""
        if key == JOURNAL_LEVEL:
            return _LEVELS
        return (_POLLING, _PAUSED) if key in self.keys and _stream_of(key, _POLLER) is not None else ()

    def value(self, key: str) -> str:
        """Return what a setting is now."""
        return self._value(key, self._state)

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
            self._put(last.before)
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
        change, state = self._planned(key, text)
        stream = _stream_of(key)
        if stream is not None:
            change_rate(self._project.data, stream, change.after)
        change = replace(change, at=at)
        self._done.append(_Done(change, self._state))
        self._put(state)
        return change

    def _value(self, key: str, state: _State) -> str:
        if key == JOURNAL_LEVEL:
            return state.level
        stream = _stream_of(key, _POLLER)
        if stream is not None:
            return _PAUSED if stream in state.paused else _POLLING
        section, _, name = key.partition(".")
        if section == "alerts":
            return _text(getattr(state.profile.alerts, name))
        # What the profile leaves open, the engine has a default for.
        return _text(getattr(engine_settings(replace(self._project, profile=state.profile)), name))

    def _said(self, key: str) -> str:
        """Return what the profile, or its default, says of a setting."""
        return self._value(key, self._said_state)

    def _restore(self) -> None:
        """Make the changes of earlier runs again, but for those of which the profile says otherwise now."""
        for each in _saved(self._path, self._project.profile.name):
            key, value, said = each.get("key", ""), each.get("value", ""), each.get("said", "")
            try:
                if key in self.keys and self._said(key) != said:
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
            if each.change.key in self.keys
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

    def _put(self, state: _State) -> None:
        self._alerts.retune(self._retuned(self._state.profile, state.profile))
        if state.profile.engine_settings != self._state.profile.engine_settings:
            self._engine.bound(engine_settings(replace(self._project, profile=state.profile)))
        self._pollers.pause(state.paused)
        self._journal.level = state.level
        self._state = state

    def _planned(self, key: str, text: str) -> tuple[Change, _State]:
        stream, rates = _stream_of(key), self.rates()
        if stream in rates:
            return _rate_change(stream, rates[stream], text), self._state
        if key not in self.keys:
            raise RefusedError(
                f"'{key[:100]}' cannot change while the pipeline runs",
                fix="change it in headrace.toml and run again; at run time: " + ", ".join(self.keys),
            )
        words = self.choices(key)
        if words:
            return self._planned_word(key, text.strip(), words)
        section, _, name = key.partition(".")
        options = replace(getattr(self._state.profile, section), **{name: _read(section, name, text)})
        profile = replace(self._state.profile, **{section: options})
        state = replace(self._state, profile=profile)
        before, after = self.value(key), self._value(key, state)
        if section == "alerts":
            rules = self._retuned(self._state.profile, profile)
            effect = "; ".join(f"{rule.name}: {rule.summary}" for rule in rules)
            if not rules and after != before:
                effect = "nothing: the pipeline's own alert stands in its place, or alerts are off"
        else:
            effect = "" if after == before else f"{_help(section, name)}: {after}, from the next epoch on"
        line = f"{key} = {after if after.isdecimal() else repr(after).replace(chr(39), chr(34))}"
        return Change(key, before, after, effect or "nothing: it is so already", line), state

    def _planned_word(self, key: str, word: str, words: tuple[str, ...]) -> tuple[Change, _State]:
        stream = _stream_of(key, _POLLER)
        if word not in words:
            what = "level" if stream is None else "state of a poller"
            raise RefusedError(f"there is no such {what}", fix="one of: " + ", ".join(words))
        before = self.value(key)
        if stream is None:
            state = replace(self._state, level=word)
            effect = f"lines below '{word}' are not written any more" if word != "info" else "all is written"
        elif word == _PAUSED:
            state = replace(self._state, paused=self._state.paused | {stream})
            effect = f"nothing is polled for '{stream}' until it goes on"
        else:
            state = replace(self._state, paused=self._state.paused - {stream})
            effect = f"the poller of '{stream}' goes on where it stood"
        return Change(key, before, word, effect, ""), state

    def _retuned(self, before: Profile, after: Profile) -> list[Rule]:
        """Return the rules of this run that are others after a change."""
        old = rules_of(replace(self._project, profile=before))
        new = rules_of(replace(self._project, profile=after))
        known = {each["name"] for each in self._alerts.states()}
        return [rule for rule in new if rule not in old and rule.name in known]


def _rate_change(stream: str, before: str, text: str) -> Change:
    try:
        after = rate_text(rate_from(text))
    except ProfileError as error:
        raise RefusedError(error.message, fix=error.fix) from None
    effect = f"the generator of '{stream}' makes {after} events a second, until it ends"
    if rate_from(after) == 0:
        effect = f"the generator of '{stream}' makes nothing until it is given another rate"
    return Change(rate_key(stream), before, after, effect, "")


def _help(section: str, name: str) -> str:
    """Return what an option of the profile does, in the words of its declaration before its default."""
    lines = dataclasses.fields(_SECTIONS[section])
    return str(next(each.metadata["help"] for each in lines if each.name == name)).partition(" (")[0]


def _read(section: str, name: str, text: str) -> Any:
    """Read a value as the profile does, without its references: nobody reads a file through the page."""
    if "$" in text:
        raise RefusedError("a value from the page takes no reference", fix="write the value itself")
    problems: list[tuple[str, str]] = []
    lines = dataclasses.fields(_SECTIONS[section])
    kind = next(each.metadata["kind"] for each in lines if each.name == name)
    raw: object = int(text) if kind is Kind.WHOLE and text.strip().isdecimal() else text.strip()
    try:
        value = getattr(
            read_options(
                _SECTIONS[section],
                {name: raw},
                path=section,
                folder=Path(),
                report=lambda key, wrong, fix, *, absent=False: problems.append((f"{key} {wrong}", fix)),
            ),
            name,
        )
    except OverflowError:
        value = _WHOLE_MAX + 1
    if problems:
        raise RefusedError(problems[0][0], fix=problems[0][1] or "give another value")
    if value > (_LENGTH_MAX if isinstance(value, timedelta) else _WHOLE_MAX):
        raise RefusedError(f"{section}.{name} is too large", fix="give a smaller value")
    if name.endswith("_percent") and value > _PERCENT_MAX:
        raise RefusedError(f"{section}.{name} is a share of records", fix="give 1 to 100")
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
