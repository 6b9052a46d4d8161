"""What tables look like in PostgreSQL: types, definitions, and the check of what is there already."""

from __future__ import annotations

import re
from typing import Any

from headrace.errors import RefusedError
from headrace.replicate.protocol import NamedColumn, TableShape, version_of

__all__ = [
    "CURSORS",
    "UPDATED_AT",
    "VERSION",
    "create_table",
    "cursor_table",
    "ensure_cursors",
    "ensure_schema",
    "ensure_table",
    "later_columns",
    "name_of",
    "postgres_type",
    "quoted",
    "relation",
]

VERSION = "_version"
CURSORS = "_headrace_cursors"
UPDATED_AT = "updated_at"
_EPOCHS = version_of(1, 0) - 1
_STAMPS = {
    UPDATED_AT: ("timestamp with time zone", "NOT NULL DEFAULT now()"),
    # What is left of a version without its generation.
    "epoch": ("bigint", f'GENERATED ALWAYS AS ("{VERSION}" & {_EPOCHS}) STORED'),
}
_LATER_COLUMNS = ("rounds", "kept_below")
"""Columns that the table of cursors did not always have."""
_NAME_BYTES_MAX = 63
_LOCK = 0x68656164  # "head": two runs that make the same tables at once do it one after the other

_TYPES = {
    "BOOLEAN": "boolean",
    "TINYINT": "smallint",
    "UTINYINT": "smallint",
    "SMALLINT": "smallint",
    "USMALLINT": "integer",
    "INTEGER": "integer",
    "UINTEGER": "bigint",
    "BIGINT": "bigint",
    "UBIGINT": "numeric(20,0)",
    "HUGEINT": "numeric(39,0)",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "DATE": "date",
    "TIME": "time without time zone",
    "TIMESTAMP": "timestamp without time zone",
    "TIMESTAMP_S": "timestamp without time zone",
    "TIMESTAMP_MS": "timestamp without time zone",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "INTERVAL": "interval",
    "UUID": "uuid",
    "BLOB": "bytea",
    "JSON": "jsonb",
    "VARCHAR": "text",
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


def quoted(name: str) -> str:
    """Return `name` as an identifier of PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'


def name_of(name: str) -> str:
    """Return `name`; raises RefusedError for one that PostgreSQL would cut short."""
    if len(name.encode()) > _NAME_BYTES_MAX:
        raise RefusedError(
            f"the name '{name}' has more than {_NAME_BYTES_MAX} bytes, and PostgreSQL would cut it",
            fix="give the table or column a shorter name, or leave the table out of the replica (tables = …)",
        )
    return name


def relation(schema: str, table: str) -> str:
    """Return the full name of a table."""
    return f"{quoted(schema)}.{quoted(name_of(table))}"


def postgres_type(kind: str) -> str:
    """Return PostgreSQL's type for one of DuckDB's; what has no match is kept as text."""
    found = _DECIMAL.fullmatch(kind)
    return f"numeric({found[1]},{found[2]})" if found else _TYPES.get(kind, "text")


def _typed(column: NamedColumn) -> str:
    return f"{quoted(name_of(column.name))} {postgres_type(column.type)}"


def create_table(schema: str, shape: TableShape, *, stamped: bool = False) -> str:
    """Return the statement that makes a table. Raises RefusedError when a stamp has the name of a column."""
    lines = [_typed(column) for column in shape.columns]
    lines.append(f"{quoted(VERSION)} bigint NOT NULL")
    if stamped:
        lines += [f"{quoted(name)} {kind} {rule}" for name, (kind, rule) in _stamps_of(shape).items()]
    if shape.key:
        lines.append(f"UNIQUE NULLS NOT DISTINCT ({', '.join(quoted(name) for name in shape.key)})")
    body = ",\n    ".join(lines)
    return f"CREATE TABLE IF NOT EXISTS {relation(schema, shape.name)} (\n    {body}\n)"


def cursor_table(schema: str) -> str:
    """Return the statement that makes the table of cursors: how far each table was copied, and by whom."""
    return (
        f"CREATE TABLE IF NOT EXISTS {relation(schema, CURSORS)} (\n"
        "    table_name text PRIMARY KEY,\n    store_id text NOT NULL,\n    replica text NOT NULL,\n"
        "    generation bigint NOT NULL,\n    epoch bigint NOT NULL,\n    through bigint NOT NULL,\n"
        "    after bigint NOT NULL,\n    begun bigint NOT NULL,\n    sweep_below bigint NOT NULL,\n"
        "    rounds bigint NOT NULL DEFAULT 0,\n    kept_below bigint NOT NULL DEFAULT 0,\n"
        "    written_at timestamptz NOT NULL DEFAULT now()\n)"
    )


def later_columns(schema: str) -> list[str]:
    """Return the statements that add to a table of cursors what it lacks; only its owner may run them."""
    full = relation(schema, CURSORS)
    return [
        f"ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {name} bigint NOT NULL DEFAULT 0"
        for name in _LATER_COLUMNS
    ]


def _stamps_of(shape: TableShape) -> dict[str, tuple[str, str]]:
    taken = [column.name for column in shape.columns if column.name in _STAMPS]
    if taken:
        raise RefusedError(
            f"table '{shape.name}' has a column '{taken[0]}', and stamps = \"on\" makes one of that name",
            fix='call the column something else (AS another_name), or set stamps = "off"',
        )
    return _STAMPS


def ensure_schema(cursor: Any, schema: str) -> None:
    """Make a schema; where it is there already, no right to make one is needed."""
    if cursor.execute("SELECT to_regnamespace(%s)", [quoted(schema)]).fetchone()[0] is None:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")


def ensure_cursors(cursor: Any, schema: str) -> None:
    """Make the table of cursors; where it is there already, no right to make one is needed."""
    there = _columns_of(cursor, schema, CURSORS)
    if there is None:
        cursor.execute(cursor_table(schema))
        return
    if not set(_LATER_COLUMNS) <= set(there):
        for statement in later_columns(schema):
            cursor.execute(statement)


def ensure_table(cursor: Any, schema: str, shape: TableShape, *, stamped: bool = False) -> bool:
    """Make a table, or add the columns that it lacks, inside a transaction; return whether it was made.

    Raises RefusedError where it differs.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    there = _columns_of(cursor, schema, shape.name)
    if there is None:
        cursor.execute(create_table(schema, shape, stamped=stamped))
        return True
    full = relation(schema, shape.name)
    wanted = [*((c.name, postgres_type(c.type)) for c in shape.columns), (VERSION, "bigint")]
    for name, kind in wanted:
        if name not in there:
            cursor.execute(f"ALTER TABLE {full} ADD COLUMN {quoted(name_of(name))} {kind}")
        elif there[name][0] != kind:
            raise RefusedError(
                f"column '{name}' of PostgreSQL's table {full} is {there[name][0]}, and must be {kind}",
                fix=f"ALTER TABLE {full} ALTER COLUMN {quoted(name)} TYPE {kind}; or drop the table, and "
                "`headrace replicas rebuild` fills it again",
            )
    for name, (kind, rule) in _stamps_of(shape).items() if stamped else ():
        if name not in there:
            cursor.execute(f"ALTER TABLE {full} ADD COLUMN {quoted(name)} {kind} {rule}")
    names = {name for name, _ in wanted}
    closed = [name for name, (_, required) in there.items() if required and name not in names]
    if closed:
        raise RefusedError(
            f"column '{closed[0]}' of PostgreSQL's table {full} must have a value, and the table gives none",
            fix=f"ALTER TABLE {full} ALTER COLUMN {quoted(closed[0])} DROP NOT NULL",
        )
    if shape.key and not _has_key(cursor, schema, shape):
        keys = ", ".join(quoted(name) for name in shape.key)
        raise RefusedError(
            f"PostgreSQL's table {full} does not tell its rows apart by {', '.join(shape.key)}",
            fix=f"ALTER TABLE {full} ADD UNIQUE NULLS NOT DISTINCT ({keys}); or drop the table, and "
            "`headrace replicas rebuild` fills it again",
        )
    return False


def _columns_of(cursor: Any, schema: str, table: str) -> dict[str, tuple[str, bool]] | None:
    """Return type, and whether a value must be given, of each column; None when there is no such table."""
    kind = cursor.execute(
        "SELECT c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s",
        [schema, table],
    ).fetchone()
    if kind is None:
        return None
    if kind[0] not in ("r", "p"):
        raise RefusedError(
            f"{relation(schema, table)} is in PostgreSQL, and it is no table",
            fix="rename it, or put the replica into a schema of its own (schema = …)",
        )
    found = cursor.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), "
        "a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' "
        "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        [schema, table],
    ).fetchall()
    return {name: (kind, required) for name, kind, required in found}


def _has_key(cursor: Any, schema: str, shape: TableShape) -> bool:
    found = cursor.execute(
        "SELECT array_agg(a.attname ORDER BY a.attname), bool_and(a.attnotnull) OR i.indnullsnotdistinct "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) "
        "WHERE n.nspname = %s AND c.relname = %s AND i.indisunique AND i.indpred IS NULL "
        "AND i.indexprs IS NULL "
        "GROUP BY i.indexrelid, i.indnullsnotdistinct",
        [schema, shape.name],
    ).fetchall()
    return any(sorted(names) == sorted(shape.key) and exact for names, exact in found)
