"""What Spark asks a Kubernetes for, by the settings that a profile passes on; there is none behind it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from servers.guard import GuardedProcess, wait_until

_ASKED_S_MAX = 300
_DRIVER = """
import json, sys, threading
from pathlib import Path
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import start_spark
start_spark("asked", SparkSettings(conf=json.loads(sys.argv[1])), Path(sys.argv[2]))
threading.Event().wait()
"""


class _Api(BaseHTTPRequestHandler):
    """Takes what is made, and has nothing."""

    made: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def _answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        kind = "ConfigMapList" if "configmaps" in self.path else "PodList"
        self._answer({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.made.append((self.path.partition("?")[0], body))
        self._answer(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def api() -> Iterator[str]:
    """Give the address of a server on the loopback that answers as an empty Kubernetes does."""
    _Api.made.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        serving.join(60)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_spark_asks_kubernetes_for_executors_of_the_image_the_namespace_and_the_account_of_the_profile(
    tmp_path: Path,
) -> None:
    with api() as address:
        conf = {
            "spark.master": f"k8s://{address}",
            "spark.driver.memory": "512m",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.kubernetes.container.image": "registry.example/headrace:1",
            "spark.kubernetes.namespace": "pipelines",
            "spark.kubernetes.authenticate.executor.serviceAccountName": "workers",
            "spark.executor.instances": "1",
            "spark.pyspark.python": "/opt/headrace/bin/python",
        }
        words = [sys.executable, "-c", _DRIVER, json.dumps(conf), str(tmp_path / "store.duckdb")]
        driver = GuardedProcess(words, output=tmp_path / "driver.log")

        def pods() -> list[dict[str, Any]]:
            return [body for path, body in _Api.made if path == "/api/v1/namespaces/pipelines/pods"]

        try:
            wait_until(pods, what="Spark asks for an executor", seconds=_ASKED_S_MAX, process=driver)
        finally:
            driver.stop()
        spec = pods()[0]["spec"]
        assert [one["image"] for one in spec["containers"]] == ["registry.example/headrace:1"]
        assert spec["serviceAccountName"] == "workers"
