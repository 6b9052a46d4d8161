"""What is PostgreSQL's own: types, errors, the schema, and what an operator sees."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from targets import PostgresTarget

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError
from headrace.operate.secrets import Secret
from headrace.replicate.postgresql.script import init_sql
from headrace.replicate.protocol import (
    Chunk,
    NamedColumn,
    Position,
    Refusal,
    TableShape,
    Task,
    version_of,
)
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import Kept, catch_up, feed, following, shop
from headrace.testing.replica_writes import FIRST, THINGS, chunk, gone, opened, thing
from headrace.testing.replicas import same
from servers.postgresql import postgres_server as own_server

VALUES = {
    "TINYINT": "-5",
    "UTINYINT": "200",
    "SMALLINT": "-300",
    "USMALLINT": "65535",
    "INTEGER": "-7",
    "UINTEGER": "4294967295",
    "BIGINT": "-9223372036854775808",
    "UBIGINT": "18446744073709551615",
    "HUGEINT": "-170141183460469231731687303715884105727",
    "FLOAT": "1.5",
    "DOUBLE": "0.1",
    "DECIMAL(12,2)": "-12345678.90",
    "DECIMAL(18,0)": "999999999999999999",
    "DECIMAL(38,5)": "123456789012345678901234567890123.12345",
    "DECIMAL(5,5)": "0.00001",
    "DECIMAL(24,4)": "-922337203685477.5808",  # the least number of 64 bits, without its point
    "DATE": "1969-07-20",
    "TIME": "23:59:59.123456",
    "TIMESTAMP": "2024-02-29 12:00:00.000001",
    "TIMESTAMP_S": "1969-07-20 20:17:40",
    "TIMESTAMP_MS": "2024-02-29 12:00:00.001",
    "TIMESTAMP_NS": "2024-02-29 12:00:00.000000001",  # finer than PostgreSQL's: text
    "ENUM('low', 'high')": "high",
    "TIMESTAMP WITH TIME ZONE": "1999-12-31 23:59:59.999999+00",
    "UUID": "550e8400-e29b-41d4-a716-446655440000",
    "JSON": '{"a": [1, 2, null], "b": "ü"}',
    "VARCHAR": 'it\'s "ü" \\ \t\n',
    "BOOLEAN": "true",
}


@pytest.fixture
def target(postgres_server: str) -> Iterator[PostgresTarget]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def refused(target: PostgresTarget, **options: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as raised, opened(target, **options):
        pass
    return raised.value


def test_who_looked_before_a_chunk_came_does_not_take_the_table_at_the_older_place(
    target: PostgresTarget,
) -> None:
    with opened(target) as old, opened(target) as new:
        old.take(THINGS.name, None, FIRST)
        seen = new.cursors()[THINGS.name]
        old.write(chunk([thing("ann", 1)], epoch=1))
        with pytest.raises(RefusedError, match="taken over"):
            new.take(THINGS.name, seen, replace(seen, generation=2))
        seen = new.cursors()[THINGS.name]
        new.take(THINGS.name, seen, replace(seen, generation=2))


def test_every_type_comes_back_as_it_was(target: PostgresTarget) -> None:
    names = {f"c{i}": kind for i, kind in enumerate(VALUES)}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        cells = ", ".join(f"CASE WHEN i <> 1 THEN $v{n}::{k} END AS {n}" for n, k in names.items())
        values = {f"v{n}": VALUES[k] for n, k in names.items()}
        rows: pa.Table = connection.sql(
            f"SELECT i::INTEGER AS k, {cells}, i + 5 AS _version FROM range(4) r(i)", params=values
        ).to_arrow_table()
        wanted = connection.sql(f"SELECT {', '.join(f'$v{n}::{k}' for n, k in names.items())}", params=values)
        expected = list(wanted.fetchall()[0])
    expected[list(VALUES).index("JSON")] = json.loads(VALUES["JSON"])
    expected[list(VALUES).index("TIMESTAMP_NS")] = VALUES["TIMESTAMP_NS"]
    columns = (NamedColumn("k", "INTEGER"), *(NamedColumn(n, k) for n, k in names.items()))
    shape = TableShape(name="kinds", columns=columns, key=("k",))
    empty = rows.select(["k", "_version"]).slice(0, 0)
    with opened(target, shape) as writer:
        writer.take("kinds", None, FIRST)
        sent = chunk(epoch=1)
        for epoch in (1, 2):  # into the empty table, and through staging
            later = chunk(epoch=epoch).cursor
            writer.write(type(sent)(table=shape, rows=rows, removed=empty, cursor=later))
    found = sorted(target.rows("kinds"), key=lambda row: row["k"])
    assert [list(row.values())[1:-1] for row in found] == [
        expected, [None] * len(expected), expected, expected
    ]  # fmt: skip


INSTANTS = {
    "DATE": {
        "infinity": "infinity",
        "-infinity": "-infinity",
        "4714-11-24 (BC)": "4714-11-24 BC",  # DuckDB's words for the first day that PostgreSQL has
        "4714-11-23 (BC)": None,
        "5877642-06-25 (BC)": None,
        "5874897-12-31": "5874897-12-31",
        "5874898-01-01": None,
        "5881580-07-10": None,
    },
    "TIMESTAMP": {
        "infinity": "infinity",
        "-infinity": "-infinity",
        "4714-11-24 (BC) 00:00:00": "4714-11-24 00:00:00 BC",
        "4714-11-23 (BC) 23:59:59.999999": None,
        "290309-12-22 (BC) 00:00:00": None,
        "294247-01-10 04:00:54.775806": "294247-01-10 04:00:54.775806",
    },
    "TIMESTAMP_S": {"infinity": "infinity", "-infinity": "-infinity", "290309-12-22 (BC) 00:00:00": None},
    "TIMESTAMP_MS": {"infinity": "infinity", "-infinity": "-infinity", "290309-12-22 (BC) 00:00:00": None},
}
INSTANTS["TIMESTAMP WITH TIME ZONE"] = {
    f"{given}+00" if ":" in given else given: wanted and wanted.replace(" BC", "+00 BC")
    for given, wanted in INSTANTS["TIMESTAMP"].items()
}


@pytest.mark.parametrize("kind", INSTANTS)
def test_instants_at_the_end_of_time_come_as_they_are_or_are_set_aside(
    target: PostgresTarget, kind: str
) -> None:
    given = list(INSTANTS[kind])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.sql(
            f"SELECT unnest(range(len($v))::INTEGER[]) AS k, unnest($v::{kind}[]) AS v, 5 AS _version",
            params={"v": given},
        ).to_arrow_table()
    shape = TableShape(name="ends", columns=(NamedColumn("k", "INTEGER"), NamedColumn("v", kind)), key=("k",))
    refusals: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(shape,), set_aside=refusals.extend)
    writer = target.replica().open(task)
    writer.take("ends", None, FIRST)
    empty = rows.select(["k", "_version"]).slice(0, 0)
    for epoch in (1, 2):  # into the empty table, and through staging
        writer.write(Chunk(table=shape, rows=rows, removed=empty, cursor=chunk(epoch=epoch).cursor))
        there = {k: v for k, v in INSTANTS[kind].items() if v is not None}
        with target.connect() as reader:
            reader.execute("SET TimeZone = 'UTC'")
            found = reader.execute("SELECT k, v::text AS v FROM ends").fetchall()
        assert {given[row["k"]]: row["v"].removesuffix("+00") for row in found} == {
            k: v.removesuffix("+00") for k, v in there.items()
        }
        assert [json.loads(each.key)["k"] for each in refusals] == [
            k for k, each in enumerate(given) if INSTANTS[kind][each] is None
        ]
        assert all("out of range" in each.reason for each in refusals)
        refusals.clear()
    writer.close()


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_seconds_farther_than_microseconds_go_are_set_aside_alone(target: PostgresTarget, unit: str) -> None:
    kind = f"TIMESTAMP_{unit.upper()}"
    shape = TableShape(name="far", columns=(NamedColumn("k", "INTEGER"), NamedColumn("v", kind)), key=("k",))
    far = pa.array([5, 10**16, None, -(10**16)], pa.timestamp(unit))
    rows = pa.table({"k": pa.array(range(4), pa.int32()), "v": far, "_version": pa.array([5] * 4)})
    refusals: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(shape,), set_aside=refusals.extend)
    writer = target.replica().open(task)
    writer.take("far", None, FIRST)
    empty = rows.select(["k", "_version"]).slice(0, 0)
    writer.write(Chunk(table=shape, rows=rows, removed=empty, cursor=chunk(epoch=1).cursor))
    writer.close()
    assert sorted(row["k"] for row in target.rows("far")) == [0, 2]
    assert [json.loads(each.key)["k"] for each in refusals] == [1, 3]


def test_a_dsn_that_is_none_is_refused_without_being_shown(target: PostgresTarget) -> None:
    error = refused(target, dsn=Secret("postgresql//user:hidden-word@host"))
    assert isinstance(error, ProfileError)
    assert "hidden-word" not in str(error)
    assert error.__cause__ is None


def test_a_database_that_does_not_exist_is_for_an_operator(target: PostgresTarget) -> None:
    error = refused(target, dsn=Secret(target.dsn + "_not"))
    assert isinstance(error, RefusedError)
    assert "create the database" in error.fix


def test_a_server_that_does_not_answer_is_tried_again(target: PostgresTarget) -> None:
    nobody = "postgresql://postgres@127.0.0.1:1/postgres"
    error = refused(target, dsn=Secret(nobody), connect_timeout=timedelta(seconds=1))
    assert isinstance(error, TransientError)


def test_a_table_that_somebody_holds_is_tried_again(target: PostgresTarget) -> None:
    with opened(target, lock_timeout=timedelta(milliseconds=200)) as writer:
        writer.take(THINGS.name, None, FIRST)
        with target.connect() as other, other.transaction():
            other.execute('LOCK TABLE "some ""things""" IN ACCESS EXCLUSIVE MODE')
            with pytest.raises(TransientError, match="lock"):
                writer.write(chunk([thing("ann", 1)]))


