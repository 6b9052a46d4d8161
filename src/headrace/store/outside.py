"""Tables whose rows are not in the store: executors write them into files, of which the store has the list.

The list is part of an epoch's transaction, so a file counts if, and only if, an epoch that was committed
names it. What becomes of the files is the work of the one replica that takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import RefusedError
from headrace.sql.plan import PipelinePlan, TablePlan
from headrace.store.names import quoted, state_name, text_literal

__all__ = [
    "RowFile",
    "adopt_outside",
    "files_after",
    "forget_files",
    "list_files",
    "listed_names",
    "outside_of",
    "outside_view",
    "rows_outside",
    "tables_outside",
    "two_places",
]

_PLACE = "outside:"


@dataclass(frozen=True)
class RowFile:
    """A Parquet file with rows of one table, made by one attempt of one task.

    name     of the file in the table's folder of staged files; "": there is none, all rows were refused
    folder   the folder of the target that the rows belong to, such as "date=2026-03-01/hour=7"; ".": none
    epoch    the micro-batch that the rows are of
    refused  rows that the target cannot hold, as (key, reason): see `replicate.protocol.Refusal`
    """

    name: str
    folder: str
    epoch: int
    rows: int
    bytes: int
    refused: tuple[tuple[str, str], ...] = ()


def list_files(connection: Any, table: str, files: Iterable[RowFile]) -> None:
    """Write down files of a table, inside the transaction of their epoch."""
    given = list(files)
    if not given:
        return
    # One statement for all of them: an epoch of a backfill has thousands, and nothing else is committed then.
    connection.execute(
        "INSERT INTO _headrace.row_files SELECT $1, unnest(CAST($2 AS BIGINT[])), "
        "unnest(CAST($3 AS VARCHAR[])), unnest(CAST($4 AS VARCHAR[])), unnest(CAST($5 AS BIGINT[])), "
        "unnest(CAST($6 AS BIGINT[])), unnest(CAST($7 AS VARCHAR[][][]))",
        [
            table,
            [one.epoch for one in given],
            [one.name for one in given],
            [one.folder for one in given],
            [one.rows for one in given],
            [one.bytes for one in given],
            [[list(each) for each in one.refused] for one in given],
        ],
    )


def files_after(cursor: Any, table: str, epoch: int, *, files_max: int) -> list[RowFile]:
    """Return the files of epochs behind `epoch`, in order: of whole epochs, about `files_max`."""
    found = cursor.execute(
        'SELECT name, folder, epoch, "rows", bytes, refused FROM _headrace.row_files '
        'WHERE "table" = $1 AND epoch > $2 AND epoch <= (SELECT coalesce(max(epoch), 0) FROM ('
        'SELECT epoch FROM _headrace.row_files WHERE "table" = $1 AND epoch > $2 ORDER BY 1 LIMIT $3)) '
        "ORDER BY epoch, name",
        [table, epoch, files_max],
    ).fetchall()
    return [
        RowFile(name, folder, at, rows, size, tuple((key, reason) for key, reason in refused))
        for name, folder, at, rows, size, refused in found
    ]


def listed_names(cursor: Any, table: str) -> set[str]:
    """Return the names of all files that committed epochs name."""
    found = cursor.execute('SELECT name FROM _headrace.row_files WHERE "table" = ?', [table]).fetchall()
    return {name for (name,) in found}


def rows_outside(cursor: Any, table: str) -> int:
    """Return how many rows all files of a table had when they were written."""
    found = cursor.execute(
        'SELECT CAST(coalesce(sum("rows"), 0) AS BIGINT) FROM _headrace.row_files WHERE "table" = ?', [table]
    ).fetchall()
    rows: int = found[0][0]
    return rows


def outside_of(meta: Mapping[str, str]) -> dict[str, str]:
    """Return which tables have their rows in files, and in words where, from the store's facts."""
    return {name.removeprefix(_PLACE): value for name, value in meta.items() if name.startswith(_PLACE)}


