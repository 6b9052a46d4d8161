"""Rows that come, met with the rows of files: which of either stay."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from headrace.replicate.parquet.datafiles import Source, read_rows
from headrace.store.names import quoted

__all__ = ["Incoming"]


class Incoming:
    """Rows and removed keys of a chunk. A row never replaces one with a greater version."""

    def __init__(self, key: tuple[str, ...], rows: pa.Table, removed: pa.Table) -> None:
        self._key = key
        self._rows = rows
        self._stale = set[int]()
        names = [*key, "_version"]
        numbers = pa.array([*range(rows.num_rows), *([None] * removed.num_rows)], pa.int64())
        both = pa.concat_tables([rows.select(names), removed.select(names)])
        self._keys = both.append_column("_number", numbers)

    def meet(self, source: Source) -> pa.Table | None:
        """Return the rows of a file that stay; None when all of them do."""
        old = read_rows(source, [*self._key, "_version"])
        old = old.append_column("_number", pa.array(range(old.num_rows), pa.int64()))
        same = " AND ".join(f"o.{quoted(name)} IS NOT DISTINCT FROM n.{quoted(name)}" for name in self._key)
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("_old", old)
            connection.register("_new", self._keys)
            met = connection.execute(
                'SELECT o."_number", n."_number", o."_version" <= n."_version" FROM _old o JOIN _new n ON '
                + same
            ).fetchall()
        self._stale |= {new for _, new, replaced in met if not replaced and new is not None}
        out = {number for number, _, replaced in met if replaced}
        if not out:
            return None
        return read_rows(source).filter(pa.array([number not in out for number in range(old.num_rows)]))

    def rows(self) -> pa.Table:
        """Return the rows that no file of those that were met has a greater version of."""
        if not self._stale:
            return self._rows
        return self._rows.filter(pa.array([i not in self._stale for i in range(self._rows.num_rows)]))
