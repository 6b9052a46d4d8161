"""How the store's relations are called, and the one function that quotes a name."""

from __future__ import annotations

__all__ = ["keys_name", "late_name", "quoted", "side_name", "state_name", "text_literal"]


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Return `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def state_name(table: str) -> str:
    """Return the relation that holds the state of a table."""
    return f"_state.{quoted(table)}"


def side_name(table: str, aggregate: str) -> str:
    """Return the relation that holds the counted values of one aggregate of a table."""
    return f"_state.{quoted(f'{table}__{aggregate}')}"


def keys_name(stream: str) -> str:
    """Return the relation that remembers the unique values of a stream."""
    return f"_headrace.{quoted(f'keys_{stream}')}"


def late_name(stream: str) -> str:
    """Return the relation that holds the late rows of a stream."""
    return f"_state.{quoted(f'late_{stream}')}"
