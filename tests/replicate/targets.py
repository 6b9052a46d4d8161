"""The targets that the conformance tests run against."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from headrace.operate.secrets import Secret
from headrace.replicate.files import FilesReplica, read_files
from headrace.replicate.postgresql import PostgresReplica
from servers.postgresql import PostgresServer

__all__ = ["FilesTarget", "PostgresTarget"]


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

    def refuse(self, table: str) -> bool:
        with self.connect() as connection:
            connection.execute(f"ALTER TABLE {_quoted(table)} ADD CONSTRAINT unlucky CHECK (n <> 13)")
        return True

    def differ(self, table: str) -> None:
        with self.connect() as connection:
            connection.execute(f"ALTER TABLE {_quoted(table)} ALTER COLUMN n TYPE text")

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


def _typed(value: Any, kind: str) -> Any:
    """JSON has no decimals and no instants: the column says what a text is."""
    if isinstance(value, str) and kind.startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    if isinstance(value, str) and kind.startswith(("DECIMAL", "HUGEINT")):
        return Decimal(value)
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
