"""The short list of aggregates, each with the columns of its state and how they are computed and merged.

Every formula is DuckDB's SQL over fixed names: "a0" is an argument in the row part, `t` the state row, `b`
the partial row that is merged into it, `p` several state rows that are combined (see `plan.StateColumn`). A
partial over no rows and the merge of two such are the state of the empty group: counts 0, all else NULL.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.sql.plan import Aggregate, NamedColumn, SideTable, StateColumn
from headrace.sql.quantiles import Fraction, continuous_quantile, discrete_quantile, median
from headrace.sql.syntax import QueryError

__all__ = ["AGGREGATES", "DIGITS_MAX", "SCALE_MAX", "build_aggregate", "canonical_name", "narrowed"]

DIGITS_MAX = 28
"""Digits of a number that is summed: 38 digits then hold the sum of 10 thousand million of the largest."""

SCALE_MAX = 18
"""Digits after the point of a DECIMAL that is averaged."""

WHOLE_DIGITS_MIN = 12
"""Digits before the point that are left at least to a DECIMAL that is narrowed to be summed."""

_EXTRA_SCALE = 4
"""An average of DECIMAL(p,s) has s + 4 digits after the point."""

_INTEGERS = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
    "UHUGEINT", "BOOLEAN",
)  # fmt: skip

_SYNONYMS = {
    "count_star": "count",
    "countif": "count_if",
    "mean": "avg",
    "arg_max": "max_by",
    "argmax": "max_by",
    "arg_min": "min_by",
    "argmin": "min_by",
    "stddev": "stddev_samp",
    "variance": "var_samp",
    "quantile": "quantile_disc",
}


def canonical_name(name: str) -> str:
    """Return the one name of an aggregate that has several."""
    return _SYNONYMS.get(name.lower(), name.lower())


@dataclass(frozen=True)
class _Call:
    """One call of an aggregate: `type` is what DuckDB's own one gives for these arguments."""

    name: str
    function: str
    arguments: tuple[NamedColumn, ...]
    parameters: tuple[str, ...]
    type: str
    distinct: bool
    fractions: Fraction | Sequence[Fraction]

    def state(self, part: str, kind: str, partial: str, merge: str, combine: str) -> StateColumn:
        """Return a column of the state; `@part` in a formula stands for such a column's name."""
        name = f"{self.name}_{part}"

        def named(text: str) -> str:
            return re.sub(r"@(\w+)", rf'"{self.name}_\1"', text)

        return StateColumn(name, kind, named(partial), named(merge), named(combine))

    def named(self, text: str) -> str:
        """Return a formula with `@part` replaced by the name of the state's column."""
        return re.sub(r"@(\w+)", rf'"{self.name}_\1"', text)

    def made(self, *state: StateColumn, value: str, type: str | None = None) -> Aggregate:
        """Return the aggregate with this state."""
        return Aggregate(
            self.name,
            self.function,
            self.arguments,
            self.parameters,
            type or self.type,
            state,
            self.named(value),
        )

    def on_side(self, value: str, *, empty: str = "NULL", ranked: bool = False) -> Aggregate:
        """Return the aggregate over the counted values of its only argument."""
        argument = self.arguments[0]
        side = SideTable(argument.name, argument.type, value, empty, ranked)
        return Aggregate(self.name, self.function, self.arguments, self.parameters, self.type, (), "", side)


def build_aggregate(
    name: str,
    function: str,
    arguments: tuple[NamedColumn, ...],
    *,
    parameters: tuple[str, ...] = (),
    type: str,
    distinct: bool = False,
    fractions: Fraction | Sequence[Fraction] = (),
) -> Aggregate:
    """Return the aggregate `function` over columns of the row part; `type` is DuckDB's type of its value.

    `fractions` are those that the parameter of a quantile means.
    Raises QueryError for arguments that it does not take.
    """
    call = _Call(name, canonical_name(function), arguments, parameters, type, distinct, fractions)
    if distinct:
        build = _DISTINCT.get(call.function)
        if build is None:
            raise QueryError(
                f"{call.function}(DISTINCT ...) is not in the short list of aggregates",
                "write count(DISTINCT ...), sum(DISTINCT ...) or avg(DISTINCT ...), or leave DISTINCT out",
            )
        return replace(build(call), function=f"{call.function}_distinct")
    return AGGREGATES[call.function](call)


