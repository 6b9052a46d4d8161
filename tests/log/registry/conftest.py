"""An embedded registry for the tests of this folder: the real application behind a real port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from registry_support import RunningRegistry

from headrace.log.registry.client import RegistryClient


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
