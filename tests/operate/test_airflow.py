"""A DAG polls users into Kafka by a real Airflow, while the pipeline runs beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.blueprints import write_project
from headrace.errors import ProfileError, RefusedError
from headrace.operate import load_project
from headrace.operate.export_airflow import write_dag
from servers.airflow import AIRFLOW, AIRFLOW_2, Airflow, fetched_airflow
from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import ServerMissing
from servers.plugin import server_missing

PROFILE = """
[profiles.airflow]
streams.users_created = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}", partitions = 3 }}
page.serve = "off"
[profiles.airflow.polling.users_created]
url = "http://127.0.0.1:{port}/api/?results=50&seed=headrace&page={{page}}"
flatten = "users:flatten"
every = "200 ms"
private_addresses = "yes"
with_run = "no"
"""
WINDOWED = """
pipeline.table(
    "users_by_window",
    "SELECT window_start, window_end, count(*) AS users FROM users_created "
    "GROUP BY window(polled_at, '2 seconds')",
)
"""
DAG = """
import importlib.util, json, sys
from airflow.providers_manager import ProvidersManager

assert "headrace" in ProvidersManager().providers, "Airflow does not know the provider"

def loaded(path):
    spec = importlib.util.spec_from_file_location("user_automation", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag

shipped = loaded(sys.argv[2])
every = shipped.schedule if hasattr(shipped, "schedule") else shipped.schedule_interval
told = {"every": every.total_seconds(), "catchup": shipped.catchup, "runs": shipped.max_active_runs}
told["tries"] = {task.task_id: [task.retries, task.retry_delay.total_seconds()] for task in shipped.tasks}
print("SHIPPED", json.dumps(told))
run = loaded(sys.argv[1]).test()
told = {task.task_id: str(task.state) for task in run.get_task_instances()}
print("TOLD", json.dumps({"state": str(run.state), "tasks": told}))
"""
SHIPPED = {"every": 300, "catchup": False, "runs": 1, "tries": {"poll": [3, 30], "landed": [3, 30]}}
"""What docs/airflow.md says of the DAG that is exported."""


def project_in(folder: Path, port: int = 1, brokers: str = "localhost:1", topic: str = "users") -> Path:
    write_project("signups", folder)
    with (folder / "headrace.toml").open("a") as file:
        file.write(PROFILE.format(port=port, brokers=brokers, topic=topic))
    # A table with windows, which are closed soon after the users were polled: the sensor sees it.
    path = folder / "pipeline.py"
    text = path.read_text().replace('allowed_lateness="1 hour"', 'allowed_lateness="1 second"')
    assert 'allowed_lateness="1 second"' in text
    path.write_text(text + WINDOWED)
    return folder


def test_the_dag_is_thin_and_is_never_written_over_a_file_of_somebody_else(tmp_path: Path) -> None:
    project = load_project(project_in(tmp_path / "club"), profile="airflow")
    path = write_dag(project, stream=None, dag_id="user_automation", folder=None)
    assert path == tmp_path / "club" / "airflow" / "dags" / "user_automation.py"
    text = path.read_text()
    compile(text, str(path), "exec")
    assert "polling_dag(\n    'user_automation'" in text.replace('"', "'")
    assert write_dag(project, stream="users_created", dag_id="user_automation", folder=None) == path
    path.write_text("mine = True\n")
    with pytest.raises(RefusedError, match="did not make it"):
        write_dag(project, stream=None, dag_id="user_automation", folder=None)
    with pytest.raises(ProfileError, match="cannot be the name of a DAG"):
        write_dag(project, stream=None, dag_id="../x", folder=None)


def test_a_run_that_polls_itself_and_airflow_would_be_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project_in(tmp_path / "club")
    path = folder / "headrace.toml"
    path.write_text(path.read_text().replace('with_run = "no"', 'with_run = "yes"'))
    with pytest.raises(ProfileError, match="the run polls for 'users_created' itself"):
        write_dag(load_project(folder, profile="airflow"), stream=None, dag_id=None, folder=None)
    monkeypatch.setenv("CASSANDRA_HOSTS", "127.0.0.1")
    with pytest.raises(ProfileError, match="polls nothing"):
        write_dag(load_project(folder, profile="local"), stream=None, dag_id=None, folder=None)


@contextmanager
def beside(folder: Path, brokers: str, topic: str) -> Iterator[Path]:
    """The API, and the pipeline that runs."""
    (port,) = free_ports(1)
    project = project_in(folder / "club", port, brokers, topic)
    with ExitStack() as undo:
        words = [sys.executable, "-m", "headrace"]
        api = GuardedProcess(
            [*words, "blueprints", "serve-users", "--port", str(port)], output=folder / "api.out"
        )
        undo.callback(api.stop)
        run = GuardedProcess(
            [*words, "run", "--profile", "airflow", "-C", str(project)], output=folder / "run.out"
        )
        undo.callback(run.stop)
        wait_until(lambda: answers(port), what="the API answers", seconds=60, process=api)
        wait_until(
            (project / ".headrace" / "run.json").exists, what="the pipeline runs", seconds=60, process=run
        )
        yield project


def records_in(brokers: str, topic: str) -> int:
    """How many records a topic holds, as a client of its own sees them."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "nobody"})
    try:
        places = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        bounds = [consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=30) for each in places]
    finally:
        consumer.close()
    return sum(end - first for first, end in bounds)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/?results=1&seed=x&page=1").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_real_airflow_polls_and_sees_that_the_users_have_landed(
    tmp_path: Path, airflow_here: None, kafka_broker: str
) -> None:
    polls_and_sees(AIRFLOW, tmp_path, kafka_broker)


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Airflow 2.11 is for Python up to 3.12")
def test_the_airflow_before_polls_and_sees_it_too(tmp_path: Path, kafka_broker: str) -> None:
    try:
        fetched_airflow(AIRFLOW_2)
    except ServerMissing as missing:
        server_missing(missing)
    polls_and_sees(AIRFLOW_2, tmp_path, kafka_broker)


