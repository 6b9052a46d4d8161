"""Parses command lines as our own command line does, and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from headrace.cli.app import app

__all__ = ["parsed"]


@cache
def _command() -> Any:
    return typer.main.get_command(app)  # takes half a second, and lessons have hundreds of lines


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of `headrace WORDS…`. Raises what the parser raises for words that it refuses."""
    command = _command()
    rest, name, parent = list(words), "headrace", None
    while hasattr(command, "commands"):
        parent = command.make_context(name, rest, parent=parent)
        name, command, rest = command.resolve_command(parent, [*parent._protected_args, *parent.args])
    found: dict[str, Any] = command.make_context(name, rest, parent=parent).params
    return found
