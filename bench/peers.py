"""The peer: DuckDB computing the same tables in one go from the same bytes.

It is given every advantage that a one-shot job has: the bytes lie in the page cache as one Arrow file,
nothing is written to disk, the result stays in memory, there is no ledger and no restart point. It decodes
the columns that the stream declares, with `json_transform` and a cast of the time to TIMESTAMPTZ (faster
than to TIMESTAMP), on two threads. It leaves out late and future records and, where the stream declares
`unique`, repeated ones, because otherwise it would not answer the same question.
"""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

from bench.data import checksum, values
from bench.pipelines import COMMERCE, FILLED_LATENESS, LATENESS, WINDOW

_ITEMS = [{"product_id": "VARCHAR", "quantity": "INTEGER", "price": "DECIMAL(12,2)"}]
_COMMERCE_COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("event_id", "event_type", "user_id"), "VARCHAR"),
    "timestamp": "VARCHAR",
    **dict.fromkeys(("device", "location", "session_id", "page", "product_id", "category"), "VARCHAR"),
    "price": "DECIMAL(12,2)", "quantity": "INTEGER", "order_id": "VARCHAR", "items": _ITEMS,
    "total_amount": "DECIMAL(12,2)", "payment_method": "VARCHAR", "query": "VARCHAR", "results": "INTEGER",
    "method": "VARCHAR", "success": "BOOLEAN", "rating": "INTEGER",
}  # fmt: skip
_REVENUE = "coalesce(sum(total_amount) FILTER (WHERE event_type = 'purchase'), 0)"
_BUCKET = "time_bucket(INTERVAL '{0}', timestamp, TIMESTAMPTZ '1970-01-01 00:00:00+00')"


def _bucket(size: str) -> str:
    bucket = _BUCKET.format(size)
    return f"{bucket} AS window_start, {bucket} + INTERVAL '{size}' AS window_end"


# Finding the few copies and deleting them took a tenth of what DISTINCT ON over all columns did.
_DELETE_COPIES = (
    """CREATE TEMP TABLE copied AS SELECT event_id, timestamp, min(rowid) AS kept
       FROM accepted GROUP BY ALL HAVING count(*) > 1""",
    """DELETE FROM accepted USING copied WHERE accepted.event_id = copied.event_id
       AND accepted.timestamp = copied.timestamp AND accepted.rowid <> copied.kept""",
)

# The columns of the blueprint's tables. `last_event` is left out: two events of a user in one millisecond are
# a tie, which DuckDB decides by chance.
COMMERCE_TABLES = {
    "event_counts": f"""SELECT {_bucket("1 minute")}, event_type, count(*) AS events,
        count(DISTINCT user_id) AS users FROM accepted GROUP BY ALL""",
    "user_activity": """SELECT slid AS window_start, slid + INTERVAL '5 minutes' AS window_end, user_id,
        count(*) AS events,
        count(*) FILTER (WHERE event_type = 'page_view') AS pages,
        count(*) FILTER (WHERE event_type = 'item_click') AS clicks,
        count(*) FILTER (WHERE event_type = 'purchase') AS purchases,
        max_by(event_type, timestamp) AS last_event, max(timestamp) AS last_event_at
        FROM (SELECT *, unnest([first - INTERVAL '4 minutes', first - INTERVAL '3 minutes',
                  first - INTERVAL '2 minutes', first - INTERVAL '1 minute', first]) AS slid
              FROM (SELECT user_id, event_type, timestamp, date_trunc('minute', timestamp) AS first
                    FROM accepted))
        GROUP BY ALL""",
    "purchase_analytics": f"""SELECT {_bucket("10 minutes")}, count(*) AS orders,
        sum(total_amount) AS revenue,
        CAST((CAST(sum(total_amount) * 100 AS HUGEINT) * 20000 + count(*)) // (2 * count(*)) AS DECIMAL(30,0))
            * 0.000001 AS average_order,
        max(total_amount) AS largest_order, count(DISTINCT user_id) AS buyers
        FROM accepted WHERE event_type = 'purchase' GROUP BY 1, 2""",
    "sessions": """SELECT user_id, min(timestamp) AS session_start, max(timestamp) AS session_end,
        date_diff('second', min(timestamp), max(timestamp)) AS length_s, count(*) AS events,
        bool_or(event_type = 'purchase') AS converted
        FROM (SELECT user_id, event_type, timestamp,
                     sum(begins) OVER (of_user ROWS UNBOUNDED PRECEDING) AS number
              FROM (SELECT user_id, event_type, timestamp,
                           CASE WHEN timestamp <= lag(timestamp) OVER of_user + INTERVAL '30 minutes'
                                THEN 0 ELSE 1 END AS begins
                    FROM accepted WINDOW of_user AS (PARTITION BY user_id ORDER BY timestamp))
              WINDOW of_user AS (PARTITION BY user_id ORDER BY timestamp))
        GROUP BY user_id, number""",
    "device_stats": f"""SELECT {_bucket("5 minutes")}, device, count(*) AS events,
        count(DISTINCT user_id) AS users, {_REVENUE} AS revenue FROM accepted GROUP BY ALL""",
    "location_stats": f"""SELECT {_bucket("5 minutes")}, location, count(*) AS events,
        count(DISTINCT user_id) AS users, {_REVENUE} AS revenue FROM accepted GROUP BY ALL""",
    "product_popularity": f"""SELECT {_bucket("1 hour")}, product_id,
        count(*) FILTER (WHERE event_type = 'page_view') AS views,
        count(*) FILTER (WHERE event_type = 'item_click') AS clicks,
        count(*) FILTER (WHERE event_type = 'cart_add') AS carts
        FROM accepted WHERE event_type IN ('page_view', 'item_click', 'cart_add') AND product_id IS NOT NULL
        GROUP BY ALL""",
    "product_sales": f"""SELECT {_bucket("1 hour")}, item.product_id AS product_id,
        sum(item.quantity) AS bought, sum(item.quantity * item.price) AS revenue
        FROM accepted, UNNEST(items) AS basket(item) WHERE event_type = 'purchase' GROUP BY ALL""",
    "events_clean": "SELECT * FROM accepted",
}
_COMPARED = {"user_activity": "* EXCLUDE (last_event)", "events_clean": "event_id, timestamp, items_total"}


