"""Writes chunks into Delta tables: rows, deletes and the cursor in one commit.

The cursor has two parts. Whose rows they are and from where they were copied is a property of the table,
`headrace.cursor`, which a writer changes when it takes the table: a commit of somebody who wrote before then
conflicts with that change, and the protocol refuses it. How far they were copied are application
transactions (store and generation, then what it is), committed with the rows; the library does not refuse a
version that was there before, so it is read, and the rows are written, through the same snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from math import isnan, nan
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.schema import Schema
from deltalake.transaction import AddAction, RemoveAction

from headrace.errors import RefusedError
from headrace.replicate.columns import arrow_schema, dated, folder_name, time_column
from headrace.replicate.delta.failures import delta_failures
from headrace.replicate.delta.instants import beyond
from headrace.replicate.fitting import held, held_keys
from headrace.replicate.folders import folder_failures, sync
from headrace.replicate.parquet.datafiles import NOWHEN
from headrace.replicate.parquet.manifest import filled_again
from headrace.replicate.protocol import (
    REFUSED_MAX,
    Chunk,
    Cursor,
    Position,
    TableShape,
    Task,
    fenced,
    refusal_of,
)
from headrace.replicate.staged import left_behind, put_staged, refusals_of, staged_at, take_away

if TYPE_CHECKING:
    from headrace.replicate.delta import DeltaReplica

__all__ = ["DeltaWriter", "table_uri"]

_CURSOR, _KEY, _OVERLAPS = "headrace.cursor", "headrace.key", "headrace.overlaps"
_PARTITIONS = (pa.field("date", pa.date32()), pa.field("hour", pa.int32()))
_COMPACT_EVERY = 32
_VACUUM_EVERY = 512
_GONE = "_headrace_gone"
# A row that was there before the table was a replica's has none, and is older than all of ours.
_VERSION_THERE = "coalesce(t.`_version`, 0)"


def table_uri(options: DeltaReplica, table: str) -> str:
    """Return where a table lies."""
    return f"{(options.uri or options.path).rstrip('/')}/{folder_name(table)}"


class DeltaWriter:
    """See `ReplicaWriter`."""

    def __init__(self, options: DeltaReplica, task: Task) -> None:
        self._options = options
        self._task = task
        self._storage = options.storage()
        self._tables: dict[str, DeltaTable] = {}
        self._schemas: dict[str, pa.Schema] = {}
        self._durable: dict[str, int] = {}
        self._keys = {shape.name: list(shape.key) for shape in task.tables}
        self._partitions = {s.name: time_column(s, options.partition_by) for s in task.tables}
        for shape in task.tables:
            with self._failures(shape.name):
                self._tables[shape.name] = self._opened(shape)

    def _failures(self, table: str) -> AbstractContextManager[None]:
        secrets = [v for name, v in self._storage.items() if "KEY" in name]
        return delta_failures(table_uri(self._options, table), secrets)

    # --- tables

    def _opened(self, shape: TableShape) -> DeltaTable:
        """Make a table, or add the columns that it lacks. Raises RefusedError where it differs."""
        place = table_uri(self._options, shape.name)
        partitions = _PARTITIONS if self._partitions[shape.name] else ()
        schema = arrow_schema(shape, signed=True)
        schema = self._schemas[shape.name] = pa.schema([*schema, *partitions])
        try:
            table = DeltaTable(place, storage_options=self._storage)
        except TableNotFoundError:
            return DeltaTable.create(
                place,
                schema,
                mode="ignore",
                partition_by=[field.name for field in partitions],
                configuration={_KEY: json.dumps(list(shape.key))},
                storage_options=self._storage,
                raise_if_key_not_exists=False,
            )
        self._check(table, shape, place)
        return table

    def _check(self, table: DeltaTable, shape: TableShape, place: str) -> None:
        wanted = {field.name: field for field in Schema.from_arrow(self._schemas[shape.name]).fields}
        there = {field.name: field for field in table.schema().fields}
        again = f"move {place} away; `headrace replicas rebuild` fills it again"
        if self._options.path:
            again = filled_again(Path(self._options.path), shape.name, again)
        for name, field in wanted.items():
            if name in there and there[name].type != field.type:
                raise RefusedError(
                    f"column '{name}' of {place} is {there[name].type}, and must be {field.type}", fix=again
                )
        facts = table.metadata()
        key = json.loads(facts.configuration.get(_KEY) or json.dumps(list(shape.key)))
        folders = [field.name for field in _PARTITIONS] if self._partitions[shape.name] else []
        if (key, facts.partition_columns) != (list(shape.key), folders):
            raise RefusedError(
                f"{place} tells rows apart by {key}, in folders by {facts.partition_columns}; the "
                f"table gives {list(shape.key)} and {folders}",
                fix=again,
            )
        missing = [field for name, field in wanted.items() if name not in there]
        if missing:
            table.alter.add_columns(missing)

    # --- cursors

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        found = {}
        for name, table in self._tables.items():
            with self._failures(name):
                table.update_incremental()
                found[name] = _cursor_of(table)
        return {name: cursor for name, cursor in found.items() if cursor is not None}

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        target = self._tables[table]
        with self._failures(table):
            target.update_incremental()
            if _cursor_of(target) != seen:
                raise fenced(table)
            anew = cursor.position == Position() and bool(target.file_uris())
            facts = {_CURSOR: json.dumps(cursor.facts()), _KEY: json.dumps(self._keys[table])}
            facts[_OVERLAPS] = json.dumps(anew or _overlaps(target))
            # To say again where the cursor was lets this commit fail when a chunk came since it was read:
            # rows without a key would be there twice.
            again = None if seen is None else _moved(seen)
            try:
                target.alter.set_table_properties(facts, raise_if_not_exists=False, commit_properties=again)
            except CommitFailedError:
                raise fenced(table) from None
            if self._options.path:
                self._take_away_left(table, cursor.position.epoch)

    def _take_away_left(self, table: str, through: int) -> None:
        """Let go of staged files that a run before has brought into the table, and then died."""
        if left := left_behind(self._staged(table), through):
            there = {PurePosixPath(uri).name for uri in self._tables[table].file_uris()}
            self._make_durable(table)
            take_away(file for file in left if file.name in there)

    # --- rows

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        name = chunk.table.name
        with self._failures(name):
            try:
                self._write(chunk)
            except CommitFailedError:
                # Somebody was faster: one who has taken the table, or one who only tidies up.
                there = DeltaTable(table_uri(self._options, name), storage_options=self._storage)
                if not chunk.cursor.same_writer(_cursor_of(there)):
                    raise fenced(name) from None
                raise
            self._tidy(self._tables[name])

    def _write(self, chunk: Chunk) -> None:
        name, cursor = chunk.table.name, chunk.cursor
        target = self._tables[name]
        target.update_incremental()
        there = _cursor_of(target)
        if there == cursor:
            return
        if not cursor.same_writer(there):
            raise fenced(name)
        if chunk.files:
            self._add(target, chunk)
            self._make_durable(name)
            take_away(self._staged(name) / file.name for file in chunk.files if file.rows)
            return
        chunk = self._held(chunk)
        rows = self._dated(name, _one_nan(chunk.rows, chunk.table.key))
        met = bool(chunk.table.key) and (self._options.mode == "update" or _overlaps(target))
        if chunk.sweep_below or chunk.removed.num_rows or (met and rows.num_rows):
            self._merge(target, chunk, rows)
        else:
            write_deltalake(
                target,
                rows,
                mode="append",
                target_file_size=self._options.file_bytes,
                writer_properties=_WRITING,
                commit_properties=_moved(cursor),
            )

    def _staged(self, table: str) -> Path:
        return staged_at(Path(self._options.path), table, self._task.store_id)

    def _add(self, target: DeltaTable, chunk: Chunk) -> None:
        """Take files that executors wrote into the table, by one commit. Their rows are not looked at."""
        name = chunk.table.name
        if refusals := refusals_of(name, chunk.files):
            self._task.set_aside(refusals)
        actions: list[AddAction | RemoveAction] = []
        with folder_failures(Path(self._options.path)):
            for file in chunk.files:
                if file.rows:
                    path = (PurePosixPath(file.folder) / file.name).as_posix()
                    place = Path(table_uri(self._options, name)) / path
                    put_staged(self._staged(name) / file.name, place, file.bytes)
                    made = int(place.stat().st_mtime * 1000)
                    told = json.dumps({"numRecords": file.rows})
                    actions.append(AddAction(path, file.bytes, _values(file.folder), made, True, told))
        target.create_write_transaction(
            actions,
            "append",
            target.schema(),
            partition_by=target.metadata().partition_columns,
            commit_properties=_moved(chunk.cursor),
        )

    def _make_durable(self, name: str) -> None:
        """Make all commits durable that are there, which the library leaves to the system."""
        log = Path(table_uri(self._options, name)) / "_delta_log"
        with folder_failures(log):
            for file in log.glob("*.json"):
                if file.stem.isdigit() and int(file.stem) > self._durable.get(name, -1):
                    with suppress(FileNotFoundError):  # an old one, which a checkpoint stands for
                        sync(file)
            for folder in (log, log.parent, log.parent.parent):
                sync(folder)
        self._durable[name] = self._tables[name].version()

    def _held(self, chunk: Chunk) -> Chunk:
        """Return the chunk in the table's types, without rows that Delta cannot hold: they are set aside."""
        shape, folders = chunk.table, self._partitions[chunk.table.name]
        schema = self._schemas[shape.name]
        rows, odd = held(chunk.rows, schema, beyond(chunk.rows, folders))
        refusals = [refusal_of(shape, chunk.rows, i, why) for i, why in sorted(odd.items())]
        if len(refusals) > REFUSED_MAX:
            raise RefusedError(
                f"Delta refuses {len(refusals)} rows of '{shape.name}' at once: {refusals[-1].reason}",
                fix="write CAST(… AS VARCHAR), or NULL for such values, in the SQL of the table, then resume",
            )
        if refusals:
            self._task.set_aside(refusals)
        removed = held_keys(chunk.removed, schema, beyond(chunk.removed, folders))
        return replace(chunk, rows=rows, removed=removed)

    def _dated(self, name: str, rows: pa.Table) -> pa.Table:
        column = self._partitions[name]
        return rows if column is None else dated(rows, column)

    def _merge(self, target: DeltaTable, chunk: Chunk, rows: pa.Table) -> None:
        """Meet rows of the chunk with those that are there, by key, in one commit."""
        key, names, cursor = chunk.table.key, rows.schema.names, chunk.cursor
        gone = _without(_one_nan(chunk.removed, key), rows, key)
        changes = pa.concat_tables(
            [
                rows.append_column(_GONE, pa.repeat(pa.scalar(False), rows.num_rows)),
                gone.append_column(_GONE, pa.repeat(pa.scalar(True), gone.num_rows)),
            ],
            promote_options="default",
        )
        same = " AND ".join(f"(t.{_quoted(name)} IS NOT DISTINCT FROM c.{_quoted(name)})" for name in key)
        values = {_quoted(name): f"c.{_quoted(name)}" for name in names}
        newer = f"{_VERSION_THERE} <= c.`_version`"
        merging = (
            target.merge(
                changes,
                same or "1 = 0",
                source_alias="c",
                target_alias="t",
                writer_properties=_WRITING,
                commit_properties=_moved(cursor),
            )
            .when_matched_delete(f"c.`{_GONE}` AND {newer}")
            .when_matched_update(values, predicate=f"NOT c.`{_GONE}` AND {newer}")
            .when_not_matched_insert(values, predicate=f"NOT c.`{_GONE}`")
        )
        if chunk.sweep_below:
            swept = f"{_VERSION_THERE} < {chunk.sweep_below} AND {_VERSION_THERE} >= {cursor.kept_below}"
            merging = merging.when_not_matched_by_source_delete(swept)
        merging.execute()

    def _tidy(self, target: DeltaTable) -> None:
        """Put small files together, and delete what no version within the table's retention needs.

        A bounded piece of work every few commits; when somebody else has changed the table, another time.
        """
        with suppress(CommitFailedError):
            if target.version() % _COMPACT_EVERY == 0:
                target.optimize.compact(
                    target_size=self._options.file_bytes, max_concurrent_tasks=1, writer_properties=_WRITING
                )
            if target.version() % _VACUUM_EVERY < 2:
                target.vacuum(dry_run=False)

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""

    def close(self) -> None:
        """See `ReplicaWriter`."""


