"""What the Spark engine does not do as the local one does: one table, for `check`, the docs and the tests.

What a profile can ask for is refused before Spark starts; nothing is approximated. The rest has no setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from headrace.errors import ProfileError, RefusedError

__all__ = ["GAPS", "Gap", "refuse_creation_times", "refuse_gaps"]


@dataclass(frozen=True)
class Gap:
    """One gap. `ever` says whether it is there to stay."""

    name: str
    what: str
    why: str
    instead: str
    ever: Literal["never", "not yet"]


GAPS: tuple[Gap, ...] = (
    Gap(
        "embedded_log",
        "a stream on the embedded log",
        "it is a file of one machine, and executors run on others",
        'bind the stream to Kafka: streams.NAME = { log = "kafka", brokers = "…" }; `headrace log copy` '
        "takes along what is there",
        "never",
    ),
    Gap(
        "creation_times",
        "a topic whose record times are set by producers (CreateTime), without headers",
        "a micro-batch ends at one record time, found in the topic's time index; producers' clocks would "
        "move it, and close windows early",
        "alter the topic to message.timestamp.type=LogAppendTime, or write the times into headers and set "
        'record_time = "header"',
        "never",
    ),
    Gap(
        "driver_elsewhere",
        'a driver that the cluster starts (`spark.submit.deployMode = "cluster"`, spark-submit)',
        "the driver is the run: it holds the store, answers `status` and feeds replicas, so it starts, and "
        "starts again, where the store is; a cluster would start it on any machine, without one",
        "`headrace run` as a service on one machine, or in a pod with a volume (`headrace export "
        'kubernetes`); executors get what they need by spark.environment = "archive" or '
        "spark.kubernetes.container.image",
        "never",
    ),
    Gap(
        "checkpoint_to_go_on_from",
        "going on from Spark's checkpoint, on a disk, S3 or HDFS",
        "positions and tables are one transaction of the store; a second truth beside it could differ",
        "keep the store (`store.path`) on a disk that lasts; spark.checkpoint may lie wherever Spark can "
        "write, and holds nothing that is needed again",
        "never",
    ),
    Gap(
        "rows_by_executors",
        "rows of a table without GROUP BY, written to Delta or Parquet by the executors themselves",
        "which rows are copies is decided in the driver, and what it commits with them (ledger, positions, "
        "corrections) must not be without them after a crash",
        'a replica of the table (`kind = "delta"` or `"parquet"`), written by the driver\'s process',
        "not yet",
    ),
)
"""Every gap; the docs print them, and `refuse_gaps` finds those that a profile can have."""

_DEPLOY_MODE = "spark.submit.deployMode"
_BY_NAME = {gap.name: gap for gap in GAPS}


def refuse_gaps(logs: Mapping[str, str], conf: Mapping[str, str]) -> None:
    """Raise ProfileError that names every gap that a pipeline has.

    `logs` says by stream which log holds it: "kafka" or "embedded"; `conf` are Spark's own settings.
    """
    found = [(f"stream '{stream}'", "embedded_log") for stream, log in logs.items() if log != "kafka"]
    if conf.get(_DEPLOY_MODE, "client") != "client":
        found.append((_DEPLOY_MODE, "driver_elsewhere"))
    if found:
        raise ProfileError("\n".join(_told(place, _BY_NAME[name]) for place, name in found))


def refuse_creation_times(streams: Iterable[str]) -> None:
    """Raise RefusedError when there is a stream whose topic has the times of its producers."""
    found = list(streams)
    if found:
        gap = _BY_NAME["creation_times"]
        names = ", ".join(f"'{name}'" for name in found)
        raise RefusedError(f"stream {names}: {gap.what}: not on Spark: {gap.why}", fix=gap.instead)


def _told(place: str, gap: Gap) -> str:
    ever = "" if gap.ever == "never" else " yet"
    return f"{place}: {gap.what}: not on Spark{ever}, because {gap.why}\n  fix: {gap.instead}"