# -- counts ------------------------------------------------------------------------------------------------


def _count(call: _Call) -> Aggregate:
    argument = f'"{call.arguments[0].name}"' if call.arguments else "*"
    return call.made(_counted(call, f"count({argument})"), value="@n")


def _count_if(call: _Call) -> Aggregate:
    partial = f'count(CASE WHEN "{call.arguments[0].name}" THEN 1 END)'
    return call.made(_counted(call, partial), value=f"CAST(@n AS {call.type})")


def _counted(call: _Call, partial: str) -> StateColumn:
    return call.state("n", "BIGINT", partial, "t.@n + b.@n", "CAST(coalesce(sum(p.@n), 0) AS BIGINT)")


# -- sums --------------------------------------------------------------------------------------------------


def sum_type(kind: str) -> str | None:
    """Return the type in which values of a type are summed; None when they cannot be."""
    if kind in _INTEGERS:
        return "HUGEINT"
    if kind in ("FLOAT", "DOUBLE"):
        return "DOUBLE"
    decimal = decimal_of(kind)
    return f"DECIMAL(38,{decimal[1]})" if decimal else None


def decimal_of(kind: str) -> tuple[int, int] | None:
    """Return precision and scale of a DECIMAL type."""
    found = re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", kind)
    return (int(found[1]), int(found[2])) if found else None


def narrowed(function: str, kind: str) -> str | None:
    """Return an expression over `x` that is summed in its place, or None when `x` is narrow enough.

    A cast that fails sets the row aside; a sum that overflowed would stop the pipeline for ever. Raises
    QueryError where the cast would leave so few digits that ordinary values fail.
    """
    if function not in ("sum", "avg"):
        return None
    decimal = decimal_of(kind)
    if decimal and decimal[0] > DIGITS_MAX:
        whole = DIGITS_MAX - decimal[1]
        if whole < WHOLE_DIGITS_MIN:
            raise QueryError(
                f"{function} of a {kind}: of the {DIGITS_MAX} digits that are summed, {max(whole, 0)} would "
                "be left before the point",
                f"round it, for example {function}(CAST(... AS DECIMAL({DIGITS_MAX},10)))",
            )
        return f"CAST(x AS DECIMAL({DIGITS_MAX},{decimal[1]}))"
    if kind in ("HUGEINT", "UHUGEINT"):
        return f"CAST(CAST(x AS DECIMAL({DIGITS_MAX},0)) AS HUGEINT)"
    return None


def _number(call: _Call) -> tuple[str, str]:
    argument = call.arguments[0]
    kind = sum_type(argument.type)
    if kind is None:
        raise QueryError(
            f"{call.function} of a {argument.type}",
            f"make it a number first, for example {call.function}(CAST(... AS DECIMAL(18,2)))",
        )
    return f'"{argument.name}"', kind


def _summed(call: _Call) -> StateColumn:
    argument, kind = _number(call)
    return call.state(
        "sum", kind, f"CAST(sum({argument}) AS {kind})",
        "coalesce(t.@sum + b.@sum, t.@sum, b.@sum)", f"CAST(sum(p.@sum) AS {kind})",
    )  # fmt: skip


def _sum(call: _Call) -> Aggregate:
    state = _summed(call)
    kind = state.type if call.type in ("HUGEINT", "DOUBLE") or decimal_of(call.type) else call.type
    return call.made(state, value="@sum", type=kind)


def _average_type(call: _Call) -> str:
    decimal = decimal_of(call.arguments[0].type)
    if decimal is None:
        return "DOUBLE"
    if decimal[1] > SCALE_MAX:
        raise QueryError(
            f"{call.function} of a {call.arguments[0].type}: at most {SCALE_MAX} digits after the point",
            f"cast it, for example {call.function}(CAST(... AS DECIMAL({DIGITS_MAX},{SCALE_MAX})))",
        )
    return f"DECIMAL(38,{decimal[1] + _EXTRA_SCALE})"


