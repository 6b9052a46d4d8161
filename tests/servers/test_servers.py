"""The harness itself: servers start, come back after kill -9, and never outlive the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from servers.guard import GuardedProcess, wait_until
from servers.jars import ServerMissing
from servers.kafka import kafka_broker as own_broker
from servers.kafka import kafka_cluster
from servers.plugin import server_missing
from servers.shared import shared_server


@contextmanager
def a_shared_process() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        server = GuardedProcess(["sleep", "300"], output=Path(folder, "output"))
        try:
            yield str(server.pid)
        finally:
            server.stop()


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_server_stops_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom servers.guard import GuardedProcess\n"
        "print(GuardedProcess(['sleep', '300'], output=Path(sys.argv[1])).pid, flush=True)\n"
        "sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "output")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None and starter.stdin is not None
    server = int(starter.stdout.readline())
    assert alive(server)
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    wait_until(lambda: not alive(server), what="the server is gone")


def test_a_killed_server_is_gone_when_kill_returns(tmp_path: Path) -> None:
    server = GuardedProcess(["sleep", "300"], output=tmp_path / "output")
    server.kill()
    assert not alive(server.pid)


def test_processes_share_a_server_until_the_last_one_leaves() -> None:
    with shared_server("servers.test_servers:a_shared_process") as first:
        with shared_server("servers.test_servers:a_shared_process") as second:
            assert first == second
        assert alive(int(first))
    wait_until(lambda: not alive(int(first)), what="the server is gone")


@pytest.mark.parametrize(
    ("where", "outcome"),
    [
        (None, pytest.skip.Exception),
        ("", pytest.skip.Exception),
        ("false", pytest.skip.Exception),
        ("true", pytest.fail.Exception),
        ("1", pytest.fail.Exception),
    ],
)
def test_a_missing_server_skips_its_test_with_the_reason_and_fails_it_in_continuous_integration(
    where: str | None, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if where is not None:
        monkeypatch.setenv("CI", where)
    with pytest.raises(outcome, match="the jars of nothing are not here"):
        server_missing(ServerMissing("the jars of nothing are not here"))


def test_the_shared_broker_answers(kafka_broker: str) -> None:
    assert len(AdminClient({"bootstrap.servers": kafka_broker}).list_topics(timeout=10).brokers) == 1


def test_a_broker_that_was_killed_comes_back_on_the_same_address(kafka_here: None) -> None:
    with own_broker({"log.retention.ms": "1234"}) as broker:
        before = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).cluster_id
        broker.kill()
        broker.start()
        after = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10).cluster_id
        assert before == after
        folder, pid = broker.folder, broker.process.pid
    assert not folder.exists()
    assert not alive(pid)


@pytest.mark.soak
def test_three_brokers_are_one_cluster(kafka_here: None) -> None:
    with kafka_cluster(3) as cluster:
        for broker in cluster.brokers:
            metadata = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10)
            assert len(metadata.brokers) == 3
