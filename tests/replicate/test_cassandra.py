"""What is Cassandra's own: types, primary keys, timestamps, errors, and copies on two nodes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from cassandra.cluster import Session
from cassandra_target import LINES, CassandraTarget, lines, refused

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.replicate.cassandra.schema import layouts_of
from headrace.replicate.protocol import Chunk, NamedColumn, Position, TableShape, Task, version_of
from headrace.testing.replica_writes import FIRST, THINGS, chunk, gone, opened, thing
from servers.cassandra import cassandra_cluster, connected

VALUES: dict[str, tuple[str, Any]] = {
    "TINYINT": ("-5", -5),
    "UTINYINT": ("200", 200),
    "SMALLINT": ("-300", -300),
    "USMALLINT": ("65535", 65535),
    "INTEGER": ("-7", -7),
    "UINTEGER": ("4294967295", 4294967295),
    "BIGINT": ("-9223372036854775808", -(2**63)),
    "UBIGINT": ("18446744073709551615", 2**64 - 1),
    "HUGEINT": ("-170141183460469231731687303715884105727", -(2**127) + 1),
    "FLOAT": ("1.5", 1.5),
    "DOUBLE": ("0.1", 0.1),
    "DECIMAL(12,2)": ("-12345678.90", Decimal("-12345678.90")),
    "DECIMAL(38,5)": ("1234567890123456789.12345", Decimal("1234567890123456789.12345")),
    "DATE": ("1969-07-20", "1969-07-20"),
    "TIME": ("23:59:59.123456", "23:59:59.123456000"),
    "TIMESTAMP": ("2024-02-29 12:00:00.001", datetime(2024, 2, 29, 12, 0, 0, 1000, tzinfo=UTC)),
    "TIMESTAMP WITH TIME ZONE": (
        "1999-12-31 23:59:59.999+00",
        datetime(1999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    ),
    "UUID": (
        "550e8400-e29b-41d4-a716-446655440000",
        uuid.UUID("550e8400-e29b-41d4-a716-446655440000"),
    ),
    "JSON": ('{"a": [1, null]}', '{"a": [1, null]}'),
    "VARCHAR": ('it\'s "ü" \\ \t\n', 'it\'s "ü" \\ \t\n'),
    "BLOB": ("abc", b"abc"),
    "BOOLEAN": ("true", True),
}


@pytest.fixture
def target(cassandra_server: str) -> Iterator[CassandraTarget]:
    keyspace = f"test_{uuid.uuid4().hex[:12]}"
    with connected(cassandra_server) as session:
        yield CassandraTarget(cassandra_server, keyspace, session)


@pytest.mark.parametrize("columns", ["typed", "text"])
def test_every_type_comes_back_as_it_was_or_as_its_text(target: CassandraTarget, columns: str) -> None:
    names = {f"c{i}": kind for i, kind in enumerate(VALUES)}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        cells = ", ".join(f"CASE WHEN i <> 1 THEN $v{n}::{k} END AS {n}" for n, k in names.items())
        rows: pa.Table = connection.sql(
            f"SELECT i::INTEGER AS k, {cells}, {2**40 + 1} + i AS _version FROM range(3) r(i)",
            params={f"v{n}": VALUES[k][0] for n, k in names.items()},
        ).to_arrow_table()
    shape = TableShape(
        name="kinds",
        columns=(NamedColumn("k", "INTEGER"), *(NamedColumn(n, k) for n, k in names.items())),
        key=("k",),
    )
    with opened(target, shape, columns=columns) as writer:
        writer.take("kinds", None, FIRST)
        empty = rows.select(["k", "_version"]).slice(0, 0)
        writer.write(Chunk(table=shape, rows=rows, removed=empty, cursor=chunk(epoch=1).cursor))
    found = sorted(target.rows("kinds"), key=lambda row: str(row["k"]))
    for kind, name in zip(VALUES, names, strict=True):
        wanted = VALUES[kind][1]
        if columns == "typed":
            same = str if kind in ("DATE", "TIME") else lambda value: value
            assert same(found[0][name]) == wanted, kind
        else:
            assert isinstance(found[0][name], str), kind
        assert found[1][name] is None, kind
        assert found[2][name] == found[0][name], kind
    if columns == "text":
        texts = {kind: found[0][name] for kind, name in zip(VALUES, names, strict=True)}
        assert (texts["DECIMAL(12,2)"], texts["BOOLEAN"], texts["HUGEINT"]) == (
            "-12345678.90", "true", VALUES["HUGEINT"][0],
        )  # fmt: skip
        assert (
            datetime.fromisoformat(texts["TIMESTAMP WITH TIME ZONE"]) == VALUES["TIMESTAMP WITH TIME ZONE"][1]
        )


def test_a_key_that_is_null_names_coalesce(target: CassandraTarget) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        with pytest.raises(ProfileError, match="'who'") as raised:
            writer.write(chunk([thing("ann", 1), thing(None, 2)]))
    assert "COALESCE(who" in raised.value.fix
    assert target.rows(THINGS.name) == []


def test_what_cassandra_refuses_is_set_aside_alone(target: CassandraTarget) -> None:
    set_aside: list[Any] = []
    shape = replace(LINES, key=("who",))
    task = Task(replica="copy", pipeline="tests", tables=(shape,), set_aside=set_aside.extend)
    writer = target.replica().open(task)
    try:
        writer.take("lines", None, FIRST)
        names = ["ann", "", "bob", "x" * 70_000, "eve"]  # a partition key is neither empty nor above 64 KiB
        rows = lines([{"who": name, "n": 1, "note": "fine"} for name in names])
        writer.write(replace(rows, table=shape, removed=rows.removed.select(["who", "_version"])))
    finally:
        writer.close()
    assert sorted(row["who"] for row in target.rows("lines")) == ["ann", "bob", "eve"]
    assert [json.loads(each.key)["who"][:1] for each in set_aside] == ["", "x"]
    assert all(each.reason for each in set_aside)


def test_instants_of_a_key_that_cassandra_would_cut_are_set_aside(target: CassandraTarget) -> None:
    set_aside: list[Any] = []
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=set_aside.extend)
    writer = target.replica().open(task)
    try:
        writer.take(THINGS.name, None, FIRST)
        finer = {**thing("ann", 2), "seen": datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)}
        writer.write(chunk([thing("ann", 1), finer]))
    finally:
        writer.close()
    assert [row["n"] for row in target.rows(THINGS.name)] == [1]
    assert "date_trunc" in set_aside[0].reason


def test_rows_of_a_partition_lie_in_the_order_of_its_clustering_columns(target: CassandraTarget) -> None:
    with opened(target, LINES, keys={"lines": "who / n DESC"}) as writer:
        writer.take("lines", None, FIRST)
        writer.write(lines([{"who": f"u{i % 7}", "n": i, "note": "x" * (i % 90)} for i in range(1000)]))
    found = target.execute(f"SELECT n FROM {target.name('lines')} WHERE who = 'u3'")
    assert [row["n"] for row in found] == sorted((i for i in range(1000) if i % 7 == 3), reverse=True)
    assert len(target.rows("lines")) == 1000


def test_a_row_that_is_refused_leaves_the_others_of_its_batch(target: CassandraTarget) -> None:
    set_aside: list[Any] = []
    task = Task(replica="copy", pipeline="tests", tables=(LINES,), set_aside=set_aside.extend)
    writer = target.replica(keys={"lines": "n / who"}).open(task)
    try:
        writer.take("lines", None, FIRST)
        names = [f"u{i}" for i in range(20)]
        names[7] = "x" * 70_000
        writer.write(lines([{"who": name, "n": 1, "note": "fine"} for name in names]))
    finally:
        writer.close()
    assert len(target.rows("lines")) == 19
    assert len(set_aside) == 1


def test_a_primary_key_has_exactly_the_columns_of_the_key() -> None:
    for said in ("who", "who / note", "who, n, note", "/ n", "who / n, n", ""):
        with pytest.raises(ProfileError, match="does not have the columns"):
            layouts_of((LINES,), {"lines": said}, text=False, replica="copy")
    with pytest.raises(ProfileError, match=r"'lins'.*did you mean 'lines'"):
        layouts_of((LINES,), {"lins": "who / n"}, text=False, replica="copy")


def test_two_tables_that_would_have_one_name_are_refused() -> None:
    with pytest.raises(ProfileError, match="both be"):
        layouts_of((LINES, replace(LINES, name="Lines")), {}, text=False, replica="copy")


def test_a_table_with_another_primary_key_is_refused_with_what_to_do(target: CassandraTarget) -> None:
    with opened(target, LINES, keys={"lines": "who / n"}):
        pass
    error = refused(target, LINES)
    assert isinstance(error, RefusedError)
    assert "keys.lines" in error.fix
    with opened(target, LINES, keys={"lines": "who / n"}):
        pass


def test_timestamps_never_go_back_when_a_clock_was_ahead_or_a_store_is_rebuilt(
    target: CassandraTarget,
) -> None:
    ahead = time.time_ns() // 1000 + 3_600_000_000
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        # As if the clock of the first generation had been an hour ahead.
        target.execute(
            f'UPDATE {target.keyspace}."_headrace_cursors" SET timestamp_zero = {ahead}, '
            f"timestamp_last = {ahead + 10} WHERE table_name = '{THINGS.name}' IF EXISTS"
        )
        writer.write(chunk([thing("ann", 1, "old", epoch=900), thing("bob", 1, "old", epoch=900)], epoch=900))
        rebuilt = replace(FIRST, store_id="another", generation=2)
        writer.take(THINGS.name, replace(FIRST, position=Position.at(900)), rebuilt)
        removed = {**gone("bob", epoch=1), "_version": 2 * 2**40 + 1}
        writer.write(
            chunk([thing("ann", 2, "new", epoch=1, generation=2)], [removed], epoch=1, cursor=rebuilt)
        )
    assert {row["who"]: row["note"] for row in target.rows(THINGS.name)} == {"ann": "new"}


def test_what_a_replaced_writer_still_sends_is_older_than_all_of_its_successor(
    target: CassandraTarget,
) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1, "old")], epoch=1))
        (before,) = target.execute(f'SELECT * FROM {target.keyspace}."_headrace_cursors"')
        writer.take(THINGS.name, replace(FIRST, position=Position.at(1)), replace(FIRST, generation=2))
        again = replace(FIRST, generation=2)
        writer.write(chunk([thing("ann", 2, "new", epoch=1, generation=2)], epoch=1, cursor=again))
    # The greatest timestamp that the first one could use.
    target.execute(
        f"INSERT INTO {target.name(THINGS.name)} (who, seen, note) "
        f"VALUES ('ann', '2026-03-01 12:00:00+0000', 'zombie') USING TIMESTAMP {before['timestamp_last']}"
    )
    assert [row["note"] for row in target.rows(THINGS.name)] == ["new"]


def test_a_keyspace_is_made_and_compared_as_the_profile_says(target: CassandraTarget) -> None:
    with opened(target, datacenters={"datacenter1": "1"}):
        pass
    (row,) = target.execute(
        f"SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{target.keyspace}'"
    )
    assert row["replication"]["class"].endswith("NetworkTopologyStrategy")
    assert row["replication"]["datacenter1"] == "1"
    with opened(target, consistency="ONE"):
        pass  # nothing is said: it is left as it is
    error = refused(target, replication_factor=3)
    assert isinstance(error, RefusedError)
    assert "ALTER KEYSPACE" in error.fix
    both = refused(target, replication_factor=1, datacenters={"datacenter1": "1"})
    assert isinstance(both, ProfileError)


def test_a_server_that_does_not_answer_is_tried_again(target: CassandraTarget) -> None:
    error = refused(target, hosts="127.0.0.1:1", connect_timeout=timedelta(seconds=1))
    assert isinstance(error, TransientError)


@pytest.mark.parametrize("hosts", ["", "host:port", "host:99999", ":9042", ","])
def test_hosts_that_are_none_are_refused(target: CassandraTarget, hosts: str) -> None:
    assert isinstance(refused(target, hosts=hosts), ProfileError)


def test_a_datacenter_that_no_node_is_in_is_refused_with_those_that_are(target: CassandraTarget) -> None:
    error = refused(target, local_datacenter="dc7")
    assert isinstance(error, ProfileError)
    assert "'dc7'" in error.message
    assert "datacenter1" in error.fix
    with opened(target, local_datacenter="datacenter1") as writer:
        assert writer.cursors() == {}


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_rows_are_on_both_of_two_nodes_and_a_cursor_needs_them_both(cassandra_here: None) -> None:
    with cassandra_cluster(2) as (one, other):
        target = CassandraTarget(f"{one.host}:{one.port}", "twice", node=one)
        options = {
            "hosts": f"{one.host}:{one.port}, {other.host}:{other.port}",
            "replication_factor": 2,
            "request_timeout": timedelta(seconds=30),
        }
        rows = [{"who": f"u{i}", "n": i, "note": "x"} for i in range(300)]
        with opened(target, LINES, consistency="ALL", **options) as writer:
            writer.take("lines", None, FIRST)
            writer.write(lines(rows, epoch=1))
        for node in (one, other):
            node_of = CassandraTarget(f"{node.host}:{node.port}", "twice", node=node)
            assert len(node_of.rows("lines")) == 300
        other.kill()
        # The cursor moves by compare-and-set, which takes most of the copies: both of two.
        with pytest.raises(TransientError), opened(target, LINES, consistency="ONE", **options) as writer:
            writer.write(lines(rows, epoch=2))
        other.start(nodes=1)
        with opened(target, LINES, consistency="ONE", **options) as writer:
            writer.write(lines(rows, epoch=2))
            assert writer.cursors()["lines"].position == Position.at(2)


def test_a_sweep_goes_through_every_page_of_a_table(
    target: CassandraTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "default_fetch_size", 100)  # rows of a page
    rows = [thing(f"user {at}", at) for at in range(350)]
    second = replace(FIRST, generation=2, sweep_below=version_of(2, 0))
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk(rows, epoch=1))
        writer.take(THINGS.name, writer.cursors()[THINGS.name], second)
        writer.write(chunk([thing("user 7", 7, "kept", epoch=1, generation=2)], epoch=1, cursor=second))
        done = replace(second, sweep_below=0)
        writer.write(chunk(epoch=1, cursor=done, sweep_below=version_of(2, 0)))
    assert [row["who"] for row in target.rows(THINGS.name)] == ["user 7"]


def test_a_table_that_was_dropped_is_begun_anew(target: CassandraTarget) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    target.execute(f"DROP TABLE {target.name(THINGS.name)}")
    with opened(target) as writer:
        assert writer.cursors() == {}


@pytest.mark.parametrize("rows", [1, 7])
def test_a_table_that_is_dropped_under_a_writer_sets_no_row_aside(target: CassandraTarget, rows: int) -> None:
    set_aside: list[Any] = []
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=set_aside.extend)
    writer = target.replica().open(task)
    try:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
        target.execute(f"DROP TABLE {target.name(THINGS.name)}")
        with pytest.raises(TransientError, match="dropped"):
            writer.write(chunk([thing(f"user {at}", at) for at in range(rows)], epoch=2))
    finally:
        writer.close()
    assert set_aside == []
    with opened(target) as again:
        assert again.cursors() == {}
