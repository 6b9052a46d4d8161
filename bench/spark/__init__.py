"""Headrace on Spark beside the same tables written by hand in PySpark. `python -m bench.spark --help`.

One real broker, one topic of two partitions, `local[2]` for both, in turns; what both computed is compared
with the oracle. Broker, data, oracle and the job written by hand are those of `bench.kafka`.
"""
