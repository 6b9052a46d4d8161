"""Queries over a stream, taken apart: run by their plan they answer what DuckDB answers to the query itself."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sql_cases import SCHEMA, pipeline_of, table_of

import headrace as hr
from headrace.sql import plan_pipeline
from headrace.sql.plan import TableClass, TablePlan
from headrace.sql.system import HIDDEN_COLUMNS

START = datetime(2024, 3, 31, tzinfo=UTC)

ROWS_QUERIES = """
SELECT * FROM events
SELECT e.* FROM events AS e
SELECT * EXCLUDE (items, tags) FROM events
SELECT * REPLACE (i + 1 AS i) FROM events WHERE ok
SELECT * RENAME (i AS number) FROM events
SELECT id, i * 2 AS twice, twice + 1 AS more FROM events WHERE twice > 2
SELECT id, EVENTS.I AS x, "kind" FROM Events
SELECT id, place.city, (place).zip AS zip, place['city'] AS again FROM events
SELECT id, item.product_id, item.quantity * 2 AS q FROM events, UNNEST(items) AS t(item)
SELECT id, t.item.product_id AS p FROM events CROSS JOIN UNNEST(items) AS t(item) WHERE t.item.quantity > 1
SELECT id, tag FROM events AS e, UNNEST(e.tags) AS u(tag)
SELECT id, tag, item.product_id FROM events, UNNEST(items) AS t(item), UNNEST(tags) AS u(tag)
SELECT * FROM (SELECT id, i + 1 AS j FROM events WHERE i IS NOT NULL) AS s WHERE j > 1
SELECT s.j, s.id FROM (SELECT id, upper(kind) FROM events) AS s(id, j)
SELECT * FROM (SELECT * FROM (SELECT id, kind, tags FROM events WHERE ok) WHERE kind <> 'b') AS s, UNNEST(tags) AS u(tag)
SELECT id, list_transform(tags, lambda t: t || kind) AS l, [x || '!' for x in tags if x <> 'b'] AS m FROM events
SELECT id, tags.list_reverse() AS r, kind.upper() AS k FROM events
SELECT id, CASE WHEN ok THEN 'yes' ELSE 'no' END AS word, coalesce(m, 0) AS m FROM events WHERE kind IN ('a', 'b')
SELECT id, seen AT TIME ZONE 'Europe/Berlin' AS local, date_trunc('hour', seen) AS hour FROM events
FROM events SELECT id
SELECT id FROM events WHERE seen >= TIMESTAMP '2024-03-31 00:00:01'
""".strip().splitlines()


def filled(connection: duckdb.DuckDBPyConnection) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in columns_of())
    hidden = ", ".join(f"{column.name} {column.type}" for column in HIDDEN_COLUMNS)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE TABLE _rows ({columns}, {hidden})")
    for n in range(8):
        items = [{"product_id": f"p{k}", "quantity": k, "price": Decimal("1.25")} for k in range(n % 4)]
        row = [
            n, START + timedelta(seconds=n), f"u{n % 3}" if n % 4 else None, "abc"[n % 3], n - 3 if n % 5 else None, n, n,
            n / 2, n / 4, Decimal(n) / 4, Decimal(n), Decimal(n), n % 2 == 0, START, START.date(), items,
            ["a", "b", "c"][: n % 4], {"city": "Bern", "zip": n}, 0, n, START + timedelta(seconds=n), "main",
        ]  # fmt: skip
        connection.execute(f"INSERT INTO _rows VALUES ({', '.join('?' * len(row))})", row)
    connection.execute(
        "CREATE VIEW events AS SELECT * EXCLUDE (_partition, _offset, _record_time, _lane) FROM _rows"
    )


def columns_of() -> list[tuple[str, str]]:
    pipeline = hr.Pipeline("x")
    pipeline.stream("events", schema=SCHEMA, event_time="seen")
    return [(column.name, column.type.sql) for column in pipeline.streams[0].schema.columns]


@pytest.mark.parametrize("query", ROWS_QUERIES)
def test_rows_are_those_of_the_query_with_the_records_address(query: str) -> None:
    plan = table_of(query)
    connection = duckdb.connect()
    filled(connection)
    found = connection.execute(f"SELECT * FROM ({plan.row_sql}) ORDER BY ALL").fetchall()
    expected = connection.execute(f"SELECT * FROM ({query}) ORDER BY ALL").fetchall()
    assert plan.kind is TableClass.ROWS
    assert sorted((row[4:] for row in found), key=repr) == sorted(expected, key=repr)
    assert all(row[2] == row[3] == START + timedelta(seconds=row[1]) for row in found)
    types = [(row[0], row[1]) for row in connection.execute(f"DESCRIBE {query}").fetchall()]
    assert [(column.name, column.type) for column in plan.columns] == types
    assert plan.unnests == ("UNNEST" in query)


def test_a_windowed_table_has_its_window_its_keys_and_three_parts() -> None:
    plan = table_of("""
        SELECT window_start, window_end, kind AS k, count(*) AS n, sum(m) / count(m) AS mean
        FROM events WHERE ok GROUP BY window(seen, '5 minutes', '1 minute'), kind HAVING n > 1 AND mean < 5
    """)
    assert plan.kind is TableClass.WINDOWED
    assert plan.window is not None
    assert (plan.window.kind, plan.window.size, plan.window.slide) == (
        "sliding", timedelta(minutes=5), timedelta(minutes=1),
    )  # fmt: skip
    assert [(key.name, key.type) for key in plan.keys] == [("k0", "VARCHAR")]
    assert plan.key == ("window_start", "k")
    assert plan.result_sql[:3] == ("window_start", "window_end", "k0")
    assert "window" not in plan.row_sql
    assert plan.having_sql
    assert [column.type for column in plan.columns[:3]] == ["TIMESTAMP WITH TIME ZONE"] * 2 + ["VARCHAR"]


@pytest.mark.parametrize(
    ("group", "keys"),
    [
        ("kind, user_id", ["kind", "user_id"]), ("1, 2", ["kind", "user_id"]), ("events.kind, USER_ID", ["kind", "user_id"]),
        ("kind, user_id, kind", ["kind", "user_id"]),
    ],
)  # fmt: skip
def test_keys_may_be_named_qualified_or_numbered(group: str, keys: list[str]) -> None:
    plan = table_of(f"SELECT kind, user_id, count(*) AS n FROM events GROUP BY {group}")
    assert plan.kind is TableClass.KEYED
    assert plan.key == tuple(keys)
    assert plan.result_sql == ("k0", "k1", "g0")


def test_a_key_may_be_an_expression_and_is_found_again_whatever_its_spelling() -> None:
    plan = table_of("""
        SELECT date_trunc('hour', seen) AS hour, upper(KIND) || '!' AS k, count(*) AS n FROM events
        GROUP BY hour, upper(events.kind) || '!'
    """)
    assert plan.result_sql == ("k0", "k1", "g0")
    assert plan.key == ("hour", "k")


def test_a_field_of_a_key_is_a_key_and_an_unshown_key_leaves_no_row_key() -> None:
    plan = table_of("SELECT place.city AS city, count(*) AS n FROM events GROUP BY place")
    assert plan.result_sql[0] == "k0.city"
    assert plan.key == ()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT kind, list_transform(tags, lambda x: x || kind) AS l, count(*) AS n FROM events GROUP BY kind, tags",
        "SELECT [x || kind for x in tags if x <> kind] AS l FROM events GROUP BY kind, tags",
        "SELECT list_transform(tags, lambda k0: k0 || kind) AS l, count(*) AS n FROM events GROUP BY kind, tags",
        "SELECT list_transform([place], lambda p: p.city) AS l, max(i) AS n FROM events GROUP BY place",
        "SELECT list_transform(items, lambda x: list_transform(tags, lambda y: y || x.product_id || place.city)) AS l "
        "FROM events GROUP BY items, tags, place",
        "SELECT to_json(place)->'$.city' AS c, count(*) AS n FROM events GROUP BY to_json(place)",
        "SELECT to_json(place)->>kind AS c, count(*) AS n FROM events GROUP BY place, kind",
        "SELECT max(to_json(place))->'$.city' AS c, kind FROM events GROUP BY kind",
        "SELECT kind, max(i) AS n FROM events GROUP BY kind HAVING len(list_filter(['a', 'b'], lambda x: x = kind)) = 0",
    ],
)
def test_a_lambda_and_an_arrow_of_json_see_keys(query: str) -> None:
    plan = table_of(query)
    connection = duckdb.connect()
    filled(connection)
    keys = ", ".join(key.name for key in plan.keys)
    state = "".join(f', {column.partial} AS "{column.name}"' for a in plan.aggregates for column in a.state)
    values = "".join(f", {aggregate.value} AS {aggregate.name}" for aggregate in plan.aggregates)
    groups = f"SELECT {keys}{values} FROM (SELECT {keys}{state} FROM ({plan.row_sql}) GROUP BY {keys})"
    having = f" WHERE {plan.having_sql}" if plan.having_sql else ""
    found = connection.execute(
        f'SELECT {", ".join(plan.result_sql)} FROM ({groups}) "_groups"{having}'
    ).fetchall()
    assert sorted(found, key=repr) == sorted(connection.execute(query).fetchall(), key=repr)
    assert found


def test_a_column_wins_over_an_alias_in_group_by_as_in_duckdb() -> None:
    plan = table_of("SELECT upper(kind) AS user_id, count(*) AS n FROM events GROUP BY user_id, kind")
    assert "events.user_id AS k0" in plan.row_sql
    assert "events.kind AS k1" in plan.row_sql


def test_a_session_table_has_a_gap() -> None:
    plan = table_of("""
        SELECT user_id, window_start, window_end, count(*) AS n, bool_or(kind = 'a') AS bought,
               window_end - window_start AS length
        FROM events GROUP BY session_window(seen, '30 minutes'), user_id
    """)
    assert plan.kind is TableClass.SESSION
    assert plan.window is not None
    assert (plan.window.kind, plan.window.size) == ("session", timedelta(minutes=30))
    assert plan.columns[-1].type == "INTERVAL"
    assert plan.key == ("window_start", "user_id")


def test_a_window_over_a_sub_select_takes_the_event_time_under_its_new_name() -> None:
    plan = table_of("""
        SELECT window_start, s.tag, count(*) AS n
        FROM (SELECT seen AS moment, tag FROM events, UNNEST(tags) AS u(tag)) AS s
        GROUP BY window(s.moment, '1 hour'), s.tag
    """)
    assert plan.kind is TableClass.WINDOWED
    assert plan.unnests
    connection = duckdb.connect()
    filled(connection)
    assert connection.execute(f"SELECT count(*) FROM ({plan.row_sql})").fetchone() == (12,)


def test_a_stream_without_an_event_time_is_grouped_by_record_time() -> None:
    pipeline = hr.Pipeline("x")
    pipeline.stream("lines", schema="line VARCHAR")
    pipeline.table(
        "t", "SELECT window_start, count(*) AS n FROM lines GROUP BY window(_record_time, '1 minute')"
    )
    plan = plan_pipeline(pipeline).tables[0]
    assert "_record_time AS _time" in plan.row_sql


def test_a_filter_becomes_part_of_the_argument() -> None:
    plan = table_of(
        "SELECT count(*) FILTER (WHERE ok) AS a, max_by(kind, i) FILTER (WHERE i > 1) AS b FROM events"
    )
    assert "CASE  WHEN (events.ok) THEN (1) ELSE NULL END AS a" in plan.row_sql
    assert plan.row_sql.count("CASE") == 3


# -- reference tables --------------------------------------------------------------------------------------


def with_reference(query: str, *, key: str = "product_id") -> TablePlan:
    pipeline = pipeline_of()
    pipeline.reference(
        "products", "products.csv", key=key, schema="product_id VARCHAR, title VARCHAR, weight DOUBLE"
    )
    pipeline.table("t", query)
    return plan_pipeline(pipeline).tables[0]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT e.id, p.title FROM events e JOIN products p ON p.product_id = e.kind",
        "SELECT id, title FROM events LEFT JOIN products ON kind = product_id AND weight > 2",
        "SELECT id, item.quantity, title FROM events, UNNEST(items) AS t(item) "
        "LEFT JOIN products p ON p.product_id = item.product_id",
        "SELECT * FROM (SELECT id, kind AS product_id FROM events) AS s JOIN products USING (product_id)",
        "SELECT * FROM events JOIN products p ON p.product_id = kind",
    ],
)
def test_a_join_with_a_reference_table_sees_the_version_of_the_records_time(query: str) -> None:
    plan = with_reference(query)
    assert plan.references == ("products",)
    connection = duckdb.connect()
    filled(connection)
    connection.execute(
        "CREATE TABLE _reference_products AS SELECT *, TIMESTAMPTZ '2024-03-31 00:00:02+00' AS _valid_from, "
        "TIMESTAMPTZ '2024-03-31 00:00:06+00' AS _valid_to FROM (VALUES ('a', 'old', 1.0), ('b', 'old b', 3.0), "
        "('p1', 'old p', 2.5)) v(product_id, title, weight) UNION ALL SELECT *, TIMESTAMPTZ '2024-03-31 00:00:06+00', NULL "
        "FROM (VALUES ('a', 'new', 1.0), ('b', 'new b', 3.0), ('p1', 'new p', 3.5)) v"
    )
    found = connection.execute(f"SELECT * EXCLUDE (_time) FROM ({plan.row_sql})").fetchall()
    connection.execute("CREATE TABLE copy AS FROM _reference_products")
    expected: list[Any] = []
    for second in range(8):
        now = f"TIMESTAMPTZ '2024-03-31 00:00:0{second}+00'"
        connection.execute(
            f"CREATE OR REPLACE VIEW products AS SELECT * EXCLUDE (_valid_from, _valid_to) FROM copy "
            f"WHERE _valid_from <= {now} AND coalesce({now} < _valid_to, true)"
        )
        connection.execute(
            "CREATE OR REPLACE VIEW events AS SELECT * EXCLUDE (_partition, _offset, _record_time, _lane) "
            f"FROM _rows WHERE _offset = {second}"
        )
        expected += connection.execute(query).fetchall()
    assert sorted((row[3:] for row in found), key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("events JOIN products ON true", "does not fix its key 'product_id'"),
        ("events JOIN products ON title = kind", "does not fix its key 'product_id'"),
        ("events JOIN products ON product_id > kind", "does not fix its key 'product_id'"),
        ("events JOIN products p ON p.product_id = p.title", "does not fix its key 'product_id'"),
        ("events RIGHT JOIN products ON product_id = kind", "a RIGHT join with 'products'"),
        ("events FULL JOIN products ON product_id = kind", "a FULL join with 'products'"),
        ("events NATURAL JOIN products", "a NATURAL join with 'products'"),
        ("events, products", "a CROSS join with 'products'"),
        ("products JOIN events ON product_id = kind", "FROM begins with the reference table 'products'"),
    ],
)
def test_a_join_that_could_multiply_or_lose_records_is_refused(source: str, what: str) -> None:
    with pytest.raises(hr.DeclarationError) as raised:
        with_reference(f"SELECT id, title FROM {source}")
    assert what in str(raised.value)


def test_a_reference_without_a_schema_has_the_columns_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text("product_id,title,weight\np1,Lamp,1.5\n")
    pipeline = pipeline_of(t="SELECT id, title, weight FROM events JOIN products ON product_id = kind")
    pipeline.reference("products", str(path), key="product_id")
    assert [column.type for column in plan_pipeline(pipeline).tables[0].columns] == [
        "INTEGER",
        "VARCHAR",
        "DOUBLE",
    ]


# -- fingerprints ------------------------------------------------------------------------------------------

BASE = "SELECT user_id, count(*) AS n, sum(i) AS s FROM events WHERE ok GROUP BY user_id"


@pytest.mark.parametrize(
    "same",
    [
        "select USER_ID,\n count( * )  n, SUM(I) AS s -- a comment\n from EVENTS where OK group by events.user_id",
        "SELECT sum(i) AS s, user_id, count(*) AS many FROM events WHERE ok GROUP BY 2",
        "SELECT user_id, count(*) / sum(i) AS ratio FROM events WHERE ok GROUP BY user_id HAVING sum(i) > 3",
    ],
)
def test_a_change_of_form_or_of_the_result_part_keeps_the_state(same: str) -> None:
    assert table_of(same).fingerprint == table_of(BASE).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        "SELECT user_id, count(*) AS n, sum(i) AS s FROM events WHERE NOT ok GROUP BY user_id",
        "SELECT kind, count(*) AS n, sum(i) AS s FROM events WHERE ok GROUP BY kind",
        "SELECT user_id, count(*) AS n, sum(b) AS s FROM events WHERE ok GROUP BY user_id",
        "SELECT user_id, count(*) AS n FROM events WHERE ok GROUP BY user_id",
        "SELECT user_id, count(*) AS n, sum(i) AS s FROM events WHERE ok GROUP BY user_id, window(seen, '1 hour')",
    ],
)
def test_a_change_of_what_is_counted_needs_another_state(other: str) -> None:
    assert table_of(other).fingerprint != table_of(BASE).fingerprint


@pytest.mark.parametrize(
    ("query", "fingerprint"),
    [
        (BASE, "a68eef2ddeb98ec6154759d2eec94c00"),
        (
            "SELECT window_start, count(DISTINCT user_id) AS users, mode(kind) AS k FROM events "
            "GROUP BY window(seen, '1 hour')",
            "0bbe5e9a1b32dd0547bc6247be48c812",
        ),
        (
            "SELECT user_id, window_start, max(seen) AS last FROM events "
            "GROUP BY session_window(seen, '30 minutes'), user_id",
            "1acb7739ea47a94d581048c3b90f81c8",
        ),
        ("SELECT user_id, i FROM events WHERE ok", "31d5c643945d1190e8eac796b9494520"),
    ],
)
def test_stores_that_exist_are_known_by_the_fingerprints_that_were_written(
    query: str, fingerprint: str
) -> None:
    """One that changes has every user rebuild such tables: only for a state that cannot be read any more."""
    assert table_of(query).fingerprint == fingerprint


def test_a_changed_derived_column_needs_another_state_only_where_it_is_used() -> None:
    def fingerprints(condition: str) -> list[str]:
        pipeline = hr.Pipeline("x")
        pipeline.stream("events", schema=SCHEMA, event_time="seen", derive={"big": condition})
        pipeline.table("uses", "SELECT count(*) AS n FROM events WHERE big")
        pipeline.table("other", "SELECT count(*) AS n FROM events")
        return [table.fingerprint for table in plan_pipeline(pipeline).tables]

    before, after = fingerprints("i > 1"), fingerprints("i > 2")
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_plan_survives_pickling() -> None:
    plan = plan_pipeline(pipeline_of(t=BASE))
    again = pickle.loads(pickle.dumps(plan))
    assert again.tables == plan.tables
