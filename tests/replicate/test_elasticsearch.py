"""What is Elasticsearch's own: types, ids, fences, what an operator sees; some of it on OpenSearch, too."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from search_gate import API_KEY, gate
from search_target import SearchTarget

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError
from headrace.operate.secrets import Secret
from headrace.replicate.elasticsearch.connection import Connection
from headrace.replicate.elasticsearch.encoding import lines_of_rows
from headrace.replicate.elasticsearch.mapping import index_names
from headrace.replicate.elasticsearch.writer import ElasticsearchWriter
from headrace.replicate.protocol import Chunk, NamedColumn, Position, Refusal, TableShape, Task
from headrace.testing.replica_writes import FIRST, THINGS, chunk, gone, opened, thing

pytestmark = pytest.mark.server

VALUES = {
    "TINYINT": ("-5", -5),
    "USMALLINT": ("65535", 65535),
    "BIGINT": ("-9223372036854775808", -9223372036854775808),
    "HUGEINT": ("12345", 12345),
    "DOUBLE": ("0.1", 0.1),
    "DECIMAL(12,2)": ("-12345678.90", -12345678.90),
    "DATE": ("1969-07-20", "1969-07-20"),
    "TIME": ("23:59:59.123456", "23:59:59.123456"),
    "TIMESTAMP WITH TIME ZONE": ("1999-12-31 23:59:59.999999+00", "1999-12-31T23:59:59.999999Z"),
    "UUID": ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
    "JSON": ('{"a": [1,\n2, null,], "b": "ü"}', {"a": [1, 2, None], "b": "ü"}),
    "VARCHAR": ('it\'s "ü" \\ \t\n', 'it\'s "ü" \\ \t\n'),
    "BLOB": ("ab", "YWI="),
    "BOOLEAN": ("true", True),
    "VARCHAR[]": ("['a', 'b']", ["a", "b"]),
    "STRUCT(city VARCHAR, seen TIMESTAMP WITH TIME ZONE)[]": (
        "[{'city': 'Rome', 'seen': '2024-02-29 12:00:00+00'}]",
        [{"city": "Rome", "seen": "2024-02-29T12:00:00.000000Z"}],
    ),
    "MAP(VARCHAR, INTEGER)": ("MAP {'k': 1}", {"k": 1}),
    "DECIMAL(4,4)": ("-0.05", -0.05),
    "DECIMAL(10,2)[]": ("[1.5, NULL]", [1.5, None]),
}


@pytest.fixture(params=["elasticsearch", "opensearch"])
def target(request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
    made = SearchTarget(request.getfixturevalue(f"{request.param}_server"))
    yield made
    made.close()


@pytest.fixture
def one(elasticsearch_server: str) -> Iterator[SearchTarget]:
    made = SearchTarget(elasticsearch_server)
    yield made
    made.close()


def refused(target: SearchTarget, **options: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as raised, opened(target, **options):
        pass
    return raised.value


def test_every_type_comes_back_and_can_be_searched(target: SearchTarget) -> None:
    names = {f"c{i}": kind for i, kind in enumerate(VALUES)}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        cells = ", ".join(f"CASE WHEN i <> 1 THEN ({_literal(k)})::{k} END AS {n}" for n, k in names.items())
        rows = connection.sql(
            f"SELECT i::INTEGER AS k, {cells}, i + 5 AS _version FROM range(3) r(i)"
        ).to_arrow_table()
    columns = (NamedColumn("k", "INTEGER"), *(NamedColumn(n, k) for n, k in names.items()))
    shape = TableShape(name="kinds", columns=columns, key=("k",))
    with opened(target, shape, visible="now") as writer:
        writer.take("kinds", None, FIRST)
        cursor = replace(FIRST, position=Position.at(1))
        empty = rows.select(["k", "_version"]).slice(0, 0)
        writer.write(Chunk(table=shape, rows=rows, removed=empty, cursor=cursor))
    index = target.index("kinds")
    hits = target.http.post(f"/{index}/_search", json={"sort": "k"}).json()["hits"]["hits"]
    assert [hit["_id"] for hit in hits] == ["[0]", "[1]", "[2]"]
    found = [[hit["_source"][name] for name in names] for hit in hits]
    expected = [value for _, value in VALUES.values()]
    assert found == [expected, [None] * len(expected), expected]
    asked = {
        "c5": -12345678.90,
        "c8": "1999-12-31T23:59:59.999Z",
        "c14": "b",
        "c15.city": "Rome",
        "c15.seen": "2024-02-29",
    }
    for field, value in asked.items():
        query = {"query": {"term": {field: value}}}
        if "seen" in field:
            query = {"query": {"range": {field: {"gte": value, "lte": f"{value}||+1d"}}}}
        answer = target.http.post(f"/{index}/_search", json=query).json()
        assert answer["hits"]["total"]["value"] == 2, field


def _literal(kind: str) -> str:
    text = VALUES[kind][0]
    return (
        text
        if kind.startswith(("MAP", "STRUCT")) or kind.endswith("]")
        else "'" + text.replace("'", "''") + "'"
    )


def test_a_key_of_more_than_512_bytes_is_one_row_that_can_change_and_go(one: SearchTarget) -> None:
    long = "ü" * 300
    with opened(one) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing(long, 1), thing(long + "x", 2)], epoch=1))
        writer.write(chunk([thing(long, 3, "changed", epoch=2)], epoch=2))
        assert {row["who"]: row["note"] for row in one.rows(THINGS.name)} == {long: "changed", long + "x": ""}
        writer.write(chunk([], [gone(long, epoch=3)], epoch=3))
        assert [row["who"] for row in one.rows(THINGS.name)] == [long + "x"]


def test_what_a_replaced_writer_sends_meets_no_index(target: SearchTarget) -> None:
    with opened(target) as old, opened(target) as new:
        assert isinstance(old, ElasticsearchWriter)
        old.take(THINGS.name, None, FIRST)
        old.write(chunk([thing("ann", 1), thing("bob", 1)], epoch=1))
        new.take(THINGS.name, replace(FIRST, position=Position.at(1)), replace(FIRST, generation=2))
        # As if the old one had been stopped between its look at the cursor and its rows.
        late = chunk([thing("zombie", 2, epoch=9)], epoch=9)
        with pytest.raises(RefusedError, match="taken over"):
            old._send(THINGS, late.rows, lines_of_rows(THINGS, late.rows), [])
    assert {row["who"] for row in target.rows(THINGS.name)} == {"ann", "bob"}


def test_a_removed_row_is_not_brought_back_by_a_write_that_was_on_its_way(target: SearchTarget) -> None:
    with opened(target) as writer:
        assert isinstance(writer, ElasticsearchWriter)
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
        writer.write(chunk([], [gone("ann", epoch=3)], epoch=3))
        late = chunk([thing("ann", 1, "late", epoch=2)], epoch=2)
        writer._send(THINGS, late.rows, lines_of_rows(THINGS, late.rows), [])
    assert target.rows(THINGS.name) == []
    index = target.index(THINGS.name)
    settings = target.http.get(f"/{index}/_settings").json()[index]["settings"]["index"]
    assert settings["gc_deletes"] == "5m"  # and not the 60 s that servers come with


def test_a_number_that_the_index_cannot_hold_is_set_aside_alone(one: SearchTarget) -> None:
    shape = replace(THINGS, columns=(*THINGS.columns, NamedColumn("huge", "HUGEINT")))
    sent = chunk([thing(f"user {i}", i) for i in range(50)], epoch=1)
    huge = duckdb.sql(
        "SELECT (CASE WHEN i IN (3, 40) THEN 1e20 ELSE i END)::DECIMAL(38,0) AS h FROM range(50) r(i)"
    )
    rows = sent.rows.append_column("huge", huge.to_arrow_table().column("h"))
    kept: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(shape,), set_aside=kept.extend)
    writer = one.replica(body_bytes=10_000).open(task)
    writer.take(shape.name, None, FIRST)
    writer.write(replace(sent, table=shape, rows=rows))
    writer.close()
    assert len(one.rows(shape.name)) == 48
    assert [json.loads(each.key)["who"] for each in kept] == ["user 3", "user 40"]
    assert "out of range" in kept[0].reason and "(400)" in kept[0].reason
    assert "100000" not in kept[0].reason and "user 3" not in kept[0].reason


def test_an_index_of_which_no_cursor_tells_is_not_written(one: SearchTarget) -> None:
    with opened(one) as writer:
        fifth = replace(FIRST, generation=5)
        writer.take(THINGS.name, None, fifth)
        writer.write(chunk([thing("ann", 1, generation=5)], epoch=1, cursor=fifth))
    one.http.delete(f"/.{one.prefix}cursors")
    with opened(one) as writer, pytest.raises(RefusedError, match="says nothing of them"):
        writer.take(THINGS.name, None, FIRST)  # its versions would be below those that are there


def test_an_api_key_with_a_line_break_is_refused_without_being_shown(one: SearchTarget) -> None:
    error = refused(one, api_key=Secret("d3Jvbmc6c2VjcmV0\n"))
    assert isinstance(error, ProfileError)
    assert "d3Jv" not in str(error)


def test_an_index_that_was_deleted_is_filled_from_the_beginning(one: SearchTarget) -> None:
    with opened(one) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
        one.http.delete(f"/{one.index(THINGS.name)}")
        with pytest.raises(TransientError, match="was deleted"):
            writer.write(chunk([thing("bob", 2, epoch=2)], epoch=2))
    assert one.rows(THINGS.name) == []  # and nothing has made it without its mapping
    with opened(one) as writer:
        assert writer.cursors() == {}, "what the store has is copied anew"


def test_rows_are_on_disk_when_the_cursor_says_so_whatever_a_template_asks_for(one: SearchTarget) -> None:
    index = one.index(THINGS.name)
    asked = {"index_patterns": [f"{one.prefix}*"], "settings": {"index.translog.durability": "async"}}
    assert one.http.put(f"/_template/{one.prefix}lazy", json=asked).is_success
    try:
        for _ in range(2):
            with opened(one):
                there = one.http.get(f"/{index}/_settings").json()[index]["settings"]["index"]
                assert there["translog"]["durability"] == "request"
            # And one that somebody has set otherwise, since.
            one.http.put(f"/{index}/_settings", json=asked["settings"]).raise_for_status()
    finally:
        one.http.delete(f"/_template/{one.prefix}lazy")


def test_tables_that_would_share_an_index_are_refused_and_can_be_named() -> None:
    shapes = (TableShape(name="a_b", columns=(), key=()), TableShape(name="A-B", columns=(), key=()))
    replica = SearchTarget("http://127.0.0.1:1").replica(prefix="x-")
    with pytest.raises(ProfileError, match="share the index 'x-a-b'"):
        index_names(replica, shapes, "copy")
    named = replace(replica, index_names={"A-B": "other"})
    assert index_names(named, shapes, "copy") == {"a_b": "x-a-b", "A-B": "x-other"}
    with pytest.raises(ProfileError, match="cannot be the index"):
        index_names(replace(replica, index_names={"A-B": "Large"}), shapes, "copy")


def test_a_column_that_cannot_be_a_field_is_refused_with_what_to_do(one: SearchTarget) -> None:
    shape = replace(THINGS, columns=(*THINGS.columns, NamedColumn("_source", "VARCHAR")))
    with pytest.raises(ProfileError, match="'_source'") as raised, opened(one, shape):
        pass
    assert "AS name" in raised.value.fix


def test_an_alias_is_not_taken_for_an_index(one: SearchTarget) -> None:
    done = one.http.put(f"/{one.prefix}own", json={"aliases": {one.index(THINGS.name): {}}})
    assert done.status_code == 200
    error = refused(one)
    assert isinstance(error, RefusedError)
    assert "is an alias" in error.message


def test_a_server_that_does_not_answer_is_tried_again_and_the_next_node_is_asked(one: SearchTarget) -> None:
    error = refused(one, url="http://127.0.0.1:1")
    assert isinstance(error, TransientError)
    with opened(one, url=f"http://127.0.0.1:1, {one.url}") as writer:
        assert writer.cursors() == {}


def test_an_address_that_is_none_is_refused_without_being_shown(one: SearchTarget) -> None:
    for url in ("http://user:hidden-word@localhost:9200", "localhost:9200"):
        error = refused(one, url=url)
        assert isinstance(error, ProfileError)
        assert "hidden-word" not in str(error)


def test_who_does_not_say_who_it_is_is_refused(one: SearchTarget) -> None:
    with gate(one.url) as url:
        error = refused(one, url=url)
    assert isinstance(error, RefusedError)
    assert "who are you" in error.message and "api_key" in error.fix


def test_a_body_that_is_too_large_is_sent_in_pieces_and_a_row_that_is_too_large_set_aside(
    one: SearchTarget,
) -> None:
    kept: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=kept.extend)
    with gate(one.url, bytes_max=3_000) as url:
        writer = one.replica(url=url, api_key=Secret(API_KEY)).open(task)
        writer.take(THINGS.name, None, FIRST)
        rows = [thing(f"user {i}", i, "x" * (4_000 if i == 17 else 50)) for i in range(60)]
        writer.write(chunk(rows, epoch=1))
        writer.close()
    assert {row["who"] for row in one.rows(THINGS.name)} == {f"user {i}" for i in range(60) if i != 17}
    assert [json.loads(each.key)["who"] for each in kept] == ["user 17"]
    assert "larger than the server takes" in kept[0].reason


@pytest.mark.parametrize("way", ["request", "items"])
def test_a_server_that_has_too_much_to_do_is_given_longer_and_longer_pauses(
    one: SearchTarget, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Connection, "pause", lambda self, seconds: waited.append(seconds))
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=nothing)
    rows = [thing(f"user {i}", i) for i in range(30)]
    with gate(one.url, busy=[way] * 3) as url:
        writer = one.replica(url=url, api_key=Secret(API_KEY)).open(task)
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk(rows, epoch=1))
        writer.close()
    assert sorted(waited) == waited and len(waited) == 3 and waited[2] > waited[0]
    assert {row["who"] for row in one.rows(THINGS.name)} == {row["who"] for row in rows}
    with gate(one.url, busy=[way] * 9) as url:
        writer = one.replica(url=url, api_key=Secret(API_KEY)).open(task)
        writer.take(THINGS.name, FIRST, replace(FIRST, generation=2))
        with pytest.raises(TransientError, match="rejected execution"):
            writer.write(chunk(rows, epoch=2, cursor=replace(FIRST, generation=2)))
        assert writer.cursors()[THINGS.name].position == Position(), "it goes on from here"
        writer.close()


def nothing(refusals: Sequence[Refusal]) -> None:
    """What is rejected for want of time is no row to set aside."""
    assert not refusals


def test_a_certificate_is_checked_against_the_one_that_the_profile_names(
    one: SearchTarget, tmp_path: Path
) -> None:
    certificate, tls = certified(tmp_path)
    with gate(one.url, tls=tls) as url:
        error = refused(one, url=url, api_key=Secret(API_KEY))
        assert isinstance(error, RefusedError)
        assert "not trusted" in error.message and "ca" in error.fix
        with opened(one, url=url, api_key=Secret(API_KEY), ca=str(certificate)) as writer:
            assert writer.cursors() == {}
    assert isinstance(refused(one, ca=str(tmp_path / "absent.pem")), ProfileError)


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a certificate of 127.0.0.1 that signs itself, and what a server needs to show it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, secret)
    return certificate, tls
