"""How the Spark engine may be set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

__all__ = ["SparkSettings"]


@dataclass(frozen=True, kw_only=True)
class SparkSettings:
    """The cluster and its micro-batches.

    conf        Spark's own settings by their full names; `spark.master` is one of them
    batch_rows_max   the most records of one micro-batch
    range_rows_max   the most records of one partition that a task reads; with many cores, ranges are shorter
    trigger     micro-batches begin at multiples of it since 1970, one at most between two of them; zero: at
                once after the one before
    quiet       how often a quiet log is looked at to close windows
    checkpoint  the folder, or URI, in which Spark keeps its notes about the running query
    log_folder  where Spark's own words go; beside the store when it is left out
    environment "installed": executors have Headrace; "archive": they get it, with `environment_packages`
    """

    conf: Mapping[str, str] = field(default_factory=dict)
    batch_rows_max: int = 250_000
    batch_bytes_max: int = 256 * 1024 * 1024
    range_rows_max: int = 100_000
    trigger: timedelta = timedelta(0)
    quiet: timedelta = timedelta(seconds=10)
    checkpoint: str = ""
    log_folder: str = ""
    environment: str = "installed"
    environment_packages: tuple[str, ...] = ()
