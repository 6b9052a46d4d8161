"""What a user declares: frozen values, no I/O. Building one connects to nothing."""

from headrace.declare.durations import format_duration, parse_duration
from headrace.declare.pipeline import (
    Alert,
    Expect,
    Function,
    Panel,
    Pipeline,
    Place,
    Reference,
    Stream,
    Table,
)
from headrace.declare.schema import Column, DataType, ListType, MapType, ScalarType, Schema, StructType

__all__ = [
    "Alert",
    "Column",
    "DataType",
    "Expect",
    "Function",
    "ListType",
    "MapType",
    "Panel",
    "Pipeline",
    "Place",
    "Reference",
    "ScalarType",
    "Schema",
    "Stream",
    "StructType",
    "Table",
    "format_duration",
    "parse_duration",
]
