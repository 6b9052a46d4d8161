"""What differs between two results of a view, and whether the rows of one can be told apart."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from headrace.store.names import quoted

__all__ = ["difference", "repeated_keys"]


def difference(before: pa.Table, now: pa.Table, key: tuple[str, ...]) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `now` that are not in `before`, and the keys of `before` that are not in `now`.

    Without a key, the second table holds as many rows as are in `before` only, and no column of use.
    """
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("_before", before)
        connection.register("_now", now)
        changed = connection.sql("SELECT * FROM _now EXCEPT ALL SELECT * FROM _before").to_arrow_table()
        if not key:
            return changed, now.slice(0, 0).select([])
        same = " AND ".join(f"b.{quoted(name)} IS NOT DISTINCT FROM n.{quoted(name)}" for name in key)
        names = ", ".join(f"b.{quoted(name)}" for name in key)
        gone = connection.sql(f"SELECT {names} FROM _before b ANTI JOIN _now n ON {same}").to_arrow_table()
        return changed.cast(now.schema), gone
    finally:
        connection.close()


def repeated_keys(rows: pa.Table, key: tuple[str, ...]) -> int:
    """Return how many keys stand for more than one row each."""
    names = ", ".join(quoted(name) for name in key)
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("_rows", rows)
        several = f"SELECT 1 FROM _rows GROUP BY {names} HAVING count(*) > 1"
        found: int = connection.execute(f"SELECT count(*) FROM ({several})").fetchall()[0][0]
        return found
    finally:
        connection.close()
