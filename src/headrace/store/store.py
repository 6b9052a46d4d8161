"""The store: one DuckDB file, held and written by one engine."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from headrace.declare.words import did_you_mean
from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.sql.system import late_columns
from headrace.store.changes import REBUILT
from headrace.store.database import MEMORY_LIMIT, connect_engine, prepare_session, setting
from headrace.store.declared import adopt_streams, drop_views_of_old
from headrace.store.finished import add_finished_columns
from headrace.store.instants import micros_of_length
from headrace.store.lock import StoreLock
from headrace.store.names import late_name, quoted, side_name, state_name
from headrace.store.outside import adopt_outside, forget_files, outside_of, outside_view, rows_outside
from headrace.store.progress import Progress, RebuildProgress, TableProgress
from headrace.store.reading import StoreReading
from headrace.store.results import adopt_results, forget_expired, forget_result, write_result
from headrace.store.schema import (
    SCHEMA_VERSION,
    create_table,
    drop_table,
    failed_cells_view,
    plan_tables,
    stream_relations,
    system_statements,
    table_view,
)
from headrace.store.takings import forget_generations

__all__ = ["Store"]

_LAYOUTS_BEFORE = (2, 3)
"""Of stores that are taken over. In layout 2 closed windows keep no values of side tables. A version that
writes layout 3 may not note what it copied to which target, and a later one takes that for somebody else's.
"""


class Store(StoreReading):
    """One DuckDB file; the process that opens it holds it until `close` or its end.

    The engine writes through `connection` inside `transaction()`; everybody else reads through `query`,
    `ledger`,
    `status` and `dead_letters`, which never wait for the writer nor make it wait.
    """

    def __init__(self, path: Path, plan: PipelinePlan, connection: Any, lock: StoreLock) -> None:
        super().__init__(path, connection.cursor())
        self.plan = plan
        self.connection = connection
        self.progress = Progress()
        self.notices: list[str] = []  # what opening changed, to be told to whoever runs the pipeline
        self.asked: tuple[str, ...] = ()
        self.outside: Mapping[str, str] = {}
        """Tables whose rows are in files, and in words where."""
        self._lock = lock
        self._memory_limit = MEMORY_LIMIT
        self._settings = connection.cursor()
        self._lifted = 0
        self._lifting = threading.Lock()

    @staticmethod
    def open(
        path: Path,
        plan: PipelinePlan,
        *,
        identities: Mapping[str, str],
        rebuild: tuple[str, ...] = (),
        expired: Mapping[str, Collection[str]] | None = None,
        outside: Mapping[str, str] | None = None,
        moved: Callable[[str, str, str], bool] | None = None,
    ) -> Store:
        """Open the store of a pipeline, made when it is absent; `identities` are those of the streams' logs.

        `expired` names, by replica, the tables of which it takes rows out of its target when they are retired
        here: their keys are written down from now on. None: as it was.
        `outside` names the tables whose rows executors write into files, and says in words where; `moved` is
        asked of a table, its place until now and the store's id whether the files were moved from there.
        Tables named in `rebuild` are `asked` for again: they stay as they are until the engine, which knows
        what the log still holds, calls `begin_again`.
        Raises RefusedError when another process holds it, when a table's query changed and is not in
        `rebuild`,
        and when it cannot be opened; IntegrityError when it belongs to another log.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = StoreLock(path)
            lock.acquire()
        except OSError as error:
            raise RefusedError(
                f"the folder of the store {path} cannot be written: {error.strerror or error}",
                fix="name another folder in headrace.toml (store.path), or make this one writable",
            ) from error
        try:
            store = Store(path, plan, connect_engine(path), lock)
        except BaseException:
            lock.release()
            raise
        try:
            store._begin(identities, rebuild, expired, outside or {}, moved)
        except BaseException:
            store.close()
            raise
        return store

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one transaction: all of it is in the file afterwards, or none."""
        self.connection.execute("BEGIN")
        try:
            yield
            with self.ample():
                self.connection.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Undo the transaction of `connection`, if there still is one."""
        with suppress(duckdb.Error), self.ample(always=True):  # a commit that failed has done it by itself
            self.connection.execute("ROLLBACK")

    @contextmanager
    def ample(self, *, always: bool = False) -> Iterator[None]:
        """Lift the limit of memory for the block, a commit or a rollback, when others read meanwhile.

        Of one that finds no memory, DuckDB makes the end of the whole database, not of a statement.
        """
        if not always and not self._given:
            yield
            return
        with self._lifting:
            self._settings.execute(setting("memory_limit", "none"))
            self._lifted += 1
        try:
            yield
        finally:
            # What went wrong in the block must be told, and not that a dead database has no limit.
            with self._lifting, suppress(duckdb.Error):
                self._lifted -= 1
                if not self._lifted:
                    self.limit_memory(self._memory_limit)

    def limit_memory(self, size: str) -> None:
        """Let engine and readers have so much memory; who reads is interrupted when more is in use."""
        self._memory_limit = size
        try:
            self._settings.execute(setting("memory_limit", size))
        except duckdb.OutOfMemoryException:
            with self.without_readers(), suppress(duckdb.OutOfMemoryException):  # or else after the next one
                self._settings.execute(setting("memory_limit", size))

    def cursor_beside(self) -> Any:
        """Give a cursor for relations that the engine does not write; the caller closes it before the store.

        Its transactions run beside the engine's and never conflict with them.
        """
        with self._root_lock:
            cursor = self._root.cursor()
        prepare_session(cursor)
        return cursor

    @contextmanager
    def beside(self) -> Iterator[Any]:
        """Give a cursor within a transaction, for relations that the engine does not write: see above.

        It is committed at the end of the block. Raises TransientError when that cannot be now.
        """
        with self._cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
                with self.ample():
                    cursor.execute("COMMIT")
            except BaseException as error:
                with suppress(duckdb.Error), self.ample(always=True):
                    cursor.execute("ROLLBACK")
                if isinstance(error, duckdb.TransactionException):
                    what = "somebody else has written the same into the store"
                    raise TransientError(what, fix="it is tried again") from error
                raise

    def save(self, progress: Progress) -> None:
        """Write `progress` inside a transaction; it is `self.progress` once the caller has committed."""
        self.connection.execute("UPDATE _headrace.progress SET body = ?", [progress.to_json()])

    def close(self) -> None:
        """Give the file and the lock back; what is not committed is gone. Twice is harmless.

        Who reads at this moment is interrupted with a TransientError.
        """
        with ExitStack() as ending:
            ending.callback(self._lock.release)
            ending.callback(self.connection.close)
            ending.callback(self._settings.close)
            self._close_root()

    # --- opening

    def _begin(
        self,
        identities: Mapping[str, str],
        rebuild: tuple[str, ...],
        expired: Mapping[str, Collection[str]] | None,
        outside: Mapping[str, str],
        moved: Callable[[str, str, str], bool] | None,
    ) -> None:
        self._refuse_foreign()
        with self.transaction():
            for statement in system_statements():
                self.connection.execute(statement)
            meta = dict(self.connection.execute("SELECT name, value FROM _headrace.meta").fetchall())
            if not meta:
                self._insert_meta({"store_id": uuid.uuid4().hex, "duckdb_version": duckdb.__version__})
                self._insert_meta({"pipeline": self.plan.pipeline.name})
                self.connection.execute(
                    "INSERT INTO _headrace.progress VALUES (?)", [self.progress.to_json()]
                )
            else:
                self._check_version(meta)
                if int(meta["schema_version"]) in _LAYOUTS_BEFORE:
                    forget_generations(self.connection)
                body = self.connection.execute("SELECT body FROM _headrace.progress").fetchall()[0]
                self.progress = Progress.from_json(body[0])
            self._check_identities(meta, identities)
            self.notices += adopt_streams(self.connection, self.plan, self.progress)
            drop_views_of_old(self.connection, self.plan)
            for stream in self.plan.streams.values():
                self._keep_late_of_other_columns(stream.stream.name)
                for statement in stream_relations(stream):
                    self.connection.execute(statement)
            adopt_outside(
                self.connection, self.plan, outside_of(meta), outside, rebuild,
                lambda table, place: moved is not None and moved(table, place, meta["store_id"]),
            )  # fmt: skip
            self.outside = outside
            self._adopt_tables(rebuild, outside_of(meta))
            self._insert_meta({"schema_version": str(SCHEMA_VERSION)})
            if expired is not None:
                self._tell_expired(expired)
            self.save(self.progress)

    def _refuse_foreign(self) -> None:
        """Raise RefusedError for a database that is somebody's: nothing is written into it."""
        found = self.connection.execute(
            "SELECT DISTINCT schema_name FROM duckdb_tables() WHERE database_name = current_database()"
        ).fetchall()
        if found and ("_headrace",) not in found:
            raise RefusedError(
                f"{self.path} is a DuckDB file, but no store of a pipeline",
                fix="name another file in headrace.toml (store.path): a store is a file of its own",
            )

    def _insert_meta(self, facts: Mapping[str, str]) -> None:
        for name, value in facts.items():
            self.connection.execute("DELETE FROM _headrace.meta WHERE name = ?", [name])
            self.connection.execute("INSERT INTO _headrace.meta VALUES (?, ?)", [name, value])

    def _check_version(self, meta: Mapping[str, str]) -> None:
        if int(meta["schema_version"]) not in (SCHEMA_VERSION, *_LAYOUTS_BEFORE):
            raise RefusedError(
                f"the store {self.path} has layout {meta['schema_version']}; this version "
                f"writes layout {SCHEMA_VERSION}",
                fix=(
                    "run the version of Headrace that wrote it, or move the file away to "
                    "begin again from the log"
                ),
            )

    def _check_identities(self, meta: Mapping[str, str], identities: Mapping[str, str]) -> None:
        for stream, identity in identities.items():
            known = meta.get(f"log:{stream}")
            if known is None:
                self._insert_meta({f"log:{stream}": identity})
            elif known != identity:
                raise IntegrityError(
                    f"the store was filled from another log of stream '{stream}': its "
                    "offsets mean nothing here",
                    fix="bring the log back, or move the store away to begin again from this log",
                )

    def require_lane(self, stream: str, lane: str, identity: str, *, used: bool) -> None:
        """Take note of a lane's identity.

        Raises IntegrityError when the store knows another one that was `used`: records of it were read.
        """
        meta = dict(self.connection.execute("SELECT name, value FROM _headrace.meta").fetchall())
        if not used:
            meta.pop(f"log:{stream}@{lane}", None)
        with self.transaction():
            self._check_identities(meta, {f"{stream}@{lane}": identity})

    def _keep_late_of_other_columns(self, stream: str) -> None:
        """A stream whose columns changed gets a new relation for late rows.

        The old one is kept under another name.
        """
        found = self.connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = '_state' AND table_name = ? ORDER BY ordinal_position",
            [f"late_{stream}"],
        ).fetchall()
        wanted = [(column.name, column.type) for column in late_columns(self.plan.streams[stream])]
        if found and (found[: len(wanted)] != wanted or len(found) != len(wanted) + 2):
            number, taken = self.progress.epoch, self._relations_of_state()
            while f"late_{stream}__until_{number}" in taken:
                number += 1
            self.connection.execute(f"DROP VIEW IF EXISTS {quoted(f'late_{stream}')}")
            self.connection.execute(
                f"ALTER TABLE {late_name(stream)} RENAME TO {quoted(f'late_{stream}__until_{number}')}"
            )

    def _adopt_tables(self, rebuild: tuple[str, ...], outside: Mapping[str, str]) -> None:
        tables = {table.name: table for table in plan_tables(self.plan)}
        changed = [
            name
            for name, table in tables.items()
            if name in self.progress.tables and self.progress.tables[name].fingerprint != table.fingerprint
        ]
        unknown = [name for name in rebuild if name not in tables]
        if unknown:
            raise RefusedError(
                f"no table with a state of its own is called '{unknown[0]}'",
                fix=f"one of: {', '.join(tables)}{did_you_mean(unknown[0], tables)}",
            )
        refused = [name for name in changed if name not in rebuild]
        if refused:
            raise RefusedError(
                "the store holds another query's answers for " + ", ".join(f"'{name}'" for name in refused),
                fix="compute them again from the log: "
                + " ".join(["headrace run", *(f"--rebuild {name}" for name in refused)]),
            )
        relations = self._relations_of_state()
        for name in list(self.progress.tables):
            if name not in tables:
                listed = name in outside and rows_outside(self.connection, name)
                self.notices.append(_forgotten(name, outside[name]) if listed else _dropped(name))
                for statement in drop_table(name, relations):
                    self.connection.execute(statement)
                forget_result(self.connection, name)
                forget_files(self.connection, name)
                del self.progress.tables[name]
        staying = [
            table for name, table in tables.items() if name in self.progress.tables and name not in changed
        ]
        for table in staying:
            add_finished_columns(self.connection, table)
        self.notices += adopt_results(self.connection, staying, self.progress)
        self.asked = tuple(name for name in dict.fromkeys(rebuild) if name in self.progress.tables)
        for table in self.plan.tables:
            if table.kind is not TableClass.VIEW and table.name not in self.progress.tables:
                self.progress.tables[table.name] = self._create(table)
        if not self.asked:
            self._make_views()

    def _tell_expired(self, asked: Mapping[str, Collection[str]]) -> None:
        for name, facts in self.progress.tables.items():
            who = [replica for replica, tables in asked.items() if name in tables]
            if facts.expired and not who:
                forget_expired(self.connection, name)
            facts.expired = {replica: facts.expired.get(replica, self.progress.epoch) for replica in who}

    def _make_views(self) -> None:
        self.connection.execute(failed_cells_view(self.plan))
        for table in self.plan.tables:
            self._insert_meta({f"kind:{table.name}": table.kind.value})
            place = self.outside.get(table.name)
            self.connection.execute(table_view(table) if place is None else outside_view(table, place))

    def begin_again(self, name: str, *, kept_before: int | None) -> TableProgress:
        """Empty a table that is to be computed again, inside a transaction; return its new progress.

        With `kept_before`, windows that began before that instant, in microseconds, stay.
        """
        table = next(table for table in self.plan.tables if table.name == name)
        if kept_before is None:
            for statement in drop_table(name, self._relations_of_state()):
                self.connection.execute(statement)
            made = self._create(table)
        else:
            self.delete_windows(table, kept_before, None)
            made = self._fresh(table)
            made.closed_through = _closed_of_kept(table, self.progress.tables[name], kept_before)
        made.expired = self.progress.tables[name].expired
        self.asked = tuple(other for other in self.asked if other != name)
        if not self.asked:
            self._make_views()
        return made

    def delete_windows(self, table: TablePlan, since: int | None, before: int | None) -> None:
        """Take out the windows that began at `since` or later and before `before`, inside a transaction."""
        bounds = "true" if since is None else f"window_start >= make_timestamptz({since})"
        bounds += "" if before is None else f" AND window_start < make_timestamptz({before})"
        sides = [side_name(table.name, one.name) for one in table.aggregates if one.side is not None]
        for relation in (state_name(table.name), *sides):
            self.connection.execute(f"DELETE FROM {relation} WHERE {bounds}")

    def _relations_of_state(self) -> list[str]:
        found = self.connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = '_state'"
        ).fetchall()
        return [name for (name,) in found]

    def _create(self, table: TablePlan) -> TableProgress:
        for statement in create_table(table):
            self.connection.execute(statement)
        self._insert_meta({f"kind:{table.name}": table.kind.value})
        write_result(self.connection, table)
        return self._fresh(table)

    def _fresh(self, table: TablePlan) -> TableProgress:
        """Return the progress of a table that begins: it is rebuilt up to where its stream was read."""
        progress = TableProgress(table.fingerprint)
        goal = {
            lane: self.progress.positions(table.sources[0], lane)
            for lane in self.progress.lanes.get(table.sources[0], {})
        }
        if any(goal.values()):
            progress.rebuild = RebuildProgress(next={}, goal=goal)
            # Replicas hold rows of what was there before, which nothing else would tell them to take out.
            self.connection.execute(
                "INSERT INTO _headrace._removed VALUES (?, NULL, ?, ?)",
                [table.name, self.progress.epoch + 1, REBUILT],
            )
        return progress


def _closed_of_kept(table: TablePlan, known: TableProgress, kept_before: int) -> int | None:
    """Return up to which end the windows that a rebuild keeps are closed.

    It writes none of those: they begin at the next step of the window behind `kept_before`, or later. So one
    that slides and reaches beyond it is closed anew.
    """
    if known.closed_through is None or table.window is None:
        return None
    slide = micros_of_length(table.window.slide)
    return min(known.closed_through, -(-kept_before // slide) * slide)


def _dropped(table: str) -> str:
    return (
        f"table '{table}' is not declared any more: its rows were dropped; "
        "declared again, it is computed from what the log holds"
    )


def _forgotten(table: str, place: str) -> str:
    return (
        f"table '{table}' is not declared any more: the list of the files that executors wrote for it was "
        f"dropped; the rows that are in the target stay there ({place}), and no others come; declare it "
        "under another name, and it is computed from what the log holds"
    )
