"""The key and the record time of records that come from files, taken out of their JSON."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import Stream
from headrace.errors import ProfileError
from headrace.log.protocol import APPEND_SCHEMA
from headrace.produce.lines import Chunk

__all__ = ["Fields", "time_field", "utc_connection"]

_CHUNKS_WAITING_MAX = 16
_TIME = APPEND_SCHEMA.field("record_time").type


def utc_connection() -> Any:
    """Return an in-memory DuckDB connection whose zone is UTC."""
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def time_field(stream: Stream, record_time: str) -> str | None:
    """Return the field that `now`, `event` or `field:NAME` names; None for the log's clock."""
    if record_time == "now":
        return None
    if record_time == "event":
        if stream.event_time is None:
            raise ProfileError(
                f"stream '{stream.name}' declares no event time, so record times cannot be taken from it",
                fix="declare event_time, or use --record-time now or field:NAME",
            )
        return stream.event_time
    kind, _, name = record_time.partition(":")
    if kind != "field" or not name:
        raise ProfileError(
            f"'{record_time}' is not a record time", fix="use now, event, or field:NAME with a field's name"
        )
    return name


class Fields:
    """Makes APPEND_SCHEMA tables of the records of one file.

    A record whose time is missing gets that of the one before it; in front of the first time found, that one.
    """

    def __init__(self, connect: Callable[[], Any], key: str | None, time: str | None) -> None:
        self._connect = connect
        self._key = key
        self._time = time
        self._last_time: pa.Scalar | None = None

    def tables(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, pa.Table]]:
        """Give every chunk with its records; keys and record times are NULL where there is none.

        Chunks in front of the first time found wait for it, up to a bound; then they get the log's clock.
        """
        waiting: list[tuple[Chunk, pa.Table]] = []
        for chunk in chunks:
            table = self._table(chunk.values)
            timeless = self._time is not None and self._last_time is None
            if timeless and len(waiting) < _CHUNKS_WAITING_MAX:
                waiting.append((chunk, table))
                continue
            for waiting_chunk, early in waiting:
                yield waiting_chunk, early if timeless else _with_time(early, table.column("record_time")[0])
            waiting.clear()
            yield chunk, table
        yield from waiting

    def _table(self, values: pa.Array) -> pa.Table:
        count = len(values)
        keys = pa.nulls(count, pa.binary())
        times = pa.nulls(count, _TIME)
        if count and (self._key is not None or self._time is not None):
            keys, times = self._found(values)
        headers = pa.nulls(count, APPEND_SCHEMA.field("headers").type)
        return pa.table([pa.nulls(count, pa.int32()), times, keys, values, headers], schema=APPEND_SCHEMA)

    def _found(self, values: pa.Array) -> tuple[pa.Array, pa.Array]:
        names = [name for name in (self._key, self._time) if name is not None]
        paths = ", ".join("'" + _pointer(name).replace("'", "''") + "'" for name in names)
        # TRY: a broken line has no key and no time, and must not take its chunk with it.
        query = f"""
            SELECT encode(f[1]) AS key, CASE WHEN isfinite(t) THEN t END AS time
            FROM (SELECT f, TRY_CAST(f[{len(names)}] AS TIMESTAMPTZ) AS t
                  FROM (SELECT TRY(json_extract_string(decode(value), [{paths}])) AS f FROM produced))"""
        connection = self._connect()
        connection.register("produced", pa.table([values], names=["value"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # DuckDB 2.0 warns about a copy that is small here
            found = connection.sql(query).to_arrow_table()
        connection.unregister("produced")
        keys, times = (found.column(name).combine_chunks() for name in ("key", "time"))
        return (
            keys.cast(pa.binary()) if self._key is not None else pa.nulls(len(values), pa.binary()),
            self._filled(times.cast(_TIME)) if self._time is not None else pa.nulls(len(values), _TIME),
        )

    def _filled(self, times: pa.Array) -> pa.Array:
        if times.null_count == len(times):
            return times if self._last_time is None else pa.repeat(self._last_time, len(times))
        if times.null_count:
            times = pc.fill_null_forward(times)
            if times.null_count:
                first = self._last_time if self._last_time is not None else times.drop_null()[0]
                times = pc.fill_null(times, first)
        self._last_time = times[-1]
        return times


def _with_time(table: pa.Table, time: pa.Scalar) -> pa.Table:
    at = table.schema.get_field_index("record_time")
    return table.set_column(at, table.schema.field(at), pa.repeat(time, table.num_rows))


def _pointer(name: str) -> str:
    """Return the JSON pointer (RFC 6901) of a field, whatever characters its name has."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