def tables_outside(cursor: Any) -> Mapping[str, str]:
    """Return which tables have their rows in files, and in words where."""
    return outside_of(dict(cursor.execute("SELECT name, value FROM _headrace.meta").fetchall()))


def forget_files(connection: Any, table: str) -> None:
    """Forget that a table had its rows in files, inside a transaction: it is no table any more."""
    connection.execute('DELETE FROM _headrace.row_files WHERE "table" = ?', [table])
    connection.execute("DELETE FROM _headrace.meta WHERE name = ?", [_PLACE + table])


def adopt_outside(
    connection: Any,
    plan: PipelinePlan,
    known: Mapping[str, str],
    wanted: Mapping[str, str],
    rebuild: Collection[str],
    moved: Callable[[str, str], bool],
) -> None:
    """Let the tables of `wanted` have their rows in files, and no others, inside a transaction.

    Called when a store is opened. `moved` says of a table and its place until now whether its files have
    been moved to the wanted one. Raises RefusedError when a table would have rows in both places, or files
    in two, and for one that is to be computed again, whose rows nobody could take out of the files.
    """
    for table in plan.tables:
        name = table.name
        before = known.get(name, "")
        other = before != "" and wanted.get(name, before) != before
        if other and listed_names(connection, name) and not moved(name, before):
            raise two_places(name, before, wanted[name])
        if name in known and name not in wanted and listed_names(connection, name):
            raise RefusedError(
                f"the rows of table '{name}' are not in this store: Spark's executors have written them into "
                f"files ({known[name]})",
                fix="run it with a profile that has it in spark.rows_by_executors, and the same folder; or "
                "give the table another name: that one is computed from the log",
            )
        if name in wanted and name not in known and _has_rows(connection, table):
            raise RefusedError(
                f"the store holds rows of table '{name}', and executors would write the next ones into files",
                fix="give the table another name: it is computed from the log, all of it into files; or "
                "leave it out of spark.rows_by_executors",
            )
        if name in wanted and name in rebuild and listed_names(connection, name):
            raise RefusedError(
                f"table '{name}' cannot be computed again: its rows are in files ({wanted[name]}), and have "
                "no key by which those of before could be replaced",
                fix="give the table another name: it is computed from the log",
            )
    for name in {*known, *wanted}:
        connection.execute("DELETE FROM _headrace.meta WHERE name = ?", [_PLACE + name])
        if name in wanted:
            connection.execute("INSERT INTO _headrace.meta VALUES (?, ?)", [_PLACE + name, wanted[name]])


def two_places(table: str, before: str, now: str) -> RefusedError:
    """Return the error of a table of which files would be in two places, each of which lacks some."""
    return RefusedError(
        f"the rows of table '{table}' are in files ({before}), and the next ones would be written elsewhere "
        f"({now})",
        fix="name the replica and its path as before; or move the folder there as a whole, with its "
        "`_headrace`, where files wait; or give the table another name: it is computed from the log",
    )


def outside_view(table: TablePlan, place: str) -> str:
    """Return the statement that makes the view of such a table: whoever reads it is told where its rows are.

    An empty relation would be an answer, and a wrong one.
    """
    said = f"the rows of table '{table.name}' are not in the store: executors write them into files ({place})"
    # No constants: DuckDB would find out beforehand that no NULL passes a WHERE, and ask nothing at all.
    told = f"error({text_literal(said)} || substr(CAST(i AS VARCHAR), 1, 0))"
    columns = ", ".join(f"CAST({told} AS {column.type}) AS {quoted(column.name)}" for column in table.columns)
    return (
        f"CREATE OR REPLACE VIEW {quoted(table.name)} AS SELECT {columns} FROM range(1) r(i) "
        f"WHERE CAST({told} AS BOOLEAN)"
    )


def _has_rows(connection: Any, table: TablePlan) -> bool:
    there = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = '_state' AND table_name = ?", [table.name]
    ).fetchall()
    return bool(there) and bool(
        connection.execute(f"SELECT 1 FROM {state_name(table.name)} LIMIT 1").fetchall()
    )
