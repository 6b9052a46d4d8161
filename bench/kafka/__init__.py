"""Headrace and its peers on one real Kafka broker. `python -m bench.kafka --help`.

Every contestant is a program of its own (`contestants/`), in an environment of its own (`peers.py`), that
reads the same topic of two partitions and computes the same tables. What it computed is compared with a
one-shot DuckDB over the same bytes (`oracle.py`).
"""
