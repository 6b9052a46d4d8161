"""Airflow 3 as services of a compose file: its database, what initialises it, and its three programs.

All of them are our own image, so that tasks have the pipeline, its environment and its user: the poller
appends to the same log, and the sensor asks the run by its socket, which lies in the shared volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.operate.export_facts import Deployment
from headrace.operate.export_services import (
    CHECK,
    IMAGES,
    Service,
    asked,
    environment,
    ours,
    published,
    service,
)

__all__ = ["INITIALISE", "VARIABLES", "airflow_services"]

VARIABLES = ("AIRFLOW_PASSWORD", "AIRFLOW_DB_PASSWORD", "AIRFLOW_JWT_SECRET")
"""What `.env` has to hold for it: who may log in as `admin`, and what its parts know each other by."""

_DATABASE = "airflow-db"
_PAGE = "airflow"
_HOME = "/project/.headrace/airflow"
_PASSWORDS = f"{_HOME}/passwords.json"
_HEALTH_PORT = 8974
_SLOW_CHECK = {"interval": "60s", "timeout": "45s", "retries": 3, "start_period": "90s"}
_ASK = "import urllib.request; urllib.request.urlopen('http://localhost:{}')"

INITIALISE = """#!/bin/sh
# Makes or migrates Airflow's tables, and says who may log in. Again is the same as once.
set -eu
mkdir -p "$AIRFLOW_HOME"
airflow db migrate
umask 077
python -c 'import json, os; print(json.dumps({"admin": os.environ["AIRFLOW_PASSWORD"]}))' \\
    > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
"""


def airflow_services(deployment: Deployment, started: Mapping[str, Any]) -> dict[str, Service]:
    """Return every service of Airflow by its name; `started` is what its tasks need besides."""
    made = {"airflow-init": {"condition": "service_completed_successfully"}}
    words = "import urllib.request; urllib.request.urlopen('http://localhost:8080/api/v2/monitor/health')"
    return {
        _DATABASE: _database(),
        "airflow-init": {
            **_of_airflow(
                deployment,
                "384m",
                ["sh", "/initialise.sh"],
                {"AIRFLOW_PASSWORD": asked("AIRFLOW_PASSWORD")},
                mounts=["./airflow/initialise.sh:/initialise.sh:ro"],
                depends_on={_DATABASE: {"condition": "service_healthy"}},
            ),
            "restart": "on-failure",
        },
        _PAGE: _of_airflow(
            deployment,
            "512m",
            ["airflow", "api-server", "--port", "8080", "--workers", "1"],
            depends_on=made,
            ports=[published("AIRFLOW_PORT", 8085, 8080)],
            healthcheck={"test": ["CMD", "python", "-c", words], **{**CHECK, "start_period": "60s"}},
        ),
        "airflow-scheduler": _of_airflow(
            deployment,
            "640m",
            ["airflow", "scheduler"],
            environment(deployment),
            depends_on={**made, _PAGE: {"condition": "service_healthy"}, **started},
            healthcheck={
                "test": ["CMD", "python", "-c", _ASK.format(f"{_HEALTH_PORT}/health")],
                **{**CHECK, "start_period": "60s"},
            },
        ),
        "airflow-dag-processor": _of_airflow(
            deployment,
            "384m",
            ["airflow", "dag-processor"],
            environment(deployment),
            depends_on=made,
            healthcheck={
                "test": ["CMD", "airflow", "jobs", "check", "--job-type", "DagProcessorJob", "--local"],
                **_SLOW_CHECK,
            },
        ),
    }


def _database() -> Service:
    return service(
        "256m",
        image=IMAGES["postgresql"],
        environment={
            "POSTGRES_DB": "airflow",
            "POSTGRES_USER": "airflow",
            "POSTGRES_PASSWORD": asked("AIRFLOW_DB_PASSWORD"),
        },
        volumes=["airflow-db:/var/lib/postgresql/data"],
        healthcheck={
            "test": ["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "airflow", "-d", "airflow"],
            **CHECK,
        },
    )


def _of_airflow(
    deployment: Deployment,
    memory: str,
    words: list[str],
    more: Mapping[str, str] | None = None,
    *,
    mounts: list[str] | None = None,
    **facts: Any,
) -> Service:
    """Return a program of Airflow; `more` are variables of its own."""
    database = f"{asked('AIRFLOW_DB_PASSWORD')}@{_DATABASE}:5432/airflow"
    settings = {
        "CORE__DAGS_FOLDER": "/project/airflow/dags",
        "CORE__LOAD_EXAMPLES": "false",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "2",
        "CORE__EXECUTION_API_SERVER_URL": f"http://{_PAGE}:8080/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": _PASSWORDS,
        "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg://airflow:{database}",
        "DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+psycopg_async://airflow:{database}",
        "API_AUTH__JWT_SECRET": asked("AIRFLOW_JWT_SECRET"),
        "SCHEDULER__ENABLE_HEALTH_CHECK": "true",
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(_HEALTH_PORT),
    }
    own = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    extras = dict.fromkeys(("airflow", "postgresql", *deployment.extras))
    return ours(
        deployment,
        memory,
        words,
        extras=tuple(extras),
        image=f"headrace-{deployment.name}-airflow",
        environment={"AIRFLOW_HOME": _HOME, **own, **(more or {})},
        volumes=["data:/project/.headrace", *(mounts or [])],
        **facts,
    )
