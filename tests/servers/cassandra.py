"""Cassandra nodes: one or several that know each other, on addresses of the loopback with free ports."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import RoundRobinPolicy
from cassandra.query import dict_factory

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import jars_of, java

__all__ = ["CassandraNode", "cassandra_cluster", "cassandra_node", "connected", "shared_address"]

_START_S = 240
_EXPORTS = (
    "java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi", "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server", "java.sql/java.sql", "java.rmi/sun.rmi.transport.tcp",
)  # fmt: skip
_OPENS = (
    "java.base/java.lang.module", "java.base/jdk.internal.loader", "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect", "java.base/jdk.internal.math", "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar", "jdk.management/com.sun.management.internal", "java.base/sun.nio.ch",
    "java.base/java.io", "java.base/java.lang", "java.base/java.util", "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic", "java.base/java.nio", "java.rmi/sun.rmi.transport.tcp",
)  # fmt: skip
_JVM = (
    "-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData", "-Xss512k", "-Djava.awt.headless=true",
    *(f"--add-exports={each}=ALL-UNNAMED" for each in _EXPORTS),
    *(f"--add-opens={each}=ALL-UNNAMED" for each in _OPENS),
    # Nothing to learn from others: a cluster of tests is small and young.
    "-Dcassandra.ring_delay_ms=100", "-Dcassandra.skip_wait_for_gossip_to_settle=0",
)  # fmt: skip
_SETTINGS = {
    "cluster_name": "headrace-tests",
    "num_tokens": "4",
    "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
    "commitlog_sync": "periodic",
    "commitlog_sync_period": "1000ms",
    "commitlog_segment_size": "8MiB",
    "commitlog_total_space": "64MiB",
    "memtable_heap_space": "64MiB",
    "memtable_offheap_space": "64MiB",
    "key_cache_size": "4MiB",
    "concurrent_writes": "16",
    "endpoint_snitch": "SimpleSnitch",
    "auto_snapshot": "false",
    "hinted_handoff_enabled": "true",
}


@dataclass
class CassandraNode:
    """A node. `kill` and `start` keep its folder and ports, so it comes back as the same one."""

    host: str
    port: int
    folder: Path
    command: Sequence[str]
    user: tuple[str, str] | None
    process: GuardedProcess | None = field(default=None, init=False)

    def start(self, *, nodes: int = 1) -> None:
        """Start it and return when it answers and knows so many nodes."""
        self.process = GuardedProcess(self.command, output=self.folder / "node.log")
        wait_until(
            lambda: self._knows() >= nodes,
            what=f"Cassandra at {self.host}:{self.port} answers",
            seconds=_START_S,
            process=self.process,
        )

    def cluster(self) -> Cluster:
        """A client of it alone; close it with `shutdown`."""
        from cassandra.auth import PlainTextAuthProvider

        auth = PlainTextAuthProvider(*self.user) if self.user else None
        return Cluster([self.host], port=self.port, auth_provider=auth, connect_timeout=10)

    def _knows(self) -> int:
        try:  # a driver that finds nobody is dear, and is asked again and again
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return 0
        cluster = self.cluster()
        try:
            session = cluster.connect()
            return 1 + len(list(session.execute("SELECT peer FROM system.peers_v2")))
        except (NoHostAvailable, OSError):
            return 0
        finally:
            cluster.shutdown()

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        """End it in good order; it may be started again."""
        if self.process is not None:
            self.process.stop()


@contextmanager
def cassandra_node(settings: Mapping[str, str] | None = None) -> Iterator[CassandraNode]:
    """Run one node; `settings` are added to its `cassandra.yaml`."""
    with cassandra_cluster(1, settings) as nodes:
        yield nodes[0]


@contextmanager
def cassandra_cluster(
    count: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[list[CassandraNode]]:
    """Run so many nodes of one cluster, on 127.0.0.1 and following; they start one after the other."""
    jars, program = jars_of("cassandra"), java(17)
    storage, native = free_ports(2)
    given = {**_SETTINGS, **(settings or {})}
    guarded = "PasswordAuthenticator" in given.get("authenticator", "")
    with ExitStack() as undo:
        base = Path(tempfile.mkdtemp(prefix="headrace-cassandra-"))
        undo.callback(shutil.rmtree, base, ignore_errors=True)
        nodes = []
        for number in range(1, count + 1):
            folder, host = base / f"node-{number}", f"127.0.0.{number}"
            folder.mkdir()
            file = folder / "cassandra.yaml"
            file.write_text(_yaml(given, folder, host, storage, native))
            command = [
                program, *_JVM, f"-Dcassandra.config=file://{file}", f"-Dcassandra.storagedir={folder}",
                "-Dcassandra-foreground=yes", "-cp", f"{jars}/*",
                "org.apache.cassandra.service.CassandraDaemon",
            ]  # fmt: skip
            node = CassandraNode(host, native, folder, command, ("cassandra",) * 2 if guarded else None)
            undo.callback(node.stop)
            node.start(nodes=number)
            nodes.append(node)
        yield nodes


def _yaml(given: Mapping[str, str], folder: Path, host: str, storage: int, native: int) -> str:
    lines = [f"{name}: {value}" for name, value in given.items()]
    lines += [
        f"data_file_directories: [{folder}/data]",
        f"commitlog_directory: {folder}/commitlog",
        f"saved_caches_directory: {folder}/caches",
        f"hints_directory: {folder}/hints",
        f"cdc_raw_directory: {folder}/cdc",
        "seed_provider:",
        "  - class_name: org.apache.cassandra.locator.SimpleSeedProvider",
        f'    parameters: [{{seeds: "127.0.0.1:{storage}"}}]',
        f"listen_address: {host}",
        f"rpc_address: {host}",
        f"storage_port: {storage}",
        f"native_transport_port: {native}",
    ]
    return "\n".join(lines) + "\n"


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A session of the tests' own; rows are dictionaries."""
    host, _, port = address.rpartition(":")
    profile = ExecutionProfile(RoundRobinPolicy(), row_factory=dict_factory, request_timeout=60)
    cluster = Cluster(
        [(host, int(port))], execution_profiles={EXEC_PROFILE_DEFAULT: profile}, connect_timeout=20
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


@contextmanager
def shared_address() -> Iterator[str]:
    """Run the node that test processes share, and give its `host:port` (see shared.py)."""
    with cassandra_node() as node:
        yield f"{node.host}:{node.port}"
