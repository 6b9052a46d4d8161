"""Medians and quantiles of counted values: found by counting up to a place, so nothing grows with the counts.

The places are those of DuckDB's own quantiles. What lies between two values is theirs too: for medians they
are asked, and for other fractions their arithmetic is repeated, which in the last digit of a DOUBLE (of a
DECIMAL with more than 15 digits: in its last ones) is not the same on every processor.

The expressions are aggregates over the rows of a ranked side table (see `plan.SideTable`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

__all__ = ["Fraction", "continuous_quantile", "discrete_quantile", "median"]

Fraction = Decimal | float | int
"""A quantile's parameter, as it was written: DuckDB places an exact one exactly. Negative: from the end."""

_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")
_CLOCKS = ("TIMESTAMP WITH TIME ZONE", "TIME", "TIME WITH TIME ZONE")
_EXACT_DIGITS = 18  # a DECIMAL of more is a HUGEINT inside
_FAR = 1.7e38  # two of those may be further apart than a HUGEINT can say

_COUNT = 'CAST(sum("_count") AS BIGINT)'


def median() -> str:
    """Return the median, which is DuckDB's own of the one or two values in the middle."""
    return _half("'median'")


def discrete_quantile(fractions: Fraction | Sequence[Fraction], kind: str) -> str:
    """Return the value at a fraction, or a list of them; `kind` is the type of the values."""
    if isinstance(fractions, Sequence):
        return f"CAST([{', '.join(discrete_quantile(each, kind) for each in fractions)}] AS {kind}[])"
    size = -fractions if fractions < 0 else fractions
    if isinstance(size, Decimal):
        scale = max(-int(size.as_tuple().exponent), 0)
        unit = 10**scale
        rest = f'CAST("_all" AS HUGEINT) * {unit - int(size * unit)} // {unit}'
    else:
        rest = f'CAST(floor(CAST("_all" AS DOUBLE) - "_all" * {_double(size)}) AS BIGINT)'
    return _value_at(f'(greatest(1, "_all" - {rest}) - 1)', from_end=fractions < 0)


def continuous_quantile(fractions: Fraction | Sequence[Fraction], kind: str) -> str:
    """Return what lies at a fraction, if need be between two values, or a list; `kind` is their type."""
    if isinstance(fractions, Sequence):
        listed = ", ".join(continuous_quantile(each, kind) for each in fractions)
        return f"CAST([{listed}] AS {_type_between(kind)}[])"
    if fractions == Decimal("0.5"):
        return _half("'quantile_cont', 0.5")
    from_end = fractions < 0
    size = _double(-fractions if from_end else fractions)
    place = f'(("_all" - 1) * {size})'
    low = _value_at(f"floor({place})", from_end=from_end)
    high = _value_at(f"ceil({place})", from_end=from_end)
    part = f"(({_COUNT} - 1) * {size} - floor(({_COUNT} - 1) * {size}))"
    target = _type_between(kind)
    between = _between(f"CAST({low} AS {target})", f"CAST({high} AS {target})", part, target)
    return f"CASE WHEN {part} = 0 THEN CAST({low} AS {target}) ELSE {between} END"


def _double(fraction: Fraction) -> str:
    return f"CAST('{fraction}' AS DOUBLE)"


def _value_at(place: str, *, from_end: bool = False) -> str:
    """Return the value at a place, counted from 0 (with `from_end`: from the greatest down)."""
    at = f'("_all" - 1 - {place})' if from_end else place
    return f'arg_min("_value", "_upto") FILTER (WHERE "_upto" > {at})'


def _half(call: str) -> str:
    low, high = _value_at('(("_all" - 1) // 2)'), _value_at('("_all" // 2)')
    return f"list_aggregate(CASE WHEN {_COUNT} % 2 = 1 THEN [{low}] ELSE [{low}, {high}] END, {call})"


def _type_between(kind: str) -> str:
    if kind in _TIMES:
        return "TIMESTAMP"
    return kind if kind in _CLOCKS or kind == "FLOAT" or kind.startswith("DECIMAL") else "DOUBLE"


def _between(low: str, high: str, part: str, kind: str) -> str:
    """Return what lies between two values of type `kind`; it never fails, however far apart they are."""
    if kind in ("DOUBLE", "FLOAT"):
        return f"CAST({low} * (1 - {part}) + {high} * {part} AS {kind})"
    decimal = re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", kind)
    if decimal is None:
        steps = f"CAST(round({_within(f'epoch_us({low})', f'epoch_us({high})', part)}) AS BIGINT)"
        return f"{low} + to_microseconds({steps} - epoch_us({low}))"
    digits, scale = int(decimal[1]), int(decimal[2])
    first, second = (f"CAST(replace(CAST({each} AS VARCHAR), '.', '') AS HUGEINT)" for each in (low, high))
    steps = f"CAST(trunc({_within(first, second, part)}) AS HUGEINT)"
    if digits > _EXACT_DIGITS:
        near = f"{first} + CAST(trunc(CAST({second} - {first} AS DOUBLE) * {part}) AS HUGEINT)"
        is_near = f"CAST({second} AS DOUBLE) - CAST({first} AS DOUBLE) BETWEEN {-_FAR} AND {_FAR}"
        steps = f"CASE WHEN {is_near} THEN {near} ELSE {steps} END"
    unit = f"CAST('{Decimal(1).scaleb(-scale):f}' AS DECIMAL({max(scale, 1)},{scale}))"
    return f"CAST(CAST({steps} AS DECIMAL(38,0)) * {unit} AS {kind})"


def _within(low: str, high: str, part: str) -> str:
    first, second = (f"CAST({each} AS DOUBLE)" for each in (low, high))
    return f"({first} + ({second} - {first}) * {part})"
