"""The row stage on several threads: a large slice is cut, and each part goes through a stage of its own.

What becomes of a record depends on that record alone, so where a slice is cut changes nothing. NumPy, Arrow
and DuckDB release Python's lock while they work.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from headrace.rows.framing import Framing
from headrace.rows.outcomes import add_up
from headrace.rows.result import RowResult
from headrace.rows.stage import RowStage
from headrace.sql.plan import StreamPlan

__all__ = ["ParallelStage"]

_PART_ROWS = 4_000
"""A part has so many records at least: handing it over costs as much as some hundred."""


class ParallelStage:
    """A `RowStage` that decodes large slices on `threads` threads.

    A stream with a framing or with functions of the user stays on one: a registry's client and a user's code
    need not expect two callers at once.
    """

    def __init__(self, plan: StreamPlan, framing: Framing | None = None, *, threads: int = 1) -> None:
        threads = 1 if framing is not None or plan.functions else threads
        self._stages = [RowStage(plan, framing) for _ in range(max(threads, 1))]
        self._pool = ThreadPoolExecutor(len(self._stages), thread_name_prefix="headrace-rows")

    def run(self, records: pa.Table, *, lane: str = "main") -> RowResult:
        """Give every record its outcome; see `RowStage.run`."""
        count = min(len(self._stages), records.num_rows // _PART_ROWS)
        if count < 2:
            return self._stages[0].run(records, lane=lane)
        rows = -(-records.num_rows // count)
        asked = [
            self._pool.submit(stage.run, records.slice(number * rows, rows), lane=lane)
            for number, stage in enumerate(self._stages[1:count], 1)
        ]
        try:
            found = [self._stages[0].run(records.slice(0, rows), lane=lane)]
        finally:
            rest = [each.exception() for each in asked]
        for error in rest:
            if error is not None:
                raise error
        found += [each.result() for each in asked]
        return RowResult(
            timely=pa.concat_tables([each.timely for each in found]),
            late=pa.concat_tables([each.late for each in found]),
            dead=pa.concat_tables([each.dead for each in found]),
            rules=add_up([each.rules for each in found]),
        )

    def close(self) -> None:
        """Give back the stages and their threads."""
        self._pool.shutdown()
        for stage in self._stages:
            stage.close()
