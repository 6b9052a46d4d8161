"""One Spark session for all tests of a process: to start one takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.engine.spark.session import open_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SPARK_CONF", "local_spark"]

SPARK_CONF = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "2",
}
"""Small and without a page of its own; what a profile of a test says under `spark.`."""


@contextmanager
def local_spark() -> Iterator[SparkSession]:
    """A session on two threads of this process."""
    session = open_session("tests", SPARK_CONF)
    try:
        yield session
    finally:
        session.stop()
