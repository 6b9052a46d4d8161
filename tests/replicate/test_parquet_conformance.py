"""The Parquet replica passes what every replica has to pass: in a folder, and in S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import BucketTarget, Door, s3_server
from small_disks import folder_or_disk

from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


class TestParquet(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
        yield from folder_or_disk(tmp_path, "parquet", request)


class TestParquetInS3(ReplicaConformance):
    @pytest.fixture
    def target(self, s3: str) -> Iterator[BucketTarget]:
        door = Door(s3)
        yield BucketTarget(s3, door=door)
        door.close()
