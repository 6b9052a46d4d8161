"""What a store remembers of the targets of its replicas: by that it is known when the store was set back.

A store that was restored from a backup goes on from an older epoch, and after a while it has passed the one
that the target is at. So the numbers of epochs alone do not tell: what is written down here does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Taking", "forget_generations", "takings_of", "write_taking"]


@dataclass(frozen=True)
class Taking:
    """What is known of one table in the target of a replica.

    generation  the greatest in which this store took the table, or was about to; None: not known
    ceiling     a cursor beyond this epoch is of a time before the store was set back; None: any may be ours
    """

    generation: int | None = None
    ceiling: int | None = None


def takings_of(cursor: Any, replica: str) -> dict[str, Taking]:
    """Return what is known of a replica's tables, by name."""
    found = cursor.execute(
        'SELECT "table", generation, ceiling FROM _headrace.takings WHERE replica = ?', [replica]
    ).fetchall()
    return {table: Taking(generation, ceiling) for table, generation, ceiling in found}


def write_taking(cursor: Any, replica: str, table: str, taking: Taking) -> None:
    """Write down what is known of a table, inside a transaction of `Store.beside`."""
    cursor.execute('DELETE FROM _headrace.takings WHERE replica = ? AND "table" = ?', [replica, table])
    cursor.execute(
        "INSERT INTO _headrace.takings VALUES (?, ?, ?, ?)",
        [replica, table, taking.generation, taking.ceiling],
    )


def forget_generations(cursor: Any) -> None:
    """Let any generation of a target be this store's, inside a transaction.

    For a store that a version without takings has run: what that one took, nobody wrote down. The ceilings
    stay, because a target with rows of a time before the store was set back has them still.
    """
    cursor.execute("UPDATE _headrace.takings SET generation = NULL")
