"""The Apicurio registry: a schema registry that is not ours and answers Confluent's REST API."""

from __future__ import annotations

import fcntl
import json
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import jars_of, java

__all__ = ["JAVA_MIN", "apicurio", "unpacked"]

JAVA_MIN = 21
_JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


def unpacked() -> Path:
    """Return the folder with `quarkus-run.jar`, unpacked once. Raises ServerMissing."""
    jars = jars_of("apicurio")
    place = jars.with_name(f"{jars.name}-unpacked")
    with (jars.parent / "unpack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
                with tarfile.open(next(jars.glob("*.tar.gz"))) as archive:
                    archive.extractall(f"{folder}/app", filter="data")
                Path(folder, "app").rename(place)
    return place


@contextmanager
def apicurio() -> Iterator[str]:
    """Run one, empty, and give the address of its Confluent-compatible API."""
    program, home = java(JAVA_MIN), unpacked()
    (port, management) = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="headrace-apicurio-"))
    settings = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": port,
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": management,
        "apicurio.storage.kind": "sql",
        "apicurio.datasource.kind": "h2",
        "apicurio.datasource.url": "jdbc:h2:mem:registry",
    }
    command = [program, *_JVM, *(f"-D{name}={value}" for name, value in settings.items())]
    process = GuardedProcess([*command, "-jar", str(home / "quarkus-run.jar")], output=folder / "output")
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    try:
        wait_until(lambda: _answers(url), what=f"Apicurio at {url} answers", seconds=90, process=process)
        yield url
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=5) as answer:
            return json.load(answer) == []
    except (OSError, urllib.error.URLError, ValueError):
        return False
