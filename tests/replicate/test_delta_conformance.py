"""The Delta replica passes what every replica has to pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import DeltaTarget

from headrace.testing.replicas import ReplicaConformance


class TestDelta(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> DeltaTarget:
        return DeltaTarget(str(tmp_path / "target"))
