"""Opens the store's DuckDB file, with the settings that every store has."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import duckdb

from headrace.errors import IntegrityError, RefusedError
from headrace.store.lock import holder_of
from headrace.store.memory import return_freed_memory
from headrace.store.names import text_literal

__all__ = [
    "MEMORY_LIMIT",
    "READER_PATIENCE_S",
    "connect",
    "connect_engine",
    "memory_is_full",
    "prepare_session",
]

MEMORY_LIMIT = "176MiB"
"""What DuckDB may use for the store; beyond it, it spills to the folder beside the file."""

CHECKPOINT_BYTES = "64MiB"

READER_PATIENCE_S = 3.0
"""How long an engine waits for a reader of the store: `headrace sql` is there for a second."""

_LOOK_AGAIN_S = 0.1


def connect_engine(path: Path) -> Any:
    """Open the file for the engine, which holds the store's lock; a reader may still be at its end.

    Raises RefusedError with what the system said, or that a reader stays.
    """
    return_freed_memory()
    end = time.monotonic() + READER_PATIENCE_S
    while True:
        try:
            return connect(path)
        except _LockedError as error:
            if time.monotonic() >= end:
                # Engines keep each other out by the lock that is ours by now, so this is no engine.
                raise RefusedError(
                    f"the store {path} is being read by {error.holder or 'another process'}",
                    fix="end that reader (such as `headrace sql` or a DuckDB shell) and run again",
                ) from error
            time.sleep(_LOOK_AGAIN_S)


class _LockedError(RefusedError):
    """Another process has the file open; `holder` says which, where DuckDB knows it."""

    holder = ""


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


def memory_is_full(error: Exception) -> bool:
    """Whether DuckDB found no room within its limit; a commit and Arrow only pass on what it said."""
    return isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error)


def _refused(path: Path, said: str) -> RefusedError:
    if "lock" in said.lower():
        lock = path.with_name(path.name + ".lock")
        error = _LockedError(
            f"the store {path} is held by {holder_of(lock)}",
            fix="stop that process, or ask the running pipeline (`headrace status`, `headrace sql`)",
        )
        found = re.search(r"\(PID (\d+)\)", said)
        error.holder = f"process {found[1]}" if found else ""
        return error
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
