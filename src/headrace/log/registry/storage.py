"""What the embedded registry remembers, in one SQLite file that several processes may share.

A schema's content has one id, for ever and under every subject. Writes take SQLite's write lock before they
read, so that two processes cannot give one id or one version twice.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import RefusedError, TransientError

__all__ = ["Reference", "Storage", "StoredSchema", "StoredVersion"]

_BUSY_MS = 10_000
_TABLES = """
CREATE TABLE IF NOT EXISTS schemas (
    id INTEGER PRIMARY KEY, guid TEXT NOT NULL, fingerprint TEXT NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, refs TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS schemas_by_fingerprint ON schemas (fingerprint);
CREATE INDEX IF NOT EXISTS schemas_by_guid ON schemas (guid);
CREATE TABLE IF NOT EXISTS versions (
    subject TEXT NOT NULL, version INTEGER NOT NULL, schema_id INTEGER NOT NULL REFERENCES schemas (id),
    deleted INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (subject, version)
);
CREATE INDEX IF NOT EXISTS versions_by_schema ON versions (schema_id);
CREATE TABLE IF NOT EXISTS subject_numbers (subject TEXT PRIMARY KEY, last_version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (
    subject TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (subject, name)
);
"""


@dataclass(frozen=True)
class Reference:
    """A name that a schema uses, and the registered version that it stands for."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True)
class StoredSchema:
    """A schema's content. `kind` is AVRO or JSON."""

    id: int
    guid: str
    kind: str
    text: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class StoredVersion:
    """A version of a subject; `deleted`: softly, so that its id still reads."""

    subject: str
    version: int
    schema: StoredSchema
    deleted: bool


_VERSION = """SELECT v.subject, v.version, v.deleted, s.id, s.guid, s.kind, s.text, s.refs
              FROM versions v JOIN schemas s ON s.id = v.schema_id"""


class Storage:
    """The opened file. Calls may come from several threads, one at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises RefusedError when it is not a registry's or cannot be written."""
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            with contextlib.ExitStack() as undo:
                undo.callback(self._connection.close)
                self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.executescript(_TABLES)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise RefusedError(
                f"{path} cannot be opened as a schema registry: {error}",
                fix="name a file that you may write to, or one that does not exist yet",
            ) from None

    def close(self) -> None:
        """Give back the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the write lock: all inside happens, or nothing. Raises TransientError when busy."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise TransientError(f"the registry's file is busy: {error}") from None
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    # -- schemas -------------------------------------------------------------------------------------------

    def schema(self, number: int) -> StoredSchema | None:
        """Return the schema of an id."""
        return _schema(self._rows("SELECT id, guid, kind, text, refs FROM schemas WHERE id = ?", number))

    def schema_by_guid(self, guid: str) -> StoredSchema | None:
        """Return the schema of a guid."""
        return _schema(self._rows("SELECT id, guid, kind, text, refs FROM schemas WHERE guid = ?", guid))

    def schema_by_fingerprint(self, fingerprint: str) -> StoredSchema | None:
        """Return the schema whose content has this fingerprint."""
        return _schema(
            self._rows("SELECT id, guid, kind, text, refs FROM schemas WHERE fingerprint = ?", fingerprint)
        )

    def last_id(self) -> int:
        """Return the highest id given so far; 0: none."""
        return int(self._rows("SELECT coalesce(max(id), 0) FROM schemas")[0][0])

    def add_schema(
        self,
        number: int,
        guid: str,
        fingerprint: str,
        kind: str,
        text: str,
        references: tuple[Reference, ...],
    ) -> None:
        """Keep a schema under an id that is free; inside `changing`."""
        refs = json.dumps([[each.name, each.subject, each.version] for each in references])
        self._rows(
            "INSERT INTO schemas VALUES (?, ?, ?, ?, ?, ?)", number, guid, fingerprint, kind, text, refs
        )

    # -- versions ------------------------------------------------------------------------------------------

    def versions(self, subject: str, *, deleted: bool = False) -> list[StoredVersion]:
        """Return the versions of a subject, oldest first; `deleted`: also those that are softly deleted."""
        where = "" if deleted else " AND NOT v.deleted"
        return [
            _version(row)
            for row in self._rows(f"{_VERSION} WHERE v.subject = ?{where} ORDER BY v.version", subject)
        ]

    def all_versions(self, *, deleted: bool = False) -> list[StoredVersion]:
        """Return the versions of all subjects, by subject and version."""
        where = "" if deleted else " WHERE NOT v.deleted"
        return [_version(row) for row in self._rows(f"{_VERSION}{where} ORDER BY v.subject, v.version")]

    def versions_of_schema(self, number: int, *, deleted: bool = False) -> list[StoredVersion]:
        """Return where a schema is registered."""
        where = "" if deleted else " AND NOT v.deleted"
        sql = f"{_VERSION} WHERE v.schema_id = ?{where} ORDER BY v.subject, v.version"
        return [_version(row) for row in self._rows(sql, number)]

    def last_version(self, subject: str) -> int:
        """Return the highest version number that the subject ever had."""
        rows = self._rows("SELECT last_version FROM subject_numbers WHERE subject = ?", subject)
        return int(rows[0][0]) if rows else 0

    def add_version(self, subject: str, version: int, number: int) -> None:
        """Register a schema as a version; inside `changing`."""
        self._rows("INSERT OR REPLACE INTO versions VALUES (?, ?, ?, 0)", subject, version, number)
        highest = max(version, self.last_version(subject))
        self._rows("INSERT OR REPLACE INTO subject_numbers VALUES (?, ?)", subject, highest)

    def delete_versions(self, subject: str, version: int | None = None, *, permanent: bool = False) -> None:
        """Delete one version or all; softly, or for good: an empty subject then counts from 1."""
        only, values = ("", ()) if version is None else (" AND version = ?", (version,))
        if not permanent:
            self._rows(f"UPDATE versions SET deleted = 1 WHERE subject = ?{only}", subject, *values)
            return
        self._rows(f"DELETE FROM versions WHERE subject = ?{only}", subject, *values)
        if version is None:
            self._rows("DELETE FROM subject_numbers WHERE subject = ?", subject)

    def referring(self, subject: str, version: int) -> list[int]:
        """Return the ids of schemas that refer to a version and are themselves registered."""
        rows = self._rows(
            """SELECT DISTINCT s.id FROM schemas s JOIN versions v ON v.schema_id = s.id AND NOT v.deleted,
                      json_each(s.refs) r
               WHERE json_extract(r.value, '$[1]') = ? AND json_extract(r.value, '$[2]') = ? ORDER BY s.id""",
            subject,
            version,
        )
        return [int(number) for (number,) in rows]

    # -- settings ------------------------------------------------------------------------------------------

    def setting(self, name: str, subject: str = "") -> str | None:
        """Return a setting of a subject, or without one that of the whole registry."""
        rows = self._rows("SELECT value FROM settings WHERE subject = ? AND name = ?", subject, name)
        return str(rows[0][0]) if rows else None

    def set_setting(self, name: str, value: str | None, subject: str = "") -> None:
        """Change a setting; None takes it away."""
        self._rows("DELETE FROM settings WHERE subject = ? AND name = ?", subject, name)
        if value is not None:
            self._rows("INSERT INTO settings VALUES (?, ?, ?)", subject, name, value)


def _schema(rows: list[tuple[Any, ...]]) -> StoredSchema | None:
    if not rows:
        return None
    number, guid, kind, text, refs = rows[0]
    return StoredSchema(number, guid, kind, text, tuple(Reference(*each) for each in json.loads(refs)))


def _version(row: tuple[Any, ...]) -> StoredVersion:
    subject, version, deleted, *schema = row
    found = _schema([tuple(schema)])
    if found is None:
        raise RefusedError(f"version {version} of subject '{subject}' has no schema")
    return StoredVersion(subject, version, found, bool(deleted))