def compared(table: str, *, since: str) -> str:
    """Return the query whose rows are compared; what is older than `since` may be retired already."""
    condition = f" WHERE window_start >= TIMESTAMPTZ '{since}'" if table == "user_activity" else ""
    return f"SELECT {_COMPARED.get(table, '*')} FROM {table}{condition}"


def run_peer(name: str, folder: Path, *, filled: bool, since: str) -> dict[str, Any]:
    """Compute the tables of pipeline `name` once; return seconds, events and a checksum per table."""
    con = duckdb.connect(config={"threads": 2})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET preserve_insertion_order = false")
    con.execute("SET enable_progress_bar = false")
    bytes_read = values(folder)
    con.register("records", bytes_read)
    began = time.perf_counter()
    if name == COMMERCE:
        con.execute(f"CREATE TEMP TABLE accepted AS {commerce_rows(filled)}")
        for statement in _DELETE_COPIES:
            con.execute(statement)
        for table, query in COMMERCE_TABLES.items():
            if table != "events_clean":
                con.execute(f"CREATE TEMP TABLE {table} AS {query}")
    else:
        con.execute(f"CREATE TEMP TABLE result AS {_simple(name, filled)}")
    seconds = time.perf_counter() - began
    if name == COMMERCE:
        con.execute("CREATE TEMP VIEW events_clean AS SELECT * FROM accepted")
    tables = COMMERCE_TABLES if name == COMMERCE else ("result",)
    sums = {table: checksum(con.sql(compared(table, since=since)).to_arrow_table()) for table in tables}
    return {"seconds": seconds, "events": len(bytes_read), "checksums": sums}


def _decoded(columns: dict[str, Any], filled: bool) -> str:
    lateness: timedelta = FILLED_LATENESS if filled else LATENESS
    return f"""
        SELECT * EXCLUDE (record_time) FROM (
            SELECT * REPLACE (CAST(timestamp AS TIMESTAMPTZ) AS timestamp) FROM (
                SELECT row.*, record_time FROM (
                    SELECT json_transform(decode(value), '{json.dumps(columns)}') AS row, record_time
                    FROM records)))
        WHERE timestamp >= record_time - INTERVAL {int(lateness.total_seconds())} SECONDS
          AND timestamp <= record_time + INTERVAL 1 MINUTE"""


def _simple(name: str, filled: bool) -> str:
    grouped = "event_type" if name == WINDOW else "user_id"
    columns = {grouped: "VARCHAR", "timestamp": "VARCHAR", "total_amount": "DECIMAL(12,2)"}
    rows = _decoded({"event_id": "VARCHAR", **columns} if filled else columns, filled)
    if filled:
        rows = f"SELECT DISTINCT ON (event_id, timestamp) * FROM ({rows})"
    if name == WINDOW:
        return f"""SELECT {_BUCKET.format("1 minute")} AS window_start, event_type, count(*) AS events,
                   sum(total_amount) AS revenue FROM ({rows}) GROUP BY ALL"""
    return f"""SELECT user_id, count(*) AS events, sum(total_amount) AS revenue, max(timestamp) AS last_at
               FROM ({rows}) GROUP BY ALL"""


def commerce_rows(filled: bool) -> str:
    return f"""
        SELECT *,
            list_sum(list_transform(items, lambda item: item.price * item.quantity)) AS items_total
        FROM ({_decoded(_COMMERCE_COLUMNS, filled)})
        WHERE event_type IN ('user_login', 'page_view', 'item_click', 'cart_add', 'purchase', 'search')
          AND device IN ('mobile', 'desktop', 'tablet') AND (rating IS NULL OR rating BETWEEN 1 AND 5)"""
