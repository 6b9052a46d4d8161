"""The alerts of a run: from the pipeline and the profile to what is looked at, saved and told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, RefusedError, fit_to_tell
from headrace.operate.alert_options import AlertOptions, EmailOptions, NotifierOptions, WebhookOptions
from headrace.operate.client import is_running, running_process
from headrace.operate.control import ask
from headrace.operate.project import Project, declared_pipeline

if TYPE_CHECKING:
    from headrace.observe.alerts import Alerts, Notice
    from headrace.observe.notify import Sends
    from headrace.observe.rules import Limits, Rule
    from headrace.operate.control import Handler
    from headrace.operate.journal import Journal
    from headrace.operate.project import Home
    from headrace.store import Store

__all__ = ["Alerting", "alerts_of", "limits_of", "rules_of", "saved_alerts", "silence_alert"]

_ANSWER_S = 15.0
_SILENCE_MINUTES_MAX = 60 * 24 * 30
_STOP_S = 2.0
_STOP_FAILED_S = 5.0
"""How long the end of a run waits for those who are told of it; the next run tells the rest."""
_WORDS_MAX = 1_000


def limits_of(options: AlertOptions) -> Limits:
    """Return the thresholds of a profile."""
    from headrace.observe.rules import Limits

    return Limits(
        not_committing=options.not_committing,
        delay=options.delay,
        bad_share=options.bad_percent / 100,
        late_share=options.late_percent / 100,
        lag_records=options.lag_records,
        replica_behind=options.replica_behind,
        disk_full=options.disk_full,
        clock_skew=options.clock_skew,
    )


def rules_of(project: Project) -> tuple[Rule, ...]:
    """Return all rules of a project: the pipeline's, then those of every pipeline that it does not replace.

    An alert of the pipeline replaces the one of every pipeline that has its name.
    """
    from headrace.observe.alerts import rule_of
    from headrace.observe.rules import default_rules

    own = tuple(rule_of(alert) for alert in project.pipeline.alerts)
    if project.profile.alerts.defaults == "off":
        return own
    names = {rule.name for rule in own}
    defaults = default_rules(limits_of(project.profile.alerts))
    return own + tuple(rule for rule in defaults if rule.name not in names)


def alerts_of(home: Home) -> dict[str, Any]:
    """Return the alerts of a project: of its running pipeline, or what the last run wrote down.

    The keys are `running`, `alerts` and `recent`. Of a stopped one, an alert has its name and its state, and
    severity, summary and help as they are declared now; those of an alert that is not declared are empty.
    """
    facts = running_process(home)
    if facts is not None and is_running(home):
        return {"running": True, **ask(Path(facts["socket"]), "alerts", timeout_s=_ANSWER_S)}
    rules = {rule.name: rule for rule in _declared_rules(home)}
    saved = []
    for name, each in saved_alerts(home).items():
        rule = rules.get(name)
        words = {word: getattr(rule, word, "") for word in ("severity", "summary", "help")}
        saved.append({"name": name, **words, **each})  # a failure has words of its own
    return {"running": False, "alerts": saved, "recent": []}


def _declared_rules(home: Home) -> tuple[Rule, ...]:
    """Return the rules of a project that does not run; without the pipeline's where it cannot be read."""
    from headrace.observe.rules import default_rules

    try:
        return rules_of(Project(home.folder, home.profile, declared_pipeline(home.folder)))
    except HeadraceError:
        return default_rules(limits_of(home.profile.alerts))


def silence_alert(home: Home, name: str, minutes: float) -> None:
    """Silence an alert of a running pipeline; 0 minutes end that. Raises RefusedError when none runs."""
    facts = running_process(home)
    if facts is None or not is_running(home):
        raise RefusedError(
            "the pipeline is stopped, so nobody is told anything", fix="start it: headrace run"
        )
    ask(Path(facts["socket"]), "silence", timeout_s=_ANSWER_S, alert=name, minutes=minutes)


def saved_alerts(home: Home) -> dict[str, Any]:
    """Return what a run wrote down of its alerts: by name, state, since, told, silenced_until."""
    with suppress(OSError, ValueError):
        found = json.loads((home.data / "alerts.json").read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(each, dict) for each in found.values()):
            return found
    return {}


