"""Reference tables: files that streams are joined with, kept in the store by version.

A version is known by the hash of its file and holds from a record time on that the store writes down, so
that a
record is joined with the version of its own time also when it is read again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from headrace.declare import Reference
from headrace.errors import RefusedError
from headrace.log.protocol import Log
from headrace.sql.plan import NamedColumn, PipelinePlan
from headrace.sql.references import reference_columns
from headrace.store import Store
from headrace.store.instants import micros_of
from headrace.store.names import quoted

__all__ = ["References"]


@dataclass(slots=True)
class _Seen:
    """What the file looked like when it was read last: cheap to ask for between epochs."""

    size: int
    changed: int


class References:
    """Loads the files of reference tables when they changed. Every call is between two epochs."""

    def __init__(self, plan: PipelinePlan, store: Store, logs: dict[tuple[str, str], Log]) -> None:
        self._references = dict(plan.references)
        self._plan = plan
        self._store = store
        self._logs = logs
        self._seen: dict[str, _Seen] = {}
        self.refresh()
        for name in self._references:
            store.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {quoted(f'_reference_{name}')} AS SELECT * "
                f"FROM {_relation(name)}"
            )

    def refresh(self) -> None:
        """Load what changed.

        Raises RefusedError for a file that is missing, of another shape, or has a key twice.
        """
        for name, reference in self._references.items():
            path = _path_of(reference)
            try:
                facts = path.stat()
            except OSError as error:
                if name in self._seen:  # it was there: somebody is replacing it
                    continue
                raise RefusedError(
                    f"reference '{name}': {path}: {error.strerror}",
                    fix="put the file there, or correct its path",
                ) from error
            seen = _Seen(facts.st_size, facts.st_mtime_ns)
            if self._seen.get(name) != seen:
                self._load(name, reference, path)
                self._seen[name] = seen

    def _load(self, name: str, reference: Reference, path: Path) -> None:
        version = hashlib.sha256(path.read_bytes()).hexdigest()
        connection = self._store.connection
        known = connection.execute(
            'SELECT version FROM _headrace."references" WHERE name = ? AND valid_to IS NULL', [name]
        ).fetchall()
        if known and known[0][0] == version:
            return
        columns = reference_columns(reference)
        rows = _rows(name, reference, columns)
        since = self._since() if known else None
        with self._store.transaction():
            self._write(name, columns, rows, since)
            moment = "'-infinity'::TIMESTAMPTZ" if since is None else f"make_timestamptz({since})"
            connection.execute(
                f'UPDATE _headrace."references" SET valid_to = {moment} WHERE name = ? AND valid_to IS NULL',
                [name],
            )
            connection.execute(
                f'INSERT INTO _headrace."references" VALUES (?, ?, {moment}, NULL)', [name, version]
            )

    def _write(self, name: str, columns: tuple[NamedColumn, ...], rows: pa.Table, since: int | None) -> None:
        connection, relation = self._store.connection, _relation(name)
        listed = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
        moment = "'-infinity'::TIMESTAMPTZ" if since is None else f"make_timestamptz({since})"
        if since is None:
            connection.execute(f"DROP VIEW IF EXISTS {quoted(name)}")
            connection.execute(f"DROP TABLE IF EXISTS {relation}")
            connection.execute(
                f"CREATE TABLE {relation} ({listed}, _valid_from TIMESTAMPTZ, _valid_to TIMESTAMPTZ)"
            )
            shown = ", ".join(quoted(column.name) for column in columns)
            connection.execute(
                f"CREATE VIEW {quoted(name)} AS SELECT {shown} FROM {relation} WHERE _valid_to IS NULL"
            )
        connection.execute(f"UPDATE {relation} SET _valid_to = {moment} WHERE _valid_to IS NULL")
        connection.register("_file", rows)
        connection.execute(f"INSERT INTO {relation} SELECT *, {moment}, NULL FROM _file")

    def _since(self) -> int:
        """Return the record time from which a new version holds: after everything that was read."""
        moments = [micros_of(log.now()) for (_, lane), log in self._logs.items() if lane == "main"]
        read = [
            place.frontier for _, _, _, place in self._store.progress.places() if place.frontier is not None
        ]
        return max([*moments, *(frontier + 1 for frontier in read)])


def _path_of(reference: Reference) -> Path:
    """Return where the file lies: beside the file that declares it.

    Unless it is found from where we stand.
    """
    path = Path(reference.path)
    beside = Path(reference.place.file).parent / path
    return path if path.is_absolute() or path.exists() or not beside.exists() else beside


def _relation(name: str) -> str:
    return f"_headrace.{quoted(f'reference_{name}')}"


def _rows(name: str, reference: Reference, columns: tuple[NamedColumn, ...]) -> pa.Table:
    """Read the file with a DuckDB of its own: the store's may not touch files."""
    listed = ", ".join(
        f"CAST({quoted(column.name)} AS {column.type}) AS {quoted(column.name)}" for column in columns
    )
    if reference.path.endswith((".parquet", ".pq")):
        source = "read_parquet(?)"
    else:
        source = "read_csv(?, header = true, all_varchar = true)" if reference.schema else "read_csv(?)"
    try:
        with duckdb.connect() as reading:
            reading.execute("SET TimeZone = 'UTC'")
            rows: pa.Table = reading.sql(
                f"SELECT {listed} FROM {source}", params=[str(_path_of(reference))]
            ).to_arrow_table()
            _check(name, reference, reading, rows)
    except duckdb.Error as error:
        said = str(error).strip().split("\n", 1)[0]
        raise RefusedError(
            f"reference '{name}': {reference.path}: {said}", fix="correct the file, or the declared schema"
        ) from error
    return rows


def _check(name: str, reference: Reference, reading: Any, rows: pa.Table) -> None:
    reading.register("_file", rows)
    keys = ", ".join(quoted(key) for key in reference.key)
    twice = reading.execute(f"SELECT count(*) FROM (SELECT 1 FROM _file GROUP BY {keys} HAVING count(*) > 1)")
    number = twice.fetchall()[0][0]
    if number:
        raise RefusedError(
            f"reference '{name}': {reference.path}: {number} values of the key "
            f"({', '.join(reference.key)}) come twice",
            fix="keep one row for each key: a join must not depend on which is found first",
        )
    for column in () if reference.schema is None else reference.schema.columns:
        if not column.nullable and rows.column(column.name).null_count:
            raise RefusedError(
                f"reference '{name}': {reference.path}: column '{column.name}' has no value in some rows",
                fix="fill it in, or declare the column without NOT NULL",
            )
