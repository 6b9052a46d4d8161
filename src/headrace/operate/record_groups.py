"""From rows of a table to the records behind them: those that the table's row part puts into their groups.

The store says which group a row is, the log holds the records, and the row stage gives them the outcomes that
they had. This is the last step: it runs the row part again, over records that came in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.sql.plan import StreamPlan, TablePlan
from headrace.store.names import quoted

if TYPE_CHECKING:
    from headrace.engine.local.queries import Queries

__all__ = ["Address", "RecordGroups", "Sorted", "addresses_of"]

Address = tuple[int, int]
"""Partition and offset."""

_NOT_FOR_QUERIES = ("_size", "_key_hash", "_content_hash")


@dataclass(frozen=True)
class Sorted:
    """Where records belong.

    inside  by the number of a group: its records, in the order of their addresses
    others  records that are kept for other groups
    failed  records on which the query fails
    What is in none of them is left out by the query's WHERE.
    """

    inside: dict[int, list[Address]]
    others: frozenset[Address]
    failed: frozenset[Address]


class RecordGroups:
    """Sorts records of a stream by groups of one table, in a database of its own; `close` gives it back.

    groups     one row each, counted from 0: the grouping keys as `_key_NAME` and, where the table has
               windows, `_key_window_start` and `_key_window_end`; columns of other names do not matter
    reference  gives the rows of a reference table that the query joins
    """

    def __init__(
        self,
        plan: TablePlan,
        stream: StreamPlan,
        groups: pa.Table,
        reference: Callable[[str], pa.Table],
    ) -> None:
        import duckdb

        from headrace.engine.local.queries import Queries
        from headrace.rows.functions import register_functions
        from headrace.store.database import prepare_session

        self._plan = plan
        self._connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "128MiB"})
        prepare_session(self._connection)
        register_functions(self._connection, stream.functions)
        self._connection.execute("SET enable_external_access = false")
        self._queries: Queries = Queries(self._connection)
        for name in plan.references:
            self._queries.put(f"_reference_{name}", reference(name))
        numbers = pa.array(range(groups.num_rows), pa.int64())
        self._queries.put("_groups_asked", groups.append_column("_number", numbers))

    def sort(self, rows: pa.Table, lane: str = "main") -> Sorted:
        """Sort rows that came in time: the columns of `RowResult.timely`, or of late rows.

        Raises DeclarationError when a function of the user cannot be run here.
        """
        from headrace.engine.local.failing import set_aside
        from headrace.rows.functions import raise_unusable

        rows = rows.drop_columns([name for name in _NOT_FOR_QUERIES if name in rows.column_names])
        rows = rows.append_column("_lane", pa.repeat(pa.scalar(lane, pa.string()), rows.num_rows))
        good, failed = set_aside(self._queries, self._plan.row_sql, rows)
        raise_unusable(self._connection)
        self._queries.batch(good)
        inside: dict[int, list[Address]] = {}
        found: set[Address] = set()
        others: set[Address] = set()
        kept = self._queries.table(self._sql())
        for number, place in zip(kept.column("_number").to_pylist(), addresses_of(kept), strict=True):
            if number is None:
                others.add(place)
            else:
                inside.setdefault(number, []).append(place)
                found.add(place)
        places = frozenset((each.partition, each.offset) for each in failed)
        return Sorted(inside, frozenset(others - found), places)  # UNNEST may put a record into both

    def close(self) -> None:
        """Give back the database."""
        self._connection.close()

    def _sql(self) -> str:
        same = [
            f"r.{quoted(key.name)} IS NOT DISTINCT FROM CAST(g.{quoted(f'_key_{key.name}')} AS {key.type})"
            for key in self._plan.keys
        ]
        if self._plan.window is not None:
            same += ["r._time >= g._key_window_start", "r._time < g._key_window_end"]
        return (
            f"SELECT DISTINCT g._number, r._partition, r._offset FROM ({self._plan.row_sql}) r "
            f'LEFT JOIN "_groups_asked" g ON {" AND ".join(same) or "true"} ORDER BY ALL'
        )


def addresses_of(rows: pa.Table) -> list[Address]:
    """Return where rows are from, by their `_partition` and `_offset`."""
    return list(zip(rows.column("_partition").to_pylist(), rows.column("_offset").to_pylist(), strict=True))