def test_a_user_without_rights_is_told_which_are_needed(target: PostgresTarget) -> None:
    user = f"reader_{uuid.uuid4().hex[:8]}"
    with target.connect() as connection:
        connection.execute(f"CREATE USER {user} PASSWORD 'x'")
    try:
        head, _, tail = target.dsn.partition("//")[2].partition("@")
        error = refused(target, dsn=Secret(f"postgresql://{user}:x@{tail}"))
        assert isinstance(error, RefusedError)
        assert "grant" in error.fix
        assert head
    finally:
        with target.connect() as connection:
            connection.execute(f"DROP USER {user}")


def test_a_text_that_postgresql_cannot_hold_is_set_aside_alone(target: PostgresTarget) -> None:
    set_aside: list[Any] = []
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=set_aside.extend)
    writer = target.replica().open(task)
    writer.take(THINGS.name, None, FIRST)
    rows = [thing(f"user {i}", i, "\0" if i in (3, 40) else "fine") for i in range(50)]
    writer.write(chunk(rows))
    writer.close()
    assert len(target.rows(THINGS.name)) == 48
    assert [json.loads(each.key)["who"] for each in set_aside] == ["user 3", "user 40"]
    assert "0x00" in set_aside[0].reason


def test_what_init_sql_makes_is_what_the_replica_expects(target: PostgresTarget) -> None:
    with target.connect() as connection:
        for statement in init_sql("public", (THINGS,)):
            connection.execute(statement)
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)]))
    assert len(target.rows(THINGS.name)) == 1


