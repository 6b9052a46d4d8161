"""What Spark says of a run: where it is, who works for it, how fast it is, how long a micro-batch took.

Outcomes, lag, frontiers and state come from the store, as on the local engine. What Spark counts as rows are
parts of ranges, so the records of a micro-batch are counted by the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["BatchFacts", "ClusterFacts", "cluster_facts"]

_WORK = "addBatch"
"""The part that Spark names where there was something to do; without it, it only looked for new records."""


@dataclass(frozen=True)
class BatchFacts:
    """A micro-batch as the driver met it: its number, when it began (seconds of any clock), its records."""

    number: int
    begun: float
    records: int


@dataclass(frozen=True)
class ClusterFacts:
    """A look at a run.

    page       where Spark shows it, None where `spark.ui.enabled` is not set
    executors  those that are there now; on one machine, the driver is its own
    seconds    how long the parts of the last micro-batch took, by the names that Spark gives them
    records    of the last micro-batch; its rates are records a second, in Spark's words: the input rate by
               the time since the micro-batch before it began, the processing rate by the time that it took.
               None: not known. A run keeps up while its input rate is below its processing rate
    """

    master: str
    application: str
    page: str | None
    executors: int
    batch: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    records: int = 0
    input_rate: float | None = None
    processing_rate: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return asdict(self)


def cluster_facts(
    session: SparkSession, query: StreamingQuery, batches: Sequence[BatchFacts]
) -> ClusterFacts:
    """Ask Spark; `batches` are the last ones, in their order.

    Raises what Py4J raises when Spark's process is gone.
    """
    context = session.sparkContext
    known = len(context._jsc.sc().statusTracker().getExecutorInfos())  # PySpark has no word for it
    master = str(context.master)
    progress = query.lastProgress
    seconds = {} if progress is None else {name: ms / 1000 for name, ms in progress["durationMs"].items()}
    number = None if progress is None else progress["batchId"]
    records, input_rate, processing_rate = _rates(number, seconds, batches)
    return ClusterFacts(
        master=master,
        application=context.applicationId,
        page=context.uiWebUrl,
        executors=known if master.startswith("local") else known - 1,  # the driver is one of them
        batch=number,
        seconds=seconds,
        records=records,
        input_rate=input_rate,
        processing_rate=processing_rate,
    )


def _rates(
    number: int | None, seconds: Mapping[str, float], batches: Sequence[BatchFacts]
) -> tuple[int, float | None, float | None]:
    """Return the records of a micro-batch, its input rate and its processing rate; None: not known (yet)."""
    if number is None:
        return 0, None, None
    if _WORK not in seconds:
        return 0, 0.0, 0.0
    this = next((one for one in batches if one.number == number), None)
    if this is None:
        return 0, None, None
    since = next((this.begun - before.begun for before, one in pairwise(batches) if one is this), None)
    return this.records, _rate(this.records, since), _rate(this.records, seconds.get("triggerExecution"))


def _rate(records: int, seconds: float | None) -> float | None:
    return round(records / seconds, 1) if seconds else None
