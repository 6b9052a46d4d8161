"""Cassandra where not everybody may do everything: passwords, rights, certificates; and a node that dies."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cassandra_target import LINES, CassandraTarget, lines, refused, signed_in, superuser
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from headrace.errors import RefusedError, TransientError
from headrace.operate.secrets import Secret
from headrace.replicate.cassandra import CassandraReplica
from headrace.testing.replica_obstacles import ReadOnlyTargetConformance, WrongCredentialsConformance
from headrace.testing.replica_writes import FIRST, opened
from servers.cassandra import CassandraNode, cassandra_node

PASSWORD = "cassandra"  # of the first user of a server with passwords


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that signs itself and holds no name or address of a node; beside it, with its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a cluster")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=5))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "node.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secured = serialization.BestAvailableEncryption(PASSWORD.encode())
    (folder / "node.p12").write_bytes(pkcs12.serialize_key_and_certificates(b"n", key, made, None, secured))
    return path


@pytest.fixture(scope="module")
def guarded(cassandra_here: None, certificate: Path) -> Iterator[CassandraNode]:
    """A node that asks for a password, looks at what a user may do, and speaks TLS with who wants it."""
    tls = f"enabled: true, optional: true, store_type: PKCS12, keystore: {certificate.with_suffix('.p12')}"
    with cassandra_node(
        {
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "permissions_validity": "0ms",  # what is taken from a role is gone at once
            "client_encryption_options": f"{{{tls}, keystore_password: {PASSWORD}}}",
        }
    ) as node:
        yield node


def guarded_target(node: CassandraNode) -> CassandraTarget:
    return CassandraTarget(f"{node.host}:{node.port}", f"test_{uuid.uuid4().hex[:12]}")


class RoleTarget:
    """A keyspace in which a role may do everything, until a test takes the right to write from it."""

    def __init__(self, target: CassandraTarget, role: str) -> None:
        self._target = target
        self._role = role

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def replica(self, **options: Any) -> CassandraReplica:
        return self._target.replica(**{"user": self._role, "password": Secret("right word"), **options})

    @contextmanager
    def read_only(self) -> Iterator[None]:
        keyspace = self._target.keyspace
        tables = self._target.execute(
            f"SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{keyspace}'"
        )
        # Who has made a keyspace or a table may do everything with it, too.
        own = [f"KEYSPACE {keyspace}", *(f'TABLE {keyspace}."{row["table_name"]}"' for row in tables)]
        for what in ("ALL KEYSPACES", *own):
            self._target.execute(f"REVOKE MODIFY ON {what} FROM {self._role}")
        try:
            yield
        finally:
            self._target.execute(f"GRANT MODIFY ON ALL KEYSPACES TO {self._role}")

    def wrong_credentials(self) -> dict[str, Any]:
        return {"password": Secret("wrong word")}

    def secret_words(self) -> tuple[str, ...]:
        return "right word", "wrong word"


@pytest.fixture
def of_a_role(guarded: CassandraNode) -> Iterator[RoleTarget]:
    role = f"writer_{uuid.uuid4().hex[:8]}"
    address = f"{guarded.host}:{guarded.port}"
    with signed_in(address, *superuser(guarded)) as session:
        session.execute(f"CREATE ROLE {role} WITH PASSWORD = 'right word' AND LOGIN = true")
        session.execute(f"GRANT ALL ON ALL KEYSPACES TO {role}")
        yield RoleTarget(CassandraTarget(address, f"test_{uuid.uuid4().hex[:12]}", session), role)


class TestCassandraPassword(WrongCredentialsConformance):
    advice = "password"
    null_keys = False

    @pytest.fixture
    def target(self, of_a_role: RoleTarget) -> RoleTarget:
        return of_a_role


class TestCassandraRoleWithoutTheRightToWrite(ReadOnlyTargetConformance):
    advice = "grant"
    null_keys = False

    @pytest.fixture
    def target(self, of_a_role: RoleTarget) -> RoleTarget:
        return of_a_role


def test_who_signs_in_as_nobody_is_for_an_operator(guarded: CassandraNode) -> None:
    assert isinstance(refused(guarded_target(guarded)), RefusedError)


def test_a_certificate_is_checked_against_the_one_that_the_profile_names(
    guarded: CassandraNode, certificate: Path
) -> None:
    target = guarded_target(guarded)
    signing = {"user": "cassandra", "password": Secret(PASSWORD), "tls": "yes"}
    with opened(target, **signing, ca=str(certificate)) as writer:
        assert writer.cursors() == {}
    error = refused(target, **signing)
    assert isinstance(error, RefusedError)
    assert "not trusted" in error.message
    assert "ca = " in error.fix


def test_a_user_without_rights_is_told_which_are_needed(guarded: CassandraNode) -> None:
    name = f"reader_{uuid.uuid4().hex[:8]}"
    cluster = guarded.cluster()
    try:
        cluster.connect().execute(f"CREATE ROLE {name} WITH PASSWORD = 'word' AND LOGIN = true")
    finally:
        cluster.shutdown()
    error = refused(guarded_target(guarded), user=name, password=Secret("word"))
    assert isinstance(error, RefusedError)
    assert "grant" in error.fix


def test_a_node_that_is_killed_while_it_is_written_to_loses_and_doubles_nothing(
    guarded: CassandraNode,
) -> None:
    target = guarded_target(guarded)
    sign_in = {"user": "cassandra", "password": Secret(PASSWORD), "request_timeout": timedelta(seconds=5)}
    first = lines([{"who": f"u{i}", "n": i, "note": "x"} for i in range(200)], epoch=1)
    second = lines([{"who": f"u{i}", "n": i, "note": "y"} for i in range(150, 400)], epoch=2)
    with opened(target, LINES, **sign_in) as writer:
        writer.take("lines", None, FIRST)
        writer.write(first)
        dying = threading.Timer(0.05, guarded.kill)
        dying.start()
        with pytest.raises(TransientError):
            while True:  # again and again, until it is gone in the middle of one
                writer.write(replace(second, cursor=replace(second.cursor, begun=second.cursor.begun + 1)))
                second = replace(second, cursor=replace(second.cursor, begun=second.cursor.begun + 1))
        dying.join()
    guarded.start()
    with opened(target, LINES, **sign_in) as writer:
        if writer.cursors()["lines"].position.epoch == 0:
            # Of what a node answered last, its commit log may not know, and of the cursor neither.
            writer.write(first)
        assert writer.cursors()["lines"].position.epoch in (1, 2)
        writer.write(second)
    cluster = guarded.cluster()
    try:
        rows = list(cluster.connect().execute(f"SELECT who, note FROM {target.name('lines')}"))
    finally:
        cluster.shutdown()
    assert {row.who: row.note for row in rows} == {f"u{i}": "x" if i < 150 else "y" for i in range(400)}
    assert len(rows) == 400
