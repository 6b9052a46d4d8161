"""Opens the store's DuckDB file, with the settings that every store has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb

from headrace.errors import IntegrityError, RefusedError
from headrace.store.lock import holder_of
from headrace.store.names import text_literal

__all__ = ["MEMORY_LIMIT", "connect", "prepare_session"]

MEMORY_LIMIT = "192MiB"
"""What DuckDB may use for the store; beyond it, it spills to the folder beside the file."""

CHECKPOINT_BYTES = "16MiB"


def connect(path: Path, *, read_only: bool = False) -> Any:
    """Open the file, made when it is absent.

    Raises RefusedError with what the system said, or who holds it.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "threads": str(min(2, os.cpu_count() or 1)),
        "temp_directory": str(path.with_name(path.name + ".tmp")),
        "preserve_insertion_order": "false",
        "checkpoint_threshold": CHECKPOINT_BYTES,
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    try:
        connection = duckdb.connect(str(path), read_only=read_only, config=config)
        prepare_session(connection)
        # A query of a user must not read or write files; the engine hands everything over as Arrow tables.
        connection.execute("SET enable_external_access = false")
    except duckdb.IOException as error:
        raise _refused(path, str(error)) from error
    except duckdb.FatalException as error:
        raise IntegrityError(
            f"the store {path} cannot be read: {error}",
            fix="keep the file; restore it, or remove it and run again",
        ) from error
    return connection


def prepare_session(connection: Any) -> None:
    """Give a connection or a cursor the settings that belong to it: instants are shown and read in UTC."""
    connection.execute("SET TimeZone = 'UTC'")


def _refused(path: Path, said: str) -> RefusedError:
    if "lock" in said.lower():
        lock = path.with_name(path.name + ".lock")
        return RefusedError(
            f"the store {path} is held by {holder_of(lock)}",
            fix="stop that process, or ask the running pipeline (`headrace status`, `headrace sql`)",
        )
    return RefusedError(
        f"the store {path} cannot be opened: {said.strip()}",
        fix=(
            "check that the folder exists and may be written, that the disk has room, and "
            "that the file is a store"
        ),
    )


def setting(name: str, value: str) -> str:
    """Return the statement that sets one of DuckDB's settings."""
    return f"SET {name} = {text_literal(value)}"
