"""Tables as Parquet files in folders by date and hour, listed in a manifest: of a disk, or of S3."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.errors import ProfileError
from headrace.replicate.columns import LakeOptions
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["ParquetReplica"]


@dataclass(frozen=True, kw_only=True)
class ParquetReplica(LakeOptions):
    """Keeps tables as Parquet files in a folder of this machine or in S3. Touches nothing before `open`."""

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        from headrace.replicate.parquet.writer import ParquetWriter

        self.check_place(task.replica)
        if not self.uri:
            return ParquetWriter(self, task)
        try:
            import boto3  # noqa: F401 - what the writer needs is missing here, and not at its first request
        except ImportError as error:
            raise ProfileError(
                f"a Parquet replica in S3 needs '{error.name}', which is not installed",
                fix="install it: pip install 'headrace[s3]'",
            ) from error
        return ParquetWriter(self, task)

    def check_place(self, replica: str) -> None:
        """See `LakeOptions`."""
        super().check_place(replica)
        if self.uri and not self.uri.startswith(("s3://", "s3a://")):
            raise ProfileError(
                f"replica '{replica}': a Parquet replica keeps files in a folder or in S3",
                fix='write path = "warehouse/" or uri = "s3://bucket/warehouse"; kind = "delta" knows others',
            )
