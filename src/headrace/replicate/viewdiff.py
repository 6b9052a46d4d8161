"""What differs between two results of a view."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from headrace.store.names import quoted

__all__ = ["difference"]


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
