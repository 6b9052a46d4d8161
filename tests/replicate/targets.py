"""The targets that the conformance tests run against."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from psycopg.rows import dict_row

from headrace.operate.secrets import Secret
from headrace.replicate.delta import DeltaReplica
from headrace.replicate.delta.writer import table_uri
from headrace.replicate.files import FilesReplica, read_files
from headrace.replicate.parquet import ParquetReplica
from headrace.replicate.parquet.manifest import books_of, data_of
from headrace.replicate.postgresql import PostgresReplica
from servers.postgresql import PASSWORD, PostgresServer

__all__ = ["CsvTarget", "DeltaTarget", "FilesTarget", "ParquetTarget", "PostgresTarget"]

WRONG = "a wrong secret"


class PostgresTarget:
    """A database of the test's own; `server` is one that the test may stop."""

    def __init__(self, dsn: str, server: PostgresServer | None = None) -> None:
        self.dsn = dsn
        self.server = server

    def replica(self, **options: Any) -> PostgresReplica:
        given = {"dsn": Secret(self.dsn), "kind": "postgresql", **options}
        return PostgresReplica(**given)

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row)

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self.connect() as connection:
            try:
                return connection.execute(f"SELECT * FROM {_quoted(table)}").fetchall()
            except psycopg.errors.UndefinedTable:
                return []

    def count(self, table: str) -> int:
        with self.connect() as connection:
            try:
                return int(
                    connection.execute(f"SELECT count(*) AS n FROM {_quoted(table)}").fetchall()[0]["n"]
                )
            except psycopg.errors.UndefinedTable:
                return 0

    def refuse(self, table: str) -> bool:
        with self.connect() as connection:
            connection.execute(f"ALTER TABLE {_quoted(table)} ADD CONSTRAINT unlucky CHECK (n <> 13)")
        return True

    def differ(self, table: str) -> None:
        with self.connect() as connection:
            connection.execute(f"ALTER TABLE {_quoted(table)} ALTER COLUMN n TYPE text")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let the server be what a primary is that was made a standby: it ends its connections."""
        name = self.dsn.rpartition("/")[2]
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        with self.connect() as connection:
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
            connection.execute(others, (name, connection.info.backend_pid))
            try:
                yield
            finally:
                connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
                connection.execute(others, (name, connection.info.backend_pid))

    def wrong_credentials(self) -> dict[str, Any]:
        wrong = WRONG.replace(" ", "%20")
        return {"dsn": Secret(self.dsn.replace(PASSWORD.replace(" ", "%20"), wrong))}

    def secret_words(self) -> tuple[str, ...]:
        return PASSWORD, WRONG, PASSWORD.replace(" ", "%20"), WRONG.replace(" ", "%20")

    @contextmanager
    def outage(self) -> Iterator[None]:
        if self.server is None:
            pytest.skip("the server is shared")
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()


class FilesTarget:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def replica(self, **options: Any) -> FilesReplica:
        given = {"path": str(self.folder), "kind": "files", **options}
        return FilesReplica(**given)

    def rows(self, table: str) -> list[dict[str, Any]]:
        path = self.folder / f"{table}.schema.json"
        kinds = json.loads(path.read_text())["columns"] if path.exists() else {}
        rows = read_files(self.folder, table) if kinds else []
        return [{name: _typed(value, kinds.get(name, "")) for name, value in row.items()} for row in rows]

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        path = self.folder / f"{table}.schema.json"
        facts = json.loads(path.read_text())
        facts["columns"]["n"] = "VARCHAR"
        path.write_text(json.dumps(facts))

    @contextmanager
    def outage(self) -> Iterator[None]:
        pytest.skip("a folder is never down")
        yield


class CsvTarget:
    """A folder with files of CSV, which DuckDB reads as anybody would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def replica(self, **options: Any) -> FilesReplica:
        return FilesReplica(**{"path": str(self.folder), "kind": "files", "format": "csv", **options})

    def rows(self, table: str) -> list[dict[str, Any]]:
        if not (self.folder / f"{table}.csv").exists():
            return []
        schema = json.loads((self.folder / f"{table}.schema.json").read_text())
        cells = [f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in schema["columns"].items()]
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            lines = connection.sql(
                f"SELECT {', '.join(['_op', '_version::BIGINT AS _version', *cells])} FROM read_csv($path, "
                "header = true, all_varchar = true, allow_quoted_nulls = false, auto_detect = false, "
                "delim = ',', quote = '\"', escape = '\"', parallel = false, columns = $columns)",
                params={
                    "path": str(self.folder / f"{table}.csv"),
                    "columns": dict.fromkeys(("_op", "_version", *schema["columns"]), "VARCHAR"),
                },
            )
            changes = lines.to_arrow_table().to_pylist()
        nested = [name for name, kind in schema["columns"].items() if kind == "JSON"]
        return [_decoded(row, nested) for row in _applied(changes, schema["key"])]

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        path = self.folder / f"{table}.schema.json"
        facts = json.loads(path.read_text())
        facts["columns"]["n"] = "VARCHAR"
        path.write_text(json.dumps(facts))

    @contextmanager
    def outage(self) -> Iterator[None]:
        pytest.skip("a folder is never down")
        yield


