"""An S3 of the tests' own (moto, in a process of its own), and the Parquet target in it."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from doors import Door
from targets import DeltaTarget

from headrace.operate.secrets import Secret
from headrace.replicate.columns import folder_name
from headrace.replicate.parquet import ParquetReplica
from servers.s3 import S3_KEY, S3_REGION, S3_SECRET, S3Server
from servers.s3 import s3_server as served

__all__ = [
    "KEY",
    "SECRET",
    "BucketTarget",
    "Door",
    "Guard",
    "delta_in_s3",
    "made_bucket",
    "only_known_keys",
    "s3_server",
]

KEY, SECRET = S3_KEY, S3_SECRET


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Run a server that prints into a file in `folder`, and give its address."""
    with served(folder) as server:
        yield server.endpoint


def made_bucket(endpoint: str, *, key: str = KEY, secret: str = SECRET) -> str:
    """Make a bucket, and return its name."""
    return S3Server(endpoint, key, secret).make_bucket()


@contextmanager
def only_known_keys(endpoint: str) -> Iterator[Guard]:
    """Let the server look at keys and signatures, as it does not otherwise."""
    guard = Guard(endpoint)
    before = httpx.post(f"{endpoint}/moto-api/reset-auth", content=b"0").json()
    try:
        yield guard
    finally:
        count = str(before["PREVIOUS_INITIAL_NO_AUTH_ACTION_COUNT"])
        httpx.post(f"{endpoint}/moto-api/reset-auth", content=count.encode())
        httpx.post(f"{endpoint}/moto-api/reset-auth", content=count.encode())


class Guard:
    """Who may do what on a server that asks: `keys` are of one who writes, and may only read when told."""

    def __init__(self, endpoint: str) -> None:
        self._writer = f"writer-{uuid.uuid4().hex[:8]}"
        with S3Server(endpoint).client("iam") as names:
            admin = _made_user(names, f"admin-{self._writer}", "*")
            self.keys = _made_user(names, self._writer, "s3:*")
        self._admin = S3Server(endpoint, *admin)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let the writer only read during the block."""
        with self._admin.client("iam") as names:
            _allow(names, self._writer, "s3:Get*", "s3:List*")
            try:
                yield
            finally:
                _allow(names, self._writer, "s3:*")


def _made_user(names: Any, who: str, *actions: str) -> tuple[str, str]:
    names.create_user(UserName=who)
    _allow(names, who, *actions)
    made = names.create_access_key(UserName=who)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def _allow(names: Any, who: str, *actions: str) -> None:
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    names.put_user_policy(UserName=who, PolicyName="all", PolicyDocument=document)


def delta_in_s3(endpoint: str, bucket: str, **more: Any) -> DeltaTarget:
    """Return Delta tables in a bucket."""
    return DeltaTarget("", uri=f"s3://{bucket}/lake", **{**_reached(endpoint, (KEY, SECRET)), **more})


def _reached(endpoint: str, keys: tuple[str, str]) -> dict[str, Any]:
    key, secret = map(Secret, keys)
    return {"region": S3_REGION, "endpoint": endpoint, "access_key": key, "secret_key": secret}


class BucketTarget:
    """Tables of Parquet files in S3, read as anybody reads them: every object that is there."""

    def __init__(
        self,
        endpoint: str,
        bucket: str | None = None,
        *,
        door: Door | None = None,
        keys: tuple[str, str] = (KEY, SECRET),
    ) -> None:
        self.endpoint = endpoint
        self.keys = keys
        self.bucket = made_bucket(endpoint) if bucket is None else bucket
        self.door = door

    def replica(self, **options: Any) -> ParquetReplica:
        endpoint = self.endpoint if self.door is None else self.door.url
        given = {"uri": f"s3://{self.bucket}/lake", **_reached(endpoint, self.keys), **options}
        return ParquetReplica(**{"kind": "parquet", "mode": "update", **given})

    def client(self) -> AbstractContextManager[Any]:
        return S3Server(self.endpoint, *self.keys).client()

    def names(self, below: str = "") -> list[str]:
        """Return what is below the replica's place."""
        found = S3Server(self.endpoint, *self.keys).keys(self.bucket, f"lake/{below}")
        return [key.removeprefix("lake/") for key in found]

    def read(self, key: str) -> bytes:
        with self.client() as client:
            body: bytes = client.get_object(Bucket=self.bucket, Key=f"lake/{key}")["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        with self.client() as client:
            client.put_object(Bucket=self.bucket, Key=f"lake/{key}", Body=body)

    def delete(self, key: str) -> None:
        with self.client() as client:
            client.delete_object(Bucket=self.bucket, Key=f"lake/{key}")

    def files(self, table: str) -> list[str]:
        """Return the data that anybody finds."""
        return [key for key in self.names(f"{folder_name(table)}/") if key.endswith(".parquet")]

    def manifest(self, table: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read(f"_headrace/{folder_name(table)}/manifest.json"))
        return found

    def rows(self, table: str) -> list[dict[str, Any]]:
        found = [pq.ParquetFile(io.BytesIO(self.read(key))).read() for key in self.files(table)]
        return pa.concat_tables(found, promote_options="default").to_pylist() if found else []

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        facts = self.manifest(table)
        facts["columns"]["n"] = "string"
        self.put(f"_headrace/{folder_name(table)}/manifest.json", json.dumps(facts).encode())

    @contextmanager
    def outage(self) -> Iterator[None]:
        assert self.door is not None
        with self.door.shut():
            yield
