"""What is refused says what is wrong, where, and what to write instead."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import pytest
from sql_cases import SCHEMA

import headrace as hr
from headrace.sql import plan_pipeline

COUNT = "SELECT window_start, count(*) AS n FROM events GROUP BY"

# query | what is said of it, from its beginning | part of what to write instead
REFUSED = f"""
SELECT usr_id FROM events | unknown column 'usr_id'; did you mean 'user_id'? (line 1, column 8 of the query) | there are id, seen
SELECT x.i FROM events | unknown column 'x.i' (line 1, column 8 of the query) | there are id
SELECT events.j FROM events | unknown column 'events.j' | there are id
SELECT place.town AS x FROM events | Could not find key "town" in struct (line 1, column 8 of the query) | correct
SELECT count(*) AS n FROM event | there is no stream or table 'event'; did you mean 'events'? (line 1, column 27 | there are
SELECT uppr(kind) AS x FROM events | unknown function 'uppr'; did you mean 'upper'? (line 1, column 8 | pipeline.function
SELECT now() AS x FROM events | 'now' asks for the time: it would answer differently when records are read again | _record_time
SELECT current_timestamp AS x FROM events | 'current_timestamp' asks for the time | event time
SELECT age(t) AS x FROM events | 'age' asks for the time | event time
SELECT random() AS x FROM events | 'random' answers differently every time | hash
SELECT uuid() AS x FROM events | 'uuid' answers differently every time | hash
SELECT getenv('HOME') AS x FROM events | 'getenv' reads the machine that it runs on | pipeline.reference
SELECT version() AS x FROM events | 'version' reads DuckDB's session | write the value
SELECT current_setting('threads') AS x FROM events | 'current_setting' reads DuckDB's session | write the value
SELECT nextval('s') AS x FROM events | 'nextval' reads DuckDB's session | write the value
SELECT current_user AS x FROM events | 'current_user' reads DuckDB's session | write the value
SELECT list_transform(tags, lambda x: x || now()::VARCHAR) AS l FROM events | 'now' asks for the time | event time
SELECT unnest(tags) AS x FROM events | 'unnest' makes several rows of one | FROM stream, UNNEST(list) AS t(item)
SELECT first(i) AS x FROM events | first() depends on the order in which records are read | max_by(x, time)
SELECT list(i) AS x FROM events | list() depends on the order in which records are read | max_by(x, time)
SELECT string_agg(kind, ',') AS x FROM events | string_agg() depends on the order | max_by(x, time)
SELECT any_value(kind) AS x FROM events | any_value() depends on the order | max_by(x, time)
SELECT corr(i, b) AS x FROM events | corr() is not in the short list | use one of approx_count_distinct
SELECT geomean(i) AS x FROM events | geomean() is not in the short list | a view over it
SELECT max_by(i, b, 3) AS x FROM events | max_by() with 3 arguments | it takes 2
SELECT count(DISTINCT i, b) AS x FROM events | count() with 2 arguments | it takes 1
SELECT stddev(DISTINCT i) AS x FROM events | stddev_samp(DISTINCT ...) is not in the short list | leave DISTINCT out
SELECT sum(kind) AS x FROM events | no function takes these arguments: sum(VARCHAR) (line 1, column 8 of the query) | sum(arg DECIMAL)
SELECT sum(CAST(m AS DECIMAL(38,30))) AS x FROM events | sum of a DECIMAL(38,30): of the 28 digits that are summed, 0 would be left before the point (line 1, column 8 of the query) | sum(CAST(... AS DECIMAL(28,10)))
SELECT kind, avg(CAST(m AS DECIMAL(29,17)) * 1) AS x FROM events GROUP BY kind | avg of a DECIMAL( | avg(CAST(... AS DECIMAL(28,10)))
SELECT sum(CAST(m AS DECIMAL(18,10)) * CAST(m AS DECIMAL(18,10))) AS x FROM events | sum of a DECIMAL(36,20): of the 28 digits that are summed, 8 would be left | sum(CAST(... AS DECIMAL(28,10)))
SELECT avg(t) AS x FROM events | avg of a TIMESTAMP WITH TIME ZONE | make it a number first
SELECT sum(i ORDER BY b) AS x FROM events | sum(... ORDER BY ...) | max_by(x, order)
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY i) AS x FROM events | quantile_cont(... ORDER BY ...) | quantile_cont(x, 0.5)
SELECT quantile_cont(i, d) AS x FROM events | the second argument of quantile_cont() is not a constant | write a number
SELECT quantile_cont(i, 1.5) AS x FROM events | QUANTILE can only take parameters in the range | correct
SELECT sum(sum(i)) AS x FROM events | an aggregate of an aggregate | view
SELECT max(NULL) AS x FROM events | 'a0' is always NULL and has no type | CAST(NULL
SELECT NULL AS x FROM events | 'x' is always NULL and has no type | CAST(NULL
SELECT sum(i) OVER () AS x FROM events | a window function (OVER) cannot be used over a stream | view
SELECT i FROM events ORDER BY i | ORDER BY in a table over a stream (line 1, column 31 of the query) | a table has no order
SELECT i FROM events LIMIT 5 | LIMIT in a table over a stream | view
SELECT DISTINCT i FROM events | DISTINCT in a table over a stream | GROUP BY
SELECT i FROM events QUALIFY row_number() OVER () = 1 | QUALIFY in a table over a stream | view
SELECT i FROM events TABLESAMPLE 10% | TABLESAMPLE takes rows by chance | WHERE
SELECT i FROM events USING SAMPLE 5 | USING SAMPLE in a table over a stream takes rows by chance | WHERE
SELECT i FROM events UNION ALL SELECT i FROM events | a set operation (UNION, EXCEPT, INTERSECT) | a view
WITH x AS (SELECT * FROM events) SELECT i FROM x | WITH in a table over a stream | FROM (SELECT ... FROM stream) AS s
SELECT i FROM events WHERE i IN (SELECT i FROM events) | a sub-query cannot be used over a stream | reference
SELECT (SELECT 1) AS x FROM events | a sub-query cannot be used over a stream | view
SELECT kind, count(*) AS n FROM events GROUP BY ROLLUP (kind) | GROUPING SETS, ROLLUP or CUBE | a table for each
SELECT kind, grouping(kind) AS n FROM events GROUP BY kind | grouping(...) | a table for each
SELECT kind, count(*) AS n FROM events GROUP BY ALL | GROUP BY ALL | write the keys
SELECT md5_number(kind) AS h FROM events | a value of the type UHUGEINT cannot be kept (line 1, column 8 of the query) | AS VARCHAR, or AS HUGEINT
SELECT kind::TIMETZ AS x FROM events | a value of the type TIME WITH TIME ZONE cannot be kept | AS VARCHAR
SELECT ['101'::BIT] AS x FROM events | a value of the type BIT cannot be kept | AS VARCHAR
SELECT max(kind::ENUM('a', 'b')) AS m FROM events | a value of the type ENUM cannot be kept (line 1, column 1 | list_position
SELECT kind::ENUM('a', 'b') AS m, count(*) AS n FROM events GROUP BY 1 | a value of the type ENUM cannot be kept | list_position
SELECT max(kind)::ENUM('a', 'b') AS m FROM events | a value of the type ENUM cannot be kept | list_position
SELECT union_value(a := i) AS x FROM events | a value of the type UNION cannot be kept | STRUCT
SELECT {{'x': i::VARIANT}} AS x FROM events | a value of the type VARIANT cannot be kept | JSON
SELECT count(DISTINCT md5_number(kind)) AS n FROM events | a value of the type UHUGEINT cannot be kept | AS VARCHAR
SELECT w::ENUM('a', 'b') AS w FROM other | a value of the type ENUM cannot be kept | AS VARCHAR
SELECT i FROM events HAVING i > 1 | HAVING without GROUP BY | WHERE
SELECT kind, [x || i for x in tags] AS n FROM events GROUP BY kind, tags | 'i' is neither a key nor inside an aggregate | max(i)
SELECT kind, [x || count(*) for x in [kind]] AS n FROM events GROUP BY kind | the aggregate count(...) cannot stand in a lambda | HAVING
SELECT kind, [x || i for x in [kind]] AS n FROM events GROUP BY kind | 'i' is neither a key nor inside an aggregate | max(i)
SELECT kind, i, count(*) AS n FROM events GROUP BY kind | 'i' is neither a key nor inside an aggregate | max(i)
SELECT kind, count(*) FROM events GROUP BY kind | column 2 has no name | ... AS name
SELECT kind, count(*) AS n, sum(i) AS N FROM events GROUP BY kind | two columns are named 'N' | AS another_name
SELECT i AS _x FROM events | column '_x' begins with _, which is Headrace's | AS x
SELECT * FROM events GROUP BY kind | * in a query with GROUP BY | keys and the aggregates
SELECT max(i) AS m FROM events GROUP BY 3 | GROUP BY 3: it selects 1 column | the key
SELECT COLUMNS('a.*') FROM events | COLUMNS(...) or * inside an expression | write the columns
SELECT $1 AS x FROM events | a parameter cannot be used over a stream | the value
SELECT #1 AS x FROM events | a positional reference cannot be used over a stream | name
SELECT i FROM events WHERE sum(i) > 2 | the aggregate sum(...) cannot stand in WHERE | HAVING
SELECT kind COLLATE NOCASE AS k, count(*) AS n FROM events GROUP BY kind COLLATE NOCASE | COLLATE cannot be used over a stream (line 1, column 8 of the query) | lower(x)
SELECT i FROM events WHERE kind COLLATE NOCASE = 'a' | COLLATE cannot be used over a stream | lower(x)
SELECT i FROM events WHERE kind | WHERE is VARCHAR, not BOOLEAN | write a condition
SELECT i + tags AS x FROM events | no function takes these arguments: +(INTEGER, VARCHAR[]) (line 1, column 10 | CAST
SELECT CAST(i AS foo) AS x FROM events | Type with name foo does not exist! (line 1, column 18 | did you mean
{COUNT} window(t, '5 minutes') | window() is over something else than the event time | write window(seen, ...)
{COUNT} window(seen, '5 minuts') | window(): '5 minuts': 'minuts': unknown unit | '5 minutes'
{COUNT} window(seen, '1 month') | window(): '1 month': 'month': it has no fixed length | '5 minutes'
{COUNT} window(seen, '5 minutes', '10 minutes') | the slide of the window is longer than its size | at most the size
{COUNT} window(seen) | window(...) with 1 argument (line 1, column 57 of the query) | write window(time, '5 minutes')
{COUNT} window(seen, INTERVAL 5 MINUTES) | a length of window() that is not a text | '5 minutes'
{COUNT} window(seen, '0 s') | window() of length 0 | '5 minutes'
{COUNT} window(seen, '99999999999 days') | window(): '99999999999 days' is too long (line 1, column 70 of the query) | '5 minutes'
{COUNT} session_window(seen, '99999999999 days') | session_window(): '99999999999 days' is too long | '5 minutes'
{COUNT} window(seen, '30 days', '1 ms') | every record would be in 2592000000 windows: at most 10000 (line 1, column 81 of the query) | write a slide of '4 minutes 19 seconds 200 ms' or longer
{COUNT} window(seen, '10001 s', '1 s') | every record would be in 10001 windows: at most 10000 | write a slide of '1 second 100 us' or longer
{COUNT} window(seen, '5 minutes'), window(seen, '1 minute') | two windows in one query | a table for each
{COUNT} session_window(seen, '5 minutes', '1 minute') | session_window(...) with 3 arguments | session_window(time, '30 minutes')
{COUNT} kind | 'window_start' is there only with window(...) | GROUP BY window
SELECT window(seen, '5 minutes') AS w FROM events | window(...) may stand in GROUP BY only | window_start, window_end
SELECT max(window_start) AS w FROM events GROUP BY window(seen, '5 minutes') | a bound of the window inside an aggregate | event time
SELECT count(*) FILTER (WHERE window_start > seen) AS w FROM events GROUP BY window(seen, '5 minutes') | a bound of the window inside FILTER (line 1, column 31 of the query) | event time
SELECT kind, count(*) FILTER (WHERE count(*) > 1) AS w FROM events GROUP BY kind | an aggregate inside FILTER (line 1, column 37 of the query) | HAVING
SELECT kind, sum(i) AS s, count(*) FILTER (WHERE s > 1) AS w FROM events GROUP BY kind | the aggregate sum(...) cannot stand in FILTER | SELECT and HAVING
SELECT e.id, f.id AS g FROM events e JOIN events f ON e.id = f.id | a join of two streams is not supported yet | reference
SELECT e.id, f.id AS g FROM events e, clicks f | a join of two streams is not supported yet | view
SELECT id, n FROM events JOIN other ON kind = w | 'other' is a table: it cannot be read together with a stream | view
SELECT 1 AS x | it reads no stream | FROM
SELECT i FROM range(10) t(i) | the table function 'range' in FROM | pipeline.reference
SELECT i FROM read_csv('file.csv') | the table function 'read_csv' in FROM | pipeline.reference
SELECT i FROM 'file.csv' | there is no stream or table 'file.csv' | there are
SELECT i FROM (SELECT sum(i) AS i FROM events) s | an aggregate in a sub-select over a stream | a view of it
SELECT i FROM (SELECT i FROM events LIMIT 5) s | LIMIT in a sub-select over a stream | view
SELECT seen, i FROM events e (a, b) | a list of column names after a stream | sub-select
INSERT INTO events VALUES (1) | it is not a SELECT statement | SELECT
SELECT i FROM events; SELECT b FROM events | there is more than one statement | one table for each
SELEC i FROM events | syntax error at or near "SELEC" (line 1, column 1 of the query) | syntax
SELECT n, now() AS x FROM other | 'now' in a view | the panel or the alert
SELECT n, random() AS x FROM other | 'random' in a view answers differently every time | leave it out
SELECT n, list(w) AS l FROM other GROUP BY n | list() depends on the order of rows | list(... ORDER BY ...)
SELECT n FROM other, 'x.parquet' | there is no table 'x.parquet' | there are
SELECT n FROM other, read_csv('x.csv') | the table function 'read_csv' | read tables only
SELECT w COLLATE NOCASE AS w, sum(n) AS n FROM other GROUP BY 1 | COLLATE in a view | lower(x)
SELECT n, getenv('HOME') AS h FROM other | 'getenv' reads more than tables | value
SELECT n, n + 1 FROM other | column 2 has no name | ... AS name
SELECT n, w AS _w FROM other | column '_w' begins with _ | AS another_name
SELECT count(*) AS n FROM other GROUP BY window(w, '1 minute') | window(...) is for tables over streams | time_bucket
SELECT m FROM other | Referenced column "m" not found in FROM clause! (line 1, column 8 of the query) | did you mean 'n'?
SELECT n FROM t | views that read each other: t -> t | the tables that they stand on
""".strip().splitlines()


def problems_of(pipeline: hr.Pipeline) -> list[hr.Problem]:
    with pytest.raises(hr.DeclarationError) as raised:
        plan_pipeline(pipeline)
    return list(raised.value.problems)


def pipeline_with(query: str, **options: object) -> hr.Pipeline:
    pipeline = hr.Pipeline("test")
    pipeline.stream("events", schema=SCHEMA, event_time="seen")
    pipeline.stream("clicks", schema="id INT, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("other", "SELECT user_id AS w, count(*) AS n FROM events GROUP BY user_id")
    pipeline.table("t", query, **options)
    return pipeline


@pytest.mark.parametrize("line", REFUSED)
def test_a_query_is_refused_with_its_place_and_what_to_write_instead(line: str) -> None:
    query, what, fix = line.split(" | ")
    problems = problems_of(pipeline_with(query))
    assert [problem.subject for problem in problems] == ["table 't'"] * len(problems)
    assert any(problem.what.startswith(what) and fix in problem.fix for problem in problems), problems
    assert all(problem.fix and problem.line > 0 and problem.file.endswith(".py") for problem in problems)


def test_a_list_of_what_there_is_says_where_it_is_cut() -> None:
    pipeline = pipeline_with("SELECT id FROM events")
    for number in range(12):
        pipeline.table(f"of_{number}", "SELECT id FROM events")
    pipeline.table("over_none", "SELECT id FROM nothing")
    pipeline.panel("Over none", "SELECT n FROM nothing")
    fixes = [problem.fix for problem in problems_of(pipeline)]
    assert [fix.count(",") for fix in fixes] == [12, 12]
    assert all(fix.endswith(", …") for fix in fixes)


def test_a_panel_may_be_ordered_by_a_collation() -> None:
    pipeline = pipeline_with("SELECT kind FROM events")
    pipeline.panel("Users", "SELECT w, n FROM other ORDER BY w COLLATE NOCASE", kind="table")
    assert plan_pipeline(pipeline).panels


def test_what_cannot_be_kept_may_stand_inside_an_expression() -> None:
    query = """
        SELECT CAST(md5_number(kind) AS VARCHAR) AS digest, {'bit': 1, 'enum': 2, 'union': 3} AS words
        FROM events WHERE kind::ENUM('low', 'high') > 'low'"""
    assert plan_pipeline(pipeline_with(query)).tables


def test_a_derived_column_has_a_type_that_can_be_kept() -> None:
    pipeline = hr.Pipeline("test")
    derive = {"level": "kind::ENUM('low', 'high')", "ok": "1"}
    pipeline.stream(
        "events", schema="kind VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen", derive=derive
    )
    (problem,) = problems_of(pipeline)
    assert problem.what.startswith("derived column 'level': a value of the type ENUM cannot be kept")
    assert "list_position" in problem.fix


def test_every_problem_is_reported_at_once_in_the_order_of_the_file() -> None:
    pipeline = hr.Pipeline("test")
    pipeline.stream(
        "events", schema="id INT, amount DOUBLE, seen TIMESTAMP NOT NULL", event_time="sen",
        derive={"big": "amout > 5", "ok": "now() > seen"}, expect={"known": "id", "real": "ammount > 0"},
    )  # fmt: skip
    pipeline.stream("clicks", schema="id INT, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("a", "SELECT ids, now() AS n, foo(id) AS f FROM clicks LIMIT 3")
    pipeline.table("b", "SELECT count(*) AS n FROM a")
    pipeline.panel("A panel", "SELECT n FROM c", kind="line")
    pipeline.alert("an_alert", "SELECT 5 FROM clicks")
    problems = problems_of(pipeline)
    assert [(problem.subject, problem.what.split(" (line")[0]) for problem in problems] == [
        ("stream 'events'", "event_time: no column 'sen' in the schema"),
        ("stream 'events'", "derived column 'big': unknown column 'amout'; did you mean 'amount'?"),
        ("stream 'events'", "derived column 'ok': 'now' asks for the time: it would answer differently when records "
                            "are read again"),
        ("stream 'events'", "expectation 'known': it is INTEGER, not BOOLEAN"),
        ("stream 'events'", "expectation 'real': unknown column 'ammount'; did you mean 'amount'?"),
        ("table 'a'", "LIMIT in a table over a stream"),
        ("table 'a'", "unknown column 'ids'; did you mean 'id'?"),
        ("table 'a'", "'now' asks for the time: it would answer differently when records are read again"),
        ("table 'a'", "unknown function 'foo'; did you mean 'floor'?"),
        ("panel 'A panel'", "there is no table 'c'"),
        ("alert 'an_alert'", "'clicks' is a stream"),
    ]  # fmt: skip


def test_what_reads_a_wrong_declaration_is_not_a_second_problem() -> None:
    pipeline = hr.Pipeline("test")
    pipeline.stream("events", schema="id INTT, seen TIMESTAMP", event_time="seen")
    pipeline.table("a", "SELECT id FROM events")
    pipeline.table("b", "SELECT count(*) AS n FROM a")
    pipeline.panel("C", "SELECT n FROM b", kind="line")
    assert {problem.subject for problem in problems_of(pipeline)} == {"stream 'events'"}


@pytest.mark.parametrize(
    ("query", "key", "what"),
    [
        ("SELECT id FROM events", "idd", "key='idd' is not a column of the table"),
        ("SELECT kind, count(*) AS n FROM events GROUP BY kind", "kind", "key= with GROUP BY"),
        ("SELECT n FROM other", "m", "key='m' is not a column of the view"),
    ],
)
def test_a_key_that_cannot_be_is_refused(query: str, key: str, what: str) -> None:
    assert what in [problem.what for problem in problems_of(pipeline_with(query, key=key))]


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("count(*) > 1", "the aggregate count(...) cannot stand in an expression over one record"),
        ("id IN (SELECT 1)", "a sub-query cannot be used over a stream"),
        ("row_number() OVER () = 1", "a window function (OVER) cannot be used over a stream"),
        ("id > 1, id > 2", "this is not one expression"),
        ("_offset > 1", "unknown column '_offset'"),
        ("products.weight > 1", "unknown column 'products.weight'"),
        ("id >", "syntax error at or near"),
    ],
)
def test_an_expectation_is_one_condition_over_the_record_alone(condition: str, what: str) -> None:
    pipeline = hr.Pipeline("test")
    pipeline.stream(
        "events", schema="id INT, seen TIMESTAMP NOT NULL", event_time="seen", expect={"e": condition}
    )
    pipeline.reference("products", "products.csv", key="id", schema="id INT, weight DOUBLE")
    assert any(problem.what.startswith(f"expectation 'e': {what}") for problem in problems_of(pipeline))


@pytest.mark.parametrize("groups", ["", " GROUP BY kind"])
def test_keep_is_refused_where_nothing_becomes_old(groups: str) -> None:
    totals = pipeline_with(f"SELECT count(*) AS n FROM events{groups}", keep="1 day")
    found = [(problem.what, problem.fix) for problem in problems_of(totals)]
    assert [what for what, _ in found] == ["keep= with totals that have no window: they never become old"]
    assert "group by a window" in found[0][1]
