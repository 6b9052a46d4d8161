"""Our data source for Spark: a stream's records, with the outcomes that the row stage gives them.

`headrace` is read with confluent-kafka, so a cluster needs no connector. The row stage runs inside `read`, on
the executors. A row of what it gives is a part of a range of one partition, in two binary columns:

    facts  what the driver must know of the records: where they lie, their outcomes, dead letters (see `wire`)
    rows   the rows that passed the time checks, for the row parts of tables; empty where there are none
    place  "STREAM/LANE" of both
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadLimit, ReadMaxRows

from headrace.engine.spark.fetching import Found, RangeReader
from headrace.engine.spark.pace import range_rows, rows_allowed
from headrace.engine.spark.positions import Offset, Positions, lane_of, lane_text
from headrace.engine.spark.task import Lane, Task, of_option
from headrace.engine.spark.wire import dumped, packed
from headrace.errors import HeadraceError
from headrace.log.embedded import utc_now
from headrace.rows import RowStage

__all__ = ["OPTION", "SCHEMA", "SOURCE", "HeadraceSource", "addresses"]

SOURCE = "headrace"
OPTION = "secret_task"
"""The option's name: Spark shows no value of an option that is called secret."""
SCHEMA = "place string, facts binary, rows binary"
_ARROW = pa.schema([("place", pa.string()), ("facts", pa.binary()), ("rows", pa.binary())])
_HIDDEN = ("_partition", "_offset", "_record_time", "_event_time", "_size", "_key_hash", "_content_hash")


class HeadraceSource(DataSource):
    """All streams of a pipeline, as one streaming relation."""

    @classmethod
    def name(cls) -> str:
        """Return the format's name."""
        return SOURCE

    def schema(self) -> str:
        """Return the columns."""
        return SCHEMA

    def streamReader(self, schema: Any) -> DataSourceStreamReader:
        """Return the reader of a run."""
        return _Reader(self.options[OPTION])


@dataclass(frozen=True)
class _Span:
    lane: Lane
    partition: int
    start: int
    end: int


class _Range(InputPartition):
    """What one task reads: spans of partitions; the first of a batch tells the driver where it ends."""

    def __init__(self, spans: tuple[_Span, ...], end: Offset | None) -> None:
        super().__init__(None)
        self.spans = spans
        self.end = end


class _Reader(DataSourceStreamReader):
    def __init__(self, option: str) -> None:
        self._option = option
        self._positions: Positions | None = None

    @property
    def _task(self) -> Task:
        return _task(self._option)

    def _chooser(self) -> Positions:
        if self._positions is None:
            self._positions = Positions(self._task, utc_now)
        return self._positions

    def initialOffset(self) -> Offset:
        return self._chooser().first()

    def getDefaultReadLimit(self) -> ReadLimit:
        return ReadMaxRows(self._task.spark.batch_rows_max)

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:
        rows_max = limit.max_rows if isinstance(limit, ReadMaxRows) else self._task.spark.batch_rows_max
        return self._chooser().latest(start, rows_allowed(self._task.pace, rows_max))

    def partitions(self, start: Offset, end: Offset) -> list[InputPartition]:
        ranges = [
            (lane_of(lane), int(number), int(start["at"].get(lane, {}).get(number, 0)), until)
            for lane, places in end["at"].items()
            for number, until in places.items()
        ]
        rows = sum(until - since for _, _, since, until in ranges)
        step = range_rows(self._task.pace, rows, self._task.spark.range_rows_max)
        spans = [
            _Span(lane, number, at, min(until, at + step))
            for lane, number, since, until in ranges
            for at in range(since, until, step)
        ]
        if not spans:
            return [_Range((), end)]
        return [_Range((span,), end if number == 0 else None) for number, span in enumerate(spans)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        assert isinstance(partition, _Range)  # noqa: S101 - `partitions` gives no other
        if partition.end is not None:
            yield _row("", {"end": partition.end})
        try:
            worker = _worker(self._option)
            for span in partition.spans:
                for found in worker.reader(span.lane).read(span.partition, span.start, span.end):
                    yield worker.judged(span, found)
        except HeadraceError as error:
            # As a value: Spark would hand on an exception as a text.
            yield _row("", {"error": error})

    def stop(self) -> None:
        """End this process where Spark has closed the connection, which is how it stops a query.

        PySpark would try to tell it of the closed connection, and fail with a traceback on the terminal of
        whoever pressed Ctrl-C. Errors of ours are told, as always.
        """
        error = sys.exc_info()[1]
        if isinstance(error, EOFError | ConnectionError) and not _passed_here(error):
            os._exit(0)


def _passed_here(error: BaseException) -> bool:
    return any(frame.f_code.co_filename == __file__ for frame, _ in traceback.walk_tb(error.__traceback__))


def addresses(timely: pa.Table, unique: tuple[str, ...]) -> pa.Table:
    """Return what the driver must know of rows: addresses, times, and what tells copies."""
    wanted = dict.fromkeys((*unique, *_HIDDEN))
    return timely.select([name for name in wanted if name in timely.column_names])


def _row(place: str, facts: dict[str, Any], rows: bytes = b"") -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"place": place, "facts": dumped(facts), "rows": rows}], _ARROW)


class _Worker:
    """What a process of an executor keeps open during a run."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._readers: dict[Lane, RangeReader] = {}
        self._stages: dict[str, RowStage] = {}

    def reader(self, lane: Lane) -> RangeReader:
        if lane not in self._readers:
            lose = self.task.engine.on_data_loss == "continue"
            self._readers[lane] = RangeReader(self.task.lanes[lane], lose=lose)
        return self._readers[lane]

    def _stage(self, stream: str) -> RowStage:
        if stream not in self._stages:
            self._stages[stream] = RowStage(self.task.plan.streams[stream], self.task.framings.get(stream))
        return self._stages[stream]

    def close(self) -> None:
        """Give back connections and the row stages' databases."""
        for reader in self._readers.values():
            reader.close()
        for stage in self._stages.values():
            stage.close()
        for framing in self.task.framings.values():
            framing.close()

    def judged(self, span: _Span, found: Found) -> pa.RecordBatch:
        stream, lane = span.lane
        facts: dict[str, Any] = {
            "partition": span.partition, "start": found.start, "next": found.next,
            "gaps": found.gaps, "lost": found.lost, "bytes": found.records.column("value").nbytes,
        }  # fmt: skip
        if not found.records.num_rows:
            return _row(lane_text(span.lane), facts)
        result = self._stage(stream).run(found.records, lane=lane)
        names = ["partition", "offset", "record_time", *(["headers"] if lane == "redrive" else [])]
        declared = self.task.plan.streams[stream].stream
        judged = (*declared.unique, *([declared.label] if declared.label else ()))
        facts |= {
            "records": found.records.select(names),
            "timely": addresses(result.timely, judged),
            "late": result.late,
            "dead": result.dead,
            "rules": result.rules,
        }
        return _row(lane_text(span.lane), facts, packed(result.timely) if result.timely.num_rows else b"")


@lru_cache(maxsize=2)
def _task(option: str) -> Task:
    return of_option(option)


_WORKERS: dict[str, _Worker] = {}


def _worker(option: str) -> _Worker:
    task = _task(option)
    if task.run not in _WORKERS:
        for other in [*_WORKERS]:  # Spark uses a process again for another run
            _WORKERS.pop(other).close()
        _WORKERS[task.run] = _Worker(task)
    return _WORKERS[task.run]
