"""The files replica passes what every replica has to pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import FilesTarget

from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


class TestFiles(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> FilesTarget:
        return FilesTarget(tmp_path / "target")
