"""What tables look like in Cassandra: names, types, primary keys, and the check of what is there already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError, RefusedError
from headrace.replicate.protocol import TableShape

__all__ = ["CURSORS", "ID", "VERSION", "Layout", "cassandra_type", "ensure_table", "layouts_of", "quoted"]

VERSION = "_version"
ID = "_id"
"""The primary key of rows that nothing tells apart: a hash of the row (see `values.row_ids`)."""
CURSORS = "_headrace_cursors"
_NAME_MAX = 48

_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "tinyint",
    "UTINYINT": "smallint",
    "SMALLINT": "smallint",
    "USMALLINT": "int",
    "INTEGER": "int",
    "UINTEGER": "bigint",
    "BIGINT": "bigint",
    "UBIGINT": "varint",
    "HUGEINT": "varint",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DATE": "date",
    "TIME": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
    "UUID": "uuid",
    "BLOB": "blob",
}


@dataclass(frozen=True)
class Layout:
    """A table as Cassandra has it.

    columns     name and Cassandra's type, in order: those of the shape, then `_version`; `_id` comes first
                when nothing tells rows apart
    partition   the columns of the partition key
    clustering  the columns that order rows inside a partition, each with ASC or DESC
    """

    shape: TableShape
    name: str
    columns: tuple[tuple[str, str], ...]
    partition: tuple[str, ...]
    clustering: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key, in its order."""
        return (*self.partition, *(name for name, _ in self.clustering))


def quoted(name: str) -> str:
    """Return `name` as an identifier of CQL."""
    return '"' + name.replace('"', '""') + '"'


def cassandra_type(kind: str) -> str:
    """Return Cassandra's type for one of DuckDB's; what has no match is kept as text."""
    return "decimal" if kind.startswith("DECIMAL(") and kind.endswith(")") else _TYPES.get(kind, "text")


def layouts_of(
    shapes: Sequence[TableShape], keys: Mapping[str, str], *, text: bool, replica: str
) -> dict[str, Layout]:
    """Return the layout of every table, by the table's name. `keys` is the option of that name.

    Raises ProfileError for a primary key that does not fit its table, and for names that cannot stand.
    """
    known = [shape.name for shape in shapes]
    for name in keys:
        if name not in known:
            raise ProfileError(
                f"replica '{replica}': keys names the table '{name}', which it does not copy"
                + did_you_mean(name, known),
                fix="one of: " + ", ".join(known),
            )
    found: dict[str, Layout] = {}
    taken: dict[str, str] = {}
    for shape in shapes:
        layout = _layout(shape, keys.get(shape.name), text, replica)
        if taken.setdefault(layout.name.lower(), shape.name) != shape.name:
            raise ProfileError(
                f"replica '{replica}': the tables '{taken[layout.name.lower()]}' and '{shape.name}' would "
                f"both be {layout.name} in Cassandra",
                fix="rename one of them, or leave it out (tables = …)",
            )
        found[shape.name] = layout
    return found


def _layout(shape: TableShape, said: str | None, text: bool, replica: str) -> Layout:
    # Cassandra takes letters, digits and _ in the name of a table, also where it is quoted.
    name = re.sub(r"[^A-Za-z0-9_]", "_", shape.name)
    if len(name) > _NAME_MAX:
        raise ProfileError(
            f"replica '{replica}': the name '{shape.name}' has more than {_NAME_MAX} letters, and Cassandra "
            "takes no longer one",
            fix="give the table a shorter name, or leave it out (tables = …)",
        )
    columns = [(c.name, "text" if text else cassandra_type(c.type)) for c in shape.columns]
    columns.append((VERSION, "bigint"))
    if not shape.key:
        if said is not None:
            raise ProfileError(
                f"replica '{replica}': keys gives '{shape.name}' a primary key, and the table has no key",
                fix=f'declare it: pipeline.table("{shape.name}", …, key="…")',
            )
        return Layout(shape, name, ((ID, "text"), *columns), (ID,), ())
    if said is None:
        return Layout(shape, name, tuple(columns), shape.key, ())
    partition, clustering = _read_key(said)
    named = [*partition, *(column for column, _ in clustering)]
    if not partition or sorted(named) != sorted(shape.key):
        raise ProfileError(
            f"replica '{replica}': the primary key '{said}' does not have the columns of the key of "
            f"'{shape.name}'",
            fix=f"use each once: {', '.join(shape.key)}; a / b DESC, c is partition / clustering columns",
        )
    return Layout(shape, name, tuple(columns), partition, clustering)


