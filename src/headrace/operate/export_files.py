"""What a compose file builds and mounts: container file, scripts, settings of other programs, passwords."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import RefusedError
from headrace.operate.export_airflow_services import INITIALISE, VARIABLES
from headrace.operate.export_compose import (
    compose_text,
    database_of,
    has_dashboards,
    needed_variables,
    tables_in_grafana,
)
from headrace.operate.export_facts import Deployment
from headrace.operate.export_services import DASHBOARDS, GENERATOR_METRICS, MARK
from headrace.operate.export_yaml import to_yaml

if TYPE_CHECKING:
    from headrace.observe.export_prometheus import Target

__all__ = ["CONTAINER_FILE", "deployment_files", "write_deployment"]

CONTAINER_FILE = f"""{MARK}
# The first stage installs, the second only runs: no compiler, no cache, no root.

FROM python:3.12-slim-bookworm AS installed
ARG EXTRAS=""
RUN python -m venv /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH
# Packages that lie in deploy/wheels come before those of the index: a version of your own, for example.
COPY deploy/wheels/ /wheels/
RUN pip install --no-cache-dir --find-links /wheels "headrace${{EXTRAS:+[$EXTRAS]}}"

FROM python:3.12-slim-bookworm
ARG EXTRAS=""
# Spark is the one extra that needs more than Python.
RUN case ",$EXTRAS," in *,spark,*) apt-get update \\
      && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps \\
      && rm -rf /var/lib/apt/lists/* ;; esac
RUN groupadd --gid 10001 headrace && useradd --uid 10001 --gid 10001 --create-home headrace
COPY --from=installed /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /project
COPY --chown=headrace:headrace . /project
# Volumes take their owner from what they cover.
RUN install -d -o headrace -g headrace /project/.headrace /project/warehouse
USER 10001:10001
CMD ["headrace", "run"]
"""

_MADE = (
    "POSTGRES_PASSWORD",
    "WRITER_PASSWORD",
    "READER_PASSWORD",
    "GRAFANA_PASSWORD",
    "HEADRACE_TOKEN",
    "HEADRACE_PANELS_TOKEN",
    *VARIABLES,
)
_IGNORED = f"""{MARK}
.headrace/
warehouse/
deploy/.env
.git/
.venv/
**/__pycache__/
"""

_USERS = f"""#!/bin/sh
{MARK}
# Two users with the passwords of .env: one writes, one reads. Nothing of them is written to a file.
set -eu
psql -v ON_ERROR_STOP=1 -v writer="$WRITER_PASSWORD" -v reader="$READER_PASSWORD" \\
    -U "${{POSTGRES_USER:-postgres}}" -d "$POSTGRES_DB" <<'SQL'
