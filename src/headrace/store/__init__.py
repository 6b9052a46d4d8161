"""The store: one DuckDB file with tables, ledger and dead letters."""
