"""Random pipelines and random streams for both engines: a number gives a case, always the same one.

What stands in `random_pipelines` has an oracle; the functions that are added here are compared between the
engines only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from oracle_model import Arrival
from random_pipelines import NOON, Described, arrivals_of, pipeline_of, sent, tables

import headrace as hr
from headrace.log.protocol import APPEND_SCHEMA
from headrace.testing import OpenLog, PipelineTest

__all__ = ["PARTITIONS", "Case", "case_of", "opened"]

PARTITIONS = 3
_EXAMPLES = 6
"""The first examples that are drawn are small; the last one is taken."""

_SCALARS = (
    "upper(kind)", 'length("user")', "md5(id)", "n % 3", "-n", "abs(amount)", "round(amount, 1)",
    "greatest(n, twice)", "least(n, 2)", "coalesce(\"user\", kind)", "substr(kind, 2, 2)", "reverse(id)",
    "regexp_replace(kind, '[aeiou]', '_', 'g')", "regexp_extract(id, '[0-9]+')", "kind || '/' || id",
    "date_trunc('hour', seen)", "extract('minute' FROM seen)", "strftime(seen, '%H:%M:%S')", "epoch_ms(seen)",
    "seen + INTERVAL 1 DAY", "sqrt(abs(ratio))", "exp(ratio)", "ln(ratio + 1)", "sin(n)", "pow(ratio, 2)",
    "[n, twice]", "list_sum([n, twice, 1])", "list_sort([kind, id])", "{'a': n, 'b': ratio}",
    "CASE WHEN ratio > 1 THEN 'x' ELSE kind END", "n IS DISTINCT FROM twice", "kind LIKE '%u%'",
    "TRY_CAST(kind AS INT)", "CAST(n AS VARCHAR)", "CAST(amount AS DOUBLE)", "amount * 3", "amount / 7",
    "n / 3", "n // 3", "trunc(ratio)", "floor(ratio)", "ceil(-ratio)", "lpad(kind, 6, '*')", "split(id, 'u')",
    "string_split(kind, 'e')", "levenshtein(kind, id)", "hash(kind)", "bit_count(n)", "n::HUGEINT * 1000000",
    "concat_ws('-', kind, id)", "nullif(kind, 'buy')", "starts_with(id, 'd')", "position('u' IN kind)",
    "unicode(kind)", "CAST(kind AS INT)", "1 // (n - 2)",
)  # fmt: skip
_AGGREGATES = (
    "count(*)", "sum(n)", "sum(amount)", "sum(ratio)", "avg(amount)", "avg(ratio)", "min(kind)",
    "max(amount)", "bool_and(n > 1)", "bool_or(kind = 'buy')", "max_by(id, seen)", "min_by(kind, amount)",
    'mode("user")', "stddev_samp(ratio)", "var_pop(n)", "quantile_cont(ratio, 0.25)",
    "quantile_disc(amount, 0.5)", "count(DISTINCT kind)", "approx_count_distinct(id)",
    "approx_quantile(n, 0.5)", "median(n)", "count_if(n > 2)", "sum(twice) FILTER (WHERE kind = 'buy')",
    "count(DISTINCT n) FILTER (WHERE ratio > 1)",
)  # fmt: skip
_GROUPS = (
    "", "window(seen, '1 minute')", "window(seen, '10 minutes', '4 minutes')",
    "session_window(seen, '90 seconds')",
)  # fmt: skip
_ORDERS = ("as they came", "one partition lags", "partition by partition")


@dataclass(frozen=True)
class Case:
    """One random pipeline and its stream.

    described       tables that the oracle knows
    more            tables and views that it does not know, by SQL
    order           how the records reach Kafka, which says where micro-batches end
    batch_rows_max  of a micro-batch
    """

    number: int
    described: dict[str, Described]
    more: dict[str, str]
    arrivals: tuple[Arrival, ...]
    order: str
    batch_rows_max: int

    def pipeline(self) -> hr.Pipeline:
        """The pipeline, made anew."""
        pipeline = pipeline_of(self.described)
        for name, sql in self.more.items():
            pipeline.table(name, sql)
        return pipeline

    def appended(self) -> list[Arrival]:
        """The records in the order in which they are appended; a partition keeps its own."""
        if self.order == "as they came":
            return list(self.arrivals)
        last = {0: 0, 1: 0, 2: 1} if self.order == "one partition lags" else {0: 0, 1: 1, 2: 2}
        return sorted(self.arrivals, key=lambda one: last[one.partition])


@st.composite
def _more(draw: st.DrawFn, names: list[str]) -> dict[str, str]:
    chosen = draw(st.lists(st.sampled_from(_SCALARS), unique=True, min_size=3, max_size=6))
    key = draw(st.sampled_from([one for one in _SCALARS if not one.startswith(("[", "{"))]))
    values = draw(st.lists(st.sampled_from(_AGGREGATES), unique=True, min_size=2, max_size=5))
    group = draw(st.sampled_from(_GROUPS))
    shown = ", ".join(f"{sql} AS s{number}" for number, sql in enumerate(chosen))
    counted = ", ".join(f"{sql} AS v{number}" for number, sql in enumerate(values))
    bounds = "window_start, " if group else ""
    grouped = f"{group}, {key}" if group else key
    viewed = draw(st.sampled_from(names))
    return {
        "scalars": f"SELECT id, {shown} FROM events",
        "grouped": f"SELECT {bounds}{key} AS k, {counted} FROM events GROUP BY {grouped}",
        "viewed": f"SELECT count(*) AS n FROM {viewed}",
        "counted": "SELECT k, count(*) AS n FROM grouped GROUP BY k",
    }


@st.composite
def _cases(draw: st.DrawFn, number: int) -> Case:
    described = draw(tables)
    found = draw(st.lists(sent, min_size=15, max_size=60))
    return Case(
        number,
        described,
        draw(_more([*described])),
        tuple(arrivals_of(found)),
        draw(st.sampled_from(_ORDERS)),
        draw(st.sampled_from([9, 20, 1000])),
    )


def case_of(number: int) -> Case:
    """The case of a number."""
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=_cases(number))
    def draw(case: Case) -> None:
        found.append(case)

    draw()
    return found[-1]


@contextmanager
def opened(case: Case, folder: Path, open_log: OpenLog | None = None) -> Iterator[PipelineTest]:
    """The pipeline with its records in a log, not yet read."""
    test = PipelineTest(case.pipeline(), partitions=PARTITIONS, start=NOON, folder=folder, open_log=open_log)
    with test:
        test.clock.time = max(one.record_time for one in case.arrivals) + timedelta(seconds=1)
        rows: list[dict[str, Any]] = [
            {"partition": one.partition, "record_time": one.record_time, "key": None, "headers": None}
            | {"value": one.value}
            for one in case.appended()
        ]
        test.log("events").append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
        yield test
