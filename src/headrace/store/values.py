"""Columns of Arrow as values to show, also those for which Python has none: infinity, the year 12345."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Instant", "values_of"]

_MONTHS = 12
_NANOSECONDS = 1_000_000_000
_MIDNIGHT = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
"""The end of a day, which is a time of its own in SQL, in each unit; Python has only its beginning."""


class Instant(str):
    """A date or time in ISO 8601 that Python's own cannot hold: many digits, before Christ, infinity."""

    __slots__ = ()


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column, of any type that DuckDB gives; intervals are texts that it reads."""
    import pyarrow as pa

    if not _is_special(column.type):
        try:
            return column.to_pylist()  # type: ignore[no-any-return]
        except (OverflowError, ValueError):
            pass  # one value is enough for that; the others look as ever
    assert isinstance(column, pa.ChunkedArray)  # noqa: S101 - its parts are walked
    return [_value(each) for each in column]


def _is_special(kind: pa.DataType) -> bool:
    """Return whether Arrow may give a value of this type as another one, without a word."""
    import pyarrow as pa

    return (
        pa.types.is_interval(kind)
        or pa.types.is_time(kind)
        or any(_is_special(kind.field(number).type) for number in range(kind.num_fields))
    )


def _value(scalar: pa.Scalar) -> Any:
    import pyarrow as pa

    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_interval(kind):
        return _interval(*scalar.as_py())
    if pa.types.is_time(kind) and scalar.value == _MIDNIGHT[kind.unit]:
        return Instant("24:00:00")
    if pa.types.is_map(kind):
        return [tuple(_value(part) for part in pair.values()) for pair in scalar.values]
    if isinstance(scalar, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        return [_value(each) for each in scalar.values]
    if pa.types.is_struct(kind):
        return {name: _value(each) for name, each in scalar.items()}
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return _instant(scalar)


def _instant(scalar: pa.Scalar) -> Any:
    """Return a date, time or timestamp as Arrow counts it; infinity is the farthest count on either side."""
    import numpy as np
    import pyarrow as pa

    kind, count = scalar.type, scalar.value
    if abs(count) == 2 ** (kind.bit_width - 1) - 1:
        return Instant("infinity" if count > 0 else "-infinity")
    unit = "D" if pa.types.is_date32(kind) else kind.unit
    text = str(np.array(count).astype(f"datetime64[{unit}]"))
    if text.startswith("-"):  # NumPy gives such a year the digits that it has, ISO 8601 four or more
        year, _, rest = text[1:].partition("-")
        text = f"-{year:>04}-{rest}"
    if pa.types.is_time(kind):
        return Instant(text.partition("T")[2])
    return Instant(text + ("+00:00" if pa.types.is_timestamp(kind) and kind.tz else ""))


def _interval(months: int, days: int, nanoseconds: int) -> str:
    years, months = int(months / _MONTHS), months - int(months / _MONTHS) * _MONTHS
    parts = [f"{number} {word}{'' if abs(number) == 1 else 's'}"
             for number, word in ((years, "year"), (months, "month"), (days, "day")) if number]  # fmt: skip
    if nanoseconds or not parts:
        seconds, rest = divmod(abs(nanoseconds), _NANOSECONDS)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        parts.append(("-" if nanoseconds < 0 else "") + clock + fraction)
    return " ".join(parts)