def test_rows_of_which_no_cursor_tells_are_not_written_over(target: PostgresTarget) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    with target.connect() as connection:
        connection.execute("DELETE FROM _headrace_cursors")
    with opened(target) as writer:
        assert writer.cursors() == {}
        with pytest.raises(RefusedError, match="says nothing of them") as raised:
            writer.take(THINGS.name, None, FIRST)
    assert "TRUNCATE" in raised.value.fix


def test_rows_that_were_there_before_the_replica_are_replaced_removed_and_swept(
    target: PostgresTarget,
) -> None:
    made = next(one for one in init_sql("public", (THINGS,)) if "things" in one)
    with target.connect() as connection:
        connection.execute(made.replace('"_version" bigint NOT NULL,', ""))
        for who in ("ann", "bob", "eve"):
            values = "VALUES (%s, '2026-03-01T12:00:00Z', 999, 'theirs')"
            connection.execute(f'INSERT INTO "some ""things""" (who, seen, n, note) {values}', [who])
    swept = replace(FIRST, generation=2, sweep_below=version_of(2, 0))
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1, "ours")], [gone("bob", epoch=1)], epoch=1))
        assert {row["who"]: row["note"] for row in target.rows(THINGS.name)} == {
            "ann": "ours",
            "eve": "theirs",
        }
        writer.take(THINGS.name, replace(FIRST, position=Position.at(1)), swept)
        again = [thing("ann", 1, "ours", generation=2)]
        done = replace(swept, sweep_below=0)
        writer.write(chunk(again, epoch=1, cursor=done, sweep_below=swept.sweep_below))
    assert [row["note"] for row in target.rows(THINGS.name)] == ["ours"]