def _read_key(text: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    first, _, second = text.partition("/")
    partition = tuple(each.strip() for each in first.split(",") if each.strip())
    clustering = []
    for each in second.split(","):
        words = each.split()
        if words:
            order = words.pop().upper() if words[-1].upper() in ("ASC", "DESC") and len(words) > 1 else "ASC"
            clustering.append((" ".join(words), order))
    return partition, tuple(clustering)


def create_table(keyspace: str, layout: Layout) -> str:
    """Return the statement that makes a table."""
    columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in layout.columns)
    key = f"({', '.join(map(quoted, layout.partition))})"
    key += "".join(f", {quoted(name)}" for name, _ in layout.clustering)
    made = f"CREATE TABLE IF NOT EXISTS {quoted(keyspace)}.{quoted(layout.name)} "
    made += f"({columns}, PRIMARY KEY ({key}))"
    if layout.clustering:
        order = ", ".join(f"{quoted(name)} {way}" for name, way in layout.clustering)
        made += f" WITH CLUSTERING ORDER BY ({order})"
    return made


def cursor_table(keyspace: str) -> str:
    """Return the statement that makes the table of cursors.

    `timestamp_zero` and `timestamp_last` are microseconds: a row of an epoch is written with the timestamp
    zero + 2 * epoch + 1, a removal with one less, and no write so far has a timestamp above the last.
    """
    numbers = "generation, epoch, through, after, begun, sweep_below, rounds, kept_below, timestamp_zero, "
    numbers += "timestamp_last"
    listed = ", ".join(f"{name} bigint" for name in numbers.split(", "))
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(keyspace)}.{quoted(CURSORS)} (table_name text PRIMARY KEY, "
        f"store_id text, replica text, {listed}, written_at timestamp)"
    )


def ensure_table(session: Any, keyspace: str, layout: Layout) -> bool:
    """Make a table, or add the columns that it lacks; return whether it was made.

    Raises RefusedError where it differs.
    """
    there = {
        row.column_name: row
        for row in session.execute(
            "SELECT column_name, kind, position, type, clustering_order FROM system_schema.columns "
            "WHERE keyspace_name = %s AND table_name = %s",
            (keyspace, layout.name),
        )
    }
    if not there:
        session.execute(create_table(keyspace, layout))
        return True
    full = f"{quoted(keyspace)}.{quoted(layout.name)}"
    drop = f"DROP TABLE {full}; `headrace replicas rebuild` fills it again"
    partition = [r.column_name for r in _ordered(there.values(), "partition_key")]
    clustering = [(r.column_name, r.clustering_order.upper()) for r in _ordered(there.values(), "clustering")]
    if (partition, clustering) != (list(layout.partition), list(layout.clustering)):
        shown = ", ".join(partition) + " / " + ", ".join(f"{name} {way}" for name, way in clustering)
        raise RefusedError(
            f"the primary key of Cassandra's table {full} is {shown.rstrip(' /')}, and must be another",
            fix=f"name that one in keys.{layout.shape.name} of the profile; or {drop}",
        )
    for name, kind in layout.columns:
        if name not in there:
            session.execute(f"ALTER TABLE {full} ADD {quoted(name)} {kind}")
        elif there[name].type != kind:
            raise RefusedError(
                f"column '{name}' of Cassandra's table {full} is {there[name].type}, and must be {kind}",
                fix=drop,
            )
    return False


def _ordered(rows: Any, kind: str) -> list[Any]:
    return sorted((row for row in rows if row.kind == kind), key=lambda row: int(row.position))
