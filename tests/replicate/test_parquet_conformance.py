"""The Parquet replica passes what every replica has to pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import ParquetTarget

from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


class TestParquet(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> ParquetTarget:
        return ParquetTarget(tmp_path / "target")
