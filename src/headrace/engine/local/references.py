"""Reference tables: files that streams are joined with, kept in the store by version.

A version is known by the hash of its file and holds from a record time on that the store writes down, so
that a record is joined with the version of its own time also when it is read again.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
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

_LOG = logging.getLogger("headrace")


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
        self._columns = {name: reference_columns(one) for name, one in self._references.items()}
        self.problems: dict[str, str] = {}
        self.refresh()
        for name, columns in self._columns.items():
            shown = ", ".join(quoted(column.name) for column in columns)
            store.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW {quoted(f'_reference_{name}')} AS "
                f"SELECT {shown}, _valid_from, _valid_to FROM {_relation(name)}"
            )

    def refresh(self) -> None:
        """Load what changed.

        Raises RefusedError at the start for a file that is missing, of another shape, or has a key twice.
        Afterwards the version that is there stays in use until the file is right; `problems` and the log of
        Python say what is wrong with it.
        """
        for name, reference in self._references.items():
            path = _path_of(reference)
            try:
                facts = path.stat()
                seen = _Seen(facts.st_size, facts.st_mtime_ns)
                if self._seen.get(name) == seen:
                    continue
                content = path.read_bytes()
            except OSError as error:
                if name in self._seen:  # it was there: somebody is replacing it
                    continue
                raise RefusedError(
                    f"reference '{name}': {path}: {error.strerror}",
                    fix="put the file there, or correct its path",
                ) from error
            try:
                self._load(name, reference, content)
            except RefusedError as error:
                if name not in self._seen:
                    raise
                self.problems[name] = str(error)
                _LOG.warning("%s; the version before stays in use", error)
            else:
                self.problems.pop(name, None)
            self._seen[name] = seen

    def _load(self, name: str, reference: Reference, content: bytes) -> None:
        version = hashlib.sha256(content).hexdigest()
        connection = self._store.connection
        known = connection.execute(
            'SELECT version, epoch_us(valid_from) FROM _headrace."references" '
            "WHERE name = ? AND valid_to IS NULL",
            [name],
        ).fetchall()
        columns = self._columns[name]
        if known and known[0][0] == version and self._fits(name, columns):
            return
        rows = _rows(name, reference, columns, content)
        since = self._since(known[0][1]) if known else None
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

    def _held(self, name: str) -> dict[str, str]:
        """Return the columns, and their types, that the store holds of a reference."""
        found = self._store.connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = '_headrace' AND table_name = ? AND column_name NOT LIKE '\\_valid\\_%' "
            "ESCAPE '\\'",
            [f"reference_{name}"],
        ).fetchall()
        return dict(found)

    def _fits(self, name: str, columns: tuple[NamedColumn, ...]) -> bool:
        held = self._held(name)
        return all(held.get(column.name) == self._type(column) for column in columns)

    def _type(self, column: NamedColumn) -> str:
        """Return a column's type as the store calls it."""
        found = self._store.connection.execute(f"SELECT typeof(CAST(NULL AS {column.type}))").fetchall()
        return str(found[0][0])

    def _write(self, name: str, columns: tuple[NamedColumn, ...], rows: pa.Table, since: int | None) -> None:
        connection, relation = self._store.connection, _relation(name)
        listed = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
        moment = "'-infinity'::TIMESTAMPTZ" if since is None else f"make_timestamptz({since})"
        shown = ", ".join(quoted(column.name) for column in columns)
        if since is None:
            connection.execute(f"DROP VIEW IF EXISTS {quoted(name)}")
            connection.execute(f"DROP TABLE IF EXISTS {relation}")
            connection.execute(
                f"CREATE TABLE {relation} ({listed}, _valid_from TIMESTAMPTZ, _valid_to TIMESTAMPTZ)"
            )
        else:
            self._adopt(name, columns)
        connection.execute(
            f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {shown} FROM {relation} WHERE _valid_to IS NULL"
        )
        connection.execute(f"UPDATE {relation} SET _valid_to = {moment} WHERE _valid_to IS NULL")
        connection.register("_file", rows)
        connection.execute(
            f"INSERT INTO {relation} ({shown}, _valid_from, _valid_to) "
            f"SELECT {shown}, {moment}, NULL FROM _file"
        )
        connection.unregister("_file")

    def _adopt(self, name: str, columns: tuple[NamedColumn, ...]) -> None:
        """Give the versions before the columns that are new; they have no value there.

        Raises RefusedError for a column that has another type now.
        """
        held = self._held(name)
        connection, relation = self._store.connection, _relation(name)
        for column in columns:
            if column.name not in held:
                connection.execute(f"ALTER TABLE {relation} ADD COLUMN {quoted(column.name)} {column.type}")
                continue
            wanted = self._type(column)
            if held[column.name] != wanted:
                raise RefusedError(
                    f"reference '{name}': column '{column.name}' was {held[column.name]} and is {wanted} now",
                    fix="declare the reference's schema with the type of before, or give it another name",
                )

    def _since(self, before: int | None) -> int:
        """Return the record time from which a new version holds.

        It is after everything that was read, in every lane: those records were joined with versions before.
        """
        moments = [micros_of(log.now()) for (_, lane), log in self._logs.items() if lane == "main"]
        read = [place.latest + 1 for *_, place in self._store.progress.places() if place.latest is not None]
        return max([*moments, *read, *([] if before is None else [before])])


def _path_of(reference: Reference) -> Path:
    """Return where the file lies: beside the file that declares it.

    Unless it is found from where we stand.
    """
    path = Path(reference.path)
    beside = Path(reference.place.file).parent / path
    return path if path.is_absolute() or path.exists() or not beside.exists() else beside


def _relation(name: str) -> str:
    return f"_headrace.{quoted(f'reference_{name}')}"


def _rows(name: str, reference: Reference, columns: tuple[NamedColumn, ...], content: bytes) -> pa.Table:
    """Read the file's bytes with a DuckDB of its own: the store's may not touch files."""
    listed = ", ".join(
        f"CAST({quoted(column.name)} AS {column.type}) AS {quoted(column.name)}" for column in columns
    )
    if reference.path.endswith((".parquet", ".pq")):
        source = "read_parquet(?)"
    else:
        source = "read_csv(?, header = true, all_varchar = true)" if reference.schema else "read_csv(?)"
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder, duckdb.connect() as reading:
            copy = Path(folder) / Path(reference.path).name
            copy.write_bytes(content)  # what is loaded is what was hashed, whatever the file is now
            reading.execute("SET TimeZone = 'UTC'")
            rows: pa.Table = reading.sql(
                f"SELECT {listed} FROM {source}", params=[str(copy)]
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
