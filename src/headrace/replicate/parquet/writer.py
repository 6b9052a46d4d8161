"""Writes chunks as Parquet files; the manifest, which lists them with the cursor, is the commit."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import RefusedError
from headrace.replicate.columns import arrow_schema, time_column
from headrace.replicate.fitting import held, held_keys
from headrace.replicate.folders import folder_failures
from headrace.replicate.parquet.compaction import choose, put_together
from headrace.replicate.parquet.datafiles import (
    NOWHEN_FOLDER,
    file_name,
    folders_of,
    read_rows,
    write_rows,
)
from headrace.replicate.parquet.manifest import DataFile, Manifest, data_of
from headrace.replicate.parquet.merging import Incoming
from headrace.replicate.parquet.table_files import TableFiles
from headrace.replicate.parquet.tree import Tree
from headrace.replicate.protocol import (
    REFUSED_MAX,
    Chunk,
    Cursor,
    Position,
    TableShape,
    Task,
    fenced,
    refusals_among,
    version_of,
)
from headrace.replicate.staged import (
    FIRST_GENERATION,
    left_behind,
    put_staged,
    refusals_of,
    staged_at,
    take_away,
)

if TYPE_CHECKING:
    from headrace.replicate.parquet import ParquetReplica

__all__ = ["ParquetWriter"]


class ParquetWriter:
    """See `ReplicaWriter`."""

    def __init__(self, options: ParquetReplica, task: Task) -> None:
        self._options = options
        self._task = task
        self._trees = _trees_of(options, [shape.name for shape in task.tables])
        self._schemas = {shape.name: arrow_schema(shape, signed=False) for shape in task.tables}
        try:
            for shape in task.tables:
                with self._trees[shape.name].failures():
                    self._check(shape)
        except BaseException:
            self.close()
            raise

    def _check(self, shape: TableShape) -> None:
        """Begin a table, or add the columns that it lacks; refuse what another table has written."""
        tree, partition = self._trees[shape.name], time_column(shape, self._options.partition_by)
        wanted = {field.name: str(field.type) for field in self._schemas[shape.name]}
        with tree.held() as manifest:
            if manifest is None:
                tree.save(Manifest(partition, shape.key, wanted))
                return
            for name, kind in wanted.items():
                if manifest.columns.get(name, kind) != kind:
                    raise self._differs(
                        tree, f"column '{name}' is {manifest.columns[name]}, and the table gives {kind}"
                    )
            if (manifest.key, manifest.partition) != (shape.key, partition):
                raise self._differs(
                    tree,
                    f"rows are told apart by {list(manifest.key)}, in folders by {manifest.partition}; "
                    f"the table gives {list(shape.key)} and {partition}",
                )
            if not wanted.keys() <= manifest.columns.keys():
                tree.save(manifest.following(columns={**manifest.columns, **wanted}))

    def _differs(self, tree: TableFiles, what: str) -> RefusedError:
        return RefusedError(
            f"{tree.data} holds another table: {what}",
            fix=tree.anew(
                f"move {tree.data} and {tree.books} away; `headrace replicas rebuild` fills them again"
            ),
        )

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        found = {}
        for name, tree in self._trees.items():
            with tree.failures(), tree.held() as manifest:
                if manifest is not None and manifest.cursor is not None:
                    found[name] = manifest.cursor
        return found

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        tree = self._trees[table]
        with tree.failures(), tree.held() as manifest:
            if manifest is None or manifest.cursor != seen:
                raise fenced(table)
            files = tree.check(manifest)
            anew = bool(files) and cursor.position == Position()
            taken = manifest.following(cursor=cursor, files=files, overlaps=manifest.overlaps or anew)
            tree.save(taken)
            tree.clear(taken)
            if self._options.path and (left := left_behind(self._staged(table), cursor.position.epoch)):
                data = data_of(Path(self._options.path), table)
                take_away(_taken_in(left, files, data))  # a crash may have come before it

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table, cursor = chunk.table.name, chunk.cursor
        tree = self._trees[table]
        with tree.failures(), tree.held() as manifest:
            there = None if manifest is None else manifest.cursor
            if there == cursor:
                return
            if manifest is None:
                raise tree.gone()
            if not cursor.same_writer(there):
                raise fenced(table)
            if chunk.files:
                tree.commit(self._added(tree, manifest, chunk))
                take_away(self._staged(table) / file.name for file in chunk.files if file.rows)
            else:
                tree.commit(self._changed(tree, manifest, chunk))
        with tree.failures(), tree.held() as manifest:
            if manifest is None or not cursor.same_writer(manifest.cursor):
                return  # somebody else's by now
            if some := choose(manifest, self._options.file_bytes):
                files = tree.check(manifest, {str(Path(names[0]).parent) for names in some})
                if files == manifest.files:
                    tree.commit(put_together(tree, manifest, some))
                else:  # somebody has taken a folder away
                    tree.save(manifest.following(files=files))

    def _staged(self, table: str) -> Path:
        return staged_at(Path(self._options.path), table, self._task.store_id)

    def _added(self, tree: TableFiles, manifest: Manifest, chunk: Chunk) -> Manifest:
        """Stage files that executors wrote, and return the manifest with them. Their rows are not read."""
        if refusals := refusals_of(chunk.table.name, chunk.files):
            self._task.set_aside(refusals)
        following = manifest.following(cursor=chunk.cursor)
        coming = [file for file in chunk.files if file.rows]
        files = tree.check(manifest, {file.folder for file in coming})
        staged, made = tree.stage(following.commit), dict[str, DataFile]()
        for number, file in enumerate(coming):
            version = version_of(FIRST_GENERATION, file.epoch)
            name = str(Path(file.folder) / file_name(version, version, following.commit, number))
            put_staged(self._staged(chunk.table.name) / file.name, staged / name, file.bytes)
            made[name] = DataFile(file.rows, file.bytes, version, version, following.commit)
        return following.replaced(files | made)

    def _changed(self, tree: TableFiles, manifest: Manifest, chunk: Chunk) -> Manifest:
        """Stage what the chunk changes, and return the manifest with it."""
        rows, removed = self._held(chunk)
        below, first = chunk.sweep_below, chunk.cursor.kept_below
        following = manifest.following(
            cursor=chunk.cursor, overlaps=manifest.overlaps and (first > 0 or not below)
        )
        met, incoming = list[str](), None
        if chunk.table.key and (self._options.mode == "update" or manifest.overlaps):
            incoming = Incoming(chunk.table.key, rows, removed)
            met = self._candidates(manifest, chunk.table.key, rows, removed)
        old = {name for name, f in manifest.files.items() if f.lowest < below and f.highest >= first}
        touched = {str(Path(name).parent) for name in (*met, *old)}
        touched |= {folder for folder, _ in folders_of(rows, manifest.partition)}
        files = tree.check(manifest, touched)
        staged, made, thinned = tree.stage(following.commit), dict[str, DataFile](), set[str]()
        for name in sorted({*met, *old} & files.keys()):
            # One at a time: all that a rebuild touches is the whole table.
            left = self._left(tree, name, files[name], incoming if name in met else None, chunk)
            if left is not None:
                thinned.add(name)
                folder = str(Path(name).parent)
                made |= write_rows(staged, folder, left, following.commit, len(made), tree.mark)
        kept = {name: facts for name, facts in files.items() if name not in thinned}
        for folder in {str(Path(name).parent) for name in thinned}:
            (staged / folder).mkdir(parents=True, exist_ok=True)
            tree.keep(staged, (name for name in kept if str(Path(name).parent) == folder))
        coming = rows if incoming is None else incoming.rows()
        for folder, some in folders_of(coming, manifest.partition):
            made |= write_rows(staged, folder, some, following.commit, len(made), tree.mark)
        return following.replaced(kept | made)

    def _held(self, chunk: Chunk) -> tuple[pa.Table, pa.Table]:
        """Return rows and removed keys in the types of the files; rows that do not fit are set aside."""
        shape, schema = chunk.table, self._schemas[chunk.table.name]
        rows, odd = held(chunk.rows, schema, {})
        if len(odd) > REFUSED_MAX:
            raise RefusedError(
                f"Parquet cannot hold {len(odd)} rows of '{shape.name}' at once: {next(iter(odd.values()))}",
                fix="write CAST(… AS VARCHAR), or NULL for such values, in the SQL of the table, then resume",
            )
        if odd:
            self._task.set_aside(refusals_among(shape, chunk.rows, odd))
        return rows, held_keys(chunk.removed, schema)

    def _left(
        self, tree: TableFiles, name: str, facts: DataFile, incoming: Incoming | None, chunk: Chunk
    ) -> pa.Table | None:
        """Return the rows of a file that stay when the chunk has come; None when all of them do."""
        below, first = chunk.sweep_below, chunk.cursor.kept_below
        left = None if incoming is None else incoming.meet(tree.source(name))
        if facts.lowest >= below or facts.highest < first:
            return left
        if left is None:
            some = facts.highest >= below or facts.lowest < first
            left = read_rows(tree.source(name)) if some else self._schemas[chunk.table.name].empty_table()
        version = left["_version"]
        return left.filter(pc.or_(pc.greater_equal(version, below), pc.less(version, first)))

    def _candidates(
        self, manifest: Manifest, key: tuple[str, ...], rows: pa.Table, removed: pa.Table
    ) -> list[str]:
        """Return the files that may hold a key of the chunk."""
        if manifest.partition not in key or removed.num_rows:
            return list(manifest.files)
        folders = dict(folders_of(rows, manifest.partition))
        nowhen = folders.get(NOWHEN_FOLDER)
        if nowhen is not None and nowhen[manifest.partition].null_count < nowhen.num_rows:
            # Such instants once lay in folders by their date, whatever the years that it was cut down to.
            return list(manifest.files)
        return [name for name in manifest.files if str(Path(name).parent) in folders]

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""

    def close(self) -> None:
        """See `ReplicaWriter`."""
        for tree in self._trees.values():
            with suppress(Exception):
                tree.close()


def _trees_of(options: ParquetReplica, tables: Iterable[str]) -> Mapping[str, TableFiles]:
    """Open the place of each table."""
    if options.uri:
        from headrace.replicate.parquet.objects import object_trees

        return object_trees(options, tables)
    folder = Path(options.path)
    with folder_failures(folder):
        return {name: Tree(folder, name) for name in tables}


def _taken_in(left: Iterable[Path], files: Mapping[str, DataFile], data: Path) -> Iterator[Path]:
    """Give those staged files that are files of the table as well: the same one, or the same bytes."""
    sized: dict[int, list[Path]] = {}
    for name, facts in files.items():
        sized.setdefault(facts.bytes, []).append(data / name)
    for file in left:
        for place in sized.get(file.stat().st_size, ()):
            if file.samefile(place) or filecmp.cmp(file, place, shallow=False):
                yield file
                break
