"""What the Spark engine does not do as the local one does: one table, for `check`, the docs and the tests.

What a profile can ask for is refused before Spark starts; nothing is approximated. The rest has no setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from headrace.errors import ProfileError, RefusedError

__all__ = ["GAPS", "Gap", "gap_error", "refuse_creation_times", "refuse_gaps"]


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
        "groups_by_executors",
        "a table with GROUP BY or `key=`, or a view, in `spark.rows_by_executors`",
        "which row a group or a key has is known where all its rows come together: in the store",
        "leave it out: the driver merges it, and a replica takes it to Delta or Parquet",
        "never",
    ),
    Gap(
        "rows_that_expire",
        "a table with `keep=` in `spark.rows_by_executors`",
        "what expires is taken out of the store, and these rows are not there",
        "leave `keep=` out, and delete old folders in the target; or leave the table out of "
        "`spark.rows_by_executors`",
        "never",
    ),
    Gap(
        "rows_under_a_view",
        "a view, an alert, a panel or a query over a table in `spark.rows_by_executors`",
        "the store, which answers, has none of its rows",
        "ask the target; or declare what is asked for as a table over the stream",
        "never",
    ),
    Gap(
        "rows_elsewhere_too",
        "a table in `spark.rows_by_executors` in a second replica, or in one that is no folder (`path`) of "
        "Delta or Parquet",
        "executors write the target's own files, once, into a folder that they and the driver share",
        "one replica of the table; others, and an object store (`uri`), with the table left out of "
        "`spark.rows_by_executors`",
        "not yet",
    ),
    Gap(
        "rows_again",
        "`--rebuild` of a table in `spark.rows_by_executors`, `replicas rebuild` and `adopt` of its replica",
        "its rows have no key by which others could take their place, and nothing but the target has them",
        "give the table another name: that one is computed from the log",
        "never",
    ),
    Gap(
        "rows_taken_over",
        "another engine, or a profile without it, for a store that has a table in `spark.rows_by_executors`",
        "the rest of its rows would go into the store, and the table would be in two places",
        "the same setting in both profiles; or another name for the table",
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


def gap_error(place: str, name: str) -> ProfileError:
    """Return the error of a place in the profile that has a gap."""
    return ProfileError(_told(place, _BY_NAME[name]))


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
