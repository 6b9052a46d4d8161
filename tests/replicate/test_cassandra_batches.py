"""Rows of Cassandra that are partitions of their own: sent together where they lie together."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from cassandra.concurrent import execute_concurrent
from cassandra_target import LINES, CassandraTarget, lines

from headrace.replicate.cassandra import writer as writing
from headrace.replicate.protocol import Task
from headrace.testing.replica_writes import FIRST, THINGS, chunk, gone, opened, thing
from servers.cassandra import cassandra_cluster, connected


@pytest.fixture
def target(cassandra_server: str) -> Iterator[CassandraTarget]:
    keyspace = f"test_{uuid.uuid4().hex[:12]}"
    with connected(cassandra_server) as session:
        yield CassandraTarget(cassandra_server, keyspace, session)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many statements each request had that rows were sent with."""
    found: list[int] = []

    def counted(session: Any, statements: Iterable[tuple[Any, Any]], **more: Any) -> Any:
        def noted() -> Iterator[tuple[Any, Any]]:
            for statement, values in statements:
                batched = getattr(statement, "_statements_and_parameters", None)
                found.append(1 if batched is None else len(batched))
                yield statement, values

        return execute_concurrent(session, noted(), **more)

    monkeypatch.setattr(writing, "execute_concurrent", counted)
    return found


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """The partition keys of the rows of each request, as the driver routes by them."""
    found: list[list[bytes]] = []
    make = writing._batch

    def noted(group: Sequence[tuple[Any, Any]]) -> Any:
        found.append([statement.routing_key for statement, _ in group])
        return make(group)

    monkeypatch.setattr(writing, "_batch", noted)
    return found


def test_rows_of_one_partition_go_together_and_with_no_others(
    target: CassandraTarget, keys: list[list[bytes]]
) -> None:
    with opened(target, LINES, keys={"lines": "who / n"}) as writer:
        writer.take("lines", None, FIRST)
        writer.write(lines([{"who": f"u{at % 20}", "n": at, "note": ""} for at in range(1_000)]))
    assert sum(map(len, keys)) == 1_000
    assert all(len(set(each)) == 1 for each in keys), "a request holds rows of one partition"
    assert len({each[0] for each in keys}) == 20
    assert len(keys) < 100
    assert len(target.rows("lines")) == 1_000


def test_rows_of_many_partitions_take_few_requests(target: CassandraTarget, sent: list[int]) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing(f"user {at}", at) for at in range(1_000)], epoch=1))
        assert (sum(sent), max(sent), len(sent)) == (1_000, 10, 100)
        sent.clear()
        writer.write(chunk([], [gone(f"user {at}", epoch=2) for at in range(995)], epoch=2))
        assert (sum(sent), len(sent)) == (995, 100)
    assert {row["who"] for row in target.rows(THINGS.name)} == {f"user {at}" for at in range(995, 1_000)}


def test_a_row_that_is_refused_leaves_the_others_that_were_sent_with_it(
    target: CassandraTarget, sent: list[int]
) -> None:
    set_aside: list[Any] = []
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=set_aside.extend)
    names = [f"user {at}" for at in range(30)]
    names[17] = "x" * 70_000  # a key has less than 64 KiB
    writer = target.replica().open(task)
    try:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing(name, 1) for name in names], epoch=1))
    finally:
        writer.close()
    assert {row["who"] for row in target.rows(THINGS.name)} == {*names[:17], *names[18:]}
    assert len(set_aside) == 1


def test_a_request_that_is_too_large_is_sent_row_by_row(target: CassandraTarget, sent: list[int]) -> None:
    notes = ["x" * 30_000 if at < 20 else "" for at in range(2_000)]
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing(f"user {at}", at, note) for at, note in enumerate(notes)], epoch=1))
    assert sent.count(1) == 20
    assert len(target.rows(THINGS.name)) == 2_000


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_rows_that_lie_on_one_node_go_there_together(cassandra_here: None, keys: list[list[bytes]]) -> None:
    with cassandra_cluster(2) as (one, other):
        target = CassandraTarget(f"{one.host}:{one.port}", "halves", node=one)
        both = f"{one.host}:{one.port}, {other.host}:{other.port}"
        rows = [thing(f"user {at}", at) for at in range(400)]
        with opened(target, hosts=both, replication_factor=1) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk(rows, epoch=1))
            nodes = writer._nodes_of()  # type: ignore[attr-defined]
            statement = writer._session.prepare(  # type: ignore[attr-defined]
                f"SELECT n FROM {target.name(THINGS.name)} WHERE who = ? AND seen = ?"
            )
            places = {nodes(statement.bind([row["who"], row["seen"]]), None) for row in rows}
            metadata = writer._cluster.metadata  # type: ignore[attr-defined]
            sent_to = [{frozenset(metadata.get_replicas("halves", key)) for key in each} for each in keys]
        assert sum(map(len, keys)) == 400 and len(keys) < 100
        assert all(len(nodes_of_request) == 1 for nodes_of_request in sent_to)
        assert {frozenset(host.address for host in place) for place in places} == {
            frozenset({one.host}),
            frozenset({other.host}),
        }
        assert len(target.rows(THINGS.name)) == 400
