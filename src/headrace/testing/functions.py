"""Checking user functions: one that looks at its whole batch is not a function of a row.

The engine calls a function with whatever rows an epoch happens to hold. A function that ranks, normalises or
fills from its neighbours would give other answers after a restart; here that shows before it runs anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.declare import Function

__all__ = ["check_function"]


def check_function(
    function: Function | Callable[..., Any],
    *arguments: Sequence[Any] | pa.Array,
    cuts: int = 20,
    seed: int = 0,
) -> list[Any]:
    """Call `function` over `arguments` at once, in random cuts, row by row, shuffled and without rows.

    The arguments are columns of equal length. Returns the values that it gave. Raises AssertionError that
    names the first row which differs, or says that the number of values is wrong.
    """
    import pyarrow as pa

    call: Any = getattr(function, "call", function)
    name = str(getattr(function, "name", None) or getattr(function, "__name__", "the function"))
    columns = [part if isinstance(part, pa.Array) else pa.array(part) for part in arguments]
    rows = len(columns[0]) if columns else 0
    whole = _run(name, call, columns)
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    _run(name, call, [column.slice(0, 0) for column in columns])
    for number in range(cuts + 1):
        size = 1 if number == 0 else rows
        edges = [0]
        while edges[-1] < rows:
            edges.append(min(rows, edges[-1] + chance.randint(1, size)))
        parts: list[Any] = []
        for start, end in pairwise(edges):
            parts.extend(_run(name, call, [column.slice(start, end - start) for column in columns]))
        _compare(name, whole, parts, "when its rows came in other batches")
    order = list(range(rows))
    chance.shuffle(order)
    shuffled = _run(name, call, [column.take(pa.array(order, pa.int64())) for column in columns])
    _compare(name, [whole[row] for row in order], shuffled, "when its rows came in another order")
    return whole


def _run(name: str, call: Callable[..., Any], columns: list[Any]) -> list[Any]:
    rows = len(columns[0]) if columns else 0
    given = call(*columns)
    values: list[Any] = given.to_pylist()
    if len(values) != rows:
        raise AssertionError(f"'{name}' gave {len(values)} values for {rows} rows")
    return values


def _compare(name: str, whole: list[Any], parts: list[Any], when: str) -> None:
    for row, (expected, given) in enumerate(zip(whole, parts, strict=True)):
        both_nan = expected != expected and given != given  # noqa: PLR0124 - NaN is what differs from itself
        if expected != given and not both_nan:
            raise AssertionError(f"'{name}' gave {given!r} instead of {expected!r} for row {row} {when}")
