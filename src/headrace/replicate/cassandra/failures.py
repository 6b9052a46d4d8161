"""What an error of Cassandra means: try again, an operator acts, or one row is to blame."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import cassandra
from cassandra.cluster import NoHostAvailable
from cassandra.protocol import ErrorMessage, SyntaxException

from headrace.errors import HeadraceError, RefusedError, TransientError

__all__ = ["is_of_a_row", "reason_of", "typed", "typed_failures"]

_OF_A_VALUE = (TypeError, ValueError, OverflowError, struct.error)
_FULL = "disk usage exceeds failure threshold"
"""How a node whose `data_disk_usage_percentage_fail_threshold` is reached says no to a write."""
_GONE = re.compile(r"unconfigured table|(table|keyspace) \S+ does not exist", re.IGNORECASE)
"""How a server says of a statement, in the class for what is wrong with a row, that a table was dropped."""
_RIGHTS = "grant the user CREATE, ALTER, SELECT and MODIFY on the keyspace"


def is_of_a_row(error: BaseException) -> bool:
    """Return whether one row is to blame: the others may be written."""
    if isinstance(error, _OF_A_VALUE):
        return True
    text = str(error)
    return isinstance(error, cassandra.InvalidRequest) and _FULL not in text and not _GONE.search(text)


def reason_of(error: BaseException) -> str:
    """Return what a server or the driver said, without the values that it was about."""
    if isinstance(error, _OF_A_VALUE):
        return f"the driver cannot encode a value ({type(error).__name__})"
    text = str(error)
    found = text.partition('message="')[2].rpartition('"')[0] or text
    return found.strip().splitlines()[0][:300] if found.strip() else type(error).__name__


def typed(error: BaseException) -> HeadraceError:
    """Return the error that says who must act."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, NoHostAvailable):
        return _nobody(error)
    if isinstance(error, cassandra.AuthenticationFailed):
        return _sign_in()
    if isinstance(error, cassandra.Unauthorized):
        return RefusedError(f"Cassandra refuses: {reason_of(error)}", fix=_RIGHTS)
    if isinstance(error, cassandra.AlreadyExists):
        return TransientError("another process makes the same table of Cassandra", fix="it is tried again")
    if _FULL in str(error):
        fix = "make room on the disks of the nodes; it is tried again"
        return TransientError(f"Cassandra takes no writes: {reason_of(error)}", fix=fix)
    if isinstance(error, cassandra.InvalidRequest) and _GONE.search(str(error)):
        what = f"something was dropped in Cassandra while it was written to: {reason_of(error)}"
        return TransientError(what, fix="it is made and filled anew")
    if isinstance(error, cassandra.RequestValidationException | SyntaxException):
        fix = "look at the message, correct the target, then `headrace replicas resume`"
        return RefusedError(f"Cassandra refuses: {reason_of(error)}", fix=fix)
    if isinstance(error, cassandra.DriverException | cassandra.RequestExecutionException | ErrorMessage):
        return TransientError(
            f"Cassandra is not ready: {type(error).__name__}: {reason_of(error)}", fix="it is tried again"
        )
    return TransientError(
        f"the connection to Cassandra was lost: {type(error).__name__}", fix="it is tried again"
    )


def _nobody(error: NoHostAvailable) -> HeadraceError:
    said = list(error.errors.values()) if isinstance(error.errors, dict) else list(error.errors or ())
    if any(isinstance(each, cassandra.AuthenticationFailed) for each in said):
        return _sign_in()
    refusals = [each for each in said if isinstance(each, cassandra.Unauthorized | cassandra.InvalidRequest)]
    if refusals:
        return typed(refusals[0])
    if any("CERTIFICATE_VERIFY_FAILED" in str(each) for each in said):
        fix = "name the file with the certificates of who signed it: ca = …"
        return RefusedError("the certificate of a node of Cassandra is not trusted", fix=fix)
    why = f" ({type(said[0]).__name__})" if said else ""
    return TransientError(f"no node of Cassandra can be reached{why}", fix="it is tried again")


def _sign_in() -> RefusedError:
    return RefusedError(
        "Cassandra refuses the connection: user or password is wrong",
        fix="correct user and password of the replica in the profile, then `headrace replicas resume`",
    )


@contextmanager
def typed_failures() -> Iterator[None]:
    """Raise what goes wrong in the block as an error that says who must act."""
    try:
        yield
    except HeadraceError:
        raise
    except (
        cassandra.DriverException, cassandra.RequestExecutionException, cassandra.RequestValidationException,
        cassandra.AuthenticationFailed, NoHostAvailable, ErrorMessage, OSError, RuntimeError,
    ) as error:  # fmt: skip
        # From None: what the driver keeps of a failed sign-in or statement does not belong into a log.
        raise typed(error) from None
