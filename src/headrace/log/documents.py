"""What framed records say, as JSON text: the common form of every format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

__all__ = ["Documents"]


@dataclass(frozen=True)
class Documents:
    """The records of a slice as JSON text, in its order.

    texts       one binary value per record; NULL for a tombstone and for what cannot be read
    unreadable  by row, why a record cannot be read: pairs of a rule and a reason
    """

    texts: pa.Array
    unreadable: Mapping[int, tuple[tuple[str, str], ...]]
