"""What a run reads and writes, told to a lineage server such as Marquez as OpenLineage events.

The pipeline is a job, and each of its tables is one with its query: a run of the pipeline is the parent of
the runs of its tables. They begin with START, tell every while how much they did (RUNNING), and end with
COMPLETE or FAIL: https://openlineage.io/docs/spec/run-cycle.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    sql_job,
)
from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider
from openlineage.client.uuid import generate_new_uuid

from headrace.observe.forwarding import QUEUE_MAX, Forwarding

if TYPE_CHECKING:
    from headrace.engine.local.settings import EpochReport

__all__ = ["About", "Data", "Lineage", "LineageEvents", "Moment", "Step"]

_TIMEOUT_S = 3.0
_PATH = "/api/v1/lineage"
_PRODUCER = "headrace"


@dataclass(frozen=True)
class Data:
    """A dataset under the names that OpenLineage gives it; `columns` are (name, type).

    counted  the stream or table whose records or rows are its own; empty: they are not counted
    """

    namespace: str
    name: str
    columns: tuple[tuple[str, str], ...]
    counted: str = ""


@dataclass(frozen=True)
class Step:
    """A table: what its query reads, and where its rows are written, replicas among it."""

    name: str
    query: str
    reads: tuple[Data, ...]
    writes: tuple[Data, ...]


@dataclass(frozen=True)
class Moment:
    """A state of the run to be told: `read` records by stream and `written` rows by table since it began."""

    state: str
    at: datetime
    read: Mapping[str, int]
    written: Mapping[str, int]
    error: str = ""


class Lineage:
    """The signal `lineage`; see `Signal`. Calls but `committed` come one after another."""

    def __init__(
        self,
        receiver: LineageEvents,
        failed: Callable[[str, str], None],
        *,
        every: timedelta,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._receiver = receiver
        self._every = every
        self._forwarding: Forwarding[Moment] = Forwarding(
            "lineage", receiver.send, size=receiver.size, failed=failed, queue_max=queue_max
        )
        self.state = self._forwarding.state
        self._lock = threading.Lock()
        self._read: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._due: datetime | None = None

    def start(self, now: datetime) -> None:
        """See `Signal`."""
        self._forwarding.start()
        self._say("START", now)

    def committed(self, report: EpochReport, now: datetime) -> None:
        """See `Signal`."""
        with self._lock:
            self._read.update(report.records)
            self._written.update(report.rows)

    def tick(self, now: datetime) -> None:
        """See `Signal`."""
        if self._due is not None and now >= self._due:
            self._say("RUNNING", now)

    def stop(self, now: datetime, error: str) -> None:
        """See `Signal`."""
        self._say("FAIL" if error else "COMPLETE", now, error)
        self._due = None
        self._forwarding.stop()

    def close(self) -> None:
        """See `Signal`."""
        self._receiver.close()

    def _say(self, state: str, now: datetime, error: str = "") -> None:
        self._due = now + self._every
        with self._lock:
            read, written = dict(self._read), dict(self._written)
        self._forwarding.offer(Moment(state, now, read, written, error))


@dataclass(frozen=True, kw_only=True)
class About:
    """What all events of a run have in common; `namespace` is that of its jobs."""

    pipeline: str
    namespace: str
    engine: str
    version: str
    steps: tuple[Step, ...]


class LineageEvents:
    """Makes events of moments, and posts each of them. `url` without a path gets OpenLineage's own."""

    def __init__(self, url: str, key: str | None, about: About) -> None:
        at = urlsplit(url)
        # It writes every address and answer into its log; what matters is told in the journal, once.
        logging.getLogger("openlineage").setLevel(logging.CRITICAL)
        self._transport = HttpTransport(
            HttpConfig(
                url=f"{at.scheme}://{at.netloc}",
                endpoint=url.partition(at.netloc)[2] if at.path not in ("", "/") else _PATH,
                timeout=_TIMEOUT_S,
                auth=TokenProvider({}) if key is None else ApiKeyTokenProvider({"apiKey": key}),
                retry={"total": 0},
            )
        )
        self._about = about
        self._run = str(generate_new_uuid())
        self._runs = {step.name: str(generate_new_uuid()) for step in about.steps}

    def size(self, moment: Moment) -> int:
        """Return how many events a moment is."""
        return 1 + len(self._about.steps)

    def send(self, moments: Sequence[Moment]) -> None:
        """Post the events of moments. Raises ConnectionError; those of before may be posted again then."""
        for moment in moments:
            for event in self._events(moment):
                self._post(event)

    def close(self) -> None:
        """Give back the connection."""
        self._transport.close()

    def _post(self, event: RunEvent) -> None:
        try:
            self._transport.emit(event)
        except OSError as error:  # its text may say more than anybody should read
            answer = getattr(error, "response", None)
            why = type(error).__name__ if answer is None else f"status {answer.status_code}"
            raise ConnectionError(why) from None

    def _events(self, moment: Moment) -> list[RunEvent]:
        about = self._about
        engine = processing_engine_run.ProcessingEngineRunFacet(version=about.version, name=about.engine)
        facets: dict[str, Any] = {"processing_engine": engine}
        if moment.error:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=moment.error, programmingLanguage="PYTHON"
            )
        own = Run(self._run, facets=dict(facets))
        events = [self._event(moment, own, self._job(about.pipeline, "PIPELINE"), [], [])]
        facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(self._run), job=parent_run.Job(about.namespace, about.pipeline)
        )
        for step in about.steps:
            run = Run(self._runs[step.name], facets=dict(facets))
            reads = [_input(each, moment.read) for each in step.reads]
            writes = [_output(each, moment.written) for each in step.writes]
            job = self._job(
                f"{about.pipeline}.{step.name}", "QUERY", sql=sql_job.SQLJobFacet(query=step.query)
            )
            events.append(self._event(moment, run, job, reads, writes))
        return events

    def _job(self, name: str, kind: str, **facets: Any) -> Job:
        facet = job_type_job.JobTypeJobFacet(
            processingType="STREAMING", integration=_PRODUCER.upper(), jobType=kind
        )
        return Job(self._about.namespace, name, facets={"jobType": facet, **facets})

    def _event(
        self, moment: Moment, run: Run, job: Job, reads: list[InputDataset], writes: list[OutputDataset]
    ) -> RunEvent:
        return RunEvent(
            eventType=RunState(moment.state),
            eventTime=moment.at.isoformat(),
            producer=f"{_PRODUCER}/{self._about.version}",
            run=run,
            job=job,
            inputs=reads,
            outputs=writes,
        )


def _input(data: Data, read: Mapping[str, int]) -> InputDataset:
    facet = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    counted: dict[str, Any] = (
        {"inputStatistics": facet(rowCount=read.get(data.counted, 0))} if data.counted else {}
    )
    return InputDataset(data.namespace, data.name, facets=_schema(data), inputFacets=counted)


def _output(data: Data, written: Mapping[str, int]) -> OutputDataset:
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    counted: dict[str, Any] = (
        {"outputStatistics": facet(rowCount=written.get(data.counted, 0))} if data.counted else {}
    )
    return OutputDataset(data.namespace, data.name, facets=_schema(data), outputFacets=counted)


def _schema(data: Data) -> dict[str, Any]:
    fields = [schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in data.columns]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}
