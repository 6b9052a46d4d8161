"""Registers a pipeline's user functions in a DuckDB connection.

A function that raises, or gives too few values or values of another type, raises a RecordError here. The row
stage then finds the records for which it does, and only these are set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.declare import Function
from headrace.declare.arity import with_arity
from headrace.errors import RecordError

if TYPE_CHECKING:
    import duckdb

__all__ = ["register_functions"]


def register_functions(connection: duckdb.DuckDBPyConnection, functions: Iterable[Function]) -> None:
    """Make `functions` callable in `connection`. A function sees NULLs, as every SQL expression does."""
    from duckdb.func import FunctionNullHandling, PythonUDFType

    for function in functions:
        query = f"SELECT NULL::{function.returns} AS value"
        returns = connection.sql(query).to_arrow_table().schema.field(0).type
        connection.create_function(
            function.name,
            _guarded(function, returns),
            [connection.sqltype(kind) for kind in function.arguments],
            connection.sqltype(function.returns),
            type=PythonUDFType.ARROW,
            null_handling=FunctionNullHandling.SPECIAL,
        )


def _guarded(function: Function, returns: pa.DataType) -> Callable[..., pa.Array]:
    def call(*columns: pa.ChunkedArray) -> pa.Array:
        # Functions are written for arrays; DuckDB hands over chunked ones.
        arrays = [
            column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns
        ]
        try:
            given: Any = function.call(*arrays)
            values = given if isinstance(given, pa.Array | pa.ChunkedArray) else pa.array(given, returns)
            if values.type != returns:
                values = values.cast(returns)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it is the record that is set aside
            raise RecordError(
                f"function '{function.name}' raised {type(error).__name__}",
                fix="mend the function; `headrace.testing.check_function` runs it over values of your own",
            ) from None
        rows = len(arrays[0]) if arrays else len(values)
        if len(values) != rows:
            raise RecordError(f"function '{function.name}' gave {len(values)} values for {rows} rows")
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values

    return with_arity(call, len(function.arguments))
