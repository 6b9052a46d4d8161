"""The log: append and read."""

from headrace.log.embedded import EmbeddedLog, open_embedded_log, utc_now
from headrace.log.protocol import (
    APPEND_SCHEMA,
    RECORD_SCHEMA,
    Appended,
    Log,
    LogFullError,
    PartitionRange,
    Slice,
)

__all__ = [
    "APPEND_SCHEMA",
    "RECORD_SCHEMA",
    "Appended",
    "EmbeddedLog",
    "Log",
    "LogFullError",
    "PartitionRange",
    "Slice",
    "open_embedded_log",
    "utc_now",
]
