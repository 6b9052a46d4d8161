"""Tables of the store in Arrow's types, for targets made of Parquet files; and their date and hour."""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import ProfileError
from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.protocol import TableShape
from headrace.store.names import quoted

__all__ = ["LakeOptions", "arrow_schema", "dated", "fitted", "folder_name", "time_column"]

VERSION = pa.field("_version", pa.int64())
_ODD = re.compile(r"[^\w.=+-]|^[._]", re.ASCII)
_FIRST_DAY, _END_DAY = -719_162, 2_932_897  # days since 1970 of the first days of the years 1 and 10000
_MOST = 2**63 - 1
_PASSWORD = re.compile(r"[^/@]*:[^@]*@")
_OF_BUCKETS = ("s3", "s3a", "gs")
_CONTAINERS = ("abfs", "abfss")
"""Schemes in which it is a container that stands before the @."""
_WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}


@dataclass(frozen=True, kw_only=True)
class LakeOptions(CommonOptions):
    """What replicas that are made of Parquet files can be told."""

    mode: str = setting(
        "one of",
        "append",
        "append: a window is written once, when it is closed, and again with a higher _revision when a "
        "correction changes it; update: rows change as the table does, which writes files anew",
        choices={"append": "", "update": ""},
    )
    linger: timedelta = setting(
        "duration", timedelta(minutes=1), "how long changes may gather before they become a file"
    )
    chunk_rows_max: int = setting("whole number", 1_000_000, "the most rows that are written at once")
    chunk_bytes_max: int = setting("size", 128_000_000, "about the most bytes that are written at once")
    file_bytes: int = setting("size", 128_000_000, "small files are put together up to about this size")
    partition_by: str = setting(
        "text",
        "",
        "the column of which date and hour make the folders, in tables that have it; nothing said: "
        "window_start, else the first instant; none: no folders",
    )
    path: str = setting("path", "", "the folder that holds a folder for each table; or use uri")
    uri: str = setting("text", "", "instead of path: s3://bucket/path")
    region: str = setting("text", "", "S3: the region")
    endpoint: str = setting("text", "", "S3: the address of a server that is not Amazon's")
    access_key: Revealed | None = setting(
        "secret", None, "S3: the access key; without it, what the machine's environment or role gives"
    )
    secret_key: Revealed | None = setting("secret", None, "S3: the secret of the access key")

    @property
    def json_nested(self) -> bool:
        """Lists and structs stay what they are."""
        return False

    def check_place(self, replica: str) -> None:
        """Raise ProfileError unless one place is named in full, and keys are whole and where keys belong."""
        if bool(self.path) == bool(self.uri):
            raise ProfileError(
                f"replica '{replica}' needs either path or uri",
                fix='write path = "warehouse/", or uri = "s3://bucket/warehouse"',
            )
        scheme, separator, rest = self.uri.partition("://")
        if separator and scheme in _OF_BUCKETS and not rest.partition("/")[0]:
            raise ProfileError(
                f"replica '{replica}': uri names no bucket",
                fix=f'write it behind {scheme}://, such as uri = "{scheme}://bucket/warehouse"',
            )
        if (self.access_key is None) != (self.secret_key is None):
            raise ProfileError(
                f"replica '{replica}' has one of access_key and secret_key",
                fix="give both, or neither and let the machine's environment or role give them",
            )
        for name, named in (("uri", _names_user(self.uri)), ("endpoint", "@" in self.endpoint)):
            if named:  # it would be told wherever the place is
                raise ProfileError(
                    f"replica '{replica}': {name} names a user or a password",
                    fix="take out what stands before the @; access_key and secret_key are for keys",
                )


def _names_user(uri: str) -> bool:
    """Return whether an address has a user or a password; in this one may be a / as well."""
    scheme = uri.partition("://")[0]
    rest = uri.removeprefix(f"{scheme}://")
    if _PASSWORD.match(rest):
        return True
    return scheme not in _CONTAINERS and "@" in rest.partition("/")[0]


def folder_name(table: str) -> str:
    """Return the name of a table's folder: letters that no file system and no address takes amiss."""
    return _ODD.sub(lambda found: f"~{ord(found[0]):x}", table)


def time_column(shape: TableShape, asked: str) -> str | None:
    """Return the column that a table is partitioned by. Raises ProfileError for one that is no instant."""
    names = {column.name: column.type for column in shape.columns}
    if asked == "none" or {"date", "hour"} & {name.lower() for name in names}:
        return None  # a folder's name would hide the table's own column
    if asked in names:
        if not _is_instant(names[asked]):
            raise ProfileError(
                f"column '{asked}' of table '{shape.name}' is {names[asked]}, and has no date and hour",
                fix="name a column of type TIMESTAMP in partition_by",
            )
        return asked
    instants = [name for name, kind in names.items() if _is_instant(kind)]
    return "window_start" if "window_start" in instants else next(iter(instants), None)


def _is_instant(kind: str) -> bool:
    return kind.startswith("TIMESTAMP") and not kind.endswith("]")


def arrow_schema(shape: TableShape, *, signed: bool) -> pa.Schema:
    """Return the columns of a table and `_version`; `signed`: for formats with Java's types."""
    cells = ", ".join(f"NULL::{column.type} AS {quoted(column.name)}" for column in shape.columns)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT {cells}").to_arrow_table().schema
    fields = [pa.field(field.name, _storable(field.type, signed)) for field in found]
    return pa.schema([*fields, VERSION])


def _storable(kind: pa.DataType, signed: bool) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_storable(kind.value_type, signed))
    if pa.types.is_map(kind):
        return pa.map_(_storable(kind.key_type, signed), _storable(kind.item_type, signed))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, _storable(each.type, signed)) for each in kind])
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_interval(kind) or pa.types.is_null(kind) or (signed and pa.types.is_time(kind)):
        return pa.string()
    if signed and kind == pa.uint64():
        return pa.decimal128(20, 0)
    if signed and pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return _WIDER.get(kind, kind) if signed else kind


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of `schema` that `rows` has, as the types of `schema`."""
    wanted = pa.schema([field for field in schema if field.name in rows.schema.names])
    texts = [f.name for f in wanted if pa.types.is_string(f.type) and not _cast(rows.schema.field(f.name))]
    if texts:
        cells = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in texts)
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("_rows", rows)
            rows = connection.sql(f"SELECT * REPLACE ({cells}) FROM _rows").to_arrow_table()
    return rows.select(wanted.names).cast(wanted)


def _cast(field: pa.Field) -> bool:
    """Return whether Arrow itself makes text of a type, as DuckDB would."""
    return not (pa.types.is_interval(field.type) or pa.types.is_time(field.type))


def dated(rows: pa.Table, column: str) -> pa.Table:
    """Return rows with `date` DATE and `hour` INTEGER of a column, in UTC.

    They are NULL for an infinite instant, and for one that is not of the years 1 to 9999: such a year is no
    folder that everybody reads as a date, and Arrow cuts the larger ones down.
    """
    instants = rows.column(column)
    numbers = instants.cast(pa.int64())
    if instants.type.unit == "ns":  # they reach from 1677 to 2262
        known = pc.and_(pc.greater(numbers, -_MOST), pc.less(numbers, _MOST))
    else:
        a_day = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}[instants.type.unit]
        known = pc.and_(pc.greater_equal(numbers, _FIRST_DAY * a_day), pc.less(numbers, _END_DAY * a_day))
    instants = pc.if_else(known, instants, pa.scalar(None, instants.type))
    return rows.append_column("date", instants.cast(pa.date32())).append_column(
        "hour", pc.hour(instants).cast(pa.int32())
    )
