"""Alertmanager, from the system's packages, on a free port of the loopback."""

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

__all__ = ["AlertmanagerServer", "alertmanager_program", "alertmanager_server", "amtool"]


def alertmanager_program(name: str = "prometheus-alertmanager") -> str:
    """Return the path of the server or of amtool. Raises ServerMissing."""
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"{name} is not installed: apt-get install prometheus-alertmanager")
    return found


def amtool(*words: str, folder: Path) -> str:
    """Run amtool in a folder and return what it says; what it refuses is a failure with its words."""
    done = subprocess.run(
        [alertmanager_program("amtool"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class AlertmanagerServer:
    """A running Alertmanager."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the labels of what it was told."""
        found = httpx.get(f"http://{self.address}/api/v2/alerts", timeout=10).json()
        return [each["labels"] for each in found]


@contextmanager
def alertmanager_server(
    folder: Path, configuration: str = "alertmanager.yml"
) -> Iterator[AlertmanagerServer]:
    """Run one with a configuration that lies in `folder`; its data go there, too."""
    (port,) = free_ports(1)
    process = GuardedProcess(
        [
            alertmanager_program(),
            f"--config.file={folder / configuration}",
            f"--storage.path={folder / 'alertmanager-data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        output=folder / "alertmanager.log",
    )

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, what="Alertmanager answers", seconds=60, process=process)
        yield AlertmanagerServer(port)
    finally:
        process.stop()
