"""Lines of NDJSON in chunks: the bytes of every line as they are, good or broken.

What a line means is the row stage's business; here a byte order mark and line ends are taken off, empty lines
are counted, and a line too long to be a record is refused with its number.
"""

from __future__ import annotations

import gzip
import io
import os
import select
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import RefusedError

__all__ = ["LINE_BYTES_MAX", "Chunk", "gzip_errors", "is_pipe", "line_chunks"]

LINE_BYTES_MAX = 16 * 1024 * 1024
CHUNK_BYTES = 4 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STOP_ASKED_EVERY_S = 0.1
_WITHOUT_WAITING = os.O_NONBLOCK if sys.platform == "linux" else 0
"""Elsewhere a pipe that was opened so could look as if it had ended before anybody wrote to it."""


@dataclass(frozen=True)
class Chunk:
    """Some records of a file, in order: their bytes, how far the file was read, empty lines passed over."""

    values: pa.Array
    bytes_read: int
    lines_empty: int = 0


def is_pipe(file: str | Path) -> bool:
    """Return whether `file` can be read once only: standard input, a pipe that a shell or somebody made."""
    if str(file) == "-":
        return True
    try:
        mode = Path(file).stat().st_mode
    except (OSError, ValueError):
        return False  # whoever opens it says what is wrong
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def line_chunks(file: str | Path, stop: Event, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Give the lines of `file`, or of standard input for `-`; a name that ends in `.gz` is decompressed.

    What comes out of a pipe is given as it arrives, and no longer once `stop` is set, also while nobody has
    opened it to write; only one that is decompressed is waited for. Raises RefusedError.
    """
    name = "standard input" if str(file) == "-" else str(file)
    left, line, first = b"", 1, True
    for block, bytes_read in _blocks(file, stop, chunk_bytes):
        piece = block
        if first:
            left, piece = b"", left + piece
            if len(piece) < len(_BYTE_ORDER_MARK):
                left = piece
                continue
            piece, first = piece.removeprefix(_BYTE_ORDER_MARK), False
        cut = piece.rfind(b"\n") + 1
        whole, left = (left + piece[:cut], piece[cut:]) if cut else (b"", left + piece)
        if whole:
            chunk, lines = _split(whole, name, line, bytes_read)
            line += lines
            yield chunk
        if len(left) > LINE_BYTES_MAX + 1:  # one more: a carriage return may still be taken off
            raise _too_long(name, line)
    if left and not stop.is_set():
        chunk, _ = _split(left + b"\n", name, line, bytes_read)
        yield chunk


def _too_long(name: str, line: int) -> RefusedError:
    return RefusedError(
        f"{name}, line {line}: longer than {LINE_BYTES_MAX:,} bytes",
        fix="NDJSON is one record per line: split the line, or check that the file is NDJSON",
    )


def _split(whole: bytes, name: str, first_line: int, bytes_read: int) -> tuple[Chunk, int]:
    """Return the lines of `whole`, which ends with a line end, and how many line ends it has."""
    data = np.frombuffer(whole, np.uint8)
    ends: npt.NDArray[np.int64] = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    returns = (ends > starts) & (data[ends - 1] == ord("\r"))
    lengths = ends - starts - returns
    longest = int(lengths.argmax())
    if lengths[longest] > LINE_BYTES_MAX:
        raise _too_long(name, first_line + longest)
    keep = np.ones(len(data), np.bool_)
    keep[ends] = False
    keep[ends[returns] - 1] = False
    filled = lengths[lengths > 0]
    offsets = np.zeros(len(filled) + 1, np.int32)
    np.cumsum(filled, out=offsets[1:])
    values = pa.Array.from_buffers(
        pa.binary(), len(filled), [None, pa.py_buffer(offsets), pa.py_buffer(data[keep])]
    )
    return Chunk(values, bytes_read, len(lengths) - len(filled)), len(lengths)


def _blocks(file: str | Path, stop: Event, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Give blocks of bytes, and how far the file itself was read."""
    if is_pipe(file) and not str(file).endswith(".gz"):
        bytes_read = 0
        with _opened_pipe(file) as pipe:
            for block in _arriving(pipe, stop, chunk_bytes):
                bytes_read += len(block)
                yield block, bytes_read
        return
    with Path(file).open("rb") as raw:
        opened = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if str(file).endswith(".gz") else raw
        read = 0
        with gzip_errors(file):
            while block := opened.read(chunk_bytes):
                read = raw.tell() if raw.seekable() else read + len(block)
                yield block, read


@contextmanager
def gzip_errors(file: str | Path) -> Iterator[None]:
    """Raise RefusedError for a file that is not what its name says, or not all of it."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RefusedError(
            f"{file}: not a whole gzip file ({error})", fix="compress or copy it again"
        ) from error


@contextmanager
def _opened_pipe(file: str | Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        if sys.stdin is None:  # closed by whoever started this process
            raise RefusedError("standard input is closed", fix="pipe records into it, or name a file")
        yield sys.stdin.buffer
        return
    try:
        # Not waiting for somebody who writes: to wait is for who asks between whether to stop.
        descriptor = os.open(file, os.O_RDONLY | _WITHOUT_WAITING)
        os.set_blocking(descriptor, True)
    except OSError as error:
        raise RefusedError(
            f"{file}: {error.strerror}", fix="check the name and that you may read it"
        ) from error
    with os.fdopen(descriptor, "rb") as opened:
        yield opened


def _arriving(stdin: BinaryIO, stop: Event, chunk_bytes: int) -> Iterator[bytes]:
    """Give what arrives when it arrives, asking between whether to stop: a pipe may be silent for hours."""
    try:
        descriptor = stdin.fileno()
    except (OSError, io.UnsupportedOperation):  # not a real file, as under a test runner
        while block := stdin.read(chunk_bytes):
            yield block
        return
    while not stop.is_set():
        ready, _, _ = select.select([descriptor], [], [], _STOP_ASKED_EVERY_S)
        if ready:
            block = os.read(descriptor, chunk_bytes)
            if not block:
                return
            yield block
