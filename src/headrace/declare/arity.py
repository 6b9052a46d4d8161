"""How many columns a user's function takes, told to DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, TypeVar

__all__ = ["with_arity"]

_Call = TypeVar("_Call", bound=Callable[..., Any])


def with_arity(call: _Call, columns: int) -> _Call:
    """Return `call`, which takes any number of columns, with a signature of so many.

    DuckDB counts parameters by the signature, where `*columns` would be one.
    """
    parameters = [Parameter(f"column_{number}", Parameter.POSITIONAL_ONLY) for number in range(columns)]
    vars(call)["__signature__"] = Signature(parameters)
    return call
