"""Cassandra against `execute_concurrent_with_args` of its own driver, at the best of some concurrencies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.replicas.case import Case, Sizes, cassandra_server
from bench.replicas.rows import SHAPE, chunks, require, through_replica

KEYSPACE = "bench"
COLUMNS = ("id", "who", "seen", "amount", "_version")
CONCURRENCY = (64, 128, 256, 512)


@contextmanager
def upserts(sizes: Sizes) -> Iterator[Case]:
    """New rows, each a partition of its own."""
    from cassandra import ConsistencyLevel
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.concurrent import execute_concurrent_with_args

    from headrace.replicate.cassandra import CassandraReplica

    tables = chunks(sizes.cassandra_rows, sizes.search_chunk)
    with cassandra_server() as address:
        options = CassandraReplica(kind="cassandra", hosts=address, keyspace=KEYSPACE)
        through_replica(options, [])  # makes keyspace and table
        host, _, port = address.rpartition(":")
        profile = ExecutionProfile(consistency_level=ConsistencyLevel.LOCAL_QUORUM, request_timeout=60)
        cluster = Cluster([host], port=int(port), execution_profiles={EXEC_PROFILE_DEFAULT: profile})
        try:
            session = cluster.connect(KEYSPACE)
            names = ", ".join(f'"{name}"' for name in COLUMNS)
            insert = session.prepare(
                f"INSERT INTO {SHAPE.name} ({names}) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
            )
            arguments = [
                (*values, 1_000_000)
                for table in tables
                for values in zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True)
            ]

            def run(given: list[Any], concurrency: int) -> float:
                began = time.perf_counter()
                execute_concurrent_with_args(session, insert, given, concurrency=concurrency)
                return time.perf_counter() - began

            def prepared() -> None:
                session.execute(f"TRUNCATE {SHAPE.name}", timeout=120)

            def checked(who: str) -> None:
                found = sum(1 for _ in session.execute(f"SELECT id FROM {SHAPE.name}"))
                require(found, sizes.cassandra_rows, who)

            sample = arguments[: len(arguments) // 5]
            run(sample, CONCURRENCY[0])  # the node and the driver get warm
            best = min(CONCURRENCY, key=lambda concurrency: run(sample, concurrency))

            def concurrent() -> float:
                prepared()
                seconds = run(arguments, best)
                checked("execute_concurrent_with_args")
                return seconds

            def ours() -> float:
                prepared()
                seconds = through_replica(options, tables)
                checked("headrace")
                return seconds

            contestants = {f"execute_concurrent_with_args ({best})": concurrent, "headrace": ours}
            yield Case("Cassandra upserts", 0.9, contestants, sizes.cassandra_rows)
        finally:
            cluster.shutdown()