class Alerting:
    """Looks at the alerts of a run in a thread of its own, from `start` to `stop`."""

    def __init__(self, project: Project, store: Store, journal: Journal) -> None:
        from headrace.observe.alerts import Alerts
        from headrace.observe.notify import Notifying

        options = project.profile.alerts
        self._journal = journal
        self._every_s = options.every.total_seconds()
        self._path = project.data / "alerts.json"
        notifiers = [
            (name, _sends(kind, each), each.severity) for name, (kind, each) in options.notify.items()
        ]
        self._notifying: Callable[[], Notifying] = lambda: Notifying(
            notifiers, self._failed, kept=project.data / "notices.json"
        )
        self._tell: Notifying | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._stop_s = _STOP_S
        self.alerts: Alerts = Alerts(
            store,
            # A pipeline that does not run cannot look at whether it runs.
            [rule for rule in rules_of(project) if rule.check is not None or rule.query or rule.ending],
            pipeline=project.pipeline.name,
            group=options.group,
            repeat=options.repeat,
            saved=saved_alerts(project),
            save=self._save,
            notify=self._notify,
        )
        self.alerts.on_change.append(self._changed)

    def start(self) -> None:
        """Begin to look."""
        self._ended.clear()
        self._stop_s = _STOP_S
        self.alerts.save()  # a disk that gets full has room for what is saved then
        self._tell = self._notifying()
        self._thread = threading.Thread(target=self._run, name="headrace-alerts", daemon=True)
        self._thread.start()

    def failed(self, error: BaseException) -> None:
        """Begin to tell that the run ends by this error; `stop` waits until it is told, some seconds at most.

        Of one that was interrupted, nobody is told.
        """
        if not isinstance(error, Exception):
            return
        what, fix = _words_of(error)
        self._end(error=what, fix=fix)
        self._stop_s = _STOP_FAILED_S

    def stop(self) -> None:
        """End the threads. Harmless when nothing runs."""
        self._end()
        tell, self._tell = self._tell, None
        if tell is not None:
            tell.stop(seconds=self._stop_s)

    def _end(self, *, error: str = "", fix: str = "") -> None:
        """Look no more, and say that the run ends; the first time only."""
        thread, self._thread = self._thread, None
        self._ended.set()
        if thread is None:
            return
        thread.join()
        try:
            self.alerts.ended(datetime.now(UTC), error=error, fix=fix)
        except Exception as bug:  # noqa: BLE001 - what the run ends by is to be raised, and not this
            self._journal.warning("alerts", error=type(bug).__name__, message=str(bug))

    def handlers(self) -> dict[str, Handler]:
        """Return what a control server needs to show and silence alerts."""

        def shown(request: Mapping[str, Any]) -> dict[str, Any]:
            return {"alerts": self.alerts.states(), "recent": self.alerts.recent()}

        def silence(request: Mapping[str, Any]) -> dict[str, Any]:
            minutes = request.get("minutes")
            if isinstance(minutes, bool) or not isinstance(minutes, int | float):
                raise RefusedError("'minutes' of the request is not a number")
            if not 0 <= minutes <= _SILENCE_MINUTES_MAX:
                raise RefusedError(f"a silence takes 0 to {_SILENCE_MINUTES_MAX} minutes")
            name = str(request.get("alert"))
            if minutes:
                self.alerts.silence(name, datetime.now(UTC) + timedelta(minutes=minutes))
            else:
                self.alerts.unsilence(name)
            self._journal.info("alert silenced" if minutes else "silence ended", alert=name, minutes=minutes)
            return {}

        return {"alerts": shown, "silence": silence}

    def _run(self) -> None:
        due = time.monotonic()
        told = False
        while not self._ended.is_set():
            try:
                self.alerts.look(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 - a rule's bug must not end the pipeline
                if not told:
                    self._journal.warning("alerts", error=type(error).__name__, message=str(error))
                told = True
            due = max(due + self._every_s, time.monotonic())
            self._ended.wait(due - time.monotonic())

    def _changed(self, change: Mapping[str, Any]) -> None:
        if change["to"] == "firing":
            found = {} if change["value"] is None else {"value": change["value"]}
            self._journal.warning("alert fires", alert=change["name"], **found)
        elif change["from"] == "firing":
            self._journal.info("alert resolved", alert=change["name"])

    def _notify(self, notice: Notice) -> None:
        tell = self._tell
        if tell is not None:
            tell.tell(notice)

    def _failed(self, name: str, why: str) -> None:
        self._journal.warning("notifier", notifier=name, why=why)

    def _save(self, document: Mapping[str, Any]) -> None:
        from headrace.observe.kept import write_kept

        with suppress(OSError):  # the states are those of the next change, too
            write_kept(self._path, json.dumps(document) + "\n")


def _words_of(error: Exception) -> tuple[str, str]:
    """Return what is told of an error, and what to do."""
    if not fit_to_tell(error):
        return type(error).__name__, ""
    found = error.message if len(error.message) <= _WORDS_MAX else error.message[: _WORDS_MAX - 1] + "…"
    return found, error.fix[:_WORDS_MAX]


def _sends(kind: str, options: NotifierOptions) -> Sends:
    """Return a way to tell people; secrets are read now. Raises ProfileError for one that leads nowhere."""
    from headrace.observe.notify import Email, Slack, Webhook

    if isinstance(options, EmailOptions):
        password = None if options.password is None else options.password.reveal()
        return Email(
            host=options.host,
            port=options.port,
            encryption=options.encryption,
            sender=options.sender,
            to=options.to,
            user=options.user,
            password=password,
        )
    assert isinstance(options, WebhookOptions) and options.url is not None  # noqa: S101 - read_alerts saw to it
    token = None if options.token is None else options.token.reveal()
    return (Slack if kind == "slack" else Webhook)(options.url.reveal(), token)
