"""Changes as lines of CSV, in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disks import folder_or_disk
from targets import CsvTarget

from headrace.errors import RefusedError
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


class TestCsv(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
        yield from folder_or_disk(tmp_path, "csv", request)

    test_a_column_that_is_new_is_added = None

    def test_a_column_that_is_new_is_refused_with_what_to_do(self, target: CsvTarget) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1)], epoch=1))
        narrow = type(THINGS)(name=THINGS.name, columns=THINGS.columns[:4], key=THINGS.key)
        with pytest.raises(RefusedError, match="columns") as raised, opened(target, narrow):
            pass
        assert "ndjson" in raised.value.fix


def test_a_file_that_somebody_has_taken_away_is_told(tmp_path: Path) -> None:
    target = CsvTarget(tmp_path / "target")
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
        (target.folder / f"{THINGS.name}.csv").unlink()
        with pytest.raises(RefusedError, match="shorter than it was"):
            writer.write(chunk([thing("bob", 1)], epoch=2))
