"""Headrace on Spark: rows into a Delta folder, as executors write them."""

from bench.kafka.contestants.lake_on_spark import main

main(by_executors=True)
