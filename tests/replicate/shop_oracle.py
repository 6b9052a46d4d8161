"""What the tables of `shop` have to hold: computed by plain SQL over every record, without the engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa

from headrace.log import Log

__all__ = ["computed"]

# Only for records of `events`: each is there once, none is late, and none has a neighbour at just the gap.
RECORDS = """
    SELECT r->>'id' AS id, CAST(r->>'seen' AS TIMESTAMPTZ) AS seen, coalesce(r->>'who', $who) AS who,
        coalesce(r->>'kind', $kind) AS kind, CAST(r->>'amount' AS DECIMAL(12,2)) AS amount,
        CAST(r->>'n' AS INTEGER) AS n, CAST(r->'tags' AS VARCHAR[]) AS tags,
        CAST(r->'place' AS STRUCT(city VARCHAR, zip INTEGER)) AS place
    FROM (SELECT CAST(decode(value) AS JSON) AS r FROM log)
"""
# `nullif`: where `shop` writes a column as it is, also when its keys may not be NULL.
TABLES = {
    "all_rows": "SELECT id, seen, nullif(who, $who) AS who, amount, tags, place FROM records",
    "latest": """
        SELECT who, nullif(kind, $kind) AS kind, amount, place FROM records r
        WHERE seen = (SELECT max(seen) FROM records s WHERE s.who IS NOT DISTINCT FROM r.who)
    """,
    "revenue": """
        SELECT time_bucket(INTERVAL '10 minutes', seen) AS window_start,
            window_start + INTERVAL '10 minutes' AS window_end, kind, count(*) AS events,
            sum(amount) AS amount, avg(n) AS average, count(DISTINCT nullif(who, $who)) AS people
        FROM records GROUP BY window_start, kind
    """,
    "busy": """
        SELECT time_bucket(INTERVAL '10 minutes', seen) AS window_start, who, count(*) AS events,
            CAST(sum(n) AS BIGINT) AS n
        FROM records GROUP BY window_start, who HAVING sum(n) > 0
    """,
    "visits": """
        SELECT who, min(seen) AS window_start, max(seen) + INTERVAL '6 minutes' AS window_end,
            count(*) AS events, max(amount) AS most
        FROM (
            SELECT *, count(*) FILTER (WHERE gap IS NULL OR gap > INTERVAL '6 minutes')
                OVER (PARTITION BY who ORDER BY seen) AS visit
            FROM (SELECT *, seen - lag(seen) OVER (PARTITION BY who ORDER BY seen) AS gap FROM records)
        ) GROUP BY who, visit
    """,
    "totals": """
        SELECT who, CAST(sum(n) AS BIGINT) AS n, sum(amount) AS amount FROM records GROUP BY who
    """,
    "counted": "SELECT count(*) AS records, CAST(sum(n) AS BIGINT) AS n FROM records GROUP BY kind",
    "everything": "SELECT count(*) AS records FROM records",
    "best": """
        SELECT kind, max(amount) AS most FROM (
            SELECT kind, sum(amount) AS amount
            FROM records GROUP BY time_bucket(INTERVAL '10 minutes', seen), kind
        ) GROUP BY kind
    """,
    "windows": """
        SELECT time_bucket(INTERVAL '10 minutes', seen) AS window_start, count(*) AS events
        FROM records GROUP BY window_start
    """,
}
"""All of them: each record has an instant of its own, so one alone is the latest of a key."""


def computed(log: Log, *, null_keys: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of tables of `shop` over all records that are in the log."""
    words = {"who": None, "kind": None} if null_keys else {"who": "nobody", "kind": "none"}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("log", records_of(log))
        connection.execute(f"CREATE TABLE records AS {RECORDS}", words)
        found = {}
        for name, query in TABLES.items():
            given = {word: said for word, said in words.items() if f"${word}" in query}
            found[name] = connection.sql(query, params=given).to_arrow_table().to_pylist()
    return found


def records_of(log: Log) -> pa.Table:
    """Return every record."""
    ends = {place.partition: place.end for place in log.partitions()}
    positions = {place.partition: place.start for place in log.partitions()}
    found = []
    while positions != ends:
        piece = log.read(positions, rows_max=10_000, bytes_max=10_000_000, wait=timedelta(seconds=10))
        found.append(piece.records)
        positions = {**positions, **piece.next}
    return pa.concat_tables(found)
