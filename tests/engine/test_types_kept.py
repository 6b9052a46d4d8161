"""Every type that a schema can have, by value: from a record through expressions, batches and the store."""

from typing import Any

import pyarrow as pa
import pytest

import headrace as hr
from headrace.declare.schema_text import parse_schema
from headrace.engine.local.queries import Queries
from headrace.engine.spark.wire import packed, unpacked
from headrace.rows.database import arrow_of
from headrace.testing import PipelineTest

SEEN = "2026-03-01T12:00:00Z"
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
MOST = 2**127 - 1
# The type, a value in JSON, and the text that DuckDB gives for it.
VALUES: dict[str, tuple[Any, str]] = {
    "BOOLEAN": (True, "true"),
    "TINYINT": (-128, "-128"),
    "SMALLINT": (-32768, "-32768"),
    "INTEGER": (-(2**31), str(-(2**31))),
    "BIGINT": (-(2**63), str(-(2**63))),
    "HUGEINT": (-MOST, str(-MOST)),
    "UTINYINT": (255, "255"),
    "USMALLINT": (65535, "65535"),
    "UINTEGER": (2**32 - 1, str(2**32 - 1)),
    "UBIGINT": (2**64 - 1, str(2**64 - 1)),
    "FLOAT": (0.5, "0.5"),
    "DOUBLE": (0.1, "0.1"),
    "VARCHAR": ("é", "é"),
    "TIMESTAMP WITH TIME ZONE": ("2026-03-01T12:00:00.000001Z", "2026-03-01 12:00:00.000001+00"),
    "DATE": ("2024-02-29", "2024-02-29"),
    "TIME": ("23:59:59.999999", "23:59:59.999999"),
    "UUID": (UUID.upper(), UUID),
    "BLOB": ("AAEC", "\\x00\\x01\\x02"),
    "JSON": ({"a": [1, "x"]}, '{"a":[1,"x"]}'),
    "DECIMAL(38,2)": (1.25, "1.25"),
    "STRUCT(id UUID, doc JSON)": ({"id": UUID, "doc": [1]}, f"{{'id': {UUID}, 'doc': '[1]'}}"),
    "MAP(VARCHAR, HUGEINT)": ({"a": MOST}, f"{{a={MOST}}}"),
    "JSON[]": ([{"a": 1}, 2], '[{"a":1}, 2]'),
    "HUGEINT[][]": ([[MOST], []], f"[[{MOST}], []]"),
}
GROUPED = ("HUGEINT", "UUID", "STRUCT(id UUID, doc JSON)", "JSON[]", "DECIMAL(38,2)", "VARCHAR")


def every_type() -> hr.Pipeline:
    pipeline = hr.Pipeline("types")
    names = {f"c{at}": kind for at, kind in enumerate(VALUES)}
    schema = ", ".join(f"{name} {kind}" for name, kind in names.items())
    pipeline.stream(
        "events", schema=f"seen TIMESTAMP NOT NULL, wide UHUGEINT, {schema}", event_time="seen",
        derive={f"d_{name}": name for name in names},
    )  # fmt: skip
    kinds = ", ".join(f"typeof({name}) AS t_{name}, {name}, d_{name}" for name in names)
    pipeline.table("rows", f"SELECT {kinds} FROM events")
    pipeline.table("latest", "SELECT * EXCLUDE (wide), wide::VARCHAR AS wide FROM events", key="c16")
    most = ", ".join(
        f"max({name}) AS {name}, count(DISTINCT {name}) AS n_{name}"
        for name, kind in names.items()
        if kind in GROUPED
    )
    for group in ("c16, c5", "c16, session_window(seen, '1 minute')", "c16, window(seen, '1 minute')"):
        name = f"grouped_{len(pipeline.tables)}"
        pipeline.table(
            name, f"SELECT c16 AS id, max(typeof(c5)) AS kind, {most} FROM events GROUP BY {group}"
        )
    return pipeline


@pytest.mark.parametrize("rows_max", [1, 100])
def test_every_type_of_a_schema_keeps_type_and_value_in_every_class_of_table(rows_max: int) -> None:
    record = {f"c{at}": value for at, (value, _) in enumerate(VALUES.values())}
    with PipelineTest(every_type(), start=SEEN) as test:
        for n in range(3):
            test.send("events", {"seen": f"2026-03-01T12:00:0{n}Z", "wide": MOST, **record}, at=SEEN)
        while test.step(rows_max=rows_max):
            pass
        assert test.outcomes("events")["accepted"] == 3
        assert all(line.failed == 0 for line in test.ledger().tables)
        for at, (kind, (_, text)) in enumerate(VALUES.items()):
            cells = f"typeof(c{at}) AS kind, c{at}::VARCHAR AS text"
            told = {"kind": kind, "text": text}
            shown = f"SELECT DISTINCT t_c{at} AS inside, d_c{at}::VARCHAR AS derived, {cells} FROM rows"
            assert test.query(shown) == [{"inside": kind, "derived": text, **told}]
            assert test.query(f"SELECT {cells}, wide FROM latest") == [{**told, "wide": str(MOST)}]
            for table in ("grouped_2", "grouped_3", "grouped_4") if kind in GROUPED else ():
                found = test.query(
                    f"SELECT {cells}, n_c{at} AS n, id::VARCHAR AS id, kind AS huge FROM {table}"
                )
                assert found == [{**told, "n": 1, "id": UUID, "huge": "HUGEINT"}]


def test_the_types_tried_are_all_that_a_schema_can_have() -> None:
    from headrace.declare import schema_text

    for name in schema_text._NAMES_OF_TYPE:
        assert parse_schema(f"c {name}").columns[0].type.sql in (*VALUES, "UHUGEINT"), name


def test_two_streams_whose_columns_differ_in_such_a_type_alone_are_not_confused() -> None:
    pipeline = hr.Pipeline("two")
    for stream, kind in (("ids", "UUID"), ("texts", "VARCHAR")):
        pipeline.stream(stream, schema=f"seen TIMESTAMP NOT NULL, c {kind}", event_time="seen")
        pipeline.table(
            f"kinds_{stream}", f"SELECT typeof(c) AS kind FROM {stream} WHERE c = '{UUID.upper()}'"
        )
    with PipelineTest(pipeline, start=SEEN) as test:
        for _ in range(3):
            for stream in ("ids", "texts"):
                test.send(stream, {"seen": SEEN, "c": UUID.upper()})
            test.run()
        assert test.table("kinds_ids") == [{"kind": "UUID"}] * 3
        assert test.table("kinds_texts") == [{"kind": "VARCHAR"}] * 3


def test_types_stay_when_rows_are_cut_put_together_and_sent_to_another_process() -> None:
    import duckdb

    queries = Queries(duckdb.connect())
    kinds = ("UUID", "JSON", "HUGEINT", "STRUCT(a JSON, b HUGEINT[])")
    nulls = ", ".join(f"NULL::{kind} AS c{at}" for at, kind in enumerate(kinds))
    rows = arrow_of(queries.connection, f"SELECT {nulls} FROM range(4)")
    sent = unpacked(packed(pa.concat_tables([rows.slice(1, 1), rows.filter([True, False, True, False])])))
    queries.put("_sent", sent)
    asked = ", ".join(f"typeof(c{at}) AS c{at}" for at in range(len(kinds)))
    assert (
        queries.table(f'SELECT {asked} FROM "_sent"').to_pylist()
        == [{f"c{at}": kind for at, kind in enumerate(kinds)}] * 3
    )
