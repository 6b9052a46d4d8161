"""The Spark engine: micro-batches on a cluster, merged into the same store."""

from headrace.engine.spark.settings import SparkSettings

__all__ = ["SparkSettings"]
