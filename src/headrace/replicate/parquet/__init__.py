"""Tables as Parquet files in folders by date and hour, listed in a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ProfileError
from headrace.replicate.columns import LakeOptions
from headrace.replicate.options import setting
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["ParquetReplica"]


@dataclass(frozen=True, kw_only=True)
class ParquetReplica(LakeOptions):
    """Keeps tables as Parquet files in a folder of this machine. Touches nothing before `open`."""

    path: str = setting("path", "", "the folder, made when it is absent", required=True)

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        from headrace.replicate.parquet.writer import ParquetWriter

        if not self.path:
            raise ProfileError(f"replica '{task.replica}' has no path", fix='write path = "warehouse/"')
        return ParquetWriter(Path(self.path), self, task)
