"""The files replica passes what every replica has to pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disks import folder_or_disk

from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


class TestFiles(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
        yield from folder_or_disk(tmp_path, "files", request)
