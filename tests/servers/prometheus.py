"""Prometheus, from the system's packages, on a free port of the loopback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import ServerMissing

__all__ = ["PrometheusServer", "prometheus_program", "prometheus_server", "promtool"]


def prometheus_program(name: str = "prometheus") -> str:
    """Return the path of prometheus or promtool. Raises ServerMissing."""
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"{name} is not installed: apt-get install prometheus")
    return found


def promtool(*words: str, folder: Path) -> str:
    """Run promtool in a folder and return what it says; what it refuses is a failure with its words."""
    done = subprocess.run(
        [prometheus_program("promtool"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


class PrometheusServer:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, query: str) -> float | None:
        """Return the one value of a query; None: no series, several are a failure."""
        found = self.ask("query", query=query)["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def targets(self) -> dict[str, str]:
        """Return the health of each target, by its job."""
        return {each["labels"]["job"]: each["health"] for each in self.ask("targets")["activeTargets"]}

    def alerts(self) -> dict[str, str]:
        """Return the state of each alert that is not inactive, by its name."""
        return {each["labels"]["alertname"]: each["state"] for each in self.ask("alerts")["alerts"]}


@contextmanager
def prometheus_server(folder: Path, configuration: str = "prometheus.yml") -> Iterator[PrometheusServer]:
    """Run one with a configuration that lies in `folder`; its data go there, too."""
    (port,) = free_ports(1)
    process = GuardedProcess(
        [
            prometheus_program(),
            f"--config.file={folder / configuration}",
            f"--storage.tsdb.path={folder / 'prometheus-data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        output=folder / "prometheus.log",
        environment={"GOMEMLIMIT": "256MiB"},
    )

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, what="Prometheus answers", seconds=60, process=process)
        yield PrometheusServer(port)
    finally:
        process.stop()
