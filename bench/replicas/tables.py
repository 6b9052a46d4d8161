"""Delta against `write_deltalake`, PostgreSQL against a bare COPY: the same rows in the same chunks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import csv

from bench.replicas.case import Case, Sizes, postgresql_server
from bench.replicas.rows import SHAPE, chunks, require, through_replica
from headrace.operate.secrets import Secret

COLUMNS = "id, who, seen, amount, _version"


@contextmanager
def delta_append(sizes: Sizes) -> Iterator[Case]:
    """Rows appended to a Delta table."""
    from deltalake import DeltaTable, WriterProperties, write_deltalake

    from headrace.replicate.delta import DeltaReplica

    tables = chunks(sizes.delta_rows, sizes.chunk)

    def bare() -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            for rows in tables:
                properties = WriterProperties(compression="ZSTD")
                write_deltalake(f"{folder}/bare", rows, mode="append", writer_properties=properties)
            seconds = time.perf_counter() - began
            require(DeltaTable(f"{folder}/bare").to_pyarrow_dataset().count_rows(), sizes.delta_rows, "bare")
            return seconds

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            options = DeltaReplica(kind="delta", path=folder, partition_by="none")
            seconds = through_replica(options, tables)
            table = DeltaTable(f"{folder}/{SHAPE.name}")
            require(table.to_pyarrow_dataset().count_rows(), sizes.delta_rows, "headrace")
            return seconds

    yield Case("Delta append", 0.7, {"write_deltalake": bare, "headrace": ours}, sizes.delta_rows)


@contextmanager
def postgresql(sizes: Sizes, *, empty: bool) -> Iterator[Case]:
    """New rows in a table with a key; unless `empty`, it has as many other rows before."""
    import psycopg

    from headrace.replicate.postgresql import PostgresReplica

    before, tables = chunks(sizes.rows, sizes.chunk, sizes.rows), chunks(sizes.rows, sizes.chunk)
    with postgresql_server() as dsn:
        options = PostgresReplica(kind="postgresql", dsn=Secret(dsn))

        def prepared() -> None:
            with psycopg.connect(dsn, autocommit=True) as connection:
                for name in (SHAPE.name, "_headrace_cursors"):
                    connection.execute(f"DROP TABLE IF EXISTS {name}")
            through_replica(options, [] if empty else before)

        def checked(who: str) -> None:
            with psycopg.connect(dsn) as connection:
                (found,) = connection.execute(f"SELECT count(*) FROM {SHAPE.name}").fetchone() or (0,)
            require(found, sizes.rows if empty else 2 * sizes.rows, who)

        def bare() -> float:
            prepared()
            texts = [_as_csv(table) for table in tables]  # made before: what is measured is the server's work
            with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
                began = time.perf_counter()
                for text in texts:
                    with cursor.copy(f"COPY {SHAPE.name} ({COLUMNS}) FROM STDIN (FORMAT csv)") as copy:
                        copy.write(text)
                    connection.commit()
                seconds = time.perf_counter() - began
            checked("COPY")
            return seconds

        def ours() -> float:
            prepared()
            seconds = through_replica(options, tables)
            checked("headrace")
            return seconds

        title = "PostgreSQL, empty table" if empty else "PostgreSQL, upsert of new rows"
        yield Case(title, 0.8 if empty else 0.35, {"COPY": bare, "headrace": ours}, sizes.rows)


def _as_csv(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    csv.write_csv(rows, sink, csv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())
