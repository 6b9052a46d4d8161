"""Reference tables on their way to executors: each version is sent once, as long as a query runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headrace.engine.spark.wire import packed
from headrace.rows.database import arrow_of
from headrace.store.names import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SentReferences"]


class SentReferences:
    """The tables of these names in the store, as the executors of a session have them."""

    def __init__(self, connection: Any, names: Iterable[str]) -> None:
        self._connection = connection
        self._names = tuple(names)
        self._known: list[Any] = []
        self._sent: tuple[Any, int] | None = None

    def forget(self) -> None:
        """Say that another query begins: its executors have nothing yet."""
        self._sent = None

    def by(self, session: SparkSession) -> tuple[Any, int]:
        """Return a broadcast of the tables as they are now, and a number that grows when one changed."""
        known = self._connection.execute('SELECT * FROM _headrace."references" ORDER BY ALL').fetchall()
        if self._sent is None or known != self._known:
            tables = {
                name: packed(arrow_of(self._connection, f"FROM {quoted(f'_reference_{name}')}"))
                for name in self._names
            }
            version = 1 if self._sent is None else self._sent[1] + 1
            self._sent = (session.sparkContext.broadcast(tables), version)
            self._known = known
        return self._sent
