"""`verify`: one slice through both engines, from empty, and what they answer compared.

Nothing of the project is touched: the slice is copied into topics of its own, and both engines write stores
in a temporary folder. What Spark said lies in another one, which stays when an error says that more is there.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import IntegrityError, ProfileError
from headrace.operate.bindings import KafkaBinding, kafka_settings
from headrace.operate.engines import check_engine, engine_settings, spark_settings
from headrace.operate.formats import open_framings
from headrace.operate.project import Project
from headrace.operate.verify.behind import RecordsBehind
from headrace.operate.verify.comparing import compare_stores
from headrace.operate.verify.slices import Recorded
from headrace.operate.verify.topics import Copied, copied_to_topics
from headrace.operate.verify.verdict import EngineRun, Verdict

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from headrace.engine.local import EpochReport, LocalEngine
    from headrace.engine.spark import SparkSettings
    from headrace.log.backoff import Waiting
    from headrace.log.kafka import KafkaSettings
    from headrace.sql.plan import PipelinePlan
    from headrace.store import Store

__all__ = ["Progress", "verify"]

_MASTER = "local[2]"


@dataclass(frozen=True)
class Progress:
    """How far a verification is: what it does ("copy", "local", "spark", "compare"), and records of all."""

    step: str
    records: int
    total: int


def verify(
    project: Project,
    slice_: Recorded,
    *,
    master: str | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda note: None,
    session: SparkSession | None = None,
) -> Verdict | None:
    """Run `slice_` through both engines and compare; None when `stop` was set on the way.

    The profile's streams say where brokers are, and its `spark.` settings which cluster to use: `master`
    comes before them. `session` is used when it is given, and left open. Raises ProfileError when a stream is
    not on Kafka or in a format that Spark does not read, IntegrityError when an engine did not read all.
    """
    from headrace.sql import plan_pipeline

    settings = _settings(project)
    check_engine(replace(project, profile=replace(project.profile, engine="spark")))
    plan = _keeping_all(plan_pipeline(project.pipeline))
    notices: list[str] = []
    with ExitStack() as undo:
        log_folder = undo.enter_context(_log_folder())
        spark = replace(_spark_settings(project, master), log_folder=str(log_folder))
        run = _Run(project, plan, spark, stop or threading.Event(), on_progress, tell, session)
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-verify-")))
        copied = undo.enter_context(
            copied_to_topics(
                settings,
                slice_,
                stop=run.stop,
                on_copied=lambda records: on_progress(Progress("copy", records, slice_.total)),
                tell=notices.append,
            )
        )
        verdict = None if run.stop.is_set() else run.verdict(copied, slice_, folder, undo)
    for notice in notices:  # what is cleared away, is at the end
        tell(notice)
    return None if verdict is None else replace(verdict, notices=notices)


@contextmanager
def _log_folder() -> Iterator[Path]:
    """Give a folder for what Spark says, which lasts when the error that passes names it."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-verify-spark-"))
    named = False
    try:
        yield folder
    except Exception as error:
        named = str(folder) in str(error)
        raise
    finally:
        if not named:
            shutil.rmtree(folder, ignore_errors=True)


def _settings(project: Project) -> dict[str, KafkaSettings]:
    bindings = {each.name: project.profile.stream(each.name) for each in project.pipeline.streams}
    missing = [name for name, binding in bindings.items() if not isinstance(binding, KafkaBinding)]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        raise ProfileError(
            f"profile '{project.profile.name}' does not have stream {names} on Kafka; Spark reads nothing "
            "else, so a slice is verified in topics of its own, and brokers are needed for them",
            fix="name a profile that says where brokers are: headrace verify --profile cluster "
            f"--from {project.profile.name}",
        )
    return {
        name: kafka_settings(binding, name)
        for name, binding in bindings.items()
        if isinstance(binding, KafkaBinding)
    }


def _keeping_all(plan: PipelinePlan) -> PipelinePlan:
    """Return a plan whose tables keep everything: when old windows go depends on where epochs end."""
    tables = tuple(replace(each, table=replace(each.table, keep=None)) for each in plan.tables)
    return replace(plan, tables=tables)


