"""NumPy arrays by what they hold. Every room that looks at many records at once says it with these words."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Bytes", "Mask", "Offsets", "Rows"]

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Says of every row whether something is so."""

Rows: TypeAlias = npt.NDArray[np.int64]
"""Numbers of rows, from 0."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""Bytes of many values, one after the other."""

Offsets: TypeAlias = npt.NDArray[np.int32]
"""Where values begin in such bytes."""
