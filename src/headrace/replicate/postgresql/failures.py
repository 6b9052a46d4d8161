"""What an error of PostgreSQL means: try again, an operator acts, or one row is to blame."""

from __future__ import annotations

import psycopg

from headrace.errors import HeadraceError, RefusedError, TransientError

__all__ = ["is_of_a_row", "typed"]

_TRANSIENT = ("08", "53", "57", "58")
_TRANSIENT_CODES = frozenset({"40001", "40P01", "55P03", "55006"})
_OF_A_ROW = ("22", "23")
_OF_A_ROW_CODES = frozenset({"54000", "21000", "P0001"})
_NOT_READY = ("starting up", "shutting down", "in recovery", "too many", "remaining connection slots")
_FIXES = {
    "28": "correct user and password in the dsn of the profile, or pg_hba.conf of the server",
    "3D": "create the database, or correct its name in the dsn of the profile",
    "42501": "grant the user CREATE on the schema, and SELECT, INSERT, UPDATE, DELETE on its tables; "
    "or let their owner run what headrace export sql prints",
    "25006": "the server takes no writes: point the dsn at the primary, or end its read-only mode",
}
_GONE = ("42P01", "3F000")  # a table, a schema
_LOST = "the connection to PostgreSQL was lost"


def is_of_a_row(error: psycopg.Error) -> bool:
    """Return whether the server refused a row for what is in it: the others may be written."""
    state = error.sqlstate or ""
    return state.startswith(_OF_A_ROW) or state in _OF_A_ROW_CODES


def typed(error: psycopg.Error) -> HeadraceError:
    """Return the error that says who must act."""
    state = error.sqlstate
    said = error.diag.message_primary or str(error).strip().splitlines()[0] if str(error).strip() else ""
    if state is None:
        return _without_state(error, said)
    if state in _GONE:
        what = f"something was dropped in PostgreSQL while it was written to: {said} ({state})"
        return TransientError(what, fix="it is made and filled anew")
    if state.startswith(_TRANSIENT) or state in _TRANSIENT_CODES:
        return TransientError(f"PostgreSQL is not ready: {said} ({state})", fix=_room(state))
    fix = _FIXES.get(state) or _FIXES.get(state[:2]) or "look at the message, correct the target, then resume"
    return RefusedError(f"PostgreSQL refuses: {said} ({state})", fix=fix)


def _room(state: str) -> str:
    return "make room on the server's disk; it is tried again" if state == "53100" else "it is tried again"


def _without_state(error: psycopg.Error, said: str) -> HeadraceError:
    """Errors while connecting carry no code: what the server said tells them apart."""
    text = str(error)
    if "FATAL" not in text:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return TransientError(f"PostgreSQL cannot be reached: {said or _LOST}", fix="it is tried again")
        return RefusedError(f"PostgreSQL refuses: {said}", fix="look at the message, then resume")
    reason = text[text.index("FATAL") :].splitlines()[0]
    if any(words in text for words in _NOT_READY):
        return TransientError(f"PostgreSQL is not ready: {reason}", fix="it is tried again")
    fix = _FIXES["3D"] if "database" in reason and "exist" in reason else _FIXES["28"]
    return RefusedError(f"PostgreSQL refuses the connection: {reason}", fix=fix)
