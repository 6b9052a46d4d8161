"""Side tables: the counted values of every group, appended by each batch and compacted now and then."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.engine.local.compute import Delta, EpochContext
from headrace.errors import RefusedError
from headrace.sql.plan import TablePlan
from headrace.store.names import quoted, side_name
from headrace.store.schema import key_columns

__all__ = ["Sides"]

_APPENDED_MIN = 50_000
"""So many rows are appended before any are compacted."""


@dataclass(slots=True)
class _Held:
    """What is known of one side table without asking; `rows` may count rows that are gone.

    left      rows that the last compaction left in the windows it looked at
    appended  rows since, `lowest` the least window start among them; None: everything is looked at
    """

    rows: int
    left: int
    appended: int = 0
    lowest: int | None = None


class Sides:
    """The side tables of one table.

    A batch appends its counts without looking at what is there, and reading adds them up. A compaction does
    that in place, for the windows that were written since the last one. It comes when more rows were appended
    than the last one left, so that its work is a fixed share of the work of appending.
    """

    def __init__(self, plan: TablePlan, values_max: int) -> None:
        self._plan = plan
        self._values_max = values_max
        self._keys = "".join(f"{key}, " for key in key_columns(plan))
        self._held: dict[str, _Held] = {}

    def append(self, context: EpochContext, delta: Delta) -> None:
        """Append the counted values of a batch; raises RefusedError when they are more than there may be."""
        for name, values in delta.sides.items():
            if not values.num_rows:
                continue
            relation = side_name(self._plan.name, name)
            held = self._held.get(name)
            if held is None:
                rows = _count(context, relation)
                # Where there are no windows, a compaction looks at all that is there: not at every start.
                left = rows if delta.lowest is None else 0
                held = self._held[name] = _Held(rows, left, lowest=delta.lowest)
            feed = f"_side_{self._plan.name}_{name}"
            context.queries.put(feed, values)
            context.queries.write(
                f'INSERT INTO {relation} ({self._keys}"_value", "_count", _epoch) '
                f'SELECT {self._keys}"_value", "_count", $1 FROM {quoted(feed)}',
                context.epoch,
            )
            held.rows += values.num_rows
            held.appended += values.num_rows
            if held.lowest is not None and delta.lowest is not None:
                held.lowest = min(held.lowest, delta.lowest)
            if held.appended > max(_APPENDED_MIN, held.left):
                self._compact(context, relation, held)
                held.lowest = delta.lowest
            if held.rows > self._values_max:
                self._check_limit(context, relation, held)
                held.lowest = delta.lowest

    def _compact(self, context: EpochContext, relation: str, held: _Held) -> None:
        """Make one row of the rows of each group and value, in the windows from `held.lowest` on."""
        connection = context.connection
        where = "" if held.lowest is None else f" WHERE window_start >= make_timestamptz({held.lowest})"
        connection.execute(
            f'CREATE OR REPLACE TEMP TABLE _compacted AS SELECT {self._keys}"_value", '
            f'CAST(sum("_count") AS BIGINT) AS "_count", max(_epoch) AS _epoch '
            f"FROM {relation}{where} GROUP BY ALL"
        )
        removed = connection.execute(f"DELETE FROM {relation}{where}").fetchall()[0][0]
        held.left = connection.execute(
            f'INSERT INTO {relation} ({self._keys}"_value", "_count", _epoch) FROM temp._compacted'
        ).fetchall()[0][0]
        connection.execute("DROP TABLE temp._compacted")
        held.rows -= removed - held.left
        held.appended = 0

    def _check_limit(self, context: EpochContext, relation: str, held: _Held) -> None:
        """Raise RefusedError when there are too many values; the epoch is not written then."""
        held.rows = _count(context, relation)
        if held.rows <= self._values_max:
            return
        held.lowest = None
        self._compact(context, relation, held)
        held.rows = held.left
        if held.rows > self._values_max:
            raise RefusedError(
                f"table '{self._plan.name}' must remember {held.rows} distinct values for an exact answer; "
                f"the limit is {self._values_max}",
                fix="give the table `keep`, use approx_count_distinct over fewer keys, "
                "or raise engine_settings.side_values_max",
            )


def _count(context: EpochContext, relation: str) -> int:
    return int(context.connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])
