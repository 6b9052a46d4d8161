"""S3, as moto serves it: a process of its own on a free port of the loopback."""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx

from servers.guard import GuardedProcess, free_ports, wait_until

__all__ = ["S3_KEY", "S3_REGION", "S3_SECRET", "S3Server", "s3_server"]

S3_KEY, S3_SECRET, S3_REGION = "a-key-for-tests", "the secret of tests", "eu-central-1"
_START_S_MAX = 180


@dataclass(frozen=True)
class S3Server:
    """A server at `endpoint`; it keeps its buckets in memory."""

    endpoint: str

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        place = {"LocationConstraint": S3_REGION}
        self._client().create_bucket(Bucket=name, CreateBucketConfiguration=place)
        return name

    def keys(self, bucket: str) -> list[str]:
        """Return the names of all objects of a bucket."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=S3_REGION,
            aws_access_key_id=S3_KEY,
            aws_secret_access_key=S3_SECRET,
        )


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server without buckets."""
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="headrace-s3-"))
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = GuardedProcess(command, output=folder / "server.log")
    found = S3Server(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: _answers(found.endpoint), what="S3 answers", seconds=_START_S_MAX, process=process)
        yield found
    finally:
        process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(endpoint: str) -> bool:
    try:
        return httpx.get(endpoint).is_success
    except httpx.TransportError:
        return False
