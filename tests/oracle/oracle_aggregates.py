"""The short list of aggregates over all values at once, in exact arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from typing import Any

from oracle_model import Aggregate, Expression

Rows = list[tuple[Any, ...]]


def _values(rows: Rows) -> list[Any]:
    return [row[0] for row in rows if row[0] is not None]


def _sum(values: list[Any]) -> Any:
    if isinstance(values[0], float):
        return math.fsum(values)
    with localcontext(prec=60):
        return sum(values[1:], values[0])


def round_half_up(value: Fraction, scale: int) -> Decimal:
    """`value` at `scale` digits; halves go away from zero."""
    with localcontext(prec=120):
        scaled = abs(value) * 10**scale
        whole = scaled.numerator // scaled.denominator
        if (scaled - whole) * 2 >= 1:
            whole += 1
        return Decimal(whole if value >= 0 else -whole).scaleb(-scale)


def _average(values: list[Any]) -> Any:
    if isinstance(values[0], Decimal):
        scale = -values[0].as_tuple().exponent
        return round_half_up(sum(map(Fraction, values), Fraction(0)) / len(values), scale + 4)
    return float(sum(map(Fraction, values), Fraction(0)) / len(values))


def _variance(values: list[Any], *, population: bool) -> float | None:
    size = len(values) if population else len(values) - 1
    if size < 1:
        return None
    exact = [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return float(sum(((value - mean) ** 2 for value in exact), Fraction(0)) / size)


def _quantile_cont(values: list[Any], share: Fraction) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = math.ceil(place)
    return float(Fraction(ordered[low]) + (Fraction(ordered[high]) - Fraction(ordered[low])) * (place - low))


def _quantile_disc(values: list[Any], share: Fraction) -> Any:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def _mode(values: list[Any]) -> Any:
    counted = Counter(values)
    most = max(counted.values())
    return min(value for value, count in counted.items() if count == most)


def _at_extreme(rows: Rows, pick: Callable[[list[Any]], Any]) -> Any:
    whole = [row for row in rows if row[0] is not None and row[1] is not None]
    if not whole:
        return None
    best = pick([row[1] for row in whole])
    return min(row[0] for row in whole if row[1] == best)


def _over_values(call: Callable[[list[Any]], Any]) -> Callable[[Rows], Any]:
    def run(rows: Rows) -> Any:
        values = _values(rows)
        return call(values) if values else None

    return run


def count_rows(*, where: Expression | None = None) -> Aggregate:
    return Aggregate(len, (), where)


def aggregate(
    name: str, *arguments: Expression, where: Expression | None = None, share: str = "0.5"
) -> Aggregate:
    """The aggregate `name` of the short list over `arguments`."""
    calls: dict[str, Callable[[Rows], Any]] = {
        "count": lambda rows: len(_values(rows)),
        "count_distinct": lambda rows: len(set(_values(rows))),
        "count_if": lambda rows: sum(1 for row in rows if row[0]),
        "sum": _over_values(_sum),
        "min": _over_values(min),
        "max": _over_values(max),
        "avg": _over_values(_average),
        "bool_and": _over_values(all),
        "bool_or": _over_values(any),
        "mode": _over_values(_mode),
        "max_by": lambda rows: _at_extreme(rows, max),
        "min_by": lambda rows: _at_extreme(rows, min),
        "var_samp": _over_values(lambda values: _variance(values, population=False)),
        "var_pop": _over_values(lambda values: _variance(values, population=True)),
        "stddev_samp": _over_values(lambda values: _root(_variance(values, population=False))),
        "stddev_pop": _over_values(lambda values: _root(_variance(values, population=True))),
        "quantile_cont": _over_values(lambda values: _quantile_cont(values, Fraction(share))),
        "quantile_disc": _over_values(lambda values: _quantile_disc(values, Fraction(share))),
    }
    return Aggregate(calls[name], arguments, where)


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def half_up(value: Decimal, scale: int) -> Decimal:
    """`value` rounded half up at `scale` digits."""
    with localcontext(prec=120):
        return value.quantize(Decimal(1).scaleb(-scale), rounding=ROUND_HALF_UP)
