"""Small files by which a run tells the next one something, also when the disk is full."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

__all__ = ["write_kept"]

_BLOCK = 4096
_SPARE = 16 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_kept(path: Path, text: str) -> None:
    """Put `text` into a file, with white space before the line break that it ends with.

    The file is replaced as a whole. On a full disk the text is put over the one that is there, into the room
    of it and of its white space; who is killed in the midst leaves neither. A file system that never writes
    over what it has fails there. Raises OSError when the text fits nowhere.
    """
    raw = text.encode()
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_bytes(_filled(raw, -(-(len(raw) + _SPARE) // _BLOCK) * _BLOCK))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if error.errno not in _FULL or path.stat().st_size < len(raw):
            raise
        with path.open("r+b") as file:
            file.write(_filled(raw, path.stat().st_size))


def _filled(raw: bytes, size: int) -> bytes:
    return raw[:-1].ljust(size - 1) + b"\n"