CREATE ROLE headrace_write LOGIN PASSWORD :'writer' IN ROLE headrace_writer;
CREATE ROLE headrace_read LOGIN PASSWORD :'reader' IN ROLE headrace_reader;
SQL
"""


def deployment_files(deployment: Deployment) -> dict[str, str]:
    """Return every file by its path below `deploy/`, but for the passwords."""
    files = {
        "compose.yaml": compose_text(deployment),
        "Containerfile": CONTAINER_FILE,
        "Containerfile.dockerignore": _IGNORED,
        ".gitignore": f"{MARK}\n.env\nwheels/*\n!wheels/.gitkeep\n",
        "wheels/.gitkeep": "",
    }
    if deployment.one("postgresql"):
        files["postgresql/10-init.sql"] = _init_sql(deployment)
        files["postgresql/30-users.sh"] = _USERS
    if deployment.scheduled:
        files["airflow/initialise.sh"] = INITIALISE.replace("\n", f"\n{MARK}\n", 1)
    if deployment.one("elasticsearch"):
        files[f"kibana/{deployment.project.pipeline.name}.ndjson"] = _saved_objects(deployment)
    if deployment.metrics_port is not None:
        files |= _watching(deployment)
    return files


def write_deployment(deployment: Deployment) -> tuple[list[Path], list[str]]:
    """Write the files into `deploy/` of the project, and `.env` with new passwords when there is none.

    Returns what was written, and the variables that `.env` lacks. Raises RefusedError for a file that
    somebody else has written, before anything is touched.
    """
    folder = deployment.project.folder / "deploy"
    files = {folder / path: text for path, text in deployment_files(deployment).items()}
    try:
        return _written(deployment, folder, files)
    except OSError as error:
        raise RefusedError(
            f"{error.filename or folder} cannot be written: {error.strerror}",
            fix="move away what is there, and make the project's folder writable",
        ) from error
    except UnicodeDecodeError as error:
        raise RefusedError(
            f"{folder / '.env'} cannot be read: it is not UTF-8 text", fix="correct it, or move it away"
        ) from error


def _written(deployment: Deployment, folder: Path, files: Mapping[Path, str]) -> tuple[list[Path], list[str]]:
    foreign = [path for path, text in files.items() if text and not _ours(path)]
    if foreign:
        raise RefusedError(
            f"{foreign[0]} is there already, and `headrace export compose` did not make it",
            fix="move it away, and try again",
        )
    written = []
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        # Read by users of other containers, which are not the one who writes it here.
        path.chmod(0o755 if path.suffix == ".sh" else 0o644)
        written.append(path)
    environment = folder / ".env"
    if not environment.exists():
        environment.touch(mode=0o600)
        environment.write_text(_environment(deployment), encoding="utf-8")
        written.append(environment)
    values = _read_environment(environment)
    return written, [name for name in needed_variables(deployment) if not values.get(name)]


def _ours(path: Path) -> bool:
    if not path.exists():
        return True
    begins = path.read_text(encoding="utf-8", errors="replace")[:400]
    # Saved objects of Kibana have no place for a comment, but ids of ours.
    return MARK.lstrip("# ") in begins or (
        path.suffix == ".ndjson" and begins.startswith('{"id": "headrace-')
    )


def _environment(deployment: Deployment) -> str:
    """Return `.env` with a password for everything that is made here; what else is needed is left empty."""
    names = needed_variables(deployment)
    made = {name: secrets.token_urlsafe(24) if name.endswith(_MADE) else "" for name in names}
    if deployment.one("postgresql") and "PG_DSN" in made:
        where = f"postgresql:5432/{database_of(deployment)}"
        made["PG_DSN"] = f"postgresql://headrace_write:{made['WRITER_PASSWORD']}@{where}"
    lines = "".join(f"{name}={value}\n" for name, value in made.items())
    return (
        f"# Made once by `headrace export compose`. Whoever has it can log in: keep it out of git.\n{lines}"
    )


def _read_environment(path: Path) -> Mapping[str, str]:
    pairs = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs if not name.startswith("#")}


def _init_sql(deployment: Deployment) -> str:
    from headrace.replicate.shapes import shape_of, tables_of
    from headrace.sql import plan_pipeline

    plan = plan_pipeline(deployment.project.pipeline)
    parts = [f"{MARK.replace('#', '--')}\n"]
    for name, options in deployment.profile.replicas.items():
        if options.kind == "postgresql":
            shapes = tuple(shape_of(table, options) for table in tables_of(plan, options, name))
            parts += [f"{statement};\n" for statement in options.init_sql(shapes, roles=True)]
    return "\n".join(parts)


def _saved_objects(deployment: Deployment) -> str:
    """Return what Kibana imports: data views, the panels over them, a dashboard."""
    from headrace.observe.export_kibana import saved_objects, saved_objects_text
    from headrace.operate.export_panels import search_replica, searched_panels

    panels, views, _ = searched_panels(deployment.project, search_replica(deployment.project, None))
    return saved_objects_text(saved_objects(deployment.project.pipeline.name, views, panels))


def _watching(deployment: Deployment) -> dict[str, str]:
    """Return what Prometheus and Grafana are told: where metrics are, the alerts as rules, dashboards."""
    from headrace.observe.export_grafana import metrics_dashboard
    from headrace.observe.export_prometheus import RULES_FILE, prometheus_document, rules_document
    from headrace.operate.alerting import rules_of

    name = deployment.project.pipeline.name
    scraped = prometheus_document(_scraped(deployment))
    tables, asked = tables_in_grafana(deployment)
    documents: dict[str, Mapping[str, object]] = {
        "prometheus/prometheus.yml": scraped,
        f"prometheus/{RULES_FILE}": rules_document(rules_of(deployment.project), name),
        "grafana/provisioning/datasources/headrace.yaml": _sources(deployment, asked),
        "grafana/provisioning/dashboards/headrace.yaml": _dashboards(deployment),
    }
    files = {path: f"{MARK}\n{to_yaml(document)}" for path, document in documents.items()}
    shown = {name: metrics_dashboard(name), **tables}
    for file, dashboard in shown.items():
        made = {"description": MARK.lstrip("# "), **dashboard}
        files[f"grafana/dashboards/{file}.json"] = json.dumps(made, indent=2) + "\n"
    return files


def _scraped(deployment: Deployment) -> list[Target]:
    """Return what tells of itself: the run, its generator, Spark's driver, and what the profile names."""
    from headrace.observe.export_prometheus import Target
    from headrace.operate.export_monitoring import page_of_spark, spark_targets

    targets = [Target("headrace", f"headrace:{deployment.metrics_port}")]
    if deployment.generates:
        targets.append(Target("generator", f"generator:{GENERATOR_METRICS}"))
    spark = page_of_spark(deployment.project, host="headrace")
    # A driver that is its own cluster serves its page on loopback, which no other container reaches.
    alone = deployment.profile.spark.conf.get("spark.master", "local").startswith("local")
    targets += [] if spark is None or alone else spark_targets(spark)
    named = deployment.profile.metrics.targets or {}
    return [*targets, *(Target(name, address) for name, address in named.items())]


def _dashboards(deployment: Deployment) -> dict[str, object]:
    """Return where dashboards are: that of all metrics, and those of the project."""
    folders = {"metrics": f"{DASHBOARDS}/metrics"}
    if has_dashboards(deployment):
        folders["project"] = f"{DASHBOARDS}/project"
    providers = [
        {"name": name, "type": "file", "allowUiUpdates": True, "options": {"path": path}}
        for name, path in folders.items()
    ]
    return {"apiVersion": 1, "providers": providers}


def _sources(deployment: Deployment, more: list[dict[str, Any]]) -> dict[str, object]:
    sources: list[dict[str, object]] = [
        {
            "name": "Prometheus",
            "uid": "prometheus",
            "type": "prometheus",
            "url": "http://prometheus:9090",
            "isDefault": True,
        }
    ]
    if deployment.one("postgresql"):
        sources.append(
            {
                "name": "PostgreSQL",
                "uid": "postgresql",
                "type": "grafana-postgresql-datasource",
                "url": "postgresql:5432",
                "user": "headrace_read",
                "jsonData": {
                    "database": database_of(deployment),
                    "sslmode": "disable",
                    "postgresVersion": 1500,
                },
                "secureJsonData": {"password": "$READER_PASSWORD"},
            }
        )
    return {"apiVersion": 1, "datasources": [*sources, *more]}
