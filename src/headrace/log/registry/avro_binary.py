"""Reads Avro's binary encoding byte by byte: exact about what is wrong, and bounded in depth and in memory.

fastavro, which writes for us, does not read for us: it takes -1 for a union's last branch, and a record of
some kilobytes that nests without an end takes the whole process with it, because its recursion is C's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from headrace.log.registry.avro_schema import AvroType
from headrace.log.registry.wire import Unreadable

__all__ = ["DEPTH_MAX", "BinaryReader", "least_bytes"]

DEPTH_MAX = 64
"""As deep as JSON documents may be."""
_EMPTY_ITEMS_MAX = 100_000
_VARINT_BYTES_MAX = 10
_LONG_LIMIT = 1 << 63

Read = Callable[["_Cursor"], Any]


class _Cursor:
    """A place in one record."""

    __slots__ = ("at", "data", "depth", "empty")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.depth = 0
        self.empty = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if size < 0:
            raise Unreadable("avro", f"a negative length before byte {self.at}")
        if end > len(self.data):
            raise Unreadable(
                "avro", f"cut off: byte {self.at} begins {size} bytes, {len(self.data) - self.at} are left"
            )
        found = self.data[self.at : end]
        self.at = end
        return found

    def long(self) -> int:
        data, at = self.data, self.at
        if at < len(data) and (byte := data[at]) < 0x80:  # most are small
            self.at = at + 1
            return (byte >> 1) ^ -(byte & 1)
        value = shift = 0
        for place in range(at, min(at + _VARINT_BYTES_MAX, len(data))):
            byte = data[place]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self.at = place + 1
                number = (value >> 1) ^ -(value & 1)
                if not -_LONG_LIMIT <= number < _LONG_LIMIT:
                    raise Unreadable("avro", f"a number out of range at byte {at}")
                return number
        if len(data) - at >= _VARINT_BYTES_MAX:
            raise Unreadable("avro", f"a number without an end at byte {at}")
        raise Unreadable("avro", f"cut off in a number at byte {at}")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise Unreadable("avro", f"nested deeper than {DEPTH_MAX} levels")


class BinaryReader:
    """Reads records of one writer's schema.

    A value of a union is a pair: the branch's number and the value. Logical types are not looked at.
    """

    def __init__(self, kind: AvroType) -> None:
        self._built: dict[int, list[Read]] = {}
        self._read = self._reader(kind)

    def read(self, data: bytes, at: int) -> Any:
        """Return the value that begins at `at` and ends with `data`. Raises Unreadable."""
        cursor = _Cursor(data, at)
        value = self._read(cursor)
        if cursor.at != len(data):
            raise Unreadable("avro", f"{len(data) - cursor.at} bytes are left over behind the record")
        return value

    def _reader(self, kind: AvroType) -> Read:
        if kind.kind in _PRIMITIVES:
            return _PRIMITIVES[kind.kind]
        if id(kind) in self._built:
            return _later(self._built[id(kind)])
        place: list[Read] = []
        self._built[id(kind)] = place
        place.append(self._make(kind))
        return place[0]

    def _make(self, kind: AvroType) -> Read:
        if kind.kind == "record":
            return self._record(kind)
        if kind.kind == "union":
            return self._union(kind)
        if kind.kind == "array":
            return self._blocks(kind, keyed=False)
        if kind.kind == "map":
            return self._blocks(kind, keyed=True)
        if kind.kind == "enum":
            return _enum(kind.symbols)
        size = kind.size
        return lambda cursor: cursor.take(size)

    def _record(self, kind: AvroType) -> Read:
        fields = [(each.name, self._reader(each.type)) for each in kind.fields]

        def read(cursor: _Cursor) -> dict[str, Any]:
            cursor.deeper()
            value = {name: field(cursor) for name, field in fields}
            cursor.depth -= 1
            return value

        return read

    def _union(self, kind: AvroType) -> Read:
        branches = [self._reader(branch) for branch in kind.branches]

        def read(cursor: _Cursor) -> tuple[int, Any]:
            at = cursor.at
            number = cursor.long()
            if not 0 <= number < len(branches):
                raise Unreadable("avro", f"byte {at} names a branch that the union does not have")
            return number, branches[number](cursor)

        return read

    def _blocks(self, kind: AvroType, *, keyed: bool) -> Read:
        item = self._reader(kind.inner)
        empty = not keyed and least_bytes(kind.inner) == 0

        def read(cursor: _Cursor) -> Any:
            cursor.deeper()
            items: list[Any] = []
            entries: dict[str, Any] = {}
            while count := cursor.long():
                if count < 0:
                    count = -count
                    cursor.long()  # how many bytes the block has: only of use to who skips it
                if empty:
                    cursor.empty += count
                    if cursor.empty > _EMPTY_ITEMS_MAX:
                        raise Unreadable("avro", f"more than {_EMPTY_ITEMS_MAX} items without a byte")
                for _ in range(count):
                    if keyed:
                        name = _string(cursor)
                        entries[name] = item(cursor)
                    else:
                        items.append(item(cursor))
            cursor.depth -= 1
            return entries if keyed else items

        return read


def _later(place: list[Read]) -> Read:
    """Return what stands in `place` when it is called: a name that is used inside of itself."""

    def read(cursor: _Cursor) -> Any:
        return place[0](cursor)

    return read


def _string(cursor: _Cursor) -> str:
    at = cursor.at
    try:
        return cursor.take(cursor.long()).decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("avro", f"the text at byte {at} is not UTF-8") from None


def _boolean(cursor: _Cursor) -> bool:
    return cursor.take(1)[0] != 0  # as fastavro and Java read it


def _enum(symbols: tuple[str, ...]) -> Read:
    def read(cursor: _Cursor) -> str:
        at = cursor.at
        number = cursor.long()
        if not 0 <= number < len(symbols):
            raise Unreadable("avro", f"byte {at} names a symbol that the enum does not have")
        return symbols[number]

    return read


def _float(cursor: _Cursor) -> float:
    return float(struct.unpack("<f", cursor.take(4))[0])


def _double(cursor: _Cursor) -> float:
    return float(struct.unpack("<d", cursor.take(8))[0])


_PRIMITIVES: dict[str, Read] = {
    "null": lambda cursor: None,
    "boolean": _boolean,
    "int": lambda cursor: cursor.long(),  # its range is that of the declared column
    "long": lambda cursor: cursor.long(),
    "float": _float,
    "double": _double,
    "bytes": lambda cursor: cursor.take(cursor.long()),
    "string": _string,
}


def least_bytes(kind: AvroType, outer: tuple[int, ...] = ()) -> int:
    """Return how many bytes a value has at least."""
    if id(kind) in outer or kind.kind == "null":
        return 0
    if kind.kind == "record":
        return sum(least_bytes(each.type, (*outer, id(kind))) for each in kind.fields)
    return kind.size if kind.kind == "fixed" else {"float": 4, "double": 8}.get(kind.kind, 1)
