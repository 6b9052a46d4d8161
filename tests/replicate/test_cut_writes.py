"""A connection that is cut before or after each request of a write, in turn: the next run mends it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from cassandra import OperationTimedOut
from cassandra.cluster import Session
from cassandra_target import CassandraTarget
from search_target import SearchTarget
from targets import PostgresTarget

from headrace.errors import TransientError
from headrace.replicate.elasticsearch.connection import Connection
from headrace.testing.replica_writes import FIRST, THINGS, chunk, gone, opened, thing
from servers.cassandra import connected

pytestmark = pytest.mark.slow

REQUESTS_MAX = 60


class Cut:
    """Counts requests to a server, and cuts the connection at one of them: before it is sent, or after."""

    def __init__(self) -> None:
        self.left = -1
        self.after = False

    def __call__(self, send: Callable[[], Any], cut: Callable[[], Any]) -> Any:
        """Send a request, unless it is the one; `cut` raises what a client does without a connection."""
        if self.left < 0:
            return send()
        self.left -= 1
        if self.left >= 0:
            return send()
        if self.after:
            send()
        return cut()


def of_postgresql(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    execute: Any = psycopg.Cursor.execute

    def cut_off(cursor: Any, *words: Any, **more: Any) -> Any:
        def closed() -> Any:
            cursor.connection.close()
            return execute(cursor, *words, **more)

        return cut(lambda: execute(cursor, *words, **more), closed)

    monkeypatch.setattr(psycopg.Cursor, "execute", cut_off)


def of_search(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    send: Any = Connection._send

    def cut_off(connection: Connection, *words: Any) -> Any:
        def lost() -> Any:
            connection._client.close()
            raise TransientError(f"cut: {httpx.ReadError.__name__}")

        return cut(lambda: send(connection, *words), lost)

    monkeypatch.setattr(Connection, "_send", cut_off)


def of_cassandra(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    send: Any = Session.execute_async

    def cut_off(session: Session, *words: Any, **more: Any) -> Any:
        def lost() -> Any:
            raise OperationTimedOut

        def sent() -> Any:
            answer = send(session, *words, **more)
            if cut.left == -1 and cut.after:
                answer.result()  # it has arrived, and nobody hears of it
            return answer

        return cut(sent, lost)

    monkeypatch.setattr(Session, "execute_async", cut_off)


@pytest.fixture(params=["postgresql", "elasticsearch", "opensearch", "cassandra"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Cut]]:
    cut, name = Cut(), f"cut_{uuid.uuid4().hex[:10]}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        of_postgresql(cut, monkeypatch)
        yield PostgresTarget(server.removesuffix("postgres") + name), cut
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    elif request.param == "cassandra":
        server = request.getfixturevalue("cassandra_server")
        with connected(server) as session:
            of_cassandra(cut, monkeypatch)
            yield CassandraTarget(server, name, session), cut
    else:
        made = SearchTarget(request.getfixturevalue(f"{request.param}_server"))
        of_search(cut, monkeypatch)
        yield made, cut
        made.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_connection_that_is_cut_at_each_request_of_a_write_in_turn_changes_nothing(
    target: tuple[Any, Cut], after: bool
) -> None:
    into, cut = target
    cut.after = after
    with opened(into) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1), thing("new 1", 1)], epoch=1))
    for at in range(REQUESTS_MAX):
        epoch = at + 2
        rows = [thing("ann", epoch, f"of {epoch}", epoch=epoch), thing(f"new {epoch}", epoch, epoch=epoch)]
        wanted = chunk(rows, [gone(f"new {epoch - 1}", epoch=epoch)], epoch=epoch)
        whole = False
        with opened(into) as writer:
            cut.left = at
            try:
                writer.write(wanted)
                whole = True
            except TransientError:
                pass
            finally:
                cut.left = -1
        with opened(into) as writer:
            if writer.cursors()[THINGS.name].position.epoch < epoch:
                writer.write(wanted)
            assert writer.cursors()[THINGS.name].position.epoch == epoch
        found = {row["who"]: row["note"] for row in into.rows(THINGS.name)}
        assert found == {"ann": f"of {epoch}", f"new {epoch}": ""}, f"cut at request {at}"
        if whole:
            break
    assert whole and at >= 2, "a write has more requests than were cut, or none was"
