"""Reads a plain field of many Avro records at once, and gives the JSON text of each.

Every record has a cursor, and each step moves all of them: a varint takes as many passes as its longest
number has bytes. A record that is odd in any way, cut off, wrong, or only rare (a text with a quotation
mark), is marked as such.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache
from json.encoder import encode_basestring as quoted
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import DataType, ScalarType
from headrace.log.arrays import Bytes, Mask
from headrace.log.registry.avro_schema import AvroType
from headrace.log.registry.avro_text import is_number, symbols_of

__all__ = ["Cursors", "Ints", "Step", "Unsupported", "repeat", "scalar_step"]

Ints: TypeAlias = npt.NDArray[np.int64]
Step = Callable[["Cursors", Ints], pa.Array]

_DAY = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_UNITS = {"millis": 1_000, "micros": 1_000_000}
_DAYS_MIN, _DAYS_MAX = 1 - _EPOCH_DAY, date.max.toordinal() - _EPOCH_DAY


class Unsupported(Exception):
    """A schema has something that only the exact readers read."""


class Cursors:
    """Where each record is read, and which are left to the exact readers."""

    def __init__(self, data: Bytes, starts: Ints, ends: Ints) -> None:
        self.data = data if len(data) else np.zeros(1, np.uint8)
        self.at = starts.copy()
        self.ends = ends
        self.odd: Mask = np.zeros(len(starts), np.bool_)

    def leave(self, rows: Ints) -> None:
        """Leave these records to the exact readers, and stand at their ends."""
        self.odd[rows] = True
        self.at[rows] = self.ends[rows]

    def longs(self, rows: Ints) -> Ints:
        """Read a zigzag varint of each of `rows`."""
        at, ends = self.at[rows], self.ends[rows]
        found = np.zeros(len(rows), np.uint64)
        active = np.arange(len(rows))
        for place in range(10):
            inside = at[active] < ends[active]
            if not inside.all():
                self.leave(rows[active[~inside]])
                active = active[inside]
            byte = self.data[at[active]]
            found[active] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
            at[active] += 1
            more = byte >= 0x80 if place < 9 else byte > 1
            active = active[more]
            if not len(active):
                break
        else:
            self.leave(rows[active])
        keep = ~self.odd[rows]
        self.at[rows[keep]] = at[keep]
        half = (found >> np.uint64(1)).astype(np.int64)
        numbers: Ints = half ^ -(found & np.uint64(1)).astype(np.int64)
        return numbers

    def counts(self, rows: Ints) -> Ints:
        """Read how many items the next block of a list has; 0: the list ends."""
        found = self.longs(rows)
        sized = np.flatnonzero(found < 0)
        if len(sized):
            self.longs(rows[sized])  # its size in bytes is for who skips it
            found[sized] = -found[sized]
        wrong = found < 0
        if wrong.any():
            self.leave(rows[wrong])
        found[self.odd[rows]] = 0
        return found

    def spans(self, rows: Ints, lengths: Ints) -> Ints:
        """Pass over `lengths` bytes of each of `rows`; gives where they begin, and where they end in `at`."""
        begins = self.at[rows]
        wrong = (lengths < 0) | (lengths > self.ends[rows] - begins)
        if wrong.any():
            self.leave(rows[wrong])
            lengths = np.where(wrong, 0, lengths)
            begins = self.at[rows]
        self.at[rows] = begins + lengths
        return begins

    def slices(self, rows: Ints) -> tuple[Ints, Ints]:
        """Read a length and pass over so many bytes; gives the beginnings and the ends."""
        begins = self.spans(rows, self.longs(rows))
        return begins, self.at[rows]


def scalar_step(kind: AvroType, target: DataType | None, reader: AvroType | None) -> Step:
    """Return what reads a field of every record and gives its texts, one per row. Raises Unsupported."""
    sql = target.sql if isinstance(target, ScalarType) else ""
    if target is not None and not sql:
        raise Unsupported  # a list or an object: the exact readers say what is wrong
    plain = not kind.logical or (is_number(sql) and kind.kind in ("int", "long"))
    if kind.kind in ("int", "long"):
        return _number(None if plain else kind.logical)
    if kind.kind == "string" and sql != "BLOB":
        return _string
    if kind.kind == "bytes" and kind.logical == "decimal":
        return _decimal(kind.scale)
    if kind.kind == "boolean":
        return _boolean
    if kind.kind in ("float", "double"):
        return _float(4 if kind.kind == "float" else 8)
    if kind.kind == "enum":
        return _enum([quoted(each) for each in symbols_of(kind, reader)])
    if kind.kind == "null":
        return lambda cursors, rows: repeat("null", len(rows))
    if target is None and kind.kind in ("bytes", "fixed"):
        return _passed_over(kind.size if kind.kind == "fixed" else None)
    raise Unsupported


def _passed_over(size: int | None) -> Step:
    """Return what passes over bytes that no column asks for."""

    def step(cursors: Cursors, rows: Ints) -> pa.Array:
        cursors.spans(rows, cursors.longs(rows) if size is None else np.full(len(rows), size, np.int64))
        return repeat("null", len(rows))

    return step


def repeat(text: str, count: int) -> pa.Array:
    """Return one text for every row."""
    return pa.array([text], pa.string()).take(pa.array(np.zeros(count, np.int64)))


def _string(cursors: Cursors, rows: Ints) -> pa.Array:
    begins, ends = cursors.slices(rows)
    # The texts of a field lie in the data one behind the other, so they are every second piece of it.
    offsets = np.empty(2 * len(rows) + 1, np.int32)
    offsets[0:-1:2], offsets[1::2] = begins, ends
    offsets[-1] = ends[-1] if len(rows) else 0
    pieces = pa.Array.from_buffers(
        pa.binary(), 2 * len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(cursors.data)]
    )
    texts = pieces.take(pa.array(np.arange(0, 2 * len(rows), 2)))
    _, offsets_of, content = texts.buffers()
    if content is not None:
        data = np.frombuffer(content, np.uint8)
        special = np.flatnonzero((data < 0x20) | (data == 0x22) | (data == 0x5C) | (data >= 0x80))
        if len(special):
            stops = np.frombuffer(offsets_of, np.int32)[1 : len(rows) + 1]
            marked = np.unique(np.searchsorted(stops, special, side="right"))
            texts = _marked(texts, marked[marked < len(rows)], cursors, rows)
    texts = texts.cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar('"'), texts, pa.scalar('"'), "")


def _marked(texts: pa.Array, marked: Ints, cursors: Cursors, rows: Ints) -> pa.Array:
    """Look at texts with other letters than plain ASCII: what is UTF-8 and needs no quotation stays."""
    odd = []
    for place, value in zip(marked.tolist(), texts.take(pa.array(marked)).to_pylist(), strict=True):
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            odd.append(place)
        else:
            if len(quoted(text)) != len(text) + 2:
                odd.append(place)
    if not odd:
        return texts
    places = np.array(odd)
    cursors.odd[rows[places]] = True
    keep = np.ones(len(texts), np.bool_)
    keep[places] = False
    return pc.if_else(pa.array(keep), texts, pa.scalar(b"", pa.binary()))


def _boolean(cursors: Cursors, rows: Ints) -> pa.Array:
    begins = cursors.spans(rows, np.ones(len(rows), np.int64))
    found = _bytes_at(cursors, begins, 1)[:, 0]
    wrong = found > 1
    if wrong.any():
        cursors.odd[rows[wrong]] = True
    return pa.array(["false", "true"]).take(pa.array(np.minimum(found, 1).astype(np.int64)))


def _bytes_at(cursors: Cursors, begins: Ints, width: int) -> Bytes:
    places = np.minimum(begins[:, None] + np.arange(width), max(len(cursors.data) - 1, 0))
    found: Bytes = cursors.data[places]
    return found


def _float(width: int) -> Step:
    kind = np.dtype("<f4" if width == 4 else "<f8")

    def step(cursors: Cursors, rows: Ints) -> pa.Array:
        begins = cursors.spans(rows, np.full(len(rows), width, np.int64))
        with np.errstate(invalid="ignore"):  # a signalling NaN; it is left to the exact reader below
            found = np.ascontiguousarray(_bytes_at(cursors, begins, width)).view(kind)[:, 0]
            found = found.astype(np.float64)
        infinite = ~np.isfinite(found)
        if infinite.any():
            cursors.odd[rows[infinite]] = True
        return pa.array([repr(value) for value in found.tolist()], pa.string())

    return step


def _enum(symbols: list[str]) -> Step:
    texts = pa.array(symbols, pa.string())
    if not symbols:
        raise Unsupported

    def step(cursors: Cursors, rows: Ints) -> pa.Array:
        chosen = cursors.longs(rows)
        wrong = (chosen < 0) | (chosen >= len(symbols))
        if wrong.any():
            cursors.odd[rows[wrong]] = True
            chosen = np.where(wrong, 0, chosen)
        return texts.take(pa.array(chosen))

    return step


def _number(logical: str | None) -> Step:
    text = _texts_of(logical)
    return lambda cursors, rows: text(cursors.longs(rows), cursors, rows)


def _texts_of(logical: str | None) -> Callable[[Ints, Cursors, Ints], pa.Array]:
    if logical is None:
        return lambda found, cursors, rows: pa.array(found).cast(pa.string())
    if logical == "date":
        return lambda found, cursors, rows: _rows_text(
            _days(_within(found, _DAYS_MIN, _DAYS_MAX, cursors, rows))
        )
    word, _, unit = logical.rpartition("-")
    if unit not in _UNITS:
        raise Unsupported
    each = _UNITS[unit]
    digits = len(str(each)) - 1

    def clock(found: Ints, cursors: Cursors, rows: Ints) -> pa.Array:
        return _rows_text(_clock(_within(found, 0, _DAY * each - 1, cursors, rows), each, digits))

    def instant(found: Ints, cursors: Cursors, rows: Ints) -> pa.Array:
        first, last = _DAYS_MIN * _DAY * each, (_DAYS_MAX + 1) * _DAY * each - 1
        days, rest = np.divmod(_within(found, first, last, cursors, rows), _DAY * each)
        letters = [np.full((len(rows), 1), ord(letter), np.uint8) for letter in "TZ"]
        return _rows_text(np.hstack([_days(days), letters[0], _clock(rest, each, digits), letters[1]]))

    return clock if word == "time" else instant


def _within(found: Ints, first: int, last: int, cursors: Cursors, rows: Ints) -> Ints:
    wrong = (found < first) | (found > last)
    if not wrong.any():
        return found
    cursors.odd[rows[wrong]] = True
    return np.where(wrong, 0, found)


def _days(days: Ints) -> Bytes:
    """Ten letters per day."""
    if not len(days):
        return np.zeros((0, 10), np.uint8)
    different, places = np.unique(days, return_inverse=True)
    texts = "".join(date.fromordinal(day + _EPOCH_DAY).isoformat() for day in different.tolist())
    letters: Bytes = np.frombuffer(texts.encode(), np.uint8).reshape(-1, 10)[places]
    return letters


def _clock(rest: Ints, each: int, digits: int) -> Bytes:
    seconds, fraction = np.divmod(rest, each)
    point = np.full((len(rest), 1), ord("."), np.uint8)
    return np.hstack([_seconds()[seconds], point, _digits(fraction, digits)])


@cache
def _seconds() -> Bytes:
    texts = "".join(f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(_DAY))
    return np.frombuffer(texts.encode(), np.uint8).reshape(-1, 8)


def _digits(numbers: Ints, width: int) -> Bytes:
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return ((numbers[:, None] // powers) % 10 + ord("0")).astype(np.uint8)


def _fixed_text(rows: Bytes) -> pa.Array:
    count, width = rows.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def _rows_text(rows: Bytes) -> pa.Array:
    """Texts of one width, as JSON strings."""
    mark = np.full((len(rows), 1), ord('"'), np.uint8)
    return _fixed_text(np.hstack([mark, rows, mark]))


def _decimal(scale: int) -> Step:
    if scale > 18:
        raise Unsupported

    def step(cursors: Cursors, rows: Ints) -> pa.Array:
        begins, ends = cursors.slices(rows)
        lengths = ends - begins
        large = (lengths > 7) | (lengths < 1)  # none at all is zero, which the exact readers say, too
        if large.any():
            cursors.odd[rows[large]] = True
            lengths = np.where(large, 0, lengths)
        found = np.zeros(len(rows), np.int64)
        for place in range(7):
            more = place < lengths
            found[more] = (found[more] << 8) | cursors.data[begins[more] + place]
        negative = found >= (1 << np.maximum(8 * lengths - 1, 0))
        negative &= lengths > 0
        found = np.where(negative, found - (1 << (8 * lengths)), found)
        if not scale:
            return pa.array(found).cast(pa.string())
        whole, fraction = np.divmod(np.abs(found), 10**scale)
        sign = pa.array(["", "-"]).take(pa.array(negative.astype(np.int64)))
        texts = pa.array(whole).cast(pa.string())
        return pc.binary_join_element_wise(
            sign, texts, pa.scalar("."), _fixed_text(_digits(fraction, scale)), ""
        )

    return step
