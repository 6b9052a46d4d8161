"""What a request's body holds: the bytes of every record as they came, and their keys.

Each record must be JSON, because a body that was cut off must not become records. Whether it is right for
its stream is the pipeline's business: such a record is appended and gets its outcome there.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from headrace.errors import RefusedError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ContentType",
    "RefusedRequest",
    "RequestRecords",
    "content_type_of",
    "decompressed",
    "key_bytes",
    "read_records",
    "too_large",
]

ContentType = str
_ARRAY, _LINES = "json", "ndjson"
_TYPES = {
    "application/json": _ARRAY,
    "application/x-ndjson": _LINES,
    "application/ndjson": _LINES,
    "application/jsonl": _LINES,
    "application/x-jsonlines": _LINES,
}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 256 * 1024
_VALUE_BYTES = 41
"""What a record takes in memory beside its bytes: Python's object, and its place in the list."""
_SPACE = re.compile(r"[ \t\n\r]*")


class RefusedRequest(RefusedError):
    """A request that is not taken, with the HTTP status that says why. Nothing of it was appended.

    retry_after   seconds after which the same request may be taken, None: never
    """

    def __init__(self, status: int, message: str, *, fix: str = "", retry_after: int | None = None) -> None:
        super().__init__(message, fix=fix)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class RequestRecords:
    """The records of one body; `keys` has what the key's field holds, not yet as bytes (see `key_bytes`)."""

    values: list[bytes]
    keys: list[Any] | None

    @property
    def memory(self) -> int:
        """About how many bytes the values take in memory."""
        return sum(map(len, self.values)) + _VALUE_BYTES * len(self.values)


def content_type_of(header: str) -> ContentType:
    """Return `json` or `ndjson`. Raises RefusedRequest for another content type."""
    name = header.partition(";")[0].strip().lower()
    found = _TYPES.get(name)
    if found is None:
        what = f"the content type '{name[:80]}' is not taken" if name else "the request has no content type"
        raise RefusedRequest(
            415,
            what,
            fix="send 'Content-Type: application/json' (an array or one object), or application/x-ndjson",
        )
    return found


