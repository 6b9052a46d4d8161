"""Stamps of rows, and a database that `export sql` has prepared: what its roles may do, and what not."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from targets import PostgresTarget

from headrace.errors import RefusedError
from headrace.replicate.postgresql.schema import relation
from headrace.replicate.postgresql.script import READER, WRITER, init_sql
from headrace.replicate.protocol import NamedColumn, TableShape, version_of
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing

HELD = relation("headrace", THINGS.name)


@pytest.fixture
def target(postgres_server: str) -> Iterator[PostgresTarget]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def user(target: PostgresTarget) -> Iterator[PostgresTarget]:
    """The database, prepared, as somebody sees it who is only a member of the writers."""
    name, password = f"user_{uuid.uuid4().hex[:8]}", secrets.token_hex(16)
    with target.connect() as connection:
        for statement in init_sql("headrace", (THINGS,), stamped=True, roles=True):
            connection.execute(statement)
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {WRITER}")
        where = connection.info
        database, port = where.dbname, where.port
    yield PostgresTarget(f"postgresql://{name}:{password}@127.0.0.1:{port}/{database}")
    with target.connect() as connection:
        connection.execute(f"DROP ROLE {name}")


def test_a_database_that_an_earlier_script_prepared_says_who_must_run_it_again(
    target: PostgresTarget, user: PostgresTarget
) -> None:
    with target.connect() as connection:
        connection.execute("ALTER TABLE headrace._headrace_cursors DROP COLUMN kept_below")
    with pytest.raises(RefusedError) as refused, opened(user, schema="headrace", stamps="on"):
        pass
    assert "their owner run what headrace export sql prints" in refused.value.fix
    with target.connect() as connection:
        for statement in init_sql("headrace", (THINGS,), stamped=True, roles=True):
            connection.execute(statement)
    with opened(user, schema="headrace", stamps="on") as writer:
        writer.take(THINGS.name, None, FIRST)
        assert writer.cursors() == {THINGS.name: FIRST}


def test_stamps_say_when_and_by_which_epoch_a_row_was_written(target: PostgresTarget) -> None:
    with opened(target, stamps="on") as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1, epoch=3), thing("bob", 1, epoch=3)], epoch=3))
        before = {row["who"]: row for row in target.rows(THINGS.name)}
        writer.write(chunk([thing("bob", 2, epoch=7)], epoch=7))
    after = {row["who"]: row for row in target.rows(THINGS.name)}
    assert (before["ann"]["epoch"], before["bob"]["epoch"], after["bob"]["epoch"]) == (3, 3, 7)
    assert after["ann"] == before["ann"]
    assert after["bob"]["updated_at"] > before["bob"]["updated_at"]
    assert abs(after["bob"]["updated_at"] - before["bob"]["updated_at"]) < timedelta(minutes=5)
    assert after["bob"]["_version"] == version_of(FIRST.generation, 7)


def test_stamps_are_added_to_a_table_that_is_there_already(target: PostgresTarget) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1, epoch=3)], epoch=3))
    with opened(target, stamps="on"):
        (row,) = target.rows(THINGS.name)
    assert (row["who"], row["epoch"]) == ("ann", 3)
    with opened(target):  # and without stamps again, the table is no obstacle
        pass


def test_a_column_that_is_called_as_a_stamp_is_refused_with_what_to_write(target: PostgresTarget) -> None:
    shape = TableShape(name="moved", columns=(NamedColumn("epoch", "BIGINT"),), key=("epoch",))
    with pytest.raises(RefusedError, match="'moved' has a column 'epoch'") as refused:
        list(init_sql("public", (shape,), stamped=True))
    assert "AS another_name" in refused.value.fix


def test_a_member_of_the_writers_fills_a_prepared_database_and_makes_nothing(user: PostgresTarget) -> None:
    with opened(user, schema="headrace", stamps="on") as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)]))
    with user.connect() as connection:
        held = connection.execute(f"SELECT who, epoch FROM {HELD}").fetchall()
        assert [row["who"] for row in held] == ["ann"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE headrace.mine (n int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"DROP TABLE {HELD}")


def test_a_reader_looks_and_does_not_write(target: PostgresTarget, user: PostgresTarget) -> None:
    with target.connect() as connection:
        connection.execute("CREATE VIEW headrace.later AS SELECT 1 AS n")  # default privileges
        connection.execute(f"SET ROLE {READER}")
        assert connection.execute(f"SELECT * FROM {HELD}").fetchall() == []
        assert connection.execute("SELECT n FROM headrace.later").fetchall() == [{"n": 1}]
        for statement in (f"DELETE FROM {HELD}", "CREATE TABLE headrace.mine (n int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_script_may_run_again_and_holds_no_password(target: PostgresTarget) -> None:
    statements = list(init_sql("headrace", (THINGS,), stamped=True, roles=True))
    with target.connect() as connection:
        for statement in statements * 2:
            connection.execute(statement)
    assert "password" not in " ".join(statements).lower()
    assert all("NOLOGIN" in one for one in statements if "CREATE ROLE" in one)


def test_a_table_with_a_time_in_its_key_gets_an_index_by_the_other_columns(target: PostgresTarget) -> None:
    columns = (NamedColumn("window_start", "TIMESTAMP WITH TIME ZONE"), NamedColumn("page", "VARCHAR"))
    shape = TableShape(name="traffic", columns=columns, key=("window_start", "page"))
    with target.connect() as connection:
        for statement in init_sql("headrace", (shape,)):
            connection.execute(statement)
        (found,) = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'headrace' AND indexname = 'traffic_by_page'"
        ).fetchall()
    assert "(page, window_start DESC)" in found["indexdef"]
