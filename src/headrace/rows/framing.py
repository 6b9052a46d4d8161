"""Formats other than plain JSON: what stands between a record's bytes and its JSON text."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from headrace.log.documents import Documents

__all__ = ["Documents", "Framing"]


class Framing(Protocol):
    """Reads the records of one stream in a format of their own, for example Avro with a schema registry.

    The text of a record has to be a function of the record alone. A dead letter keeps the record's own bytes.
    """

    def prepare(self, records: pa.Table) -> None:
        """Ask for what `documents` needs to read `records`; a reader of logs does, ahead of the row stage.

        Another thread may be in `documents` meanwhile. Raises TransientError as that does: a stream that has
        to wait then holds up no other one.
        """

    def documents(self, records: pa.Table) -> Documents:
        """Return what each of `records` (RECORD_SCHEMA) says.

        Never raises for a record. Raises TransientError when something that it needs, such as a schema
        registry, does not answer: the caller asks again later with the same records.
        """

    def close(self) -> None:
        """Give back connections."""
