"""Tables in PostgreSQL 15 or later: COPY to staging, an upsert, deletes and the cursor in one transaction."""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from headrace.errors import ProfileError
from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.postgresql.script import init_sql
from headrace.replicate.protocol import ReplicaWriter, TableShape, Task

__all__ = ["PostgresReplica"]


@dataclass(frozen=True, kw_only=True)
class PostgresReplica(CommonOptions):
    """Keeps tables in a schema of PostgreSQL. Connects only in `open`."""

    dsn: Revealed | None = setting(
        "secret", None, "where the database is: postgresql://user:password@host:5432/name", required=True
    )
    schema: str = setting("text", "public", "the schema that holds the tables; made when it is absent")
    stamps: str = setting(
        "one of",
        "off",
        "on: every table says when a row was written and by which epoch (updated_at, epoch)",
        choices={"off": "", "on": ""},
    )
    connect_timeout: timedelta = setting(
        "duration", timedelta(seconds=5), "how long a connection may take to come about"
    )
    lock_timeout: timedelta = setting(
        "duration", timedelta(seconds=10), "how long a row or table that somebody else holds is waited for"
    )

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        try:
            from headrace.replicate.postgresql.writer import PostgresWriter
        except ImportError as error:
            raise ProfileError(
                f"a PostgreSQL replica needs '{error.name}', which is not installed",
                fix="install it: pip install 'headrace[postgresql]'",
            ) from error
        return PostgresWriter(self, task)

    @property
    def stamped(self) -> bool:
        """Whether tables have `updated_at` and `epoch`."""
        return self.stamps == "on"

    def init_sql(self, tables: tuple[TableShape, ...], *, roles: bool = False) -> Iterator[str]:
        """Give the statements that make the target's tables, for `headrace export sql`."""
        return init_sql(self.schema, tables, stamped=self.stamped, roles=roles)
