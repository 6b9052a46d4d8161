"""What customers of a shop do: records of `events`, deterministic from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.blueprints.customers import vocabulary as words
from headrace.errors import ProfileError
from headrace.produce.blocks import (
    PEOPLE_MAX,
    Block,
    BlockRecords,
    draw_copies,
    draw_delays,
    require_disorder,
    require_incident,
    require_shares,
)
from headrace.produce.kernels import (
    binary_of,
    constant_rows,
    decimal_digits,
    digit_rows,
    join,
    power_law,
    string_table,
)

__all__ = ["CustomersGenerator"]

_BLOCK = 8_192
_LATENESS = timedelta(minutes=5)
_TOLERANCE = timedelta(minutes=1)
_OVERDUE = timedelta(minutes=2)  # by so much late records miss the lateness, in the mean
_INCIDENT_SHARE = 0.3
_QUANTITY_SHARES = np.cumsum([0.7, 0.2, 0.06, 0.03, 0.01])
_DAY_DEPTH = 0.5

Numbers = npt.NDArray[np.int64]


@dataclass(eq=False)
class CustomersGenerator:
    """Makes what customers do. Shares are of all records.

    disorder          longest delay of an ordinary record between event time and arrival
    late_share        records that arrive after their allowed lateness
    duplicate_share   true copies of a recent record
    rejected_share    records that break a rule of data quality, each of the rules in turn
    malformed_share   records that no reader can use, of several kinds
    future_share      records whose event time lies beyond the tolerance
    incident          what goes wrong for as long as this generator runs, one of `incidents`; empty: nothing
    """

    seed: int = 0
    customers: int = 1_000
    disorder: timedelta = timedelta(seconds=2)
    late_share: float = 0.004
    duplicate_share: float = 0.004
    rejected_share: float = 0.01
    malformed_share: float = 0.002
    future_share: float = 0.0005
    incident: str = ""
    stream: str = "events"

    incidents: ClassVar[Mapping[str, str]] = {
        "quality": "a checkout was changed: a third of the records breaks a rule",
        "malformed": "a writer is broken: a third of the records cannot be read",
        "late": "a mobile network is slow: a third of the records comes too late",
    }
    """What can be made to go wrong on command, and what is then seen."""

    rate_default: ClassVar[float] = 20.0

    def __post_init__(self) -> None:
        self._check()
        self._random = random = np.random.default_rng(self.seed)
        width = max(3, len(str(self.customers)))
        numbers = np.arange(1, self.customers + 1, dtype=np.int64)
        self._customer_keys = join(b"cust_", binary_of(digit_rows(numbers, width)))
        self._customer_shares = power_law(self.customers, 0.6)
        # Which one is popular must not follow from the number, or "cust_001" would lead every list.
        self._customer_of_rank = random.permutation(self.customers)
        self._city_of_customer = np.searchsorted(
            power_law(len(words.CITIES), 0.7), random.random(self.customers)
        )
        goods = words.products()
        self._product_shares = power_law(len(goods), 0.8)
        self._product_of_rank = random.permutation(len(goods))
        self._cents = np.array([one.cents for one in goods], np.int64)
        self._goods = string_table(
            [f'","product_category":"{one.category}","product_id":"{one.identity}"' for one in goods]
        )
        self._records = BlockRecords(self._next_block, self._count, _DEFECTS)
        self._made = np.zeros(len(words.EVENT_TYPES), np.int64)

    def _check(self) -> None:
        require_shares("customers", {name: getattr(self, name) for name in _SHARES})
        require_disorder(self.disorder, _LATENESS)
        require_incident("customers", self.incident, self.incidents)
        if not 1 <= self.customers <= PEOPLE_MAX:
            raise ProfileError(f"{self.customers} customers", fix=f"give from 1 to {PEOPLE_MAX:,}")

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What was made so far, in words; copies and broken records are named by themselves."""
        kinds = zip(words.EVENT_TYPES, self._made.tolist(), strict=True)
        named = (
            ("records", ", ".join(f"{kind} {count:,}" for kind, count in kinds)),
            ("on purpose", f"{self._records.broken:,} broken, {self._records.copied:,} copies"),
        )
        if not self.incident:
            return named
        return (*named, ("incident", f"{self.incident}: {self.incidents[self.incident]}"))

    def activity(self, at: datetime) -> float:
        """Busiest at 19:00 UTC, half as busy as the mean in the morning; the mean over a day is 1."""
        hour = at.hour + at.minute / 60
        return float(1 + _DAY_DEPTH * np.cos((hour - 19) / 24 * 2 * np.pi))

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        """Return the next `count` records; see `headrace.produce.generator.Generator`."""
        return self._records.batch(start, count, rate=rate)

    def _count(self, good: Mapping[str, npt.NDArray[Any]]) -> None:
        self._made += np.bincount(good["kind"], minlength=len(words.EVENT_TYPES))

    def _next_block(self, rate: float) -> Block:
        """Draw the next block: first who does what, then what becomes of the records."""
        random = self._random
        rank = np.searchsorted(self._customer_shares, random.random(_BLOCK))
        customer = self._customer_of_rank[rank]
        kind = np.searchsorted(words.EVENT_SHARES, random.random(_BLOCK)).clip(max=5).astype(np.int8)
        product = self._product_of_rank[np.searchsorted(self._product_shares, random.random(_BLOCK))]
        quantity = np.searchsorted(_QUANTITY_SHARES, random.random(_BLOCK)).clip(max=4) + 1
        # Who looks or asks has no amount, and is one.
        idle = (kind == _VIEW) | (kind == _SUPPORT)
        quantity[idle] = 1
        cents = self._cents[product] * quantity
        price = join(decimal_digits(cents // 100), b".", binary_of(digit_rows(cents % 100, 2)))
        amount = pc.if_else(pa.array(idle), pa.scalar(b"null"), price)
        city = self._city_of_customer[customer]
        moved = random.random(_BLOCK) < 0.1
        city = np.where(moved, random.integers(0, len(words.CITIES), _BLOCK), city)
        right = join(
            b'Z","customer_id":"', self._customer_keys.take(pa.array(customer)),
            b'","event_type":"', _TYPES.take(pa.array(kind)), self._goods.take(pa.array(product)),
            b',"amount":', amount, b',"quantity":', decimal_digits(quantity),
            b',"location":"', _CITIES.take(pa.array(city)), b'"}',
        )  # fmt: skip
        delay, defect, copy = self._fate()
        return Block(
            left=binary_of(constant_rows(_BLOCK, '{"timestamp":"')),
            right=right,
            key=self._customer_keys.take(pa.array(customer)),
            delay_ms=delay,
            defect=defect,
            copy=copy,
            counted={"kind": kind},
        )

    def _fate(self) -> tuple[Numbers, npt.NDArray[np.int8], npt.NDArray[np.int32]]:
        """Draw the delay of each record in milliseconds, what is wrong with it, and of which it is a copy."""
        random = self._random
        fate = np.searchsorted(np.cumsum(self._fates()), random.random(_BLOCK), side="right")
        delay = draw_delays(
            random,
            fate == 0,
            fate == 1,
            disorder=self.disorder,
            lateness=_LATENESS,
            tolerance=_TOLERANCE,
            overdue=_OVERDUE,
        )
        rules, spoilt = len(_OF_RULES), len(_DEFECTS) - len(_OF_RULES)
        defect = np.where(fate == 3, random.integers(1, rules + 1, _BLOCK), 0)
        defect = np.where(fate == 4, random.integers(rules + 1, rules + spoilt + 1, _BLOCK), defect)
        copy = np.where(fate == 2, draw_copies(random, _BLOCK), 0)
        return delay, defect.astype(np.int8), copy.astype(np.int32)

    def _fates(self) -> list[float]:
        shares = [getattr(self, name) for name in _SHARES]
        worse = {"late": 0, "quality": 3, "malformed": 4}.get(self.incident)
        if worse is not None:
            rest = 1 - sum(shares) + shares[worse]
            shares[worse] = min(max(shares[worse], _INCIDENT_SHARE), rest)
        return shares


_SHARES = ("late_share", "future_share", "duplicate_share", "rejected_share", "malformed_share")
"""In the order in which `_fate` draws them."""
_TYPES = string_table(words.EVENT_TYPES)
_CITIES = string_table(words.CITIES)
_VIEW = words.EVENT_TYPES.index("view")
_SUPPORT = words.EVENT_TYPES.index("support_contact")


def _with(record: bytes, name: bytes, value: bytes) -> bytes:
    """Return `record` with another value of a field, which is there."""
    head, _, tail = record.partition(b'"' + name + b'":')
    _, comma, rest = tail.partition(b",")
    return head + b'"' + name + b'":' + value + comma + rest


_OF_RULES = (
    lambda record: _with(record, b"customer_id", b'""'),
    lambda record: _with(record, b"product_id", b"null"),
    lambda record: _with(record, b"product_category", b'""'),
    lambda record: _with(record, b"event_type", b'"teleport"'),
    lambda record: _with(_with(record, b"event_type", b'"purchase"'), b"amount", b"null"),
    lambda record: _with(record, b"amount", b"-5.00"),
    lambda record: _with(record, b"quantity", b"0"),
)
"""One for each rule that the pipeline rejects by."""
_DEFECTS = (
    *_OF_RULES,
    lambda record: record[: len(record) * 2 // 3],  # a writer that died
    lambda record: b"GET /health HTTP/1.1",  # not ours at all
    lambda record: record.replace(b'"timestamp":"20', b'"timestamp":"not a time 20', 1),
    lambda record: _with(record, b"quantity", b'"two"'),
    lambda record: record.replace(b'"location":"', b'"location":"\xff\xfe', 1),  # not UTF-8
)
