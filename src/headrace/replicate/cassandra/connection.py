"""Connects to Cassandra, and makes the keyspace."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    RoundRobinPolicy,
    TokenAwarePolicy,
)

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.cassandra.schema import quoted

if TYPE_CHECKING:
    from headrace.replicate.cassandra import CassandraReplica

__all__ = ["connect", "ensure_keyspace"]

_PORT = 9042

# The driver warns of every node that does not answer; the replica's state says it once.
logging.getLogger("cassandra").addHandler(logging.NullHandler())


def connect(replica: CassandraReplica, name: str) -> tuple[Any, Any]:
    """Return a cluster and a session; closing the cluster closes both. Raises the driver's own errors."""
    local = replica.local_datacenter
    policy = DCAwareRoundRobinPolicy(local_dc=local) if local else RoundRobinPolicy()
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(policy),
        consistency_level=getattr(ConsistencyLevel, replica.consistency),
        serial_consistency_level=ConsistencyLevel.SERIAL,
        request_timeout=replica.request_timeout.total_seconds(),
    )
    seconds = replica.connect_timeout.total_seconds()
    cluster = Cluster(
        contact_points=_hosts(replica.hosts, name),
        auth_provider=_auth(replica, name),
        ssl_context=_tls(replica, name),
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        reconnection_policy=ExponentialReconnectionPolicy(0.5, 10),
        connect_timeout=seconds,
        control_connection_timeout=seconds,
        monitor_reporting_enabled=False,
        application_name=f"headrace {name}",
    )
    try:
        try:
            session = cluster.connect()
        finally:  # in the place of an error that says that no node answers
            _check_datacenter(cluster, replica, name)
    except BaseException:
        cluster.shutdown()
        raise
    return cluster, session


def _check_datacenter(cluster: Any, replica: CassandraReplica, name: str) -> None:
    """Raise ProfileError for a datacenter that no node says it is in."""
    known = sorted({host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter})
    if replica.local_datacenter and known and replica.local_datacenter not in known:
        raise ProfileError(
            f"replica '{name}': no node of Cassandra is in the datacenter '{replica.local_datacenter}'",
            fix=f"write local_datacenter = one of: {', '.join(known)}; or leave it out",
        )


def _hosts(text: str, name: str) -> list[tuple[str, int]]:
    found = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        host, colon, port = each.rpartition(":")
        if not colon:
            host, port = each, str(_PORT)
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ProfileError(
                f"replica '{name}': '{each}' is no address of a node", fix='write hosts = "10.0.0.1:9042"'
            )
        found.append((host.strip("[]"), int(port)))
    if not found:
        raise ProfileError(f"replica '{name}' has no hosts", fix='write hosts = "10.0.0.1:9042"')
    return found


def _auth(replica: CassandraReplica, name: str) -> PlainTextAuthProvider | None:
    if replica.user is None and replica.password is None:
        return None
    if replica.user is None or replica.password is None:
        raise ProfileError(
            f"replica '{name}' has one of user and password only",
            fix='write both: user = "…", password = "${env:CASSANDRA_PASSWORD}"',
        )
    return PlainTextAuthProvider(replica.user, replica.password.reveal())


def _tls(replica: CassandraReplica, name: str) -> ssl.SSLContext | None:
    if replica.tls == "no":
        return None
    try:
        context = ssl.create_default_context(cafile=replica.ca)
    except OSError as error:
        raise ProfileError(
            f"replica '{name}': the certificates in {replica.ca} cannot be read: {error.strerror or error}",
            fix="name a PEM file with ca = …",
        ) from None
    # Nodes are found by their addresses, which certificates of one's own seldom hold. Where everybody can get
    # one that is trusted, it has to name the node.
    context.check_hostname = replica.ca is None
    return context


def ensure_keyspace(session: Any, replica: CassandraReplica) -> None:
    """Make the keyspace, or compare the one that is there with what the profile says."""
    wanted = _replication(replica)
    row = session.execute(
        "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s", (replica.keyspace,)
    ).one()
    listed = ", ".join(f"'{key}': '{value}'" for key, value in wanted.items())
    if row is None:
        session.execute(
            f"CREATE KEYSPACE IF NOT EXISTS {quoted(replica.keyspace)} WITH replication = {{{listed}}}"
        )
        return
    there = {key: value.rpartition(".")[2] for key, value in dict(row.replication).items()}
    said = replica.replication_factor is not None or bool(replica.datacenters)
    if said and there != wanted:
        raise RefusedError(
            f"Cassandra's keyspace '{replica.keyspace}' is replicated as {there}, the profile says {wanted}",
            fix=f"ALTER KEYSPACE {quoted(replica.keyspace)} WITH replication = {{{listed}}}; or leave "
            "replication_factor and datacenters out of the profile",
        )


def _replication(replica: CassandraReplica) -> dict[str, str]:
    if replica.datacenters:
        wrong = [name for name, copies in replica.datacenters.items() if not copies.isdecimal()]
        if wrong or replica.replication_factor is not None:
            raise ProfileError(
                f"datacenters of the keyspace '{replica.keyspace}' do not say how many copies each keeps"
                if wrong
                else "replication_factor and datacenters are both given",
                fix="write datacenters = { dc1 = 3 } alone, or replication_factor = 3 alone",
            )
        return {"class": "NetworkTopologyStrategy", **replica.datacenters}
    return {"class": "SimpleStrategy", "replication_factor": str(replica.replication_factor or 1)}
