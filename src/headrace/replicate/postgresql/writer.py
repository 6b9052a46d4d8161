"""Writes chunks into PostgreSQL: rows, deletes and the cursor in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.replicate.postgresql.encoding import HEADER, TRAILER, encode_rows
from headrace.replicate.postgresql.failures import is_of_a_row, typed
from headrace.replicate.postgresql.schema import (
    CURSORS,
    UPDATED_AT,
    VERSION,
    ensure_cursors,
    ensure_schema,
    ensure_table,
    postgres_type,
    quoted,
    relation,
)
from headrace.replicate.protocol import (
    REFUSED_MAX,
    Chunk,
    Cursor,
    Refusal,
    TableShape,
    Task,
    fenced,
    refusal_of,
)

if TYPE_CHECKING:
    from headrace.replicate.postgresql import PostgresReplica

__all__ = ["PostgresWriter"]

_SERVER_MIN = 150_000
_COPY_ROWS = 10_000
_COLUMNS = "store_id, replica, generation, epoch, through, after, begun, sweep_below, rounds, kept_below"
_MARKS = ", ".join(["%s"] * 10)
# A row that was there before the table was a replica's has none, and is older than all of ours.
_VERSION_THERE = f"coalesce(t.{quoted(VERSION)}, 0)"


class PostgresWriter:
    """An open connection; see `ReplicaWriter`."""

    def __init__(self, replica: PostgresReplica, task: Task) -> None:
        self._schema = replica.schema
        self._stamped = replica.stamped
        self._task = task
        self._cursors = relation(replica.schema, CURSORS)
        self._filled: set[str] = set()  # staging tables that this transaction has used
        self._empty: set[str] = set()
        self._files: dict[str, int | None] = {}  # what TRUNCATE changes, and little else does
        self._connection = _connect(replica, task)
        self._guard = threading.Lock()
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        if self._connection.info.server_version < _SERVER_MIN:
            raise RefusedError(
                f"PostgreSQL {self._connection.info.server_version // 10_000} is too old",
                fix="use PostgreSQL 15 or later: keys that may be NULL need UNIQUE NULLS NOT DISTINCT",
            )
        with self._transaction() as cursor:
            ensure_schema(cursor, self._schema)
            ensure_cursors(cursor, self._schema)
            for shape in self._task.tables:
                if ensure_table(cursor, self._schema, shape, stamped=self._stamped):
                    # A cursor without its table tells of rows that are gone: the copying begins anew.
                    cursor.execute(f"DELETE FROM {self._cursors} WHERE table_name = %s", [shape.name])
                full = relation(self._schema, shape.name)
                filled, self._files[shape.name] = cursor.execute(
                    f"SELECT EXISTS (SELECT FROM {full}), pg_relation_filenode(%s::regclass)", [full]
                ).fetchone()
                if not filled:
                    self._empty.add(shape.name)
                    # And one of a table without rows, of rows that somebody has taken out.
                    cursor.execute(
                        f"UPDATE {self._cursors} SET begun = greatest(begun, epoch), epoch = 0, through = 0, "
                        "after = -1 WHERE table_name = %s AND through > 0",
                        [shape.name],
                    )

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            _raise(error)

    # --- cursors

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        names = [shape.name for shape in self._task.tables]
        with self._transaction() as cursor:
            rows = cursor.execute(
                f"SELECT table_name, {_COLUMNS} FROM {self._cursors} WHERE table_name = ANY(%s)", [names]
            ).fetchall()
        return {row[0]: Cursor.of_row(row[1:]) for row in rows}

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        with self._transaction() as run:
            if seen is None:
                self._refuse_rows_without_cursor(run, table)
                run.execute(
                    f"INSERT INTO {self._cursors} (table_name, {_COLUMNS}) "
                    f"VALUES (%s, {_MARKS}) ON CONFLICT DO NOTHING",
                    [table, *cursor.row],
                )
            else:
                run.execute(
                    f"UPDATE {self._cursors} SET ({_COLUMNS}, written_at) = "
                    f"({_MARKS}, now()) "
                    "WHERE table_name = %s AND store_id = %s AND generation = %s "
                    "AND epoch = %s AND through = %s AND after = %s",
                    [
                        *cursor.row,
                        table,
                        seen.store_id,
                        seen.generation,
                        *_place_of(seen),
                    ],  # where rows have no key, a chunk that came meanwhile would be there twice
                )
            if run.rowcount != 1:
                raise fenced(table)

    def _refuse_rows_without_cursor(self, run: Any, table: str) -> None:
        """Raise RefusedError when the table has rows of a replica: versions may be above all of ours."""
        full = relation(self._schema, table)
        held = f"SELECT EXISTS (SELECT FROM {full} WHERE {quoted(VERSION)} IS NOT NULL)"
        if run.execute(held).fetchone()[0]:
            raise RefusedError(
                f"PostgreSQL's table {full} has rows of a replica, and {self._cursors} says nothing of them",
                fix=f"bring its line in {self._cursors} back; or TRUNCATE {full}: it is filled again",
            )

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table = chunk.table.name
        self._filled.clear()
        with self._transaction() as run:
            there = self._held(run, table)
            if there == chunk.cursor:
                return  # this very chunk: its answer was lost on the way
            if not chunk.cursor.same_writer(there):
                raise fenced(table)
            if chunk.removed.num_rows:
                self._remove(run, chunk.table, chunk.removed)
            refusals: list[Refusal] = []
            if chunk.rows.num_rows:
                self._put(run, chunk.table, chunk.rows, refusals)
            if chunk.sweep_below:
                run.execute(
                    f"DELETE FROM {relation(self._schema, table)} t "
                    f"WHERE {_VERSION_THERE} < %s AND {_VERSION_THERE} >= %s",
                    [chunk.sweep_below, chunk.cursor.kept_below],
                )
            run.execute(
                f"UPDATE {self._cursors} SET ({_COLUMNS}, written_at) = "
                f"({_MARKS}, now()) WHERE table_name = %s",
                [*chunk.cursor.row, table],
            )
            if refusals:
                self._task.set_aside(refusals)

    def _held(self, run: Any, table: str) -> Cursor | None:
        """Return the table's cursor, and let nobody change it, nor truncate the table, until the end.

        Raises TransientError when the table was truncated since it was opened.
        """
        full = relation(self._schema, table)
        found = run.execute(
            # That the table stands in the query is what locks it; it is only looked at where it may be empty.
            f"SELECT {_COLUMNS}, pg_relation_filenode(%s::regclass), "
            f"CASE WHEN pg_relation_filenode(%s::regclass) <> %s THEN EXISTS (SELECT FROM {full}) END "
            f"FROM {self._cursors} WHERE table_name = %s FOR UPDATE",
            [full, full, self._files[table], table],
        ).fetchone()
        if found is None:
            return None
        *facts, self._files[table], filled = found
        there = Cursor.of_row(facts)
        if filled is False and there.position.through > 0:
            raise TransientError(f"the rows of {full} were taken out", fix="it is filled anew")
        return there

    def _put(self, run: Any, shape: TableShape, rows: pa.Table, refusals: list[Refusal]) -> None:
        """Write rows, halving what the server refuses until the rows that are to blame stand alone."""
        try:
            with self._connection.transaction():
                self._put_all(run, shape, rows)
        except psycopg.Error as error:
            if not is_of_a_row(error):
                raise
            if shape.name in self._empty and error.sqlstate == "23505":
                # A row changed after it was copied and came again: from here on there is something to update.
                self._empty.discard(shape.name)
                self._put(run, shape, rows, refusals)
                return
            if rows.num_rows > 1:
                for half in _halves(rows):
                    self._put(run, shape, half, refusals)
                return
            refusals.append(refusal_of(shape, rows, 0, _reason_of(error)))
            if len(refusals) > REFUSED_MAX:
                raise RefusedError(
                    f"PostgreSQL refuses more than {REFUSED_MAX} rows of '{shape.name}' at once: "
                    f"{refusals[-1].reason}",
                    fix="correct the table in the target (a constraint, a trigger, a type), then resume",
                ) from None

    def _remove(self, run: Any, shape: TableShape, removed: pa.Table) -> None:
        """Take rows out; a key that the server refuses is none that it could hold."""
        try:
            with self._connection.transaction():
                self._remove_all(run, shape, removed)
        except psycopg.Error as error:
            if not is_of_a_row(error):
                raise
            if removed.num_rows > 1:
                for half in _halves(removed):
                    self._remove(run, shape, half)

    def _put_all(self, run: Any, shape: TableShape, rows: pa.Table) -> None:
        full = relation(self._schema, shape.name)
        names = [*(column.name for column in shape.columns), VERSION]
        kinds = [*(postgres_type(column.type) for column in shape.columns), "bigint"]
        listed = ", ".join(quoted(name) for name in names)
        if not shape.key or shape.name in self._empty:
            self._copy(run, full, listed, rows.select(names), kinds)
            return
        stage = self._stage(run, shape, "rows", listed)
        self._copy(run, stage, listed, rows.select(names), kinds)
        keys = ", ".join(quoted(name) for name in shape.key)
        sets = ", ".join(
            f"{quoted(name)} = excluded.{quoted(name)}" for name in names if name not in shape.key
        )
        if self._stamped:
            sets += f", {quoted(UPDATED_AT)} = now()"
        run.execute(
            f"INSERT INTO {full} AS t ({listed}) SELECT {listed} FROM {stage} ON CONFLICT ({keys}) "
            f"DO UPDATE SET {sets} WHERE {_VERSION_THERE} <= excluded.{quoted(VERSION)}"
        )

    def _remove_all(self, run: Any, shape: TableShape, removed: pa.Table) -> None:
        types = {column.name: postgres_type(column.type) for column in shape.columns}
        names = [*shape.key, VERSION]
        listed = ", ".join(quoted(name) for name in names)
        stage = self._stage(run, shape, "gone", listed)
        self._copy(run, stage, listed, removed.select(names), [*(types[n] for n in shape.key), "bigint"])
        for nulls in _null_patterns(removed, shape.key):
            # IS NOT DISTINCT FROM would not use the index.
            same = " AND ".join(
                f"t.{q} IS NULL AND g.{q} IS NULL" if null else f"t.{q} = g.{q}"
                for q, null in zip(map(quoted, shape.key), nulls, strict=True)
            )
            run.execute(
                f"DELETE FROM {relation(self._schema, shape.name)} t USING {stage} g "
                f"WHERE {same} AND {_VERSION_THERE} <= g.{quoted(VERSION)}"
            )

    def _stage(self, run: Any, shape: TableShape, purpose: str, listed: str) -> str:
        """Return the temporary table through which rows of a table go."""
        number = next(i for i, each in enumerate(self._task.tables) if each.name == shape.name)
        name = f"_headrace_{purpose}_{number}"
        # Every time, because it goes away with a part of the transaction that is taken back.
        run.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS {name} ON COMMIT DELETE ROWS "
            f"AS SELECT {listed} FROM {relation(self._schema, shape.name)} WITH NO DATA"
        )
        stage = f"pg_temp.{name}"
        if name in self._filled:
            run.execute(f"TRUNCATE {stage}")
        self._filled.add(name)
        return stage

    def _copy(self, run: Any, target: str, listed: str, rows: pa.Table, kinds: Sequence[str]) -> None:
        with run.copy(f"COPY {target} ({listed}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(HEADER)
            for start in range(0, rows.num_rows, _COPY_ROWS):
                copy.write(encode_rows(rows.slice(start, _COPY_ROWS), list(kinds)))
            copy.write(TRAILER)

    # --- the end

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""
        with suppress(Exception):
            self._connection.cancel_safe(timeout=0.5)

    def close(self) -> None:
        """See `ReplicaWriter`."""
        with suppress(Exception):
            self._connection.close()


def _connect(replica: PostgresReplica, task: Task) -> psycopg.Connection[Any]:
    if replica.dsn is None:
        raise ProfileError(f"replica '{task.replica}' has no dsn", fix='write dsn = "${env:PG_DSN}"')
    dsn = replica.dsn.reveal()
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # What it says may hold a piece of the text, and so of the password.
        raise ProfileError(
            f"the dsn of replica '{task.replica}' is not a connection string of PostgreSQL",
            fix="write postgresql://user:password@host:5432/database (a % in the password as %25)",
        ) from None
    settings: dict[str, Any] = {
        "application_name": f"headrace {task.pipeline} {task.replica}",
        "connect_timeout": max(1, int(replica.connect_timeout.total_seconds())),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    lock_ms = int(replica.lock_timeout.total_seconds() * 1000)
    try:
        connection = psycopg.connect(
            dsn,
            autocommit=True,
            prepare_threshold=None,
            **{name: value for name, value in settings.items() if name not in given},
        )
        connection.execute(f"SET lock_timeout = {lock_ms}")
        connection.execute("SET client_min_messages = warning")
    except psycopg.Error as error:
        _raise(error)
    return connection


def _raise(error: psycopg.Error) -> NoReturn:
    raise typed(error) from error


def _place_of(cursor: Cursor) -> list[int]:
    at = cursor.position
    return [at.epoch, at.through, at.after]


def _halves(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    half = rows.num_rows // 2
    return rows.slice(0, half), rows.slice(half)


def _null_patterns(rows: pa.Table, key: Sequence[str]) -> list[tuple[bool, ...]]:
    """Return which columns of the key are NULL, once for every combination that occurs."""
    flags = pa.table({str(i): rows.column(name).is_null() for i, name in enumerate(key)})
    found = flags.group_by(flags.column_names).aggregate([])
    return [tuple(row[str(i)] for i in range(len(key))) for row in found.to_pylist()]


def _reason_of(error: psycopg.Error) -> str:
    where = error.diag.constraint_name or error.diag.column_name
    return f"{error.diag.message_primary} ({error.sqlstate}" + (f", {where})" if where else ")")
