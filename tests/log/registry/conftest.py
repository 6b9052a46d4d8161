"""An embedded registry for the tests of this folder: the real application behind a real port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.log.registry.client import RegistryClient
from headrace.web.registry import RegistryServer


class RunningRegistry:
    """A registry that can be stopped and started again at the same address."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = 0
        self.url = ""
        self._server: RegistryServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._server = RegistryServer(self.path, port=self.port)
        self.url = self._server.url
        self.port = int(self.url.rpartition(":")[2])
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join(20)
            assert not self._thread.is_alive()
        self._server = self._thread = None


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    running = RunningRegistry(tmp_path / "registry.db")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(registry: RunningRegistry) -> Iterator[RegistryClient]:
    with closing(RegistryClient(registry.url)) as opened:
        yield opened
