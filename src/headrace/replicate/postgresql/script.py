"""The script that prepares a database: schema, tables, indexes and, when asked for, roles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.replicate.postgresql.schema import create_table, cursor_table, later_columns, quoted, relation
from headrace.replicate.protocol import TableShape

__all__ = ["READER", "WRITER", "init_sql"]

WRITER = "headrace_writer"
READER = "headrace_reader"
_TIME = "TIMESTAMP WITH TIME ZONE"
_NAME_BYTES_MAX = 63


def init_sql(
    schema: str, shapes: Iterable[TableShape], *, stamped: bool = False, roles: bool = False
) -> Iterator[str]:
    """Give the statements that make everything which a replica needs; each may be run again.

    With `roles`, also two roles that nobody can log in with, so that they need no password: members of
    `headrace_writer` may do what the replica does, those of `headrace_reader` may look.
    """
    if roles:
        for role in (WRITER, READER):
            yield (
                f"DO $$ BEGIN\n    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN\n"
                f"        CREATE ROLE {role} NOLOGIN;\n    END IF;\nEND $$"
            )
    if schema != "public":
        yield f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}"
    yield cursor_table(schema)
    yield from later_columns(schema)
    for shape in shapes:
        yield create_table(schema, shape, stamped=stamped)
        yield from _indexes(schema, shape)
    if roles:
        name = quoted(schema)
        yield f"GRANT USAGE ON SCHEMA {name} TO {WRITER}, {READER}"
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {WRITER}"
        yield f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {READER}"
        yield f"ALTER DEFAULT PRIVILEGES IN SCHEMA {name} GRANT SELECT ON TABLES TO {READER}"


def _indexes(schema: str, shape: TableShape) -> Iterator[str]:
    """Give an index for questions about one key over time; the table's own key begins with the window."""
    kinds = {column.name: column.type for column in shape.columns}
    times = [name for name in shape.key if kinds[name] == _TIME]
    others = [name for name in shape.key if kinds[name] != _TIME]
    if times and others:
        name = f"{shape.name}_by_{'_'.join(others)}".encode()[:_NAME_BYTES_MAX].decode(errors="ignore")
        columns = ", ".join([*map(quoted, others), f"{quoted(times[0])} DESC"])
        yield f"CREATE INDEX IF NOT EXISTS {quoted(name)} ON {relation(schema, shape.name)} ({columns})"
