"""What a user declares: frozen values, no I/O. Building one connects to nothing."""

from headrace.declare.checks import SYSTEM_RELATIONS
from headrace.declare.durations import format_duration, parse_duration
from headrace.declare.pipeline import Pipeline
from headrace.declare.schema import Column, DataType, ListType, MapType, ScalarType, Schema, StructType
from headrace.declare.schema_text import parse_schema, parse_type
from headrace.declare.values import (
    PANEL_KINDS,
    SEVERITIES,
    Alert,
    Expect,
    Function,
    Panel,
    Place,
    Reference,
    Stream,
    Table,
)
from headrace.declare.words import did_you_mean, nearest

__all__ = [
    "PANEL_KINDS",
    "SEVERITIES",
    "SYSTEM_RELATIONS",
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
    "did_you_mean",
    "format_duration",
    "nearest",
    "parse_duration",
    "parse_schema",
    "parse_type",
]
