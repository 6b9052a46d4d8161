"""S3, as moto serves it: a process of its own on a free port of the loopback."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import httpx

from servers.guard import GuardedProcess, free_ports, wait_until

__all__ = ["S3_KEY", "S3_REGION", "S3_SECRET", "S3Server", "s3_server"]

S3_KEY, S3_SECRET, S3_REGION = "a-key-for-tests", "the secret of tests", "eu-central-1"
_START_S_MAX = 180


@dataclass(frozen=True)
class S3Server:
    """A server at `endpoint`, as who has these keys sees it; it keeps its buckets in memory."""

    endpoint: str
    key: str = S3_KEY
    secret: str = S3_SECRET

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        place = {"LocationConstraint": S3_REGION}
        with self.client() as client:
            client.create_bucket(Bucket=name, CreateBucketConfiguration=place)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the names of all objects of a bucket that begin so."""
        with self.client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [found["Key"] for page in pages for found in page.get("Contents", ())]

    @contextmanager
    def client(self, service: str = "s3") -> Iterator[Any]:
        """Give a client of Amazon's own library."""
        with closing(
            boto3.client(
                service,
                endpoint_url=self.endpoint,
                region_name=S3_REGION,
                aws_access_key_id=self.key,
                aws_secret_access_key=self.secret,
            )
        ) as client:
            yield client


@contextmanager
def s3_server(folder: Path | None = None) -> Iterator[S3Server]:
    """Run a server without buckets; what it prints is in `folder`, or nowhere when it has ended."""
    # A process of its own: the library of Delta holds the interpreter while it waits for an answer.
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with ExitStack() as undo:
        if folder is None:
            folder = Path(undo.enter_context(TemporaryDirectory(prefix="headrace-s3-")))
        process = GuardedProcess(command, output=folder / "server.log")
        undo.callback(process.kill)
        found = S3Server(f"http://127.0.0.1:{port}")
        wait_until(lambda: _answers(found.endpoint), what="S3 answers", seconds=_START_S_MAX, process=process)
        yield found


def _answers(endpoint: str) -> bool:
    try:
        return httpx.get(endpoint).is_success
    except httpx.TransportError:
        return False
