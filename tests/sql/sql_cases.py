"""A small engine over plans: cuts rows into batches, merges, and reads the result."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

import headrace as hr
from headrace.sql import plan_pipeline
from headrace.sql.plan import TablePlan

SCHEMA = (
    "id INT NOT NULL, seen TIMESTAMP NOT NULL, user_id VARCHAR, kind VARCHAR, i INT, b BIGINT, h HUGEINT, d DOUBLE, "
    "f FLOAT, m DECIMAL(12,2), w DECIMAL(38,6), z DECIMAL(9,0), ok BOOLEAN, t TIMESTAMP, day DATE, "
    "items STRUCT(product_id VARCHAR, quantity INT, price DECIMAL(12,2))[], tags VARCHAR[], "
    "place STRUCT(city VARCHAR, zip INT)"
)


def pipeline_of(**tables: str) -> hr.Pipeline:
    pipeline = hr.Pipeline("test")
    pipeline.stream("events", schema=SCHEMA, event_time="seen")
    for name, query in tables.items():
        pipeline.table(name, query)
    return pipeline


def _arrow(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal | int) and not isinstance(value, bool) else value


@cache
def table_of(query: str) -> TablePlan:
    return plan_pipeline(pipeline_of(t=query)).tables[0]


class Batches:
    """Runs one grouped table over rows in batches, by the formulas of its plan alone."""

    def __init__(self, plan: TablePlan, columns: dict[str, str]) -> None:
        self.plan = plan
        self.connection = duckdb.connect(config={"threads": 1})
        self.connection.execute("SET TimeZone = 'UTC'")
        body = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        hidden = "_partition INT, _offset BIGINT, _record_time TIMESTAMPTZ, _lane VARCHAR"
        self.connection.execute(f"CREATE TABLE _all ({body}, {hidden})")
        self.keys = [key.name for key in plan.keys]
        self.columns = [column for aggregate in plan.aggregates for column in aggregate.state]

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        columns = {f"c{n}": [_arrow(row[n]) for row in rows] for n in range(len(rows[0]))}
        self.connection.register("_given", pa.table(columns))
        self.connection.execute(
            "INSERT INTO _all SELECT *, 0, row_number() OVER () - 1, NULL, 'main' FROM _given"
        )
        self.connection.unregister("_given")

    def _grouped(self, expressions: list[str], source: str) -> str:
        if not self.keys and not expressions:
            return "SELECT 1 AS one"
        listed = ", ".join([*self.keys, *expressions])
        return f"SELECT {listed} FROM ({source})" + (f" GROUP BY {', '.join(self.keys)}" if self.keys else "")

    def partials(self, cuts: list[int]) -> list[str]:
        names = []
        ends = [*sorted(cuts), 1 << 30]
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            self.connection.execute(
                f"CREATE OR REPLACE TEMP VIEW _rows AS SELECT * FROM _all WHERE _offset >= {start} AND _offset < {end}"
            )
            partial = [f'{column.partial} AS "{column.name}"' for column in self.columns]
            self.connection.execute(
                f"CREATE OR REPLACE TABLE part{number} AS " + self._grouped(partial, self.plan.row_sql)
            )
            for aggregate in self.plan.aggregates:
                if aggregate.side:
                    argument = aggregate.side.argument
                    keys = ", ".join([*self.keys, ""]) if self.keys else ""
                    self.connection.execute(
                        f"CREATE OR REPLACE TABLE side{number}_{aggregate.name} AS SELECT {keys}{argument} AS _value, "
                        f"count(*) AS _count FROM ({self.plan.row_sql}) WHERE {argument} IS NOT NULL "
                        f"GROUP BY {keys}{argument}"
                    )
            names.append(f"part{number}")
        return names

    def merged(self, parts: list[str]) -> str:
        """Fold the partial states into one, one after the other."""
        self.connection.execute(f"CREATE OR REPLACE TABLE state AS FROM {parts[0]}")
        for part in parts[1:]:
            on = " AND ".join(f"t.{key} IS NOT DISTINCT FROM b.{key}" for key in self.keys) or "true"
            keys = [f"CASE WHEN t.rowid IS NULL THEN b.{key} ELSE t.{key} END AS {key}" for key in self.keys]
            columns = [
                f'CASE WHEN b.rowid IS NULL THEN t."{c.name}" WHEN t.rowid IS NULL THEN b."{c.name}" '
                f'ELSE {c.merge} END AS "{c.name}"'
                for c in self.columns
            ]
            listed = ", ".join([*keys, *columns]) or "1 AS one"
            self.connection.execute(
                f"CREATE OR REPLACE TABLE state2 AS SELECT {listed} FROM state t FULL JOIN {part} b ON {on}"
            )
            self.connection.execute("CREATE OR REPLACE TABLE state AS FROM state2")
        return "state"

    def combined(self, parts: list[str]) -> str:
        union = " UNION ALL ".join(f"FROM {part}" for part in parts)
        if not self.keys and not self.columns:
            return parts[0]
        listed = ", ".join([*self.keys, *(f'{c.combine} AS "{c.name}"' for c in self.columns)])
        group = f" GROUP BY {', '.join(self.keys)}" if self.keys else ""
        self.connection.execute(
            f"CREATE OR REPLACE TABLE combined AS SELECT {listed} FROM ({union}) p{group}"
        )
        return "combined"

    def types_of(self, state: str) -> dict[str, str]:
        rows = self.connection.execute(f"DESCRIBE {state}").fetchall()
        return {row[0]: row[1] for row in rows}

    def result(self, state: str, parts: list[str]) -> list[tuple[Any, ...]]:
        values = []
        for aggregate in self.plan.aggregates:
            if aggregate.side is None:
                values.append(f"{aggregate.value} AS {aggregate.name}")
                continue
            union = " UNION ALL ".join(f"FROM side{number}_{aggregate.name}" for number in range(len(parts)))
            keys = ", ".join([*self.keys, ""]) if self.keys else ""
            self.connection.execute(
                f"CREATE OR REPLACE TABLE side_{aggregate.name} AS "
                f"SELECT {keys}_value, CAST(sum(_count) AS BIGINT) AS _count FROM ({union}) GROUP BY {keys}_value"
            )
            same = " AND ".join(f"s.{key} IS NOT DISTINCT FROM {state}.{key}" for key in self.keys) or "true"
            side = (
                f"SELECT CASE WHEN count(*) > 0 THEN {aggregate.side.value} ELSE {aggregate.side.empty} END"
            )
            rows = f"FROM side_{aggregate.name} s WHERE {same}"
            if aggregate.side.ranked:
                rows = (
                    "FROM (SELECT *, CAST(sum(_count) OVER (ORDER BY _value) AS BIGINT) AS _upto, "
                    f"CAST(sum(_count) OVER () AS BIGINT) AS _all {rows})"
                )
            values.append(f"({side} {rows}) AS {aggregate.name}")
        groups = f"SELECT {', '.join([*self.keys, *values])} FROM {state}"
        listed = ", ".join(self.plan.result_sql)
        having = f" WHERE {self.plan.having_sql}" if self.plan.having_sql else ""
        return self.connection.execute(
            f"SELECT {listed} FROM ({groups}) _groups{having} ORDER BY ALL"
        ).fetchall()

    def one_shot(self, query: str) -> list[tuple[Any, ...]]:
        self.connection.execute("CREATE OR REPLACE TEMP VIEW events AS FROM _all")
        return self.connection.execute(f"SELECT * FROM ({query}) ORDER BY ALL").fetchall()
