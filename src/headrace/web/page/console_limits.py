"""What a query of the SQL console may take."""

from __future__ import annotations

__all__ = ["ANSWER_BYTES_MAX", "COPY_BYTES_MAX", "MEMORY_BYTES_MAX", "QUERY_MEMORY", "SECONDS_MAX"]

SECONDS_MAX = 5.0
"""For the copy of what it reads, and again for the query."""

QUERY_MEMORY = "256MiB"
"""What DuckDB may use of memory; it has no disk to spill to."""

MEMORY_BYTES_MAX = 1024**3
"""What the process may take: DuckDB's own limit knows nothing of one huge value."""

COPY_BYTES_MAX = 1024**3
"""What the columns that it reads may be; on disk, beside the store, and only while it runs."""

ANSWER_BYTES_MAX = 32 * 1024**2
"""What its rows may be as JSON."""