def test_a_table_that_is_dropped_while_it_is_followed_is_made_and_filled_anew(
    target: PostgresTarget, tmp_path: Path
) -> None:
    names = ("totals", "all_rows")
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start="2026-03-01T12:00:00") as test:
        feed(test, 0, 20)
        with following(test, target.replica(tables=names)) as follower:
            catch_up(follower)
            with target.connect() as connection:
                connection.execute("DROP TABLE totals, all_rows")
            feed(test, 20, 20)
            catch_up(follower)
            same(test, target, names)


@pytest.mark.parametrize("statement", ["TRUNCATE totals, all_rows", "DELETE FROM totals"])
def test_a_table_without_rows_is_filled_anew_when_a_run_begins(
    target: PostgresTarget, tmp_path: Path, statement: str
) -> None:
    names = ("totals", "all_rows", "busy")
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start="2026-03-01T12:00:00") as test:
        feed(test, 0, 20)
        with following(test, target.replica(tables=names)) as follower:
            catch_up(follower)
        with target.connect() as connection:
            connection.execute(statement)
        with following(test, target.replica(tables=names)) as follower:
            catch_up(follower)
            same(test, target, names)
            sent = {copy.shape.name: copy.rows_sent for copy in follower.copies}
        assert sent["totals"] > 0
        assert sent["busy"] == 0
        with target.connect() as connection:
            taken = connection.execute("SELECT DISTINCT generation AS g FROM _headrace_cursors").fetchall()
        assert taken == [{"g": 2}], "whoever wrote before would not be refused"


def test_a_table_that_is_truncated_while_it_is_followed_is_filled_anew(
    target: PostgresTarget, tmp_path: Path
) -> None:
    names = ("totals", "all_rows")
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start="2026-03-01T12:00:00") as test:
        feed(test, 0, 20)
        told = Kept()
        with following(test, target.replica(tables=names), told=told) as follower:
            catch_up(follower)
            with target.connect() as connection:
                connection.execute("VACUUM FULL totals")  # gives it another file, and takes nothing out
            feed(test, 20, 20)
            catch_up(follower)
            assert told.states == ["starting", "following"]
            with target.connect() as connection:
                connection.execute("TRUNCATE totals, all_rows")
            feed(test, 40, 20)
            catch_up(follower)
            same(test, target, names)


def test_a_table_without_its_key_is_refused(target: PostgresTarget) -> None:
    made = (one for one in init_sql("public", (THINGS,)) if one.startswith("CREATE TABLE"))
    (statement,) = [one for one in made if "things" in one]
    with target.connect() as connection:
        connection.execute(statement.replace("UNIQUE NULLS NOT DISTINCT", "UNIQUE"))
    error = refused(target)
    assert isinstance(error, RefusedError)
    assert "UNIQUE NULLS NOT DISTINCT" in error.fix


def test_a_server_that_is_killed_while_it_writes_loses_and_doubles_nothing(postgres_here: None) -> None:
    with own_server() as server:
        target = PostgresTarget(server.dsn(), server)
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1)], epoch=1))
            server.kill()
            with pytest.raises(TransientError):
                writer.write(chunk([thing("bob", 2)], epoch=2))
        server.start()
        with opened(target) as writer:
            assert writer.cursors()[THINGS.name].position.epoch == 1
            writer.write(chunk([thing("bob", 2)], epoch=2))
        assert {row["who"] for row in target.rows(THINGS.name)} == {"ann", "bob"}
