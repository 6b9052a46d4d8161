"""The Delta replica passes what every replica has to pass: in a folder, and in S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from doors import DoorBeside
from object_store import delta_in_s3, made_bucket, s3_server
from small_disks import folder_or_disk
from targets import DeltaTarget

from headrace.testing.replicas import ReplicaConformance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


class TestDelta(ReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
        yield from folder_or_disk(tmp_path, "delta", request)

    test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks = None  # a million are, in the soak


class BehindDoor(DeltaTarget):
    """Delta tables in a bucket, with a door in front of it that a test may shut."""

    def __init__(self, endpoint: str, door: DoorBeside) -> None:
        super().__init__("", **delta_in_s3(door.url, made_bucket(endpoint)).more)
        self._door = door

    @contextmanager
    def outage(self) -> Iterator[None]:
        with self._door.shut():
            yield


class TestDeltaInS3(ReplicaConformance):
    @pytest.fixture
    def target(self, s3: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DeltaTarget]:
        if "target_that_is_down" not in request.node.name:
            yield delta_in_s3(s3, made_bucket(s3))
            return
        door = DoorBeside(s3, tmp_path)
        yield BehindDoor(s3, door)
        door.close()

    test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks = None  # a million are, in the soak