def told_in(said: str, what: str) -> object:
    (line,) = [line for line in said.splitlines() if line.startswith(f"{what} ")]
    return json.loads(line.removeprefix(f"{what} "))


def polls_and_sees(release: str, tmp_path: Path, kafka_broker: str) -> None:
    """A run of the DAG that is exported, but for shorter times, in a release of Airflow."""
    topic = f"users-{uuid.uuid4().hex[:10]}"
    with beside(tmp_path, kafka_broker, topic) as project:
        loaded = load_project(project, profile="airflow")
        path = write_dag(loaded, stream=None, dag_id="user_automation", folder=None)
        shipped = shutil.copy(path, tmp_path / "shipped.py")
        short = path.read_text().replace(
            'poll_for="60 seconds"', 'poll_for="3 seconds", closed_table="users_by_window"'
        )
        path.write_text(short.replace("retries=3", "retries=0, dead_letters_max=0"))
        (tmp_path / "test_dag.py").write_text(DAG)
        said = Airflow(tmp_path / "airflow", path.parent, release).run(
            str(tmp_path / "test_dag.py"), str(path), str(shipped)
        )
        assert told_in(said, "SHIPPED") == SHIPPED
        assert told_in(said, "TOLD") == {
            "state": "success",
            "tasks": {"poll": "success", "landed": "success"},
        }
        asked = [sys.executable, "-m", "headrace", "ledger", "--json", "--profile", "airflow"]
        done = subprocess.run(asked, cwd=project, capture_output=True, text=True, check=True, timeout=60)
        ledger = json.loads(done.stdout)
        outcomes = ledger["streams"]["users_created"]["outcomes"]
        assert ledger["balanced"] and outcomes["accepted"] >= 50
        assert outcomes["accepted"] % 50 == 0, "whole pages"
        assert records_in(kafka_broker, topic) == outcomes["accepted"]
        assert "users_by_window: 0 windows are open" in said