def decompressed(
    body: bytes, encoding: str, *, bytes_max: int, grows: Callable[[int], None] = lambda size: None
) -> bytes:
    """Return the body without its content encoding, of which gzip is known; 413 when it grows too large.

    `grows` is told how many bytes there are so far, before there are more; what it raises ends this.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name != "gzip":
        raise RefusedRequest(415, f"the content encoding '{name[:80]}' is not known", fix="use gzip or none")
    inflater = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    size, rest = 0, body
    while rest and not inflater.eof:
        try:
            pieces.append(inflater.decompress(rest, min(_PIECE, bytes_max + 1 - size)))
        except zlib.error:
            what = "the body is not gzip"
            raise RefusedRequest(400, what, fix="compress it again, or send it plain") from None
        rest = inflater.unconsumed_tail
        size += len(pieces[-1])
        if size > bytes_max:
            raise too_large(bytes_max)
        grows(size)
    if not inflater.eof or inflater.unused_data:
        raise RefusedRequest(400, "the body is not one whole gzip file", fix="compress and send it again")
    return b"".join(pieces)


def too_large(bytes_max: int) -> RefusedRequest:
    """Return the refusal of a body that is too large."""
    return RefusedRequest(
        413, f"the body is larger than {bytes_max:,} bytes", fix="send the records in several requests"
    )


def read_records(
    body: bytes, kind: ContentType, *, key: str | None, record_bytes_max: int, records_max: int
) -> RequestRecords:
    """Return the records of `body`, all of them or none.

    Raises RefusedRequest: 400 with the line or element that is no JSON, 413 for a record that is too large.
    """
    content = body.removeprefix(_BYTE_ORDER_MARK)
    found = _lines(content) if kind == _LINES else _elements(content)
    values: list[bytes] = []
    keys: list[Any] = []
    for place, value, parsed in found:
        if len(value) > record_bytes_max:
            raise RefusedRequest(
                413,
                f"{place}: a record of {len(value):,} bytes; at most {record_bytes_max:,} are taken",
                fix="split the record, or put its content into a file and its path into the record",
            )
        values.append(value)
        if key is not None:
            keys.append(parsed.get(key) if isinstance(parsed, dict) else None)
        if len(values) > records_max:
            raise RefusedRequest(
                413, f"more than {records_max:,} records", fix="send the records in several requests"
            )
    if not values:
        raise RefusedRequest(400, "the body holds no record", fix="send at least one")
    return RequestRecords(values, keys if key is not None else None)


def key_bytes(records: RequestRecords, field: str) -> pa.Array:
    """Return the keys (binary) that the field gives: the same bytes as `headrace produce` takes of a file."""
    import pyarrow as pa

    found: list[bytes | None] = []
    for key in records.keys or ():
        if type(key) is str:
            found.append(key.encode("utf-8", "replace"))
        elif key is None or isinstance(key, bool):
            found.append(None if key is None else b"true" if key else b"false")
        else:
            return _keys_by_database(records.values, field)
    return pa.array(found, pa.binary())


def _keys_by_database(values: list[bytes], field: str) -> pa.Array:
    import pyarrow as pa

    from headrace.produce.fields import Fields, utc_connection
    from headrace.produce.lines import Chunk

    connection = utc_connection()
    try:
        chunk = Chunk(pa.array(values, pa.binary()), 0)
        ((_, table),) = Fields(lambda: connection, field, None).tables(iter([chunk]))
        return table.column("key").combine_chunks()
    finally:
        connection.close()


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


class _Fraction(str):
    """A number that is not an integer, as it was written."""

    __slots__ = ()


# Numbers stay texts: they are not looked at here, and a number of 5,000 digits costs no time.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=_Fraction, parse_constant=_no_constant)


def _scan(text: str, at: int, place: str) -> tuple[Any, int]:
    """Return the JSON value that begins at `at`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        # Never the text itself: it is a payload.
        what = error.msg.removesuffix(" at")
        raise _not_json(f"{place}: not JSON: {what} at character {error.pos - at + 1}") from None
    except ValueError as error:
        raise _not_json(f"{place}: not JSON: {error}") from None
    except RecursionError:
        raise _not_json(f"{place}: nested too deeply") from None


def _not_json(what: str) -> RefusedRequest:
    return RefusedRequest(400, what, fix="correct it and send all of it again: nothing was appended")


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _not_json(f"{place}: not UTF-8 at byte {error.start + 1}") from None


def _lines(content: bytes) -> Iterator[tuple[str, bytes, Any]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        value = line.strip(b" \t\r")
        if not value:
            continue
        place = f"line {number}"
        text = _decoded(value, place)
        parsed, end = _scan(text, 0, place)
        if end != len(text):
            raise _not_json(f"{place}: not JSON: something follows the value at character {end + 1}")
        yield place, value, parsed


def _elements(content: bytes) -> Iterator[tuple[str, bytes, Any]]:
    text = _decoded(content, "the body")
    at = _after_space(text, 0)
    if text[at : at + 1] == "{":
        parsed, end = _scan(text, at, "the object")
        if _after_space(text, end) != len(text):
            raise _not_json("the object: something follows it; several objects need an array or NDJSON")
        yield "the object", text[at:end].encode(), parsed
        return
    if text[at : at + 1] != "[":
        raise _not_json("the body is neither an array nor an object")
    at = _after_space(text, at + 1)
    if text[at : at + 1] == "]":
        if _after_space(text, at + 1) != len(text):
            raise _not_json("the array: something follows it")
        return
    number = 0
    while True:
        number += 1
        place = f"element {number}"
        parsed, end = _scan(text, at, place)
        yield place, text[at:end].encode(), parsed
        at = _after_space(text, end)
        mark = text[at : at + 1]
        at = _after_space(text, at + 1)
        if mark == "]":
            if at != len(text):
                raise _not_json("the array: something follows it")
            return
        if mark != ",":
            raise _not_json(f"{place}: the array does not go on with ',' or ']' after it")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
