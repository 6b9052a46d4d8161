"""The columns of reference tables."""

from __future__ import annotations

from headrace.declare import Reference
from headrace.sql.plan import NamedColumn
from headrace.sql.syntax import QueryError

__all__ = ["reference_columns"]


def reference_columns(reference: Reference) -> tuple[NamedColumn, ...]:
    """Return the columns of a reference table: those declared, else those that its file has.

    Raises QueryError when neither says.
    """
    if reference.schema is not None:
        return tuple(NamedColumn(known.name, known.type.sql) for known in reference.schema.columns)
    import duckdb

    reader = "read_parquet" if reference.path.endswith((".parquet", ".pq")) else "read_csv"
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(f"DESCRIBE SELECT * FROM {reader}(?)", [reference.path]).fetchall()
    except duckdb.Error as error:
        raise QueryError(
            f"the columns of '{reference.path}' are not known: {str(error).splitlines()[0]}",
            "declare its schema, or put the file there",
        ) from None
    return tuple(NamedColumn(row[0], row[1]) for row in rows)
