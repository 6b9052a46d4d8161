"""Redrive: gives records that were set aside to the engine again, as they were or corrected.

A dead letter goes to the redrive lane of its stream with the address of the record that it stands for; the
engine accepts an address at most once, so that twice is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import RefusedError
from headrace.operate.exact_json import dump_exact, load_exact

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.log import Log

__all__ = [
    "ADDRESS_HEADER",
    "Address",
    "Change",
    "Redriven",
    "Since",
    "append_redriven",
    "find_letters",
    "prepare",
    "replace_bytes",
    "replace_exactly",
    "set_fields",
    "since",
]

ADDRESS_HEADER = "headrace.address"
LANE = "redrive"
Change = Callable[[bytes], bytes | None]


@dataclass(frozen=True, order=True)
class Address:
    """Where a record lies; in words `events:0:1234`, in the redrive lane `events@redrive:0:7`."""

    stream: str
    lane: str
    partition: int
    offset: int

    def __str__(self) -> str:
        lane = "" if self.lane == "main" else f"@{self.lane}"
        return f"{self.stream}{lane}:{self.partition}:{self.offset}"

    @staticmethod
    def parse(text: str) -> Address:
        """Read an address. Raises RefusedError with the right form."""
        place, _, numbers = text.partition(":")
        partition, _, offset = numbers.partition(":")
        stream, _, lane = place.partition("@")
        known = re.fullmatch("[0-9]{1,10}:[0-9]{1,19}", numbers)
        if not (stream and known and int(partition) < 2**31 and int(offset) < 2**63):
            raise RefusedError(
                f"'{text}' is not the address of a dead letter",
                fix="write STREAM:PARTITION:OFFSET as `headrace dead-letters list` shows it",
            )
        return Address(stream, lane or "main", int(partition), int(offset))

    @staticmethod
    def of(letter: Mapping[str, Any]) -> Address:
        """Return the address of a dead letter."""
        return Address(letter["stream"], letter["lane"], letter["partition"], letter["offset"])


@dataclass(frozen=True)
class Redriven:
    """A record on its way back. `stands_for` is the address in the main lane, as the header says it."""

    address: Address
    stands_for: str
    outcome: str
    record_time: datetime
    key: bytes | None
    before: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class _HoldsLetters(Protocol):
    def dead_letters(
        self, *, limit: int = 100, addresses: Sequence[tuple[str, str, int, int]] | None = None
    ) -> pa.Table:
        """Return records that were set aside; with `addresses`, of those only."""


class _AsksLetters(Protocol):
    def dead_letters(
        self,
        *,
        limit: int = 100,
        addresses: Sequence[tuple[str, str, int, int]] | None = None,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return records that were set aside, or these columns of them."""

    def query(self, sql: str, *, rows_max: int) -> pa.Table:
        """Return the rows of one reading query."""


def find_letters(client: _HoldsLetters, addresses: Sequence[Address]) -> list[dict[str, Any]]:
    """Return dead letters by address. Raises RefusedError when an address has no dead letter."""
    wanted = [(each.stream, each.lane, each.partition, each.offset) for each in dict.fromkeys(addresses)]
    found = client.dead_letters(addresses=wanted, limit=len(wanted)).to_pylist()
    letters = {Address.of(letter): letter for letter in found}
    missing = [str(address) for address in addresses if address not in letters]
    if missing:
        raise RefusedError(
            "there is no dead letter " + ", ".join(missing),
            fix="see which there are: headrace dead-letters list",
        )
    return [letters[address] for address in addresses]


@dataclass(frozen=True)
class Since:
    """What became of a dead letter's record since: `accepted`, or set aside again as the letter `again`."""

    accepted: bool
    again: Address | None = None


def since(client: _AsksLetters, letter: Mapping[str, Any]) -> Since:
    """Return what became of the record of a dead letter that may have been given back."""
    from headrace.store.names import text_literal
    from headrace.store.reading import LETTER_RECORD

    place = Address.of(letter)
    found = client.dead_letters(addresses=[astuple(place)], limit=1, columns=["accepted"])
    if found.num_rows and found.column("accepted")[0].as_py():
        return Since(accepted=True)
    (record,) = prepare([letter])
    later = client.query(
        'SELECT stream, lane, "partition", "offset" FROM dead_letters '
        f"WHERE stream = {text_literal(place.stream)} AND lane = '{LANE}' "
        f"AND ({LETTER_RECORD}) = {text_literal(record.stands_for)} "
        'ORDER BY epoch DESC, "partition" DESC, "offset" DESC',
        rows_max=1,
    ).to_pylist()
    last = Address.of(later[0]) if later else place
    return Since(accepted=False, again=None if last == place else last)


