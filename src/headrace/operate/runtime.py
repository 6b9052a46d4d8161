"""`Runtime`: a project's logs, store and engine, assembled, run and taken down again."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import RefusedError
from headrace.operate.alerting import Alerting
from headrace.operate.answers import Answers
from headrace.operate.bindings import KafkaBinding, kafka_settings
from headrace.operate.changing import RunSettings
from headrace.operate.control import ControlServer, socket_path
from headrace.operate.dead_letter_topics import DeadLetterTopics
from headrace.operate.engines import check_engine, open_engine, spark_facts
from headrace.operate.journal import Journal
from headrace.operate.lag import LogsForQuestions, UnreadRecords
from headrace.operate.last_run import note_begin, note_good_end, write_private
from headrace.operate.observing import open_observer, serve_metrics
from headrace.operate.outside import is_moved, outside_places
from headrace.operate.pollers import Pollers
from headrace.operate.project import Home, Project
from headrace.operate.replicas import Replicas, expired_tables, replica_states
from headrace.operate.spark_master import master_page_of
from headrace.operate.telemetry import Telemetry
from headrace.operate.waiting import WaitingWords

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport, LocalEngine
    from headrace.log import Log
    from headrace.log.backoff import Waiting
    from headrace.sql.plan import PipelinePlan
    from headrace.store import Store

__all__ = ["Runtime", "open_log", "open_logs"]


def open_log(home: Home, stream: str, *, make: bool = True) -> Log:
    """Open the log of a stream as the profile binds it; it is made when it is absent, unless `make` is False.

    Raises TransientError when brokers do not answer, RefusedError when a log cannot be used as it is bound,
    or is absent and not to be made.
    """
    binding = home.profile.stream(stream)
    if make:
        make_data_folder(home)
    if isinstance(binding, KafkaBinding):
        from headrace.log.kafka import open_kafka_log

        return open_kafka_log(kafka_settings(binding, stream), stream, make=make)
    from headrace.log import open_embedded_log

    if not make and not home.log_path.exists():
        raise RefusedError(
            f"stream '{stream}': there is no log yet",
            fix="start the pipeline or a producer: they make it",
        )
    return open_embedded_log(
        home.log_path,
        stream,
        partitions=binding.partitions,
        retention_age=binding.retention,
        retention_bytes=binding.retention_bytes,
        bytes_max=binding.bytes_max,
    )


def open_logs(home: Home, streams: Iterable[str]) -> dict[str, Log]:
    """Open the logs of several streams: all of them or none."""
    with ExitStack() as undo:
        logs: dict[str, Log] = {}
        for stream in streams:
            logs[stream] = open_log(home, stream)
            undo.callback(logs[stream].close)
        undo.pop_all()
        return logs


def make_data_folder(home: Home) -> None:
    """Make the folder of everything that a run writes. Raises RefusedError when it cannot be written."""
    for folder in (home.data, home.store_path.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RefusedError(
                f"{folder} cannot be made: {error.strerror}",
                fix="make the folder writable, or copy the project",
            ) from error
    if not os.access(home.data, os.W_OK):
        raise RefusedError(f"{home.data} cannot be written to", fix="make the folder writable for this user")


class Runtime:
    """A pipeline that is open: this process holds its store and answers questions about it.

    `open` takes everything or nothing; `run` works until it is told to stop; `close` gives everything back,
    and a process that dies without it leaves nothing that stops the next one.
    """

    def __init__(
        self,
        project: Project,
        plan: PipelinePlan,
        logs: Mapping[str, Log],
        store: Store,
        engine: LocalEngine,
        files: ExitStack,
    ) -> None:
        self.project = project
        self.plan = plan
        self.logs = logs
        self.store = store
        self.engine = engine
        self.journal = Journal(project.journal_path)
        asked = LogsForQuestions(project)
        files.callback(asked.close)
        self.unread = UnreadRecords(store, plan.streams, asked)
        """How many records wait; asked while it is open, which is up to whoever shows it."""
        self.replicas = Replicas(project, plan, store, self.journal)
        self.letters = DeadLetterTopics(project, store, self.journal)
        self.pollers = Pollers(project, self.journal)
        lateness = {name: each.stream.allowed_lateness for name, each in plan.streams.items()}
        self.observer = open_observer(
            project, store, lateness, logs=asked, replicas=self.replicas, journal=self.journal
        )
        files.callback(self.observer.close)
        self.alerting = Alerting(project, store, self.journal)
        self.alerts = self.alerting.alerts
        self.settings = RunSettings(project, self.alerts, self.journal, engine, self.pollers)
        self.observer.alert_states = self.alerts.states
        self.telemetry = Telemetry(project, plan, self.journal)
        files.callback(self.telemetry.close)
        self.observer.telemetry_states = self.telemetry.states
        self.observer.on_tick.append(self.telemetry.tick)
        spark = partial(spark_facts, engine, master_page_of(project))
        self.observer.spark = spark
        self.log_warnings: tuple[str, ...] = ()
        """What is odd about the logs of the streams, or about what was read of them before."""
        self.handed_to = ""
        """The profile that takes over from this run; empty while none does."""
        self._stop = threading.Event()
        self._waits = WaitingWords()
        self.answers = Answers(
            store,
            asked,
            running=True,
            replicas=self._replica_states,
            letters=self.letters.states,
            alerts=self.alerts.states,
            spark=spark,
            telemetry=self.telemetry.states,
        )
        self.answers.awaits = "spark" if project.profile.engine == "spark" else ""
        self._files = files

    @classmethod
    def open(cls, project: Project, *, rebuild: Iterable[str] = ()) -> Runtime:
        """Plan the pipeline, open its logs and store, and listen on the project's socket.

        `rebuild` names tables that are computed anew from the log. Raises DeclarationError, ProfileError, and
        RefusedError when another process holds the store or runs this project with another one.
        """
        from headrace.sql import plan_pipeline
        from headrace.store import Store

        plan = plan_pipeline(project.pipeline)
        check_engine(project)
        outside = outside_places(project, plan)
        files = ExitStack()
        with ExitStack() as undo:
            undo.callback(files.close)
            logs = open_logs(project, plan.streams)
            for log in logs.values():
                files.callback(log.close)
            identities = {name: log.identity for name, log in logs.items()}
            store = Store.open(
                project.store_path,
                plan,
                identities=identities,
                rebuild=tuple(rebuild),
                expired=expired_tables(project, plan),
                outside=outside,
                moved=partial(is_moved, project, plan),
            )
            files.callback(store.close)
            _hold_folder(project, files)
            before = _read_before(store, logs)  # an engine publishes positions of its own at once
            engine = open_engine(project, plan, logs, store, files)
            runtime = cls(project, plan, logs, store, engine, files)
            runtime.log_warnings = (*before, *_warnings(logs))
            undo.pop_all()
            undo.callback(runtime.close)
            for notice in store.notices:
                runtime.journal.warning("declaration changed", what=notice)
            for warning in runtime.log_warnings:
                runtime.journal.warning("log", what=warning)
            runtime._listen()
            metrics = serve_metrics(project, runtime.observer)
            if metrics is not None:
                runtime._files.callback(metrics.close)
            undo.pop_all()
        return runtime

    def run(
        self,
        stop: threading.Event,
        *,
        until_caught_up: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
        on_waiting: Callable[[Waiting | None], None] | None = None,
    ) -> None:
        """Work until `stop` is set (it ends at an epoch's boundary), or until everything present was read.

        `on_waiting` is told when a log is not ready, and None when it is again.
        """

        def waiting(pause: Waiting | None) -> None:
            self._note_waiting(pause)
            if on_waiting is not None:
                on_waiting(pause)

        def committed(report: EpochReport) -> None:
            self.observer.committed(report)
            self.telemetry.committed(report)
            self.replicas.wake()
            self.letters.committed(report.outcomes.values())
            self.alerts.worked()
            if not report.rebuilding:
                self.answers.awaits = ""
            self._note_missing(report.missing)
            if on_epoch is not None:
                on_epoch(report)

        self._stop = stop
        if self.handed_to:  # it was asked for before this began
            stop.set()
        home = self.project
        self.journal.info("run started", pid=os.getpid(), profile=home.profile.name)
        self.observer.restarts = note_begin(home)
        self.replicas.start()
        self.letters.start()
        self.telemetry.start()
        self.observer.start()
        self.alerting.start()
        if not until_caught_up:  # it would poll for ever
            self.pollers.start()
        caught_up, failed = False, None
        try:
            self.engine.run(stop, until_caught_up=until_caught_up, on_epoch=committed, on_waiting=waiting)
            if until_caught_up:
                self.answers.awaits = "replicas"
                self.replicas.wait_until_caught_up(stop)
            caught_up = until_caught_up and not stop.is_set()
            if caught_up:
                self.alerts.worked()
        except BaseException as error:
            self.journal.failed("run failed", error)
            self.alerting.failed(error)
            failed = error
            raise
        finally:
            self.answers.awaits = ""
            self.pollers.stop()
            self.replicas.stop()
            self.letters.stop(caught_up=caught_up)
            self.alerting.stop()
            self.observer.stop()
            self.telemetry.stop(failed)
            if not isinstance(failed, Exception):  # who interrupts a run has ended it
                note_good_end(home)
        self.journal.info("run stopped", pid=os.getpid())

    def _note_missing(self, missing: Mapping[str, int]) -> None:
        why = (
            "these were accepted, and today's rules refuse them; "
            "the table lacks those of them that it would have taken"
        )
        for name, records in missing.items():
            self.journal.warning("table computed again", table=name, refused=records, why=why)

    def _note_waiting(self, pause: Waiting | None) -> None:
        news = self._waits.take(pause)
        self.answers.waiting = self._waits.line
        self.observer.waiting(pause is not None)
        if pause is None:
            self.journal.info("ready again")
        elif news:
            self.journal.warning("waiting", why=pause.error.message, fix=self._waits.fix)

    def close(self) -> None:
        """Stop answering, give back store and logs."""
        try:
            self._files.close()
        finally:
            self.journal.close()

    def _replica_states(self) -> list[dict[str, Any]]:
        return replica_states(self.project, self.replicas.states(), self.store)

    def _tell_replica(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.replicas.tell(str(request.get("replica")), str(request.get("action")))
        return {}

    def _hand_over(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.handed_to = str(request.get("to"))
        self.journal.info("handing over", to=self.handed_to)
        self._stop.set()
        return {}

    def _listen(self) -> None:
        home = self.project
        handlers = {"replicas": self._tell_replica, **self.answers.handlers(), **self.alerting.handlers()}
        handlers["hand_over"] = self._hand_over
        server = ControlServer(
            socket_path(home.data), {"hello": lambda request: {"pid": os.getpid()}, **handlers}
        )
        self._files.callback(server.close)
        facts = {
            "pid": os.getpid(),
            "socket": str(server.path),
            "profile": home.profile.name,
            "store": str(home.store_path),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_private(home.run_path, json.dumps(facts) + "\n")
        self._files.callback(_remove, home.run_path)


def _warnings(logs: Mapping[str, Log]) -> tuple[str, ...]:
    """Return what the logs of the streams warn of."""
    from headrace.log.protocol import Warns

    return tuple(each for log in logs.values() if isinstance(log, Warns) for each in log.warnings)


def _read_before(store: Store, logs: Mapping[str, Log]) -> tuple[str, ...]:
    """Say what was read of the streams by a run whose store is not this one, which is new."""
    from headrace.engine.local.start import READER

    if store.progress.epoch:
        return ()
    said = []
    for name, log in logs.items():
        read = log.readers(READER).get(READER, {})
        records = sum(max(0, min(read.get(r.partition, 0), r.end) - r.start) for r in log.partitions())
        if records:
            said.append(
                f"stream '{name}': a run with another store has read {records:,} of its records; this store "
                "is new, and everything is computed again from what the log holds. If that is not meant, "
                "stop, and see where store.path leads from here"
            )
    return tuple(said)


def _hold_folder(home: Home, files: ExitStack) -> None:
    """Hold the project's folder: its log, socket and journal serve one run, also of two with stores apart."""
    from headrace.store.lock import StoreLock, holder_of

    lock = StoreLock(home.data / "run")
    try:
        lock.acquire()
    except RefusedError:
        raise RefusedError(
            f"{home.folder} is run already, with another store, by {holder_of(home.data / 'run.lock')}",
            fix="stop that run first; to run two at once, copy the project to a folder of its own",
        ) from None
    files.callback(lock.release)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