class _Run:
    """What the parts of one verification share."""

    def __init__(
        self,
        project: Project,
        plan: PipelinePlan,
        spark: SparkSettings,
        stop: threading.Event,
        on_progress: Callable[[Progress], None],
        tell: Callable[[str], None],
        session: SparkSession | None,
    ) -> None:
        self._project = project
        self._plan = plan
        self._spark = spark
        self.stop = stop
        self._on_progress = on_progress
        self._tell = tell
        self._session = session or _session_here()

    def verdict(self, copied: Copied, slice_: Recorded, folder: Path, undo: ExitStack) -> Verdict | None:
        """Run both engines and compare their stores."""
        from headrace.engine.local import LocalEngine
        from headrace.engine.spark.engine import SparkEngine

        settings = engine_settings(self._project)
        framings = open_framings(self._project, [each.stream for each in self._plan.streams.values()], undo)
        ours = self._store(folder / "local.duckdb", copied, undo)
        engine = LocalEngine(self._plan, copied.logs, ours, settings=settings, framings=framings)
        local = self._run("local", engine, copied, ours)
        theirs = self._store(folder / "spark.duckdb", copied, undo)
        engine = SparkEngine(
            self._plan,
            copied.logs,
            theirs,
            spark=self._spark,
            settings=settings,
            framings=framings,
            session=self._session,
            stop_s_max=0,  # of what is half done, nothing is kept anyway
        )
        spark = self._run("spark", engine, copied, theirs)
        if self.stop.is_set():
            return None
        self._on_progress(Progress("compare", 0, 0))
        behind = RecordsBehind(self._plan, copied.logs, ours, copied.address, framings)
        return Verdict(
            pipeline=self._project.pipeline.name,
            profile=self._project.profile.name,
            master=self._master,
            records=copied.records,
            spans=slice_.spans,
            local=local,
            spark=spark,
            compared=tuple(behind.added(one) for one in compare_stores(self._plan, ours, theirs)),
            conflicting=sum(line.conflicting for line in ours.ledger().lanes),
        )

    @property
    def _master(self) -> str:
        session = self._session
        return self._spark.conf["spark.master"] if session is None else str(session.sparkContext.master)

    def _store(self, path: Path, copied: Copied, undo: ExitStack) -> Store:
        from headrace.store import Store

        identities = {name: log.identity for name, log in copied.logs.items()}
        store = Store.open(path, self._plan, identities=identities)
        undo.callback(store.close)
        return store

    def _run(self, step: str, engine: LocalEngine, copied: Copied, store: Store) -> EngineRun:
        """Let an engine read all that was copied; it is closed afterwards, its store is not."""
        begun, epochs, read = time.monotonic(), 0, 0

        def committed(report: EpochReport) -> None:
            nonlocal epochs, read
            epochs += 1
            read += sum(report.records.values())
            self._on_progress(Progress(step, read, copied.records))

        self._on_progress(Progress(step, 0, copied.records))
        try:
            if not self.stop.is_set():
                engine.run(self.stop, until_caught_up=True, on_epoch=committed, on_waiting=self._waiting)
        finally:
            engine.close()
        found = sum(sum(line.outcomes.values()) for line in store.ledger().lanes)
        if found != copied.records and not self.stop.is_set():
            raise IntegrityError(
                f"the {step} engine has an outcome for {found} records, and {copied.records} were there",
                fix="verify again; if it stays so, report this with the slice (--file)",
            )
        return EngineRun(epochs, round(time.monotonic() - begun, 3))

    def _waiting(self, pause: Waiting | None) -> None:
        if pause is not None and pause.attempt == 1:
            fix = f" (fix: {pause.error.fix})" if pause.error.fix else ""
            self._tell(f"waiting: {pause.error.message}{fix}")


def _spark_settings(project: Project, master: str | None) -> SparkSettings:
    found = spark_settings(project)
    conf = {"spark.master": _MASTER, **found.conf}
    if master is not None:
        conf["spark.master"] = master
    # The profile's own checkpoint belongs to the run of that profile.
    return replace(found, conf=conf, checkpoint="")


def _session_here() -> SparkSession | None:
    """Return the session that this thread has already: whoever opened it goes on with it afterwards."""
    if "pyspark" not in sys.modules:
        return None
    from pyspark.sql import SparkSession

    return SparkSession.getActiveSession()
