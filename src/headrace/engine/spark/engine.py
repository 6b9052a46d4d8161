"""The Spark engine: executors read, judge and add up; the driver merges what they found into the store.

One streaming query reads all lanes of all streams through our data source. Each of its micro-batches is an
epoch of the store, written by the code of the local engine: the same outcomes, the same merges, the same
ledger, in one transaction. The store's positions alone say what was read, so Spark's checkpoint can be lost.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.engine.local.engine import LocalEngine
from headrace.engine.local.reader import Batch
from headrace.engine.local.settings import EngineSettings, EpochReport
from headrace.engine.spark.cluster import BatchFacts, ClusterFacts, cluster_facts
from headrace.engine.spark.computing import (
    CHANGE,
    FACTS,
    Change,
    Computed,
    Orders,
    Taken,
    change_of,
    compute,
    fresh_progress,
)
from headrace.engine.spark.driver_log import conf_with_log
from headrace.engine.spark.epoch import SparkEpoch
from headrace.engine.spark.gaps import refuse_creation_times
from headrace.engine.spark.gathering import Gathered, gather, raise_met
from headrace.engine.spark.jobs import Jobs, Wanted
from headrace.engine.spark.notes import RunNotes
from headrace.engine.spark.outside import OutsideTable, Stage
from headrace.engine.spark.pace import slow_down, tell_pace
from headrace.engine.spark.positions import lane_text
from headrace.engine.spark.references import SentReferences
from headrace.engine.spark.session import (
    SparkEndedError,
    SparkWorkerError,
    conf_with_environment,
    error_of_loss,
    error_of_spark,
    open_session,
    register_source,
)
from headrace.engine.spark.settings import SparkSettings
from headrace.engine.spark.task import LaneTask, Task, as_option, pickled
from headrace.engine.spark.waiting import ExecutorsWait
from headrace.errors import HeadraceError, InternalError
from headrace.log.backoff import BackOff, Waiting, when_ready
from headrace.log.kafka import KafkaLog
from headrace.log.protocol import Log
from headrace.rows.framing import Framing
from headrace.sql.plan import PipelinePlan
from headrace.store import Store
from headrace.store.outside import listed_names

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["SparkEngine", "refuse_unfit", "start_spark"]

Found = tuple[str, bytes]
"""Place and facts, as the data source gives them."""

Changes = list[tuple[str, Change]]
"""What parts of the batch change, each with its place."""

_LOOK_S = 0.2
_FACTS_S = 1.0
_LAST_BATCH_S_MAX = 120.0
_BATCHES_KEPT = 20


class SparkEngine(LocalEngine):
    """Runs micro-batches over one store; see LocalEngine for `on_step` and what happens after an error.

    `on_step` is told "action" as well, when the executors' work of a micro-batch is done.
    `session` is used when it is given, and left open. `outside` says by table where executors write its rows;
    the store was opened for the same tables. `stop_s_max` is for how long a stop waits for the micro-batch at
    work; None: two minutes.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        logs: Mapping[str, Log],
        store: Store,
        *,
        spark: SparkSettings,
        settings: EngineSettings | None = None,
        on_step: Callable[[str], None] | None = None,
        session: SparkSession | None = None,
        framings: Mapping[str, Framing] | None = None,
        outside: Mapping[str, Stage] | None = None,
        stop_s_max: float | None = None,
    ) -> None:
        refuse_unfit(logs)
        self._outside = outside or {}
        super().__init__(plan, logs, store, settings=settings, on_step=on_step, framings=framings)
        self._framings = framings or {}
        self._spark = spark
        self._notes = RunNotes(store.path, spark)
        self._session = session
        self._ours = session is None
        self._stop_s_max = stop_s_max
        self._working = threading.Lock()
        self._stopping = False
        self._failure: BaseException | None = None
        self._caught_up = False
        self.cluster: ClusterFacts | None = None
        """What Spark said of the run a moment ago; None while no query runs."""
        self._batches: deque[BatchFacts] = deque(maxlen=_BATCHES_KEPT)
        self._sent_references = SentReferences(store.connection, plan.references)
        self._sent: Any = None
        self._tell: Callable[[EpochReport], None] = lambda report: None
        self._waiting: Callable[[Waiting | None], None] = lambda pause: None
        self._jobs = Jobs(plan, self._reader.logs, self._outside)

    def _learn_state(self) -> None:
        super()._learn_state()
        for name, stage in self._outside.items():
            self._writers[name] = OutsideTable(self._writers[name].plan, stage)

    def _prepare_outside(self) -> None:
        """Take away what executors wrote and no epoch names: no micro-batch is at work."""
        for name, stage in self._outside.items():
            stage.prepare(listed_names(self._store.connection, name))

    # --- a run

    def run(
        self,
        stop: threading.Event,
        *,
        until_caught_up: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
        on_waiting: Callable[[Waiting | None], None] | None = None,
    ) -> None:
        """Run micro-batches until `stop` is set or, with `until_caught_up`, until one reached every end.

        A stop takes effect after the micro-batch at work, or gives it up after two minutes, or at once where
        there are no executors for it: the next run does it again. Tables that are asked for again are
        computed first, by the driver alone. After a TransientError the query is started again, with growing
        pauses. `on_waiting` is told, too, when a micro-batch waits for executors.
        """
        self._tell = on_epoch or (lambda report: None)
        self._prepare_outside()
        self._waiting = waiting = on_waiting or (lambda pause: None)
        while not stop.is_set():
            report = when_ready(partial(self._rebuild_step, None), stop, waiting)
            if report is None:
                break
            self._tell(report)
        if stop.is_set():
            return
        if self._session is None:
            self._session = start_spark(self._plan.pipeline.name, self._spark, self._store.path)

        def told(pause: Waiting | None) -> None:
            # A query that a stop ends returns, and whoever tries it takes that for a success.
            if pause is not None or not stop.is_set():
                waiting(pause)

        back_off = BackOff(told)
        when_ready(partial(self._query, stop, until_caught_up, back_off), stop, back_off)

    def _query(self, stop: threading.Event, until_caught_up: bool, back_off: BackOff) -> None:
        """Run one streaming query to its end; raises what ended it."""
        try:
            failed: BaseException | None = self._until(stop, until_caught_up, back_off)
        except Exception as error:
            failed = self._failure_of(error)
            if failed is error:
                raise
        # A signal to all processes of a run takes Spark's away as well: nothing is lost, the stop is what
        # was asked for.
        if failed is not None and not (
            stop.is_set() and isinstance(failed, SparkEndedError | SparkWorkerError)
        ):
            slow_down(self._notes.pace)
            raise failed

    def _until(self, stop: threading.Event, until_caught_up: bool, back_off: BackOff) -> BaseException | None:
        query = self._started(self._notes.fresh_checkpoint(self._store.status().store_id, self._session))
        executors, due = ExecutorsWait(self._waiting, _FACTS_S), 0.0
        try:
            while query.isActive and self._failure is None and not (until_caught_up and self._caught_up):
                if (now := time.monotonic()) >= due:
                    due = now + _FACTS_S
                    self._look(query)
                    if self.cluster is not None and self.cluster.batch is not None:
                        back_off.over()  # Spark looked whether there is something, or did a micro-batch
                    executors.look(self.cluster, at_work=self._working.locked(), now=now)
                if stop.wait(_LOOK_S):
                    break
        finally:
            # Whatever it was: the store must not be closed under a merge.
            self._end(query, self._patience(executors) if stop.is_set() else _LAST_BATCH_S_MAX)
            self.cluster = None
            with suppress(Exception):
                query.stop()
        if self._failure is not None or self._stopping:
            return self._failure
        failed = query.exception()
        return None if failed is None else error_of_spark(str(failed), self._says_more)

    def _look(self, query: StreamingQuery) -> None:
        assert self._session is not None  # noqa: S101 - a query runs
        with suppress(Exception):  # a run must not depend on who looks at it
            self.cluster = cluster_facts(self._session, query, tuple(self._batches))

    def _patience(self, executors: ExecutorsWait) -> float:
        """Return for how many seconds a stop waits for the micro-batch at work."""
        if executors.alone:  # nothing of it was done
            return 0.0
        return _LAST_BATCH_S_MAX if self._stop_s_max is None else self._stop_s_max

    def _end(self, query: StreamingQuery, patience_s: float) -> None:
        """Let the micro-batch at work finish, then end the query; raises nothing for how it ended.

        One that takes too long is given up: nothing of it is written, unless it is being written.
        """
        if self._working.acquire(timeout=patience_s):
            try:
                with suppress(Exception):  # Spark's own process may be gone
                    self._stopping = query.isActive
            finally:
                self._working.release()
            return
        self._stopping = True
        if patience_s:  # one that nobody waited for may be of the right size
            slow_down(self._notes.pace)
        with suppress(Exception):
            query.stop()  # takes its work away from the executors, too
        with self._working:
            pass

    def _started(self, folder: str) -> StreamingQuery:
        from headrace.engine.spark.source import OPTION, SOURCE

        assert self._session is not None  # noqa: S101 - `run` opened it
        self._stopping, self._failure, self._caught_up = False, None, False
        self._prepare_outside()
        self._batches.clear()  # another query numbers its micro-batches anew
        task = self._task()
        register_source(self._session)
        self._sent = self._session.sparkContext.broadcast(pickled(task, task.plan))
        self._sent_references.forget()
        rows = self._session.readStream.format(SOURCE).option(OPTION, as_option(task)).load()
        writer = rows.writeStream.queryName(f"headrace-{self._plan.pipeline.name}")
        writer = writer.foreachBatch(self._batch).option("checkpointLocation", folder)
        milliseconds = int(self._spark.trigger.total_seconds() * 1000)
        return writer.trigger(processingTime=f"{milliseconds} milliseconds").start()

    def _task(self) -> Task:
        lanes = {}
        for (stream, lane), log in self._reader.logs.items():
            if not isinstance(log, KafkaLog):
                raise InternalError(f"stream '{stream}' is not on Kafka")
            by_header = log.settings.record_time == "header"
            start = self._store.progress.positions(stream, lane)
            lanes[stream, lane] = LaneTask(log.settings, log.topic_id, start, by_header and lane == "main")
        fixed = (self._framings, self._settings, self._spark, self._notes.pace, self._outside)
        return Task(uuid.uuid4().hex, self._plan, lanes, *fixed)

    @property
    def _says_more(self) -> str:
        """Where Spark's own words are."""
        return self._notes.spark_log if self._ours else "Spark's own log"

    def _failure_of(self, error: BaseException) -> BaseException:
        """Return what ended a micro-batch; of Spark's own errors, what they mean."""
        if isinstance(error, ConnectionError | EOFError) or type(error).__module__ == "py4j.protocol":
            return error_of_loss(error, self._says_more)
        if type(error).__module__.startswith("pyspark"):
            return error_of_spark(str(error), self._says_more)
        return error

    # --- a micro-batch

    def _batch(self, rows: DataFrame, number: int) -> None:
        """Take one micro-batch into the store. Spark calls this, from a thread of its own."""
        with self._working:
            if self._stopping or self._failure is not None:
                # It began before Spark heard of the end. An error would be shown with a traceback; that Spark
                # takes it for done means nothing, since nobody reads this query's notes again.
                return
            begun = time.monotonic()
            try:
                self._batches.append(BatchFacts(number, begun, self._take(rows)))
            except BaseException as error:
                if not self._stopping:  # what is given up ends by an error of Spark's
                    self._failure = error if isinstance(error, HeadraceError) else self._failure_of(error)
                    # Whatever it was: Spark waits for ever for a callback that ends by no Exception.
                    raise InternalError("the micro-batch failed; the run says why") from error

    def _take(self, rows: DataFrame) -> int:
        """Return how many records were taken into the store."""
        begun = time.perf_counter()
        self._references.refresh()
        first = self._jobs.first()
        again = self._jobs.is_kept(first)
        if again:
            rows = rows.persist()
        try:
            facts, changes = self._first_job(rows, first)
            clock = max(log.now() for (_, lane), log in self._reader.logs.items() if lane == "main")
            gathered = gather(self._store.progress, facts, clock)
            self._on_step("action")
            if self._stopping:
                return 0
            if not gathered.repeated:
                gathered.batches[0].seconds_read = time.perf_counter() - begun
                self._write(rows, gathered, first, changes)
        finally:
            if again:
                rows.unpersist()
        self._caught_up = gathered.caught_up
        return 0 if gathered.repeated else sum(one.slice.records.num_rows for one in gathered.batches)

    def _first_job(self, rows: DataFrame, first: Wanted) -> tuple[list[Found], Changes]:
        """Return the facts of a micro-batch and, where nothing has to be known before, what tables change."""
        if not first:
            return _collected(rows.select("place", "facts")), []
        found = self._computed(rows, {}, first)
        facts = [(place, data) for kind, place, data in found if kind == FACTS]
        return facts, _changes(found)

    def _write(self, rows: DataFrame, gathered: Gathered, first: Wanted, changes: Changes) -> None:
        epoch = SparkEpoch(
            self._plan, self._store, self._queries, self._writers, self._keys, self._closings, self._on_step
        )
        batches = gathered.batches
        self._require_same_topics(batches)
        self._set_threads(sum(batch.slice.records.num_rows for batch in batches))
        taken = epoch.judge(batches)
        second = self._jobs.second(first, taken, _with_rows(batches))
        if second:
            with epoch.watch.stage("second_job"):
                # Where Spark reads again for it, what went wrong then stands in facts without a place.
                met = "if(place = '', facts, NULL) AS facts"
                found = self._computed(rows.selectExpr("place", met, "rows"), taken, second)
                raise_met(data for kind, _, data in found if kind == FACTS)
                changes = [(place, one) for place, one in changes if place not in second] + _changes(found)
        epoch.add(changes, {place: gone for place, gone in taken.items() if place not in second})
        if not any(batch.moved for batch in batches) and not self._closings.due(epoch.progress):
            return
        epoch.commit(max(batch.clock for batch in batches))
        self._publish()
        self._on_step("publish")
        report = self._report(epoch, batches)
        tell_pace(
            self._notes.pace,
            rows=sum(report.records.values()),
            size=gathered.bytes,
            seconds=sum(report.seconds.values()),
            bytes_max=self._spark.batch_bytes_max,
            cores=self._cores(),
        )
        self._tell(report)

    def _cores(self) -> int:
        """Return how many tasks the cluster does at once; executors come and go."""
        assert self._session is not None  # noqa: S101 - a query runs
        return int(self._session.sparkContext.defaultParallelism)

    def _require_same_topics(self, batches: list[Batch]) -> None:
        """Raise IntegrityError when a topic was made again since the batch was planned."""
        for batch in batches:
            if batch.slice.records.num_rows:
                self._reader.logs[batch.stream, batch.lane].partitions()

    def _computed(self, rows: DataFrame, taken: Taken, wanted: Wanted) -> list[Computed]:
        """Run the row parts of the wanted tables over rows, on the executors; one action."""
        from pyspark.sql.functions import when

        tables = {name: fresh_progress(one) for name, one in self._store.progress.tables.items()}
        assert self._session is not None  # noqa: S101 - a query runs
        sent, version = self._sent_references.by(self._session)
        orders = Orders(tables, taken, wanted, version, self._store.progress.epoch + 1)
        work = compute(self._sent, sent, orders)
        # Rows of which nothing is computed are not sent to Python.
        needed = when(rows["place"].isin([*wanted]), rows["rows"]).alias("rows")
        found: list[Computed] = rows.select("place", "facts", needed).rdd.mapPartitions(work).collect()
        return found

    def close(self) -> None:
        """End the Spark session if it is ours; the store and the logs stay open."""
        super().close()
        if self._session is not None and self._ours:
            with suppress(Exception):  # it may be gone already
                self._session.stop()
            self._session = None


def refuse_unfit(logs: Mapping[str, Log]) -> None:
    """Raise RefusedError when Spark cannot run over one of the logs."""
    refuse_creation_times(
        name for name, log in logs.items() if isinstance(log, KafkaLog) and log.creation_times
    )


def start_spark(name: str, settings: SparkSettings, store: Path) -> SparkSession:
    """Return this process's session for a pipeline, with what executors need; begun when there is none.

    Raises ProfileError and RefusedError, see `open_session`.
    """
    notes = RunNotes(store, settings)
    conf = conf_with_environment(settings, notes.folder)
    return open_session(name, conf_with_log(conf, notes.log_folder))


def _collected(rows: DataFrame) -> list[Found]:
    return [(row["place"], bytes(row["facts"])) for row in rows.collect()]


def _with_rows(batches: list[Batch]) -> list[str]:
    """Return the places of which there are timely rows."""
    results = ((lane_text((one.stream, one.lane)), one.result) for one in batches)
    return [place for place, result in results if result is not None and result.timely.num_rows]


def _changes(found: list[Computed]) -> Changes:
    return [(place, change_of(data)) for kind, place, data in found if kind == CHANGE]
