"""Targets that hold another history than the store's: refused, with what an operator can do about it."""

from __future__ import annotations

from collections.abc import Collection

from headrace.errors import RefusedError
from headrace.replicate.protocol import Cursor
from headrace.store.changes import Head
from headrace.store.takings import Taking

__all__ = ["SetBackError", "refuse_foreign", "ways_on"]


class SetBackError(RefusedError):
    """The target holds what the store did before it was set back to an older copy of itself."""


def ways_on(replica: str, table: str, outside: Collection[str], ways: str) -> str:
    """Return `ways`, which name commands that copy the replica again, as far as somebody can follow them.

    `outside` are the replica's tables whose rows executors have written: they are nowhere else, so neither
    they nor a replica that has one is copied again.
    """
    if table in outside:
        return (
            "declare the table under another name: it is computed from the log, and the target's stays as it "
            "is; or bring the store back that the target was filled from"
        )
    if outside:
        return (
            f"first give '{table}' a replica of its own (tables = …), for the rows of '{min(outside)}' were "
            f"written by executors and cannot be copied again; there {ways}"
        )
    return ways


def refuse_foreign(
    replica: str, seen: Cursor, head: Head, table: str, taking: Taking, outside: Collection[str] = ()
) -> None:
    """Refuse to go on where another store, or this one before it was set back (`SetBackError`), has written.

    `taking` is what the store knows of that table in the target; `outside` see `ways_on`.
    """
    own = "NAME" if outside else replica
    fix = ways_on(
        replica,
        table,
        outside,
        f"`headrace replicas adopt {own}` writes this store's rows over them and keeps the rest; "
        f"`headrace replicas rebuild {own}` also takes out what this store does not have",
    )
    if seen.store_id != head.store_id:
        what = f"replica '{replica}': the target's table '{table}' was filled from another store"
        raise RefusedError(what, fix=fix)
    if seen.replica != replica:
        what = f"replica '{replica}': the target's table '{table}' is filled by the replica '{seen.replica}'"
        raise RefusedError(what, fix=f"leave it out of one of the two (tables = …); or {fix}")
    through, ours = seen.position.through, taking.ceiling
    if ours is None or head.epoch < ours:
        ours = head.epoch
    if through > ours:
        told = f"is at epoch {through}, and the store {'was' if ours < head.epoch else 'is'} at {ours}"
    elif taking.generation is not None and seen.generation > taking.generation:
        told = f"is of generation {seen.generation}, and the store knows {taking.generation}"
    else:
        return
    raise SetBackError(
        f"replica '{replica}': the target's table '{table}' {told}: the store was set back", fix=fix
    )
