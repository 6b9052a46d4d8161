"""The Delta replica passes what every replica has to pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import DeltaTarget

from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


class TestDelta(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> DeltaTarget:
        return DeltaTarget(str(tmp_path / "target"))

    test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks = None  # a million are, in the soak
