"""Keeps what an engine's process holds close to what it uses.

Arrow's own allocator and one malloc arena per thread keep freed memory for later; with several threads that
pass slices of records on to each other this was a quarter of the process.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

import pyarrow as pa

__all__ = ["return_freed_memory"]

_M_ARENA_MAX = -8
"""`mallopt`'s name for the limit (glibc, malloc.h)."""

_ARENAS = 2


@cache
def return_freed_memory() -> None:
    """Let Arrow use jemalloc, or the system's allocator where it has none, and that few arenas.

    Before threads begin, once per process. Of the three that Arrow may have, jemalloc gives back most.
    Who set ARROW_DEFAULT_MEMORY_POOL or MALLOC_ARENA_MAX is not overruled.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        given = "jemalloc" in pa.supported_memory_backends()
        pa.set_memory_pool(pa.jemalloc_memory_pool() if given else pa.system_memory_pool())
        if given:
            pa.jemalloc_set_decay_ms(0)  # at once: 15 MB less than after its second, and no slower
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, _ARENAS)