def _ratio(total: str, count: str, kind: str) -> str:
    """Return total / count: a DECIMAL in whole numbers, half up (away from zero), never through DOUBLE."""
    if kind == "DOUBLE":
        return f"CAST({total} AS DOUBLE) / nullif({count}, 0)"
    scale = int(decimal_of(kind)[1]) - _EXTRA_SCALE  # type: ignore[index]
    unit = f"CAST({10**scale} AS HUGEINT)"
    whole = f"CAST(trunc({total}) AS HUGEINT) * {unit}"
    rest = f"CAST(CAST({total} - trunc({total}) AS DECIMAL({scale + 1},{scale})) * {10**scale} AS HUGEINT)"
    digits = f"({whole} + {rest})" if scale else f"CAST({total} AS HUGEINT)"
    more = 10**_EXTRA_SCALE
    # The rest of the division is below the count: scaling it up cannot overflow, as scaling the sum could.
    left = f"(({digits} % {count}) * {more})"
    half = f"(CASE WHEN {total} < 0 THEN -1 ELSE 1 END) * ({count} // 2)"
    # |rest| * 2 >= count rounds away from zero: (rest + sign * count // 2) // count, truncated, does that.
    units = f"(({digits} // {count}) * {more} + ({left} + {half}) // {count})"
    places = scale + _EXTRA_SCALE
    step = f"CAST('0.{'0' * (places - 1)}1' AS DECIMAL({places + 1},{places}))"
    return f"CASE WHEN {count} > 0 THEN CAST(CAST({units} AS DECIMAL(38,0)) * {step} AS {kind}) END"


def _avg(call: _Call) -> Aggregate:
    argument, _ = _number(call)
    kind = _average_type(call)
    counted = _counted(call, f"count({argument})")
    return call.made(_summed(call), counted, value=_ratio("@sum", "@n", kind), type=kind)


# -- extremes ----------------------------------------------------------------------------------------------


def _extreme(keep: str) -> Callable[[_Call], Aggregate]:
    def build(call: _Call) -> Aggregate:
        name, choose = ("max", "greatest") if keep == "max" else ("min", "least")
        argument = call.arguments[0]
        state = call.state(
            name, argument.type, f'{name}("{argument.name}")',
            f"{choose}(t.@{name}, b.@{name})", f"{name}(p.@{name})",
        )  # fmt: skip
        return call.made(state, value=f"@{name}")

    return build


def _bool(name: str, word: str) -> Callable[[_Call], Aggregate]:
    def build(call: _Call) -> Aggregate:
        state = call.state(
            "all" if word == "AND" else "any", "BOOLEAN", f'{name}("{call.arguments[0].name}")',
            f"coalesce(t.@x {word} b.@x, t.@x, b.@x)".replace("@x", "@all" if word == "AND" else "@any"),
            f"{name}(p.@{'all' if word == 'AND' else 'any'})",
        )  # fmt: skip
        return call.made(state, value="@all" if word == "AND" else "@any")

    return build


def _extreme_by(keep: str) -> Callable[[_Call], Aggregate]:
    direction = "DESC" if keep == "max" else "ASC"
    beats = ">" if keep == "max" else "<"

    def chosen(value: str, order: str) -> str:
        # The least sort key stands for the best order and, among equals, the least value: no tie is open.
        rank = f"create_sort_key({order}, '{direction} NULLS LAST', {value}, 'ASC NULLS LAST')"
        return f"arg_min({value}, {rank}) FILTER (WHERE {value} IS NOT NULL AND {order} IS NOT NULL)"

    def build(call: _Call) -> Aggregate:
        value, order = (f'"{argument.name}"' for argument in call.arguments)
        by = call.state(
            "by", call.arguments[1].type, f"{keep}({order}) FILTER (WHERE {value} IS NOT NULL)",
            "greatest(t.@by, b.@by)" if keep == "max" else "least(t.@by, b.@by)", f"{keep}(p.@by)",
        )  # fmt: skip
        found = call.state(
            "value", call.arguments[0].type, chosen(value, order),
            f"CASE WHEN b.@by IS NULL THEN t.@value WHEN t.@by IS NULL OR b.@by {beats} t.@by THEN b.@value "
            f"WHEN t.@by {beats} b.@by THEN t.@value ELSE least(t.@value, b.@value) END",
            chosen("p.@value", "p.@by"),
        )  # fmt: skip
        return call.made(found, by, value="@value")

    return build


# -- spread: n, mean and the sum of squared distances (M2), merged by Chan, Golub and LeVeque's rule -------

_SPREAD = {
    "var_pop": "@m2 / @n",
    "var_samp": "@m2 / (@n - 1)",
    "stddev_pop": "sqrt(@m2 / @n)",
    "stddev_samp": "sqrt(@m2 / (@n - 1))",
}

