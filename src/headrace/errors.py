"""Every error that Headrace raises on purpose, drawn by who must act.

    HeadraceError
    ├─ DeclarationError   the pipeline is wrong: its author edits it (file, line, nearest right word)
    ├─ ProfileError       the profile or a secret is wrong
    ├─ RecordError        one record is bad: set aside, the run goes on
    ├─ TransientError     the other system is not ready: tried again with bounded back-off
    ├─ RefusedError       the other system said no: the run stops, an operator acts
    ├─ IntegrityError     the ledger does not balance, a checksum is wrong: stop, keep everything
    └─ InternalError      our bug: says how to report it

A message names the place, states the facts and ends with the fix. It never holds a secret or a payload, but
that of an InternalError may quote what others raised: `fit_to_tell` says whose words leave this machine.
Every error survives pickling, because some are raised in another process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

__all__ = [
    "DeclarationError",
    "HeadraceError",
    "IntegrityError",
    "InternalError",
    "Problem",
    "ProfileError",
    "RecordError",
    "RefusedError",
    "TransientError",
]


class HeadraceError(Exception):
    """The root: catch this to catch everything that Headrace raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(kind: type[HeadraceError], facts: dict[str, object]) -> HeadraceError:
    error = kind.__new__(kind)
    error.__dict__.update(facts)
    error.args = (facts["message"],)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a declaration: `pipeline.py:7: stream 'events': what … - fix`."""

    file: str
    line: int
    subject: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return f"{place}{self.subject}: {self.what}" + (f" - {self.fix}" if self.fix else "")


class DeclarationError(HeadraceError):
    """The pipeline is wrong; `problems` holds every one that was found, in the order of the file."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProfileError(HeadraceError):
    """The profile, an option or a secret is wrong: whoever runs the pipeline edits it."""

    exit_code = 2


class RecordError(HeadraceError):
    """One record is bad. It is set aside with its address and the run goes on."""


class TransientError(HeadraceError):
    """The other system is not ready. The caller tries again with bounded back-off."""

    exit_code = 75


class RefusedError(HeadraceError):
    """The other system said no, and would say so again: an operator must act."""


class IntegrityError(HeadraceError):
    """Numbers that must agree do not. The run stops and keeps everything as it is."""

    exit_code = 3


class InternalError(HeadraceError):
    """A bug in Headrace."""

    exit_code = 70

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            fix="this is a bug in Headrace: report it with the text above and what `headrace version` prints",
        )


def fit_to_tell(error: BaseException) -> TypeGuard[HeadraceError]:
    """Return whether the words of `error` may leave this machine; of any other, its kind may."""
    return isinstance(error, HeadraceError) and not isinstance(error, InternalError)
