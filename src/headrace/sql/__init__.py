"""The user's SQL, taken apart into row, aggregate and result part; the only user of sqlglot."""
