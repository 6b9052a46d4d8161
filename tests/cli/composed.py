"""Projects, each with a profile of another kind, and what `headrace export compose` makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from headrace.blueprints import write_project
from headrace.cli.app import run

__all__ = ["PROFILES", "environment_file", "exported", "project"]

STORES = """
[profiles.{name}]
streams.events.log = "kafka"
streams.events.brokers = "kafka:9092"
streams.events.format = "avro"
streams.events.registry = "http://registry:8081"
replicas.found = {{ kind = "elasticsearch", url = "http://elasticsearch:9200" }}
replicas.kept = {{ kind = "cassandra", hosts = "cassandra:9042", keyspace = "shop" }}
page = {{ serve = "off" }}
"""
SPARK = """
[profiles.{name}]
engine = "spark"
spark.master = "spark://spark-master:7077"
streams.events = {{ log = "kafka", brokers = "kafka:9092" }}
replicas.results = {{ kind = "postgresql", dsn = "${{env:PG_DSN}}" }}
page = {{ host = "0.0.0.0", token = "${{env:HEADRACE_TOKEN}}", plain_http = "anywhere" }}
metrics = {{ host = "0.0.0.0", port = 9464 }}
"""
EMBEDDED = """
[profiles.{name}]
page = {{ serve = "off" }}
"""
PROFILES = {"compose": "", "stores": STORES, "cluster_of_containers": SPARK, "embedded": EMBEDDED}


def project(folder: Path, profile: str = "compose") -> Path:
    write_project("operations", folder)
    with (folder / "headrace.toml").open("a") as file:
        file.write(PROFILES.get(profile, "").format(name=profile))
    return folder


def exported(folder: Path, profile: str = "compose") -> dict[str, Any]:
    assert run(["export", "compose", "--project", str(folder), "--profile", profile]) == 0
    loaded: dict[str, Any] = yaml.safe_load((folder / "deploy" / "compose.yaml").read_text())
    return loaded


def environment_file(folder: Path) -> dict[str, str]:
    lines = (folder / "deploy" / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))
