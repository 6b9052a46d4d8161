"""The row stage: bytes in, rows and dead letters out."""
