"""What an error of the Delta library means: try again, or an operator acts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, SchemaMismatchError

from headrace.errors import HeadraceError, RefusedError, TransientError

__all__ = ["delta_failures"]

_SAID_MAX = 200
_NOT_ALLOWED = re.compile(
    r"(?<![\w-])40[13](?![\w-])|forbidden|access ?denied|unauthorized|unauthenticated|invalid ?access ?key|"
    r"signature ?does ?not ?match|permission denied|read-only",
    re.IGNORECASE,
)
_NOT_THERE = re.compile(r"NoSuchBucket|bucket does not exist", re.IGNORECASE)
_GONE = re.compile(r"not found: .*_delta_log")
_CODE = re.compile(r"<Code>(\w+)</Code>")
"""What S3 says is wrong; the library's own words are the lines before."""
_FULL = re.compile(r"no space left|quota exceeded|\(os error (28|122)\)", re.IGNORECASE)


@contextmanager
def delta_failures(place: str, secrets: Iterable[str]) -> Iterator[None]:
    """Say who must act when the library, the disk or the object store says no. No message holds a secret."""
    try:
        yield
    except HeadraceError:
        raise
    except (DeltaError, OSError, ValueError) as error:
        raise _typed(error, place, secrets) from None


def _typed(error: Exception, place: str, secrets: Iterable[str]) -> HeadraceError:
    text = str(error)
    for secret in secrets:
        text = text.replace(secret, "***")
    said = (text.strip().splitlines() or [type(error).__name__])[0][:_SAID_MAX]
    if (code := _CODE.search(text)) is not None and code[1] not in said:
        said = f"{said} ({code[1]})"
    if _NOT_ALLOWED.search(text):
        fix = "correct access_key and secret_key in the profile, or the rights of the folder or bucket"
        return RefusedError(f"{place} cannot be written: {said}", fix=fix)
    if _NOT_THERE.search(text):
        return RefusedError(f"{place}: {said}", fix="make the bucket, or correct uri in the profile")
    if _FULL.search(text):
        return TransientError(f"{place} cannot be written: {said}", fix="make room; it is tried again")
    if _GONE.search(text):
        what = f"{place} was deleted while the replica wrote there"
        return TransientError(what, fix="it is made and filled anew")
    if isinstance(error, CommitFailedError):
        return TransientError(
            f"{place}: somebody else has changed the table: {said}", fix="it is tried again"
        )
    if isinstance(error, DeltaProtocolError | SchemaMismatchError | ValueError):
        return RefusedError(f"{place}: {said}", fix="look at the table's history and schema, then resume")
    return TransientError(f"{place} cannot be reached: {said}", fix="it is tried again")
