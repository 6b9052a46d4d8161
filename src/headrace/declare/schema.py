"""Schemas: SQL column lists with DuckDB's type names.

`"event_id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, items STRUCT(product_id VARCHAR, quantity INT)[]"`

A TIMESTAMP is always an instant: its DuckDB type is TIMESTAMP WITH TIME ZONE, and the session's zone is UTC.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Column", "DataType", "ListType", "MapType", "ScalarType", "Schema", "StructType"]


@dataclass(frozen=True)
class ScalarType:
    """A type without parts; `sql` is DuckDB's own canonical name of it, for example `DECIMAL(12,2)`."""

    sql: str


@dataclass(frozen=True)
class ListType:
    """A list of `item`."""

    item: DataType

    @property
    def sql(self) -> str:
        """DuckDB's name of the type."""
        return f"{self.item.sql}[]"


@dataclass(frozen=True)
class StructType:
    """Named fields in a fixed order."""

    fields: tuple[tuple[str, DataType], ...]

    @property
    def sql(self) -> str:
        """DuckDB's name of the type."""
        return "STRUCT(" + ", ".join(f'"{name}" {kind.sql}' for name, kind in self.fields) + ")"


@dataclass(frozen=True)
class MapType:
    """Keys of one type, values of another."""

    key: DataType
    value: DataType

    @property
    def sql(self) -> str:
        """DuckDB's name of the type."""
        return f"MAP({self.key.sql}, {self.value.sql})"


DataType = ScalarType | ListType | StructType | MapType


@dataclass(frozen=True)
class Column:
    """One declared column."""

    name: str
    type: DataType
    nullable: bool = True


@dataclass(frozen=True)
class Schema:
    """The declared columns of a stream, in order; names differ also when case is ignored."""

    columns: tuple[Column, ...]

    def find(self, name: str) -> Column | None:
        """Return the column of that name, case ignored as SQL does; None when there is none."""
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)
