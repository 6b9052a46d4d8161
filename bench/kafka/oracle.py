"""What the tables must hold: DuckDB in one go over the same bytes, and the comparison with it.

The two small tables are compared as rows of (window's start in ms, key, count, sum in cents). The tables of
the commerce pipeline are the queries of `bench/peers.py`. What is only taken in, judged and written is
compared as rows: the records of the shop that count, with copies (`FILTER`) or without them (`INTAKE`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb

from bench.kafka.data import mapped
from bench.peers import COMMERCE_TABLES, commerce_rows

TYPE, USER, COMMERCE, INTAKE, FILTER = "type", "user", "commerce", "intake", "filter"
CASES = {TYPE: "event_type", USER: "user_id", COMMERCE: "", INTAKE: "", FILTER: ""}
"""By case, what a small table is grouped by."""
TABLES = {COMMERCE: tuple(COMMERCE_TABLES), **dict.fromkeys((INTAKE, FILTER), ("events_clean",))}
"""By case, the tables of the shop that it computes."""
# Two events of a user in one millisecond are a tie, which DuckDB decides by chance.
LEFT_OUT = {"user_activity": ("last_event",)}
_ACCEPTED = "event_time BETWEEN record_time - INTERVAL 5 MINUTES AND record_time + INTERVAL 1 MINUTE"


def expected(case: str, file: Path, folder: Path) -> dict[str, Any]:
    """Compute the tables of a case into `folder`, once; return how many records were accepted."""
    facts = folder / "facts.json"
    if facts.exists():
        return dict(json.loads(facts.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    con = connect()
    con.register("records", mapped(file))
    accepted = _commerce(con, case, folder) if case in TABLES else _small(con, CASES[case], folder)
    facts.write_text(json.dumps({"accepted": accepted}))
    return {"accepted": accepted}


def connect() -> duckdb.DuckDBPyConnection:
    """Return a DuckDB of its own, in UTC."""
    con = duckdb.connect(config={"threads": 2})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")
    return con


def _small(con: duckdb.DuckDBPyConnection, key: str, folder: Path) -> int:
    columns = {key: "VARCHAR", "timestamp": "VARCHAR", "total_amount": "DECIMAL(12,2)"}
    con.execute(f"""
        CREATE TEMP TABLE accepted AS
        SELECT epoch_ms(time_bucket(INTERVAL '1 minute', event_time)) AS window_ms, {key} AS key, total_amount
        FROM (SELECT row.*, CAST(row.timestamp AS TIMESTAMPTZ) AS event_time, record_time
              FROM (SELECT json_transform(decode(value), '{json.dumps(columns)}') AS row, record_time
                    FROM records))
        WHERE {_ACCEPTED}""")
    con.execute(f"""
        COPY (SELECT window_ms, key, count(*) AS events,
                     coalesce(CAST(sum(total_amount) * 100 AS BIGINT), 0) AS cents
              FROM accepted GROUP BY ALL) TO '{folder}/result.parquet'""")
    return _count(con)


def _commerce(con: duckdb.DuckDBPyConnection, case: str, folder: Path) -> int:
    con.execute(f"CREATE TEMP TABLE accepted AS {commerce_rows(filled=False)}")
    if case != FILTER:
        con.execute("""
            DELETE FROM accepted WHERE rowid IN (
                SELECT rowid FROM accepted
                QUALIFY row_number() OVER (PARTITION BY event_id, timestamp ORDER BY rowid) > 1)""")
    clean = {"events_clean": "SELECT event_id, timestamp, items_total FROM accepted"}
    queries = {**COMMERCE_TABLES, **clean}
    for table in TABLES[case]:
        con.execute(f"COPY (SELECT {_columns(table)} FROM ({queries[table]})) TO '{folder}/{table}.parquet'")
    return _count(con)


def _columns(table: str) -> str:
    return f"* EXCLUDE ({', '.join(LEFT_OUT[table])})" if table in LEFT_OUT else "*"


def _count(con: duckdb.DuckDBPyConnection) -> int:
    row = con.execute("SELECT count(*) FROM accepted").fetchone()
    return int(row[0]) if row else 0


def differences(case: str, oracle: Path, found: Path) -> dict[str, str]:
    """Compare what a contestant left in `found` with the oracle: per table that differs, how.

    The small tables are `result.csv`: window_ms, key, events, cents. Rows of several processes and of several
    moments are not added up: a file holds each group once. A table of commerce is NAME.parquet.
    """
    con, differ = connect(), {}
    if case not in TABLES:
        con.execute(f"""CREATE TEMP VIEW f AS SELECT * FROM read_csv('{found}/result.csv', header = false,
            columns = {{'window_ms': 'BIGINT', 'key': 'VARCHAR', 'events': 'BIGINT', 'cents': 'BIGINT'}})""")
        con.execute(f"CREATE TEMP VIEW o AS FROM '{oracle}/result.parquet'")
        text = _difference(con, "window_ms, key, events, cents", "events")
        return {"result": text} if text else {}
    for table in TABLES[case]:
        file = found / f"{table}.parquet"
        if not file.exists():
            differ[table] = "is missing"
            continue
        con.execute(f"CREATE OR REPLACE TEMP VIEW o AS FROM '{oracle}/{table}.parquet'")
        con.execute(f"CREATE OR REPLACE TEMP VIEW f AS FROM '{file}'")
        described = con.execute("DESCRIBE o").fetchall()
        # Engines differ in the width of a number; they may not differ in its value.
        columns = ", ".join(_comparable(name, kind) for name, kind, *_ in described)
        total = "" if table in ("product_sales", "product_popularity", "events_clean") else "events"
        total = "orders" if table == "purchase_analytics" else total
        if text := _difference(con, columns, total):
            differ[table] = text
    return differ


def _comparable(name: str, kind: str) -> str:
    quoted = f'"{name}"'
    if kind.startswith("DECIMAL"):
        return f"CAST({quoted} AS DECIMAL(30,6)) AS {quoted}"
    if kind in ("BIGINT", "HUGEINT", "INTEGER"):
        return f"CAST({quoted} AS HUGEINT) AS {quoted}"
    return f"CAST({quoted} AS {kind}) AS {quoted}"


def _difference(con: duckdb.DuckDBPyConnection, columns: str, total: str) -> str:
    missing, extra = (
        con.execute(
            f"SELECT count(*) FROM (SELECT {columns} FROM {a} EXCEPT ALL SELECT {columns} FROM {b})"
        ).fetchone()[0]
        for a, b in (("o", "f"), ("f", "o"))
    )
    if not missing and not extra:
        return ""
    rows = con.execute("SELECT count(*) FROM o").fetchone()[0]
    text = f"{missing:,} of {rows:,} rows are not there, {extra:,} are others"
    if total:
        sums = [con.execute(f"SELECT coalesce(sum({total}), 0) FROM {each}").fetchone()[0] for each in "of"]
        text += f"; {total}: {int(sums[1]):,} instead of {int(sums[0]):,}"
    return text
