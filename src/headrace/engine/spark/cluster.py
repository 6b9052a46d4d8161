"""What Spark says of a run: where it is, who works for it, and how long its last micro-batch took.

Records, outcomes and lag come from the store, as on the local engine: to Spark, a row is a part of a range.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["ClusterFacts", "cluster_facts"]


@dataclass(frozen=True)
class ClusterFacts:
    """A look at a run.

    page       where Spark shows it, None where `spark.ui.enabled` is not set
    executors  those that are there now; on one machine, the driver is its own
    seconds    how long the parts of the last micro-batch took, by the names that Spark gives them
    """

    master: str
    application: str
    page: str | None
    executors: int
    batch: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return asdict(self)


def cluster_facts(session: SparkSession, query: StreamingQuery) -> ClusterFacts:
    """Ask Spark; raises what Py4J raises when its process is gone."""
    context = session.sparkContext
    known = len(context._jsc.sc().statusTracker().getExecutorInfos())  # PySpark has no word for it
    master = str(context.master)
    progress = query.lastProgress
    return ClusterFacts(
        master=master,
        application=context.applicationId,
        page=context.uiWebUrl,
        executors=known if master.startswith("local") else known - 1,  # the driver is one of them
        batch=None if progress is None else progress["batchId"],
        seconds={} if progress is None else {n: ms / 1000 for n, ms in progress["durationMs"].items()},
    )
