"""Which appends were asked for under a key, and what was answered: a bounded table in a SQLite file.

Before records are appended, their key is noted with where the log ended (`begin`, on the disk when it
returns); afterwards, what was answered (`finish`). A crash in between leaves a key that was begun: whoever
finds it looks behind the noted ends for the records themselves, which carry the key in a header.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.log.database import Connection, errors_named

__all__ = ["Answered", "AnsweredKeys"]

_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    stream TEXT NOT NULL, key TEXT NOT NULL, content BLOB NOT NULL, begun_us INTEGER NOT NULL,
    ends TEXT NOT NULL, answer TEXT, PRIMARY KEY (stream, key)) WITHOUT ROWID"""
_INDEX = "CREATE INDEX IF NOT EXISTS keys_by_time ON keys (begun_us)"
_FORGET_EVERY = 256


@dataclass(frozen=True)
class Answered:
    """What is known of a key: a hash of what was asked, when, where the log ended, the answer or None."""

    content: bytes
    begun_us: int
    ends: Mapping[int, int]
    answer: Mapping[str, Any] | None


class AnsweredKeys:
    """Keys of the last `kept_us` microseconds, at most `keys_max`: the oldest are forgotten first."""

    def __init__(self, path: Path, *, kept_us: int, keys_max: int) -> None:
        self._kept_us = kept_us
        self._keys_max = keys_max
        self._since_forgotten = 0
        self._connection = Connection(path, synchronous="FULL")
        path.parent.mkdir(parents=True, exist_ok=True)
        with errors_named(path), self._connection.held() as sqlite:
            sqlite.execute("PRAGMA journal_mode = WAL")
            with self._connection.writing():
                sqlite.execute(_TABLE)
                sqlite.execute(_INDEX)

    def find(self, stream: str, key: str, now_us: int) -> Answered | None:
        """Return what is known of `key`; None when it is new or older than the horizon."""
        with self._connection.held() as sqlite:
            row = sqlite.execute(
                "SELECT content, begun_us, ends, answer FROM keys "
                "WHERE stream = ? AND key = ? AND begun_us > ?",
                (stream, key, now_us - self._kept_us),
            ).fetchone()
        if row is None:
            return None
        content, begun_us, noted, answer = row
        ends = {int(partition): end for partition, end in json.loads(noted).items()}
        return Answered(content, begun_us, ends, None if answer is None else json.loads(answer))

    def begin(
        self, stream: str, keys: Sequence[tuple[str, bytes]], ends: Mapping[int, int], now_us: int
    ) -> None:
        """Note (key, hash of content) of requests whose records are about to be appended; durable."""
        noted = json.dumps({str(partition): end for partition, end in ends.items()})
        with self._connection.writing() as sqlite:
            sqlite.executemany(
                "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, NULL)",
                [(stream, key, content, now_us, noted) for key, content in keys],
            )
            self._since_forgotten += len(keys)
            if self._since_forgotten >= _FORGET_EVERY:
                self._since_forgotten = 0
                self._forget(sqlite, now_us)

    def _forget(self, sqlite: sqlite3.Connection, now_us: int) -> None:
        sqlite.execute("DELETE FROM keys WHERE begun_us <= ?", (now_us - self._kept_us,))
        row = sqlite.execute(
            "SELECT begun_us FROM keys ORDER BY begun_us DESC LIMIT 1 OFFSET ?", (self._keys_max,)
        ).fetchone()
        if row is not None:
            sqlite.execute("DELETE FROM keys WHERE begun_us <= ?", row)

    def finish(self, stream: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what was answered."""
        with self._connection.held() as sqlite:
            # An answer that a power cut takes is found again in the log: it need not wait for the disk.
            sqlite.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._connection.writing():
                    sqlite.executemany(
                        "UPDATE keys SET answer = ? WHERE stream = ? AND key = ?",
                        [(json.dumps(answer), stream, key) for key, answer in answers.items()],
                    )
            finally:
                sqlite.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Give back the file."""
        self._connection.close()