_CHAN = (
    "list_reduce(list({n: CAST(p.@n AS DOUBLE), mean: p.@mean, m2: p.@m2}) FILTER (WHERE p.@n > 0), "
    "lambda x, y: {n: x.n + y.n, mean: x.mean + (y.mean - x.mean) * y.n / (x.n + y.n), "
    "m2: x.m2 + y.m2 + (y.mean - x.mean) * (y.mean - x.mean) * x.n * y.n / (x.n + y.n)})"
)


def _spread(call: _Call) -> Aggregate:
    _number(call)
    value = f'CAST("{call.arguments[0].name}" AS DOUBLE)'
    counted = _counted(call, f"count({value})")
    far = "(b.@mean - t.@mean)"
    mean = call.state(
        "mean", "DOUBLE", f"avg({value})",
        f"CASE WHEN b.@n = 0 THEN t.@mean WHEN t.@n = 0 THEN b.@mean "
        f"ELSE t.@mean + {far} * b.@n / (t.@n + b.@n) END",
        f"({_CHAN}).mean",
    )  # fmt: skip
    squares = call.state(
        "m2", "DOUBLE", f"var_pop({value}) * count({value})",
        f"CASE WHEN b.@n = 0 THEN t.@m2 WHEN t.@n = 0 THEN b.@m2 "
        f"ELSE t.@m2 + b.@m2 + {far} * {far} * t.@n * b.@n / (t.@n + b.@n) END",
        f"({_CHAN}).m2",
    )  # fmt: skip
    least = 1 if call.function.endswith("_samp") else 0
    return call.made(
        counted,
        mean,
        squares,
        value=f"CASE WHEN @n > {least} THEN {_SPREAD[call.function]} END",
        type="DOUBLE",
    )


# -- counted values ----------------------------------------------------------------------------------------


def _mode(call: _Call) -> Aggregate:
    return call.on_side(
        """arg_min("_value", create_sort_key("_count", 'DESC NULLS LAST', "_value", 'ASC NULLS LAST'))"""
    )


def _median(call: _Call) -> Aggregate:
    return call.on_side(median(), ranked=True)


def _quantile_disc(call: _Call) -> Aggregate:
    return call.on_side(discrete_quantile(call.fractions, call.arguments[0].type), ranked=True)


def _quantile_cont(call: _Call) -> Aggregate:
    return call.on_side(continuous_quantile(call.fractions, call.arguments[0].type), ranked=True)


def _approx_quantile(call: _Call) -> Aggregate:
    value = continuous_quantile(call.fractions, call.arguments[0].type)
    return replace(call.on_side(f"CAST({value} AS {call.type})", ranked=True), approximate=True)


def _count_distinct(call: _Call) -> Aggregate:
    return call.on_side("count(*)", empty="0")


def _sum_distinct(call: _Call) -> Aggregate:
    _, kind = _number(call)
    return replace(call.on_side(f'CAST(sum("_value") AS {kind})'), type=kind)


def _avg_distinct(call: _Call) -> Aggregate:
    _, kind = _number(call)
    ratio = _ratio(f'CAST(sum("_value") AS {kind})', "count(*)", _average_type(call))
    return replace(call.on_side(ratio), type=_average_type(call))


AGGREGATES: Mapping[str, Callable[[_Call], Aggregate]] = {
    "count": _count,
    "count_if": _count_if,
    "sum": _sum,
    "avg": _avg,
    "min": _extreme("min"),
    "max": _extreme("max"),
    "bool_and": _bool("bool_and", "AND"),
    "bool_or": _bool("bool_or", "OR"),
    "max_by": _extreme_by("max"),
    "min_by": _extreme_by("min"),
    "mode": _mode,
    "stddev_samp": _spread,
    "stddev_pop": _spread,
    "var_samp": _spread,
    "var_pop": _spread,
    "quantile_cont": _quantile_cont,
    "quantile_disc": _quantile_disc,
    "median": _median,
    "approx_count_distinct": lambda call: replace(_count_distinct(call), approximate=True),
    "approx_quantile": _approx_quantile,
}
"""The short list by canonical name."""

_DISTINCT: Mapping[str, Callable[[_Call], Aggregate]] = {
    "count": _count_distinct,
    "sum": _sum_distinct,
    "avg": _avg_distinct,
    "min": AGGREGATES["min"],
    "max": AGGREGATES["max"],
}