def prepare(letters: Iterable[Mapping[str, Any]], change: Change | None = None) -> list[Redriven]:
    """Return what would be appended, a record once; `change` makes the new bytes of it from its old ones.

    Raises RefusedError when a record cannot be changed so.
    """
    prepared: dict[tuple[str, str], Redriven] = {}
    for letter in letters:
        address = Address.of(letter)
        headers = [(header["key"], header["value"]) for header in letter["headers"] or ()]
        given = [value.decode() for key, value in headers if key == ADDRESS_HEADER and address.lane == LANE]
        value = letter["value"]
        if change is not None:
            try:
                value = change(b"" if value is None else value)
            except RefusedError as error:
                raise RefusedError(f"{address}: {error.message}", fix=error.fix) from None
        # A letter that failed in the redrive lane still stands for the record it was made from.
        stands_for = given[0] if given else f"{address.partition}:{address.offset}"
        before = prepared.get((address.stream, stands_for))
        if before is not None and before.address > address:
            continue  # of several tries of a record, the last
        prepared[address.stream, stands_for] = Redriven(
            address=address,
            stands_for=stands_for,
            outcome=letter["outcome"],
            record_time=letter["record_time"],
            key=letter["key"],
            before=letter["value"],
            value=value,
            headers=tuple((key, value) for key, value in headers if key != ADDRESS_HEADER),
        )
    return list(prepared.values())


def append_redriven(records: Sequence[Redriven], open_log: Callable[[str], Log]) -> int:
    """Append to the redrive lanes; durable when this returns. Returns how many records were appended."""
    import pyarrow as pa

    from headrace.log import APPEND_SCHEMA

    for stream in sorted({record.address.stream for record in records}):
        chosen = [record for record in records if record.address.stream == stream]
        rows = [
            {
                "partition": None,
                # The record keeps its time: it is what reference tables and record-time windows go by.
                "record_time": record.record_time,
                "key": record.key,
                "value": record.value,
                "headers": [
                    {"key": key, "value": value}
                    for key, value in (*record.headers, (ADDRESS_HEADER, record.stands_for.encode()))
                ],
            }
            for record in chosen
        ]
        log = open_log(stream)
        try:
            log.lane(LANE).append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
        finally:
            log.close()
    return len(records)


def replace_bytes(content: bytes) -> Change:
    """Return a change that puts `content`, less one line break at its end, in the place of the record."""
    corrected = content.removesuffix(b"\n").removesuffix(b"\r")
    return lambda _: corrected


def replace_exactly(content: bytes | None) -> Change:
    """Return a change that puts `content` in the place of the record; None makes it a tombstone."""
    return lambda _: content


def set_fields(assignments: Iterable[str]) -> Change:
    """Return a change that sets fields of a JSON record: `amount=12.5`, `device=mobile`, `shop.city=null`.

    A value that is JSON is taken as such, everything else as text. Raises RefusedError for an assignment
    without `=`; the change raises it for a record that is not a JSON object.
    """
    fields = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise RefusedError(f"'{assignment}' sets nothing", fix="write --set field=value")
        fields.append((name.split("."), _json_or_text(text)))

    def change(value: bytes) -> bytes:
        try:
            # Decimal digits pass through as they were written, not as the nearest double.
            record = load_exact(value)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise RefusedError(
                "the record is not a JSON object, so no field of it can be set",
                fix="give the whole corrected record: --with FILE",
            )
        for path, new in fields:
            _set(record, path, new)
        try:
            return dump_exact(record).encode("utf-8", "surrogatepass")
        except RecursionError:
            raise _too_deep() from None

    return change


def _set(record: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = record.get(name)
        if not isinstance(inner, dict):
            inner = record[name] = {}
        record = inner
    record[path[-1]] = value


def _json_or_text(text: str) -> Any:
    try:
        return load_exact(text)
    except ValueError:
        return text
    except RecursionError:
        raise _too_deep() from None


def _too_deep() -> RefusedError:
    return RefusedError("the record would be nested too deeply", fix="set values with fewer brackets")
