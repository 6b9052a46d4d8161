"""Tables of Delta Lake, in a folder or in an object store."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import ProfileError
from headrace.replicate.columns import LakeOptions
from headrace.replicate.options import setting
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["DeltaReplica"]


@dataclass(frozen=True, kw_only=True)
class DeltaReplica(LakeOptions):
    """Keeps tables as Delta tables below a folder or a place such as s3://bucket/path. Connects in `open`."""

    uri: str = setting("text", "", "instead of path: s3://bucket/path, abfss://… or gs://…")

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        self.check_place(task.replica)
        try:
            from headrace.replicate.delta.writer import DeltaWriter
        except ImportError as error:
            raise ProfileError(
                f"a Delta replica needs '{error.name}', which is not installed",
                fix="install it: pip install 'headrace[delta]'",
            ) from error
        return DeltaWriter(self, task)

    def storage(self) -> dict[str, str]:
        """Return what the library is told of the place; it holds secrets."""
        given = {"AWS_REGION": self.region, "AWS_ENDPOINT_URL": self.endpoint}
        if self.access_key is not None and self.secret_key is not None:
            given["AWS_ACCESS_KEY_ID"] = self.access_key.reveal()
            given["AWS_SECRET_ACCESS_KEY"] = self.secret_key.reveal()
        if self.endpoint.startswith("http://"):
            given["AWS_ALLOW_HTTP"] = "true"
        if self.uri.startswith("s3"):
            # A commit is a file that must not be there yet: S3 itself sees to that.
            given["AWS_CONDITIONAL_PUT"] = "etag"
        if self.uri:
            # Waiting for a store that is away is the follower's work, which tells of it.
            given |= {"max_retries": "2", "retry_timeout": "10s", "connect_timeout": "5s", "timeout": "30s"}
        return {name: value for name, value in given.items() if value}
