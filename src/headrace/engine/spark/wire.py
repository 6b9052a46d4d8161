"""How tables travel between executors and the driver: Arrow streams inside plain binary columns.

Spark sees bytes. What is in them keeps DuckDB's types, nested or not, and is not converted row by row.
"""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa

__all__ = ["dumped", "loaded", "packed", "unpacked"]

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def packed(table: pa.Table) -> bytes:
    """Return the table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def unpacked(data: bytes) -> pa.Table:
    """Return what `packed` was given."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


class _Table:
    """Stands for a table inside a pickle, because a slice would be pickled with all that it was cut from."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def dumped(value: dict[str, Any]) -> bytes:
    """Return a dict of plain values and tables as bytes; only what this engine wrote is ever loaded."""
    return pickle.dumps(
        {name: _Table(packed(one)) if isinstance(one, pa.Table) else one for name, one in value.items()}
    )


def loaded(data: bytes) -> dict[str, Any]:
    """Return what `dumped` was given."""
    found: dict[str, Any] = pickle.loads(data)  # noqa: S301 - written by this engine's own executors
    return {name: unpacked(one.data) if isinstance(one, _Table) else one for name, one in found.items()}
