"""Reads many Avro records of one schema at once, field by field: objects and lists too, but for maps.

The items of lists are read in turns, the first of every record, then the second of those that have one.
The text of a record is that of `avro_text`, letter by letter. A record that is odd in any way is left to the
exact readers, so that there is one place that says what is wrong with it.
"""

from __future__ import annotations

from json.encoder import encode_basestring as quoted

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import Column, DataType, ListType, StructType
from headrace.log.arrays import Bytes, Mask
from headrace.log.registry.avro_binary import least_bytes
from headrace.log.registry.avro_schema import AvroType
from headrace.log.registry.avro_steps import Cursors, Ints, Step, Unsupported, repeat, scalar_step
from headrace.log.registry.avro_text import branch_for, resolved

__all__ = ["ColumnReader"]

_ROWS_MIN, _ROWS_MIN_LISTS = 16, 200
_TURNS_MAX = 64
"""A record with a longer list is left: the turns of a few are slower than reading them exactly."""
_OUTER_MAX = 32
_NO_TEXT = pa.array([], pa.string())


class ColumnReader:
    """Makes the JSON texts of many records of the schema `writer`; for the arguments see `TextMaker`.

    rows_min   fewer records than this are faster read one by one
    """

    @staticmethod
    def of(writer: AvroType, columns: tuple[Column, ...], reader: AvroType | None) -> ColumnReader | None:
        """Return a reader, or None when the schema has something that only the exact readers read."""
        try:
            return ColumnReader(writer, columns, reader)
        except Unsupported:
            return None

    def __init__(self, writer: AvroType, columns: tuple[Column, ...], reader: AvroType | None) -> None:
        plan = _Plan()
        row = StructType(tuple((column.name, column.type) for column in columns))
        self._read = plan.step(writer, row, reader, ())
        self.rows_min = _ROWS_MIN_LISTS if plan.lists else _ROWS_MIN

    def texts(self, data: Bytes, starts: Ints, ends: Ints) -> tuple[pa.Array, Mask]:
        """Return a text per record, which begins and ends there, and which of them are not to be used."""
        cursors = Cursors(data, starts, ends)
        texts = self._read(cursors, np.arange(len(starts)))
        cursors.odd |= cursors.at != ends
        return texts, cursors.odd


class _Plan:
    """Makes the steps of a schema; `lists` says whether there is a list among them."""

    def __init__(self) -> None:
        self.lists = False

    def step(
        self, kind: AvroType, target: DataType | None, reader: AvroType | None, outer: tuple[AvroType, ...]
    ) -> Step:
        """Return what reads a value of every row and gives its texts; `outer` are the types around it."""
        if kind.kind == "union":
            return self._union(kind, target, reader, outer)
        if kind in outer or len(outer) > _OUTER_MAX:
            raise Unsupported
        if kind.kind == "record":
            return self._record(kind, target, branch_for(kind, reader), (*outer, kind))
        if kind.kind == "array":
            return self._array(kind, target, branch_for(kind, reader), (*outer, kind))
        return scalar_step(kind, target, reader)

    def _record(
        self, kind: AvroType, target: DataType | None, reader: AvroType | None, outer: tuple[AvroType, ...]
    ) -> Step:
        fields, constants = resolved(kind, target, reader)
        numbers = {source.name: number for number, (_, source, _, _) in enumerate(fields)}
        if len(numbers) < len(fields):
            raise Unsupported  # one field under two names
        steps: list[tuple[Step, int | None]] = []
        for field in kind.fields:
            number = numbers.get(field.name)
            _, _, part, own = fields[number] if number is not None else ("", field, None, None)
            steps.append((self.step(field.type, part, own, outer), number))
        heads = [f"{quoted(name)}:" for name, *_ in fields]
        tail = ",".join(constants) + "}"

        def step(cursors: Cursors, rows: Ints) -> pa.Array:
            texts: list[pa.Array] = [_NO_TEXT] * len(heads)
            for read, number in steps:
                text = read(cursors, rows)
                if number is not None:
                    texts[number] = text
            if not heads:
                return repeat("{" + tail, len(rows))
            pieces: list[pa.Array | pa.Scalar] = []
            for head, text in zip(heads, texts, strict=True):
                pieces += [pa.scalar(("," if pieces else "{") + head), text]
            end = pa.scalar(("," if constants else "") + tail)
            return pc.binary_join_element_wise(*pieces, end, "")

        return step

    def _array(
        self, kind: AvroType, target: DataType | None, reader: AvroType | None, outer: tuple[AvroType, ...]
    ) -> Step:
        if any(each.kind == "array" for each in outer[:-1]) or not least_bytes(kind.inner):
            raise Unsupported  # turns within turns; items of which millions need no byte
        self.lists = True
        own = reader.items if reader is not None and reader.kind == "array" else None
        item = self.step(kind.inner, target.item if isinstance(target, ListType) else None, own, outer)

        def step(cursors: Cursors, rows: Ints) -> pa.Array:
            left = cursors.counts(rows)
            texts: list[pa.Array] = []
            owners: list[Ints] = []
            active = np.flatnonzero(left)
            while len(active) and len(texts) < _TURNS_MAX:
                texts.append(item(cursors, rows[active]))
                owners.append(active)
                left[active] -= 1
                over = active[left[active] == 0]
                if len(over):
                    left[over] = cursors.counts(rows[over])
                active = active[(left[active] > 0) & ~cursors.odd[rows[active]]]
            cursors.leave(rows[active])
            return _lists(texts, owners, len(rows))

        return step

    def _union(
        self, kind: AvroType, target: DataType | None, reader: AvroType | None, outer: tuple[AvroType, ...]
    ) -> Step:
        others = [at for at, branch in enumerate(kind.branches) if branch.kind != "null"]
        if len(others) != 1 or len(kind.branches) > 2:
            raise Unsupported
        (other,) = others
        branch = kind.branches[other]
        inner = self.step(branch, target, branch_for(branch, reader), outer)
        branches = len(kind.branches)

        def step(cursors: Cursors, rows: Ints) -> pa.Array:
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


def _lists(texts: list[pa.Array], owners: list[Ints], count: int) -> pa.Array:
    """Return the text of each row's list; `texts` are the items of each turn, `owners` their rows."""
    if not texts:
        return repeat("[]", count)
    owner = np.concatenate(owners)
    items = pa.concat_arrays(texts).take(pa.array(np.argsort(owner, kind="stable")))
    offsets = np.zeros(count + 1, np.int32)
    offsets[1:] = np.cumsum(np.bincount(owner, minlength=count))
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), ",")
    return pc.binary_join_element_wise(pa.scalar("["), joined, pa.scalar("]"), "")
