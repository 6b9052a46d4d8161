"""Reads many Avro records of one schema at once, field by field: for schemas without lists and maps.

Every record has a cursor, and each step moves all of them: a varint takes as many passes as its longest
number has bytes. The text of a record is that of `avro_text`, letter by letter. A record that is odd in any
way, cut off, wrong, or only rare (a text with a quotation mark), is left to the exact readers, so that there
is one place that says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache
from json.encoder import encode_basestring as quoted
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import Column, DataType, ScalarType
from headrace.log.registry.avro_schema import AvroField, AvroType
from headrace.log.registry.avro_text import default_text, field_source, is_number, symbols_of

__all__ = ["ColumnReader"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Step = Callable[["_Cursors", Ints], Any]

_DAY = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_UNITS = {"millis": 1_000, "micros": 1_000_000}
_DAYS_MIN, _DAYS_MAX = 1 - _EPOCH_DAY, date.max.toordinal() - _EPOCH_DAY
_NO_TEXT = pa.array([], pa.string())


class _Cursors:
    """Where each record is read, and which are left to the exact readers."""

    def __init__(self, data: Bytes, starts: Ints, ends: Ints) -> None:
        self.data = data if len(data) else np.zeros(1, np.uint8)
        self.at = starts.copy()
        self.ends = ends
        self.odd: Mask = np.zeros(len(starts), np.bool_)

    def leave(self, rows: Ints) -> None:
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


class ColumnReader:
    """Makes the JSON texts of many records of the schema `writer`; for the arguments see `TextMaker`."""

    @staticmethod
    def of(writer: AvroType, columns: tuple[Column, ...], reader: AvroType | None) -> ColumnReader | None:
        """Return a reader, or None when the schema has something that only the exact readers read."""
        try:
            return ColumnReader(writer, columns, reader)
        except _Unsupported:
            return None

    def __init__(self, writer: AvroType, columns: tuple[Column, ...], reader: AvroType | None) -> None:
        own = {each.name: each for each in reader.fields} if reader is not None else {}
        written = {each.name: each for each in writer.fields}
        takers: dict[str, list[tuple[int, Column, AvroField | None]]] = {}
        self._pieces: list[str | int] = []
        constants = []
        for column in columns:
            wanted = own.get(column.name)
            if reader is not None and wanted is None:
                continue
            source = field_source(column.name, wanted, written)
            if source is not None:
                number = sum(isinstance(piece, int) for piece in self._pieces)
                self._pieces += [f"{quoted(column.name)}:", number]
                takers.setdefault(source.name, []).append((number, column, wanted))
            elif wanted is not None and wanted.has_default:
                constants.append(f"{quoted(column.name)}:{default_text(wanted, column.type)}")
        self._constants = constants
        self._steps: list[tuple[Step, list[int]]] = []
        for field in writer.fields:
            found = takers.get(field.name, [])
            if len(found) > 1:
                raise _Unsupported
            kind = found[0][1].type if found else None
            wanted = found[0][2] if found else None
            self._steps.append((_step(field.type, kind, wanted), [number for number, _, _ in found]))

    def texts(self, data: Bytes, starts: Ints, ends: Ints) -> tuple[pa.Array, Mask]:
        """Return a text per record, which begins and ends there, and which of them are not to be used."""
        cursors = _Cursors(data, starts, ends)
        rows = np.arange(len(starts))
        values: dict[int, pa.Array] = {}
        for step, numbers in self._steps:
            text = step(cursors, rows)
            for number in numbers:
                values[number] = text
        cursors.odd |= cursors.at != ends
        if not values:
            text = "{" + ",".join(self._constants) + "}"
            return pa.array([text], pa.string()).take(pa.array(np.zeros(len(rows), np.int64))), cursors.odd
        pieces: list[Any] = []
        for piece in self._pieces:
            if isinstance(piece, int):
                pieces.append(values[piece])
            else:
                pieces.append(pa.scalar(("," if pieces else "{") + piece))
        pieces.append(pa.scalar("".join(f",{each}" for each in self._constants) + "}"))
        return pc.binary_join_element_wise(*pieces, ""), cursors.odd


class _Unsupported(Exception):
    pass


def _step(kind: AvroType, target: DataType | None, wanted: AvroField | None) -> Step:
    """Return what reads a field of every record and gives its texts, one per row."""
    if kind.kind == "union":
        return _union(kind, target, wanted)
    sql = target.sql if isinstance(target, ScalarType) else ""
    if target is not None and not sql:
        raise _Unsupported  # a list or an object: the exact readers say what is wrong
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
        return _enum([quoted(each) for each in symbols_of(kind, None if wanted is None else wanted.type)])
    if kind.kind == "null":
        return lambda cursors, rows: _repeat("null", len(rows))
    if target is None and kind.kind in ("bytes", "fixed"):
        return _passed_over(kind.size if kind.kind == "fixed" else None)
    raise _Unsupported


def _passed_over(size: int | None) -> Step:
    """Return what passes over bytes that no column asks for."""

    def step(cursors: _Cursors, rows: Ints) -> pa.Array:
        cursors.spans(rows, cursors.longs(rows) if size is None else np.full(len(rows), size, np.int64))
        return _repeat("null", len(rows))

    return step


def _repeat(text: str, count: int) -> pa.Array:
    return pa.array([text], pa.string()).take(pa.array(np.zeros(count, np.int64)))


def _union(kind: AvroType, target: DataType | None, wanted: AvroField | None) -> Step:
    others = [at for at, branch in enumerate(kind.branches) if branch.kind != "null"]
    if len(others) != 1 or len(kind.branches) > 2:
        raise _Unsupported
    (other,) = others
    inner = _step(kind.branches[other], target, wanted)
    branches = len(kind.branches)

    def step(cursors: _Cursors, rows: Ints) -> pa.Array:
        chosen = cursors.longs(rows)
        wrong = (chosen < 0) | (chosen >= branches)
        if wrong.any():
            cursors.leave(rows[wrong])
        there = (chosen == other) & ~cursors.odd[rows]
        if there.all():
            return inner(cursors, rows)
        texts = inner(cursors, rows[there]) if there.any() else _NO_TEXT
        places = np.cumsum(there) - 1
        return pc.fill_null(texts.take(pa.array(places, mask=~there)), "null")

    return step


def _string(cursors: _Cursors, rows: Ints) -> pa.Array:
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


def _marked(texts: pa.Array, marked: Ints, cursors: _Cursors, rows: Ints) -> pa.Array:
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


def _boolean(cursors: _Cursors, rows: Ints) -> pa.Array:
    begins = cursors.spans(rows, np.ones(len(rows), np.int64))
    found = _bytes_at(cursors, begins, 1)[:, 0]
    wrong = found > 1
    if wrong.any():
        cursors.odd[rows[wrong]] = True
    return pa.array(["false", "true"]).take(pa.array(np.minimum(found, 1).astype(np.int64)))


def _bytes_at(cursors: _Cursors, begins: Ints, width: int) -> Bytes:
    places = np.minimum(begins[:, None] + np.arange(width), max(len(cursors.data) - 1, 0))
    found: Bytes = cursors.data[places]
    return found


def _float(width: int) -> Step:
    kind = np.dtype("<f4" if width == 4 else "<f8")

    def step(cursors: _Cursors, rows: Ints) -> pa.Array:
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
        raise _Unsupported

    def step(cursors: _Cursors, rows: Ints) -> pa.Array:
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


def _texts_of(logical: str | None) -> Callable[[Ints, _Cursors, Ints], pa.Array]:
    if logical is None:
        return lambda found, cursors, rows: pa.array(found).cast(pa.string())
    if logical == "date":
        return lambda found, cursors, rows: _rows_text(
            _days(_within(found, _DAYS_MIN, _DAYS_MAX, cursors, rows))
        )
    word, _, unit = logical.rpartition("-")
    if unit not in _UNITS:
        raise _Unsupported
    each = _UNITS[unit]
    digits = len(str(each)) - 1

    def clock(found: Ints, cursors: _Cursors, rows: Ints) -> pa.Array:
        return _rows_text(_clock(_within(found, 0, _DAY * each - 1, cursors, rows), each, digits))

    def instant(found: Ints, cursors: _Cursors, rows: Ints) -> pa.Array:
        first, last = _DAYS_MIN * _DAY * each, (_DAYS_MAX + 1) * _DAY * each - 1
        days, rest = np.divmod(_within(found, first, last, cursors, rows), _DAY * each)
        letters = [np.full((len(rows), 1), ord(letter), np.uint8) for letter in "TZ"]
        return _rows_text(np.hstack([_days(days), letters[0], _clock(rest, each, digits), letters[1]]))

    return clock if word == "time" else instant


def _within(found: Ints, first: int, last: int, cursors: _Cursors, rows: Ints) -> Ints:
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
        raise _Unsupported

    def step(cursors: _Cursors, rows: Ints) -> pa.Array:
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
