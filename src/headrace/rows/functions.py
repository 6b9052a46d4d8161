"""Registers a pipeline's user functions in a DuckDB connection.

A function that raises, or gives too few values or values of another type, raises a RecordError here. The row
stage then finds the records for which it does, and only these are set aside. A function that cannot import
what it needs is no record's fault: it is written down here, and `raise_unusable` stops whoever called it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from headrace.declare import Function
from headrace.declare.arity import with_arity
from headrace.errors import DeclarationError, Problem, RecordError

if TYPE_CHECKING:
    import duckdb

__all__ = ["forget_unusable", "raise_unusable", "register_functions"]


@dataclass
class _Unusable:
    """Why a function cannot be run whatever the record is, as soon as that has shown."""

    error: DeclarationError | None = None


_UNUSABLE: WeakKeyDictionary[duckdb.DuckDBPyConnection, _Unusable] = WeakKeyDictionary()


def register_functions(connection: duckdb.DuckDBPyConnection, functions: Iterable[Function]) -> None:
    """Make `functions` callable in `connection`. A function sees NULLs, as every SQL expression does."""
    from duckdb.func import FunctionNullHandling, PythonUDFType

    unusable = _UNUSABLE.setdefault(connection, _Unusable())
    for function in functions:
        query = f"SELECT NULL::{function.returns} AS value"
        returns = connection.sql(query).to_arrow_table().schema.field(0).type
        connection.create_function(
            function.name,
            _guarded(function, returns, unusable),
            [connection.sqltype(kind) for kind in function.arguments],
            connection.sqltype(function.returns),
            type=PythonUDFType.ARROW,
            null_handling=FunctionNullHandling.SPECIAL,
        )


def raise_unusable(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise DeclarationError when a function that is registered in `connection` could not import something.

    To be asked behind statements that call functions, whether they failed or not: DuckDB makes an error of
    its own of whatever a function raises, and TRY makes NULL of that.
    """
    found = _UNUSABLE.get(connection)
    if found is not None and found.error is not None:
        error, found.error = found.error, None
        raise error


def forget_unusable(connection: duckdb.DuckDBPyConnection) -> None:
    """Forget what was found before: a reader of the same database calls functions, too, and stops nothing."""
    if (found := _UNUSABLE.get(connection)) is not None:
        found.error = None


def _guarded(function: Function, returns: pa.DataType, unusable: _Unusable) -> Callable[..., pa.Array]:
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
        except ImportError as error:
            unusable.error = DeclarationError([_problem_of(function, error)])
            raise RecordError(f"function '{function.name}' cannot be run") from None
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


def _problem_of(function: Function, error: ImportError) -> Problem:
    place, line = function.place, function.place.line
    for frame in traceback.extract_tb(error.__traceback__):
        # Elsewhere, on an executor, the file has the name that it had where it was declared.
        if Path(frame.filename).name == Path(place.file).name and frame.lineno:
            line = frame.lineno
    package = (error.name or "").partition(".")[0]
    what = f"what brings '{package}'" if package else "what it imports"
    return Problem(
        place.file,
        line,
        f"function '{function.name}'",
        f"it cannot be run: {type(error).__name__}: {error}",
        f"install {what} where the function runs (on Spark: spark.environment_packages), or mend the import",
    )
