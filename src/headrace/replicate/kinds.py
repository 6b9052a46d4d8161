"""Finds the replicas that are installed: entry points of the group `headrace.replicas`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError

__all__ = ["replica_kind", "replica_kinds"]

_EXTRAS = {"delta": "delta", "cassandra": "cassandra", "postgresql": "postgresql"}


@cache
def replica_kinds() -> dict[str, EntryPoint]:
    """Return what is installed, by the word that `kind =` takes; nothing of it is imported."""
    return {found.name: found for found in sorted(entry_points(group="headrace.replicas"))}


def replica_kind(name: str) -> type[Any]:
    """Return the class of replicas of a kind. Raises ProfileError when there is none."""
    known = replica_kinds()
    if name not in known:
        raise ProfileError(
            f"no replica is called '{name}'{did_you_mean(name, known)}", fix="one of: " + ", ".join(known)
        )
    try:
        kind: type[Any] = known[name].load()
    except ImportError as error:
        extra = _EXTRAS.get(name)
        raise ProfileError(
            f"a replica of kind '{name}' needs '{error.name}', which is not installed",
            fix=f"install it: pip install 'headrace[{extra}]'" if extra else "install it, and try again",
        ) from error
    return kind
