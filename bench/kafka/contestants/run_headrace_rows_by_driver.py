"""Headrace on Spark: rows into a Delta folder, through the driver, the store and a replica."""

from bench.kafka.contestants.lake_on_spark import main

main(by_executors=False)
