"""What every service of a compose file is made of: limits, log rotation, images, ports, asked-for secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.operate.export_facts import Deployment

__all__ = [
    "CHECK",
    "DASHBOARDS",
    "GENERATOR_METRICS",
    "IMAGES",
    "MARK",
    "PLUGINS",
    "Service",
    "asked",
    "command",
    "environment",
    "ours",
    "published",
    "service",
]

MARK = "# Made by `headrace export compose`: change the profile, then run it again."

IMAGES: Mapping[str, str] = {
    "kafka": "apache/kafka:4.1.1",
    "postgresql": "postgres:17.6-bookworm",
    "cassandra": "cassandra:5.0.6",
    "elasticsearch": "elasticsearch:8.19.3",
    "kibana": "kibana:8.19.3",
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.1.1",
}
"""Every image that is not built here, with its version."""

PLUGINS: Mapping[str, str] = {
    "hadesarchitect-cassandra-datasource": "3.3.0",
    "yesoreyeram-infinity-datasource": "3.7.2",
}
"""Plugins that Grafana installs when a data source needs them, each with its version."""

DASHBOARDS = "/etc/headrace/dashboards"
"""Where Grafana finds dashboards."""

GENERATOR_METRICS = 9465
"""The port at which a generator tells Prometheus of itself."""

Service = dict[str, Any]
"""A service as the Compose Specification writes it."""

CHECK = {"interval": "10s", "timeout": "10s", "retries": 12, "start_period": "20s"}
"""How a health check is repeated."""


def asked(name: str) -> str:
    """Return what compose replaces by a variable of `.env`, without which it starts nothing."""
    return f"${{{name}:?set {name} in .env}}"


def published(variable: str, port: int, inside: int | None = None) -> str:
    """Return a port on the host's loopback, which a variable may change."""
    return f"127.0.0.1:${{{variable}:-{port}}}:{inside or port}"


def service(memory: str, **facts: Any) -> Service:
    """Return what every service has, and its own facts."""
    return {
        **facts,
        "mem_limit": memory,
        "restart": "unless-stopped",
        "security_opt": ["no-new-privileges:true"],
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }


def ours(
    deployment: Deployment,
    memory: str,
    words: list[str],
    *,
    image: str | None = None,
    extras: tuple[str, ...] | None = None,
    **facts: Any,
) -> Service:
    """Return a service of an image that is built here, by default the one that runs the pipeline."""
    built = {"context": "..", "dockerfile": "deploy/Containerfile"}
    return service(
        memory,
        image=image or f"headrace-{deployment.name}",
        build={**built, "args": {"EXTRAS": ",".join(deployment.extras if extras is None else extras)}},
        command=words,
        init=True,
        cap_drop=["ALL"],
        **facts,
    )


def command(deployment: Deployment, *words: str) -> list[str]:
    """Return a command of headrace for the profile."""
    return ["headrace", *words, "--profile", deployment.profile.name]


def environment(deployment: Deployment) -> dict[str, str]:
    """Return the variables that the profile refers to."""
    return {name: asked(name) for name in deployment.variables}
