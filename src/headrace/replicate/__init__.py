"""Replicas follow the store: tables and views, copied to other systems (`protocol` says how)."""

from headrace.replicate.kinds import replica_kind, replica_kinds
from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.protocol import (
    Chunk,
    Cursor,
    NamedColumn,
    Position,
    Refusal,
    Replica,
    ReplicaWriter,
    TableShape,
    Task,
    TogetherWriter,
    fenced,
)

__all__ = [
    "Chunk",
    "CommonOptions",
    "Cursor",
    "NamedColumn",
    "Position",
    "Refusal",
    "Replica",
    "ReplicaWriter",
    "Revealed",
    "TableShape",
    "Task",
    "TogetherWriter",
    "fenced",
    "replica_kind",
    "replica_kinds",
    "setting",
]
