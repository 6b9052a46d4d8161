"""References to secrets: `${env:NAME}` and `${file:PATH}`, resolved when needed and never printed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from headrace.errors import ProfileError

__all__ = ["AbsentError", "Secret", "resolve_references", "unreadable_secrets"]

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_FILE_BYTES_MAX = 64 * 1024


class AbsentError(ProfileError):
    """A reference is written as it should be, and what it leads to is not on this machine.

    Whoever runs the pipeline must act; `headrace check`, which may run elsewhere, only warns.
    """


class Secret:
    """A value that is never shown: its text holds references, and `reveal` is the only way to what they mean.

    Safe to print, log and compare; its `repr` is the same whatever it holds.
    """

    __slots__ = ("_folder", "_text")

    def __init__(self, text: str, folder: Path = Path()) -> None:
        self._text = text
        self._folder = folder

    def reveal(self) -> str:
        """Return the value, read now. Raises ProfileError when a reference leads nowhere."""
        return resolve_references(self._text, self._folder)

    def __repr__(self) -> str:
        return "Secret('****')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._text, self._folder) == (other._text, other._folder)

    def __hash__(self) -> int:
        return hash((self._text, self._folder))


def unreadable_secrets(value: Any, path: str = "") -> Iterator[tuple[str, ProfileError]]:
    """Give every secret below `value`, which stands at `path` of a profile, that cannot be read."""
    if isinstance(value, Secret):
        try:
            value.reveal()
        except ProfileError as error:
            yield path, error
    elif is_dataclass(value):
        for field in fields(value):
            yield from unreadable_secrets(getattr(value, field.name), _joined(path, field.name))
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from unreadable_secrets(each, _joined(path, str(name)))
    elif isinstance(value, tuple):  # a notifier: its kind, its options
        for each in value:
            yield from unreadable_secrets(each, path)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def resolve_references(text: str, folder: Path) -> str:
    """Return `text` with every reference replaced; a relative file is looked for in `folder`.

    Raises ProfileError that names the reference and never what another one held.
    """

    def value_of(found: re.Match[str]) -> str:
        kind, _, name = found.group(1).partition(":")
        if kind == "env" and name:
            return _from_environment(name)
        if kind == "file" and name:
            return _from_file(name, folder)
        raise ProfileError(
            f"'{found.group(0)}' is not a reference", fix="write '${env:NAME}' or '${file:PATH}'"
        )

    return _REFERENCE.sub(value_of, text)


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise AbsentError(
            f"the environment variable '{name}' is not set",
            fix=f"set it before the command: export {name}=...",
        )
    return value


def _from_file(name: str, folder: Path) -> str:
    path = folder / Path(name).expanduser()
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise ProfileError(f"the file '{name}' is too large for a secret (64 KiB at most)")
        # An editor ends a file with a line break; a password does not end with one.
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        absent = isinstance(error, FileNotFoundError | PermissionError)
        raise (AbsentError if absent else ProfileError)(
            f"the file '{name}' cannot be read: {reason}",
            fix="write the secret into that file, or correct the path",
        ) from None
