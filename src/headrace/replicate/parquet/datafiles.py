"""Parquet files with rows of a table: written, read, and cut by the folders that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.replicate.columns import dated
from headrace.replicate.parquet.manifest import DataFile
from headrace.replicate.protocol import GENERATION

__all__ = [
    "COMPRESSION",
    "NOWHEN",
    "NOWHEN_FOLDER",
    "Source",
    "aligned",
    "file_name",
    "folders_of",
    "read_rows",
    "read_schema",
    "write_rows",
]

Source: TypeAlias = "Path | pa.Buffer"
"""A file on the disk, or all of its bytes."""

COMPRESSION = "zstd"
NOWHEN = "__HIVE_DEFAULT_PARTITION__"
NOWHEN_FOLDER = f"date={NOWHEN}/hour={NOWHEN}"
"""Where rows lie without an instant, or with one that has no date."""


def folders_of(rows: pa.Table, partition: str | None) -> Iterator[tuple[str, pa.Table]]:
    """Give the rows of each folder: `date=2026-03-01/hour=7`, in UTC; `.` when there are none."""
    if not rows.num_rows:
        return
    if partition is None:
        yield ".", rows
        return
    placed = dated(rows.select([partition]), partition)
    day = pc.fill_null(pc.strftime(placed["date"], "%Y-%m-%d"), NOWHEN)
    hour = pc.fill_null(placed["hour"].cast(pa.string()), NOWHEN)
    names = pc.binary_join_element_wise("date=", day, "/hour=", hour, "")
    found = pa.table({"name": names.combine_chunks(), "row": pa.array(range(rows.num_rows))})
    each = found.group_by("name").aggregate([("row", "list")])
    for name, some in zip(each["name"].to_pylist(), each["row_list"].chunks[0], strict=True):
        yield name, rows if len(each) == 1 else rows.take(some.values)


def file_name(lowest: int, highest: int, commit: int, number: int, mark: str = "") -> str:
    """Return the name of a file: the epochs of its rows, the commit that made it, and which one of it."""
    return f"e{lowest % GENERATION:010d}-{highest % GENERATION:010d}-c{commit:08d}-{number}{mark}.parquet"


def write_rows(
    staged: Path, folder: str, rows: pa.Table, commit: int, number: int, mark: str
) -> dict[str, DataFile]:
    """Write rows into a file of a folder; returns what is to be listed: nothing for no rows."""
    if not rows.num_rows:
        return {}
    bounds = pc.min_max(rows["_version"]).as_py()
    name = Path(folder) / file_name(bounds["min"], bounds["max"], commit, number, mark)
    (staged / folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, staged / name, compression=COMPRESSION)
    size = (staged / name).stat().st_size
    return {str(name): DataFile(rows.num_rows, size, bounds["min"], bounds["max"], commit)}


def read_rows(source: Source, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of a file; the folders that it lies in add nothing."""
    with pq.ParquetFile(source) as file:
        return file.read(columns)


def read_schema(source: Source) -> pa.Schema:
    """Return the columns of a file."""
    with pq.ParquetFile(source) as file:
        return file.schema.to_arrow_schema()


def aligned(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with all columns of `schema`: those that a file lacks are NULL."""
    for field in schema:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)