_WRITING = WriterProperties(compression="ZSTD")


def _values(folder: str) -> dict[str, str | None]:
    """Return the values of the columns that the name of a folder tells."""
    told = dict(part.split("=", 1) for part in folder.split("/") if "=" in part)
    return {name: None if value == NOWHEN else value for name, value in told.items()}


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _without(gone: pa.Table, rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """Return the keys that are not those of rows: a row that comes again replaces the one that went."""
    if not gone.num_rows or not rows.num_rows:
        return gone
    known = set(_keys_of(rows, key))
    return gone.filter(pa.array([each not in known for each in _keys_of(gone, key)]))


def _keys_of(rows: pa.Table, key: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Return the key of each row, made comparable: NaN as a word, instants as numbers."""
    columns = []
    for name in key:
        values = rows.column(name)
        values = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
        columns.append(["NaN" if isinstance(v, float) and isnan(v) else v for v in values.to_pylist()])
    return list(zip(*columns, strict=True))


def _one_nan(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """Return rows of which every NaN in the key has the same bits, which is what the library compares."""
    for i, field in enumerate(rows.schema):
        if field.name in key and pa.types.is_floating(field.type):
            values = rows.column(i)
            only = pc.if_else(pc.is_nan(values), pa.scalar(nan, field.type), values)
            rows = rows.set_column(i, field, only)
    return rows


# --- the cursor in the table


def _application(cursor: Cursor) -> str:
    return f"headrace {cursor.store_id} {cursor.generation}"


def _moved(cursor: Cursor) -> CommitProperties:
    """Return what a commit says of the cursor."""
    name, at = _application(cursor), cursor.position
    told = {
        name: at.epoch,
        f"{name} through": at.through,
        f"{name} after": at.after,
        f"{name} sweep_below": cursor.sweep_below,
    }
    return CommitProperties(app_transactions=[Transaction(each, number) for each, number in told.items()])


def _taken(table: DeltaTable) -> Cursor | None:
    """Return the cursor with which the table was taken."""
    text = table.metadata().configuration.get(_CURSOR)
    if text is None:
        return None
    return Cursor.of(json.loads(text))


def _cursor_of(table: DeltaTable) -> Cursor | None:
    taken = _taken(table)
    if taken is None:
        return None
    name = _application(taken)
    epoch = table.transaction_version(name)
    if epoch is None:
        return taken
    through, after, sweep = (
        table.transaction_version(f"{name} {what}") or 0 for what in ("through", "after", "sweep_below")
    )
    return replace(taken, position=Position(epoch, through, after), sweep_below=sweep)


def _overlaps(table: DeltaTable) -> bool:
    """Return whether rows may come that are there already: a copying began again, and has not swept."""
    taken, now = _taken(table), _cursor_of(table)
    swept = taken is not None and now is not None and taken.sweep_below > 0 and now.sweep_below == 0
    return not swept and json.loads(table.metadata().configuration.get(_OVERLAPS) or "false")
