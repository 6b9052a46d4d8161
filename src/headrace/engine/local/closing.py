"""Closes windows behind the frontier, and takes closed ones out of the store once they are older than `keep`.

While records behind the frontier are being read (see `frontier.note_behind`) nothing is closed or taken out:
more of them may come, and each would be a correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headrace.engine.local.compute import Delta
from headrace.engine.local.frontier import closed_end, held, table_frontier
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.store.finished import finish_windows, first_unfinished
from headrace.store.instants import micros_of_length
from headrace.store.names import side_name, state_name, text_literal
from headrace.store.progress import Progress, TableProgress
from headrace.store.results import log_expired
from headrace.store.schema import finished_columns

__all__ = ["Closings"]

_STEPS_OF_KEEP = 16
"""Old windows are taken out in steps of this share of `keep`, so that not every epoch deletes."""


@dataclass(slots=True)
class _Ends:
    """What is in a table's state, at least: the first end that is open, and the first end at all.

    `unfinished` is the first start of a window that keeps no values of its side tables yet.
    """

    open: int | None = None
    oldest: int | None = None
    unfinished: int | None = None


class Closings:
    """Knows, without asking the store, when an epoch has windows to close or to retire."""

    def __init__(self, plan: PipelinePlan, connection: Any, progress: Progress) -> None:
        self._tables = [
            table for table in plan.tables if table.kind in _CLOSED or table.table.keep is not None
        ]
        self._tables = [
            table for table in self._tables if table.kind not in (TableClass.VIEW, TableClass.KEYED)
        ]
        self._lateness = {
            table.name: max(micros_of_length(plan.streams[s].stream.allowed_lateness) for s in table.sources)
            for table in self._tables
        }
        self._ends: dict[str, _Ends] = {}
        for table in self._tables:
            self._ends[table.name] = self._read(table, connection, progress.tables[table.name])
        self._before: dict[str, _Ends] | None = None

    def _until(self, table: TablePlan, through: int) -> str:
        """Return the condition for rows that end at `through` or before.

        On a plain column so that it is cheap.
        """
        if table.kind is TableClass.ROWS:
            return f"_time <= make_timestamptz({through})"
        if table.kind is TableClass.SESSION or table.window is None:
            return f"window_end <= make_timestamptz({through})"
        return f"window_start <= make_timestamptz({through - micros_of_length(table.window.size)})"

    def _end(self, table: TablePlan) -> str:
        """Return the expression for a row's end in microseconds."""
        if table.kind is TableClass.ROWS:
            return "epoch_us(_time)"
        if table.kind is TableClass.SESSION or table.window is None:
            return "epoch_us(window_end)"
        return f"epoch_us(window_start) + {micros_of_length(table.window.size)}"

    def _read(self, table: TablePlan, connection: Any, progress: TableProgress) -> _Ends:
        end = self._end(table)
        closed = progress.closed_through
        still = "true" if closed is None else f"NOT ({self._until(table, closed)})"
        first, oldest = connection.execute(
            f"SELECT min({end}) FILTER (WHERE {still}), min({end}) FROM {state_name(table.name)}"
        ).fetchall()[0]
        return _Ends(first, oldest, first_unfinished(connection, table))

    # --- what an epoch does with it

    def touched(self, name: str, delta: Delta, progress: TableProgress) -> None:
        """Take note of the windows that a batch wrote, and count corrections."""
        if name not in self._ends or delta.lowest is None:
            return
        self._keep_copy()
        table = next(table for table in self._tables if table.name == name)
        size = (
            0
            if table.kind is TableClass.ROWS or table.window is None
            else micros_of_length(table.window.size)
        )
        ends = self._ends[name]
        lowest = delta.lowest + size
        ends.oldest = lowest if ends.oldest is None else min(ends.oldest, lowest)
        ends.unfinished = delta.lowest if ends.unfinished is None else min(ends.unfinished, delta.lowest)
        closed = progress.closed_through
        if closed is not None and lowest <= closed:
            # Something open may be among what was written as well: its end is the next after what is closed.
            lowest = closed + 1
        ends.open = lowest if ends.open is None else min(ends.open, lowest)

    def due(self, progress: Progress) -> bool:
        """Return whether `progress` has come so far that a window is to be closed or retired."""
        return any(
            self._closes(table, progress) is not None or self._retires(table, progress) is not None
            for table in self._tables
        )

    def _closes(self, table: TablePlan, progress: Progress) -> int | None:
        """Return the end up to which windows are closed now, if one of them is in the state."""
        end, first = self._reached(table, progress), self._ends[table.name].open
        return end if end is not None and first is not None and first <= end else None

    def _reached(self, table: TablePlan, progress: Progress) -> int | None:
        """Return the end up to which windows are closed now, also if none is there; None if it stays."""
        frontier = table_frontier(progress, table.sources)
        if table.window is None or frontier is None or held(progress, table.sources):
            return None
        end = closed_end(table.window, frontier, self._lateness[table.name])
        done = progress.tables[table.name].closed_through
        return end if done is None or end > done else None

    def _retires(self, table: TablePlan, progress: Progress) -> int | None:
        keep, oldest = table.table.keep, self._ends[table.name].oldest
        frontier = table_frontier(progress, table.sources)
        if keep is None or oldest is None or frontier is None or held(progress, table.sources):
            return None
        facts = progress.tables[table.name]
        kept = micros_of_length(keep)
        through = frontier - kept
        if table.window is not None:
            if facts.closed_through is None:
                return None
            through = min(through, facts.closed_through)
        done = facts.retired_through
        return (
            through
            if oldest <= through and (done is None or through - done >= kept // _STEPS_OF_KEEP)
            else None
        )

    def close(self, connection: Any, progress: Progress) -> None:
        """Write down what is closed now and delete what is retired, inside the transaction."""
        closed: list[tuple[str, int]] = []
        for table in self._tables:
            facts = progress.tables[table.name]
            if facts.rebuild is not None:
                continue
            end = self._reached(table, progress)
            if end is not None:
                if self._closes(table, progress) is not None and self._close(table, connection, facts, end):
                    closed.append((table.name, end))
                # Also when nothing was there to close: what is closed is a matter of time, not of epochs.
                facts.closed_through = end
            through = self._retires(table, progress)
            if through is not None:
                self._retire(table, connection, facts, progress.epoch, through)
        if closed:
            rows = ", ".join(
                f"({text_literal(name)}, make_timestamptz({end}), {progress.epoch})" for name, end in closed
            )
            connection.execute(f"INSERT INTO _headrace._closings VALUES {rows}")

    def _close(self, table: TablePlan, connection: Any, facts: TableProgress, end: int) -> bool:
        """Finish the windows that end at `end` or before; return whether there are any."""
        self._keep_copy()
        expression, done = self._end(table), facts.closed_through
        lowest = f"NOT ({self._until(table, done)})" if done is not None else "true"
        count, following = connection.execute(
            f"SELECT count(*) FILTER (WHERE {expression} <= {end}), min({expression}) "
            f"FILTER (WHERE {expression} > {end}) "
            f"FROM {state_name(table.name)} WHERE {lowest}"
        ).fetchall()[0]
        ends = self._ends[table.name]
        ends.open = following
        if finished_columns(table) and ends.unfinished is not None:
            ends.unfinished = finish_windows(connection, table, start=ends.unfinished, end=end)
        return bool(count)

    def _retire(
        self, table: TablePlan, connection: Any, facts: TableProgress, epoch: int, through: int
    ) -> None:
        self._keep_copy()
        state, expression = state_name(table.name), self._end(table)
        if facts.expired:
            forgotten = log_expired(connection, table, epoch, through)
            if forgotten is not None:  # in another dictionary: the committed progress holds this one, too
                facts.expired = {name: max(since, forgotten) for name, since in facts.expired.items()}
        connection.execute(f"DELETE FROM {state} WHERE {self._until(table, through)}")
        for aggregate in table.aggregates:
            if aggregate.side is not None:
                self._retire_side(table, connection, side_name(table.name, aggregate.name), through)
        facts.retired_through = through
        self._ends[table.name].oldest = connection.execute(
            f"SELECT min({expression}) FROM {state}"
        ).fetchall()[0][0]

    def _retire_side(self, table: TablePlan, connection: Any, side: str, through: int) -> None:
        if table.kind is not TableClass.SESSION:
            connection.execute(f"DELETE FROM {side} WHERE {self._until(table, through)}")
            return
        same = "".join(f' AND s."{key.name}" IS NOT DISTINCT FROM x."{key.name}"' for key in table.keys)
        connection.execute(
            f"DELETE FROM {side} AS x WHERE x.window_start <= make_timestamptz({through}) AND NOT EXISTS "
            f"(SELECT 1 FROM {state_name(table.name)} s WHERE x.window_start >= s.window_start "
            f"AND x.window_start < s.window_end{same})"
        )

    # --- a transaction that fails leaves the knowledge as it was

    def _keep_copy(self) -> None:
        if self._before is None:
            self._before = {name: replace(ends) for name, ends in self._ends.items()}

    def committed(self) -> None:
        """The transaction is in the file."""
        self._before = None

    def rolled_back(self) -> None:
        """The transaction is gone."""
        if self._before is not None:
            self._ends, self._before = self._before, None


_CLOSED: Mapping[TableClass, bool] = {TableClass.WINDOWED: True, TableClass.SESSION: True}
