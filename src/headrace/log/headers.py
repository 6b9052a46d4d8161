"""The headers that records carry for Headrace, and those of Kafka Connect that it reads and writes."""

from __future__ import annotations

__all__ = ["CONNECT_PREFIX", "COPIED_HEADER", "LETTER_HEADER", "RECORD_TIME_HEADER"]

RECORD_TIME_HEADER = "headrace.record-time"
"""A record time in ASCII digits: microseconds since 1970, UTC."""

COPIED_HEADER = "headrace.copied-from"
"""The source that a record was copied from: its identity and the record's place in it."""

LETTER_HEADER = "headrace.dead-letter"
"""The address of the record that was set aside, as `headrace dead-letters list` shows it."""

CONNECT_PREFIX = "__connect.errors."
"""Begins the headers in which Kafka Connect tells of a record that it set aside."""
