"""Kafka brokers (KRaft): one or several, as the tests need them, on free ports of the loopback."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import jars_of, java

__all__ = ["TEST_JVM", "KafkaBroker", "KafkaCluster", "kafka_broker", "kafka_cluster"]

TEST_JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
"""Starts fast and takes little memory. A benchmark gives its own."""
_LISTENER = "PLAINTEXT"


@dataclass
class KafkaBroker:
    """A broker. `kill` and `start` keep its folder and ports, so it comes back as the same one.

    bootstrap   where clients without security find it
    addresses   the address of each listener, by its name
    """

    bootstrap: str
    addresses: Mapping[str, str]
    folder: Path
    command: Sequence[str]
    process: GuardedProcess | None = field(default=None, init=False)

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when it answers."""
        self.process = GuardedProcess(self.command, output=self.folder / "broker.log")
        if wait:
            self.wait_for_answer()

    def wait_for_answer(self, brokers: int = 1) -> None:
        wait_until(
            lambda: _brokers_at(self.bootstrap) >= brokers,
            what=f"Kafka at {self.bootstrap} answers",
            seconds=60,
            process=self.process,
        )

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        """End it in good order; it may be started again."""
        if self.process is not None:
            self.process.stop()


@dataclass
class KafkaCluster:
    """Several brokers that know each other."""

    brokers: Sequence[KafkaBroker]

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers)


def _brokers_at(bootstrap: str) -> int:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return len(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return 0


@contextmanager
def kafka_broker(
    properties: Mapping[str, str] | None = None,
    *,
    listeners: Mapping[str, str] | None = None,
    scram_users: Mapping[str, str] | None = None,
    jvm: Sequence[str] = TEST_JVM,
) -> Iterator[KafkaBroker]:
    """Run one broker. `properties` are added to its `server.properties`.

    `listeners` are added to the one without security: name -> protocol (`SASL_SSL`, `SSL`, …). What else they
    need stands in `properties`. `scram_users` are made with SCRAM-SHA-256 and SCRAM-SHA-512.
    """
    with kafka_cluster(
        1, properties=properties, listeners=listeners, scram_users=scram_users, jvm=jvm
    ) as cluster:
        yield cluster.brokers[0]


@contextmanager
def kafka_cluster(
    brokers: int = 3,
    *,
    properties: Mapping[str, str] | None = None,
    listeners: Mapping[str, str] | None = None,
    scram_users: Mapping[str, str] | None = None,
    jvm: Sequence[str] = TEST_JVM,
) -> Iterator[KafkaCluster]:
    """Run so many brokers as one cluster; Kafka's own topics are replicated on up to 3 of them."""
    jars, program = jars_of("kafka"), java(17)
    protocols = {_LISTENER: "PLAINTEXT", **(listeners or {})}
    ports = free_ports(brokers * (len(protocols) + 1))
    voters = [(node, ports.pop()) for node in range(1, brokers + 1)]
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    with ExitStack() as undo:
        base = Path(tempfile.mkdtemp(prefix="headrace-kafka-"))
        undo.callback(shutil.rmtree, base, ignore_errors=True)
        found = []
        for node, controller in voters:
            folder = base / f"broker-{node}"
            folder.mkdir()
            addresses = {name: f"127.0.0.1:{ports.pop()}" for name in protocols}
            settings = _settings(node, controller, voters, addresses, protocols, folder)
            file = folder / "server.properties"
            file.write_text("".join(f"{k}={v}\n" for k, v in {**settings, **(properties or {})}.items()))
            run = [program, *jvm, "-cp", f"{jars}/*"]
            # Formatting is short: without the compiler of hot code it starts faster.
            _format([*run, "-XX:TieredStopAtLevel=1"], file, cluster_id, scram_users or {})
            found.append(
                KafkaBroker(addresses[_LISTENER], addresses, folder, [*run, "kafka.Kafka", str(file)])
            )
        for broker in found:
            undo.callback(broker.stop)
            broker.start(wait=False)
        for broker in found:
            broker.wait_for_answer(brokers)
        yield KafkaCluster(found)


def _settings(
    node: int,
    controller: int,
    voters: Sequence[tuple[int, int]],
    addresses: Mapping[str, str],
    protocols: Mapping[str, str],
    folder: Path,
) -> dict[str, str]:
    copies = str(min(3, len(voters)))
    named = [f"{name}://{address}" for name, address in addresses.items()]
    maps = [f"{name}:{protocol}" for name, protocol in protocols.items()]
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{each}@127.0.0.1:{port}" for each, port in voters),
        "listeners": ",".join([*named, f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(named),
        "listener.security.protocol.map": ",".join([*maps, "CONTROLLER:PLAINTEXT"]),
        "inter.broker.listener.name": _LISTENER,
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        "controlled.shutdown.enable": "false" if len(voters) == 1 else "true",
        # A broker that was killed may come back when the controller has given it up.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "300",
        "initial.broker.registration.timeout.ms": "30000",
        # Many small topics come and go in tests: their files need not be large at once.
        "log.index.size.max.bytes": "1048576",
        "log.cleaner.dedupe.buffer.size": "4194304",
    }


def _format(run: Sequence[str], file: Path, cluster_id: str, scram_users: Mapping[str, str]) -> None:
    command = [*run, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(file)]
    for name, password in scram_users.items():
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            command += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"formatting the broker's folder failed: {done.stdout}{done.stderr}")


@contextmanager
def shared_address() -> Iterator[str]:
    """Run the broker that test processes share, and give its bootstrap address (see shared.py)."""
    often = {"log.retention.check.interval.ms": "1000", "log.cleaner.backoff.ms": "500"}
    with kafka_broker(often) as broker:
        yield broker.bootstrap