class ParquetTarget:
    """A folder of tables of Parquet files, read as anybody reads them: every file that is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def replica(self, **options: Any) -> ParquetReplica:
        given = {"path": str(self.folder), "kind": "parquet", "mode": "update", **options}
        return ParquetReplica(**given)

    def rows(self, table: str) -> list[dict[str, Any]]:
        pattern = f"{data_of(self.folder, table)}/**/*.parquet"
        if not any(data_of(self.folder, table).rglob("*.parquet")):
            return []
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.sql(
                "SELECT * FROM read_parquet($pattern, hive_partitioning = true, union_by_name = true)",
                params={"pattern": pattern},
            ).to_arrow_table()
        return [{k: v for k, v in row.items() if k not in ("date", "hour")} for row in found.to_pylist()]

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        path = books_of(self.folder, table) / "manifest.json"
        facts = json.loads(path.read_text())
        facts["columns"]["n"] = "string"
        path.write_text(json.dumps(facts))

    @contextmanager
    def outage(self) -> Iterator[None]:
        pytest.skip("a folder is never down")
        yield


class DeltaTarget:
    """Delta tables, below a folder or in a bucket (`more` says how to reach it)."""

    def __init__(self, place: str, **more: Any) -> None:
        self.place = place
        self.more = more or {"path": place}

    def replica(self, **options: Any) -> DeltaReplica:
        return DeltaReplica(**{"kind": "delta", "mode": "update", **self.more, **options})

    def table(self, name: str) -> DeltaTable:
        replica = self.replica()
        return DeltaTable(table_uri(replica, name), storage_options=replica.storage())

    def rows(self, table: str) -> list[dict[str, Any]]:
        try:
            found = self.table(table).to_pyarrow_table()
        except TableNotFoundError:
            return []
        hidden = {"date", "hour"} & set(self.table(table).metadata().partition_columns)
        return [dict(row) for row in found.drop_columns(list(hidden)).to_pylist()]

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        there = self.table(table)
        schema = pa.schema(there.schema().to_arrow())
        schema = schema.set(schema.get_field_index("n"), pa.field("n", pa.string()))
        storage = self.replica().storage()
        DeltaTable.create(
            there.table_uri, schema, mode="overwrite", partition_by=["date", "hour"], storage_options=storage
        )

    @contextmanager
    def outage(self) -> Iterator[None]:
        pytest.skip("a folder is never down")
        yield


def _decoded(row: dict[str, Any], nested: list[str]) -> dict[str, Any]:
    return {k: json.loads(v) if k in nested and v is not None else v for k, v in row.items()}


def _applied(changes: list[dict[str, Any]], key: list[str]) -> list[dict[str, Any]]:
    """What is left when every change has come, in order."""
    rows: dict[Any, dict[str, Any]] = {}
    for number, change in enumerate(changes):
        op, version = change.pop("_op"), change["_version"]
        if op.startswith("sweep"):
            swept = range(int(op.removeprefix("sweep").removeprefix(" from ") or 0), version)
            rows = {known: row for known, row in rows.items() if row["_version"] not in swept}
            continue
        known = tuple(str(change[name]) for name in key) if key else number
        if known in rows and rows[known]["_version"] > version:
            continue
        rows.pop(known, None)
        if op == "put":
            rows[known] = change
    return list(rows.values())


def _typed(value: Any, kind: str) -> Any:
    """JSON has no decimals and no instants: the column says what a text is."""
    if isinstance(value, str) and kind.startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    if isinstance(value, str) and kind.startswith(("DECIMAL", "HUGEINT")):
        return Decimal(value)
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
