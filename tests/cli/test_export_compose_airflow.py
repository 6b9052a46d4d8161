"""Airflow and Grafana in the compose file of signups, held against a real Airflow 3."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from headrace.blueprints import project_files, write_project
from headrace.cli.app import run
from headrace.operate.export_services import PLUGINS
from servers.airflow import airflow_python
from servers.guard import GuardedProcess, free_ports, wait_until

pytestmark = pytest.mark.slow

PROGRAMS = ("airflow-init", "airflow", "airflow-scheduler", "airflow-dag-processor")


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project and what was exported for it; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("airflow") / "company"
    write_project("signups", folder)
    assert run(["export", "compose", "--project", str(folder), "--profile", "compose"]) == 0
    return folder


@pytest.fixture(scope="module")
def services(company: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((company / "deploy" / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    name = f"airflow_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.removesuffix("postgres") + name
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def asked(python: Path, code: str, environment: dict[str, str]) -> str:
    """What a few lines say in Airflow's environment."""
    done = subprocess.run(
        [str(python), "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def drivers(folder: Path) -> Path:
    """A folder with the driver of PostgreSQL alone, which the image gets with headrace[postgresql]."""
    made = folder / "drivers"
    made.mkdir()
    for found in Path(psycopg.__file__).parents[1].glob("psycopg[_-]*"):
        (made / found.name).symlink_to(found)
    (made / "psycopg").symlink_to(Path(psycopg.__file__).parent)
    return made


def bare(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "AIRFLOW_HOME": str(folder / "home")}


def test_the_clock_of_signups_is_airflow_and_nothing_else_polls(services: dict[str, Any]) -> None:
    assert {*PROGRAMS, "airflow-db"} < set(services)
    assert not any(name.startswith("poller") for name in services)
    megabytes = {"m": 1, "g": 1024}
    limits = [int(s["mem_limit"][:-1]) * megabytes[s["mem_limit"][-1]] for s in services.values()]
    assert sum(limits) <= 7 * 1024
    mounts = services["airflow-init"]["volumes"]
    assert "./airflow/initialise.sh:/initialise.sh:ro" in mounts
    for name in (*PROGRAMS, "headrace"):  # the sensor asks the run by its socket, which lies there
        assert "data:/project/.headrace" in services[name]["volumes"]


def test_the_dag_of_signups_is_the_one_that_is_exported(tmp_path: Path) -> None:
    write_project("signups", tmp_path)
    dag = tmp_path / "airflow" / "dags" / "user_automation.py"
    dag.unlink()
    words = ["export", "airflow", "--project", str(tmp_path), "--profile", "compose"]
    assert run([*words, "--dag", "user_automation"]) == 0
    assert dag.read_bytes() == project_files("signups")["airflow/dags/user_automation.py"]


def test_grafana_has_a_dashboard_over_cassandra_and_the_plugin_that_reads_it(
    company: Path, services: dict[str, Any]
) -> None:
    plugin, version = services["grafana"]["environment"]["GF_PLUGINS_PREINSTALL"].split("@")
    assert PLUGINS[plugin] == version
    folder = company / "deploy" / "grafana"
    sources = yaml.safe_load((folder / "provisioning" / "datasources" / "headrace.yaml").read_text())
    (source,) = [each for each in sources["datasources"] if each["type"] == plugin]
    assert source["url"].split(":")[0] in services
    dashboard = json.loads((folder / "dashboards" / "signups-counts.json").read_text())
    assert len(dashboard["panels"]) >= 6
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}


def test_airflow_knows_every_command_and_every_setting(
    tmp_path: Path, services: dict[str, Any], airflow_here: None
) -> None:
    commands = []
    for name in PROGRAMS:
        check = services[name].get("healthcheck", {"test": ["CMD"]})["test"][1:]
        commands += [words[1:] for words in (services[name]["command"], check) if words[:1] == ["airflow"]]
    assert len(commands) == 4
    names = {name for each in PROGRAMS for name in services[each]["environment"] if "__" in name}
    wanted = sorted(name.removeprefix("AIRFLOW__").lower().split("__") for name in names)
    code = (
        "from airflow.cli.cli_parser import get_parser\n"
        "from airflow.configuration import conf\n"
        f"for words in {commands!r}: get_parser().parse_args(words)\n"
        f"print([w for w in {wanted!r} if w[1] not in conf.configuration_description[w[0]]['options']])\n"
    )
    assert asked(airflow_python(), code, bare(tmp_path)).splitlines()[-1] == "[]"


@pytest.mark.soak
def test_the_initialising_service_makes_airflows_tables_and_its_user_may_log_in(
    tmp_path: Path, company: Path, services: dict[str, Any], database: str, airflow_here: None
) -> None:
    python = airflow_python()
    (port,) = free_ports(1)
    given = {**services["airflow"]["environment"], "AIRFLOW_PASSWORD": 'a "quoted" one'}
    for name, value in given.items():
        if "SQL_ALCHEMY_CONN" in name:
            given[name] = f"{value.split(':')[0]}{database.removeprefix('postgresql')}"
    given |= {
        **bare(tmp_path),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 32,
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(drivers(tmp_path)),
        "no_proxy": "*",
    }
    script = company / "deploy" / "airflow" / "initialise.sh"
    for _ in range(2):  # again is the same as once
        done = subprocess.run(
            ["sh", str(script)], env=given, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stderr[-3000:]
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM dag_run").fetchone() == (0,)
    words = [*services["airflow"]["command"]]
    words[words.index("8080")] = str(port)
    server = GuardedProcess(words, output=tmp_path / "server.log", environment=given)
    try:
        health = f"http://127.0.0.1:{port}/api/v2/monitor/health"
        wait_until(lambda: answers(health), what="Airflow answers", seconds=180, process=server)
        body = json.dumps({"username": "admin", "password": given["AIRFLOW_PASSWORD"]}).encode()
        asks = urllib.request.Request(
            f"http://127.0.0.1:{port}/auth/token", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asks, timeout=60) as answer:
            assert json.load(answer)["access_token"]
    finally:
        server.stop()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
