"""An online shop's visitors: the events of stream `events`, deterministic from a seed.

Visitors come in sessions that walk a funnel (login, view, click, cart, purchase). The walk is drawn in blocks
of 16,384 events: a block holds finished text but for the time, so that one more event costs little at 14 a
second and a million of them are a few operations on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.blueprints.commerce.catalogue import DEVICES, LOCATIONS, Catalogue, Kind, walks
from headrace.errors import ProfileError
from headrace.produce.blocks import (
    PEOPLE_MAX,
    Block,
    BlockRecords,
    draw_copies,
    draw_delays,
    require_disorder,
    require_shares,
)
from headrace.produce.kernels import (
    binary_of,
    constant_rows,
    digit_rows,
    join,
    power_law,
    string_table,
    write_hex,
    write_uuid,
)

__all__ = ["CommerceGenerator", "Figures"]

_BLOCK = 16_384
_STEP_S = 20.0  # mean time between two events of one session
_STEP_EVENTS_MAX = float(_BLOCK)  # above 800 events/s sessions get shorter instead of filling the memory
_WALKS = 4096
_SLOTS = 4  # products that one session looks at, at most
_QUANTITY_SHARES = np.cumsum([0.72, 0.18, 0.06, 0.03, 0.01])
_DEVICE_SHARES = np.cumsum([0.58, 0.34, 0.08])
_ZONELESS_SHARE = 0.1  # devices that send local text without a zone: it is read as UTC
_LATENESS = timedelta(minutes=5)
_TOLERANCE = timedelta(minutes=1)
_OVERDUE = timedelta(minutes=4)  # by so much late records miss the lateness, in the mean

_VISIT = np.dtype(
    [
        ("at", "f8"),  # place in the order of events
        ("session", "u4"),
        ("user", "i4"),
        ("kind", "i1"),
        ("detail", "i1"),  # page of a page view, slot of a product, carried slots of a purchase as bits
        ("device", "i1"),
        ("zoneless", "i1"),
        ("place", "i1"),
        ("products", "i2", _SLOTS),
        ("quantities", "i1", _SLOTS),
    ]
)


@dataclass(frozen=True)
class Figures:
    """What was made so far, without copies and malformed records. Money is in cents: sums are exact."""

    events: int
    purchases: int
    revenue_cents: int
    events_by_device: Mapping[str, int]
    events_by_location: Mapping[str, int]

    @property
    def average_purchase(self) -> float:
        """The mean total of a purchase; 0 before the first."""
        return self.revenue_cents / self.purchases / 100 if self.purchases else 0.0

    @property
    def most_popular_device(self) -> str:
        """The device of the most events; empty before the first event."""
        busiest = max(self.events_by_device, key=lambda device: self.events_by_device[device])
        return busiest if self.events_by_device[busiest] else ""


@dataclass(eq=False)
class CommerceGenerator:
    """Makes the shop's events. Shares are of all records; what is not set aside by one of them is accepted.

    disorder          longest delay of an ordinary record between event time and arrival
    late_share        records that arrive after their allowed lateness
    duplicate_share   true copies of a recent record; `conflict_share`: same id and time, other content
    malformed_share   records that no reader can use, of several kinds
    future_share      records whose event time lies beyond the tolerance
    review_share      events of the type `product_review`, which the lesson adds
    user_skew, product_skew   exponents of Zipf's law; 0: all equally popular
    """

    seed: int = 0
    users: int = 10_000
    products: int = 500
    disorder: timedelta = timedelta(seconds=2)
    late_share: float = 0.004
    duplicate_share: float = 0.004
    conflict_share: float = 0.0002
    malformed_share: float = 0.002
    future_share: float = 0.0002
    review_share: float = 0.0
    user_skew: float = 0.5
    product_skew: float = 0.9
    stream: str = "events"

    incidents: ClassVar[Mapping[str, str]] = {}
    rate_default: ClassVar[float] = 14.0

    def __post_init__(self) -> None:
        self._check()
        self._random = np.random.default_rng(self.seed)
        self._catalogue = Catalogue(self.seed, self.products)
        self._walks = walks(self.seed, _WALKS, _SLOTS)
        self._user_shares = power_law(self.users, self.user_skew)
        self._product_shares = power_law(self.products, self.product_skew)
        # Which user is popular must not follow from the number, or "user_0000" would lead every list.
        self._user_of_rank = self._random.permutation(self.users).astype(np.int32)
        self._user_width = max(4, len(str(self.users - 1)))
        self._user_rows = digit_rows(np.arange(self.users, dtype=np.int64), self._user_width)
        self._user_keys = join(b"user_", binary_of(self._user_rows))
        weights = self._random.random(self.users)
        self._place_of_user = np.searchsorted(power_law(len(LOCATIONS), 0.8), weights).astype(np.int8)
        self._heads = string_table([f'{{"event_type":"{kind.text}","event_id":"' for kind in Kind])
        self._middles = string_table([f'{z}","device":"{d}"' for z in ("Z", "") for d in DEVICES])
        self._pending = np.empty(0, _VISIT)
        self._blocks_made = 0
        self._records = BlockRecords(self._next_block, self._count, _DEFECTS, _conflicting)
        self._devices = np.zeros(len(DEVICES), np.int64)
        self._places = np.zeros(len(LOCATIONS), np.int64)
        self._purchases = self._revenue_cents = 0

    def _check(self) -> None:
        names = ("late", "duplicate", "conflict", "malformed", "future")
        require_shares("commerce", {f"{name}_share": getattr(self, f"{name}_share") for name in names})
        require_shares("commerce", {"review_share": self.review_share})
        require_disorder(self.disorder, _LATENESS)
        if not 1 <= self.users <= PEOPLE_MAX or not 1 <= self.products <= 10_000:
            raise ProfileError(
                f"{self.users} users and {self.products} products",
                fix=f"give from 1 to {PEOPLE_MAX:,} users and from 1 to 10,000 products",
            )

    @property
    def figures(self) -> Figures:
        """What was made so far."""
        return Figures(
            int(self._devices.sum()),
            self._purchases,
            self._revenue_cents,
            dict(zip(DEVICES, self._devices.tolist(), strict=True)),
            dict(zip(LOCATIONS, self._places.tolist(), strict=True)),
        )

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The figures in words."""
        figures = self.figures
        if not figures.events:
            return ()
        places = sorted(figures.events_by_location.items(), key=lambda place: -place[1])
        return (
            ("average purchase", f"{figures.average_purchase:.2f} over {figures.purchases:,} purchases"),
            ("most popular device", figures.most_popular_device),
            ("events per location", ", ".join(f"{name} {events:,}" for name, events in places if events)),
        )

    def activity(self, at: datetime) -> float:
        """Busiest in the evening, quietest at 04:00 UTC with a fifth of that; the mean over a day is 1."""
        hour = at.hour + at.minute / 60
        day = np.cos((hour - 18) / 24 * 2 * np.pi)
        evening = np.cos((hour - 20) / 12 * 2 * np.pi)
        return float(1 + 0.65 * day + 0.15 * evening)

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        """Return the next `count` records; see `headrace.produce.generator.Generator`."""
        return self._records.batch(start, count, rate=rate)

    def _count(self, good: Mapping[str, npt.NDArray[Any]]) -> None:
        self._devices += np.bincount(good["device"], minlength=len(DEVICES))
        self._places += np.bincount(good["place"], minlength=len(LOCATIONS))
        bought = good["cents"][good["cents"] >= 0]
        self._purchases += len(bought)
        self._revenue_cents += int(bought.sum())

    def _next_block(self, rate: float) -> Block:
        """Draw the next block: first who does what, then what becomes of the records."""
        visits = self._visits(min(rate * _STEP_S, _STEP_EVENTS_MAX))
        count, random = len(visits), self._random
        if self.review_share:
            reviews = random.random(count) < self.review_share
            visits["kind"][reviews] = Kind.PRODUCT_REVIEW
            visits["detail"][reviews] %= _SLOTS
        tails, cents = self._catalogue.tails(visits, random)
        middle = self._middles.take(
            pa.array(visits["device"] + len(DEVICES) * (visits["zoneless"] != 0), pa.int8())
        )
        fate = np.searchsorted(np.cumsum(self._fates()), random.random(count), side="right")
        delay = draw_delays(
            random,
            fate == 0,
            fate == 1,
            disorder=self.disorder,
            lateness=_LATENESS,
            tolerance=_TOLERANCE,
            overdue=_OVERDUE,
        )
        distance = draw_copies(random, count)
        copy = np.where(fate == 2, distance, np.where(fate == 3, -distance, 0)).astype(np.int32)
        defect = np.where(fate == 4, random.integers(1, len(_DEFECTS) + 1, count), 0).astype(np.int8)
        user = pa.array(visits["user"])
        return Block(
            left=join(self._heads.take(pa.array(visits["kind"])), self._fixed(visits)),
            right=join(middle, tails),
            key=self._user_keys.take(user),
            delay_ms=delay,
            defect=defect,
            copy=copy,
            # A block outlives its visits, which are much larger.
            counted={"device": visits["device"].copy(), "place": visits["place"].copy(), "cents": cents},
        )

    def _fates(self) -> tuple[float, ...]:
        return (
            self.late_share,
            self.future_share,
            self.duplicate_share,
            self.conflict_share,
            self.malformed_share,
        )

    def _visits(self, step: float) -> npt.NDArray[Any]:
        """Return the next block's events in order; `step` is the mean distance of two events of a session.

        Sessions begin evenly all over the block. What lies beyond its end waits for the next one, so that no
        border shows in the data.
        """
        random, walk = self._random, self._walks
        border = float(_BLOCK * (self._blocks_made + 1))
        sessions = round(_BLOCK / float(walk.length.mean()))
        chosen = random.integers(0, len(walk.length), sessions)
        length = walk.length[chosen]
        row = np.repeat(np.arange(sessions), length)
        first = np.cumsum(length) - length
        at = walk.start[chosen][row] + np.arange(len(row)) - first[row]
        gaps = random.exponential(step, len(row))
        walked = np.cumsum(gaps)
        begin = border - _BLOCK * random.random(sessions)
        user = self._user_of_rank[np.searchsorted(self._user_shares, random.random(sessions))]
        visits = np.empty(len(row), _VISIT)
        visits["at"] = begin[row] + walked - walked[first][row]
        visits["session"] = random.integers(0, 2**32, sessions, dtype=np.uint32)[row]
        visits["user"] = user[row]
        visits["kind"] = walk.kind[at]
        visits["detail"] = walk.detail[at]
        visits["device"] = np.searchsorted(_DEVICE_SHARES, random.random(sessions)).clip(max=2)[row]
        visits["zoneless"] = (random.random(sessions) < _ZONELESS_SHARE)[row]
        visits["place"] = self._place_of_user[user][row]
        products = np.searchsorted(self._product_shares, random.random((sessions, _SLOTS)))
        visits["products"] = products[row]
        quantities = np.searchsorted(_QUANTITY_SHARES, random.random((sessions, _SLOTS))).clip(max=4)
        visits["quantities"] = quantities[row]
        visits = np.concatenate([self._pending, visits])
        ready = visits["at"] < border
        self._pending = visits[~ready]
        visits = visits[ready]
        self._blocks_made += 1
        ordered: npt.NDArray[Any] = visits[np.argsort(visits["at"], kind="stable")]
        return ordered

    def _fixed(self, visits: npt.NDArray[Any]) -> pa.Array:
        """Return the part of the record that is equally wide for all: ids and place, up to the time."""
        width = self._user_width
        ids = f'{"0" * 36}","user_id":"user_{"0" * width}","session_id":"{"0" * 8}"'
        text = f'{ids},"location":"XX","timestamp":"'
        rows = constant_rows(len(visits), text)
        write_uuid(rows, 0, self._random.integers(0, 2**64, (len(visits), 2), dtype=np.uint64))
        at = text.index("user_0") + len("user_")
        rows[:, at : at + width] = self._user_rows[visits["user"]]
        write_hex(rows, text.index("session_id") + len('session_id":"'), visits["session"].copy())
        at = text.index("XX")
        rows[:, at : at + 2] = _LOCATION_ROWS[visits["place"]]
        return binary_of(rows)


_LOCATION_ROWS = np.frombuffer("".join(LOCATIONS).encode(), np.uint8).reshape(-1, 2)


def _conflicting(record: bytes) -> bytes:
    """Return `record` with the same id and time, but other content."""
    return record[:-1] + b',"resent":true}' if record.endswith(b"}") else record + b" "


_DEFECTS = (
    lambda record: record[: len(record) * 2 // 3],  # a writer that died
    lambda record: b"" if record.startswith(b" ") else b"GET /health HTTP/1.1",  # not ours at all
    lambda record: record.replace(b'"event_id"', b'"eventId"', 1),  # a column that must not be missing
    lambda record: record.replace(b'"timestamp":"20', b'"timestamp":"not a time 20', 1),
    lambda record: record.replace(b'"user_id":"user_', b'"user_id":4200', 1).replace(
        b'","session', b',"session', 1
    ),
    lambda record: record.replace(b'"device":"', b'"device":"\xff\xfe', 1),  # not UTF-8
    lambda record: record.replace(b"{", b'{"price":NaN,', 1),
)
