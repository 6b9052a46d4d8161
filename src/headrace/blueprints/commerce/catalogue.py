"""What the shop sells and how visitors walk through it: tables of finished text for the generator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.produce.kernels import binary_of, constant_rows, digit_rows, join, string_table, write_hex

__all__ = ["DEVICES", "LOCATIONS", "Catalogue", "Kind", "Walks", "walks"]

DEVICES = ("mobile", "desktop", "tablet")
LOCATIONS = ("US", "DE", "GB", "FR", "IN", "BR", "JP", "CA", "ES", "NL", "IT", "PL", "SE", "AU", "MX", "KR")
_CATEGORIES = ("electronics", "clothing", "home", "books", "sports", "beauty", "toys", "garden")
_PAGES = ("/", "/deals", "/new", "/category", "/account")
_QUERIES = (
    "shoes",
    "phone case",
    "coffee",
    "lamp",
    "jacket",
    "headphones",
    "gift",
    "yoga mat",
    "desk",
    "novel",
)
_METHODS = ("password", "passkey", "google", "apple")
_PAYMENTS = ("card", "paypal", "invoice", "apple_pay", "gift_card")
_REVIEWS = ("As described.", "Would buy again.", "Took a week to arrive.", "Broke after two days.")
_QUANTITIES = 5
_PRODUCT_PAGE = len(_PAGES)  # `detail` of a page view from here on: the slot of the product looked at


class Kind(IntEnum):
    """The types of events."""

    USER_LOGIN = 0
    PAGE_VIEW = 1
    ITEM_CLICK = 2
    CART_ADD = 3
    PURCHASE = 4
    SEARCH = 5
    PRODUCT_REVIEW = 6

    @property
    def text(self) -> str:
        """The name in the record."""
        return self.name.lower()


@dataclass(frozen=True)
class Walks:
    """Ways through the shop, one after the other: steps `start[n]` to `start[n] + length[n]` are the n-th."""

    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    detail: npt.NDArray[np.int8]


def walks(seed: int, count: int, slots: int) -> Walks:
    """Draw `count` ways through the shop. About one session in fifteen buys."""
    random = Random(seed)  # noqa: S311 - a pattern, not a secret
    drawn = [_walk(random, slots) for _ in range(count)]
    length = np.array([len(walk) for walk in drawn], np.int64)
    steps = np.array([step for walk in drawn for step in walk], np.int8)
    return Walks(np.cumsum(length) - length, length, steps[:, 0].copy(), steps[:, 1].copy())


def _walk(random: Random, slots: int) -> list[tuple[int, int]]:
    steps: list[tuple[int, int]] = []
    if random.random() < 0.5:
        steps.append((Kind.USER_LOGIN, 0))
    steps.append((Kind.PAGE_VIEW, random.randrange(_PRODUCT_PAGE)))
    carried = 0
    for slot in range(slots):
        if random.random() < 0.25:
            steps.append((Kind.SEARCH, 0))
        elif random.random() < 0.4:
            steps.append((Kind.PAGE_VIEW, random.randrange(_PRODUCT_PAGE)))
        if random.random() < 0.6:
            steps.append((Kind.ITEM_CLICK, slot))
            steps.append((Kind.PAGE_VIEW, _PRODUCT_PAGE + slot))
            if random.random() < 0.16:
                steps.append((Kind.CART_ADD, slot))
                carried |= 1 << slot
        if random.random() < 0.4:
            break
    if carried and random.random() < 0.45:
        steps.append((Kind.PURCHASE, carried))
    return steps


class Catalogue:
    """Products with their prices, and the ends of all records that can be written down beforehand."""

    def __init__(self, seed: int, products: int) -> None:
        random = np.random.default_rng([seed, 1])
        self.cents = (np.exp(random.normal(3.3, 0.9, products)) * 100).astype(np.int64).clip(99, 199_999)
        category = [_CATEGORIES[at] for at in random.integers(0, len(_CATEGORIES), products)]
        width = max(3, len(str(products - 1)))
        price = [f"{cents // 100}.{cents % 100:02d}" for cents in self.cents.tolist()]
        names = [f'"product_id":"prod_{number:0{width}d}"' for number in range(products)]
        self._products = products
        texts: list[str] = []
        self._at: dict[Kind, int] = {}

        def add(kind: Kind, lines: list[str]) -> None:
            self._at[kind] = len(texts)
            texts.extend(lines)

        add(Kind.USER_LOGIN, [
            f',"method":"{method}","success":{success}}}'
            for success in ("true", "false") for method in _METHODS
        ])  # fmt: skip
        add(
            Kind.PAGE_VIEW,
            [f',"page":"{page}"}}' for page in _PAGES] + [f',"page":"/product",{name}}}' for name in names],
        )
        items = [f'{n},"category":"{c}","price":{p}' for n, c, p in zip(names, category, price, strict=True)]
        add(Kind.ITEM_CLICK, [f",{item}}}" for item in items])
        add(Kind.CART_ADD, [
            f',{item},"quantity":{quantity + 1}}}' for item in items for quantity in range(_QUANTITIES)
        ])  # fmt: skip
        add(Kind.SEARCH, [
            f',"query":"{query}","results":{results}}}'
            for query in _QUERIES for results in random.integers(0, 200, 10).tolist()
        ])  # fmt: skip
        self._searches = len(texts) - self._at[Kind.SEARCH]
        add(Kind.PRODUCT_REVIEW, [
            f',{name},"rating":{rating},"text":"{text}"}}'
            for name in names for rating in range(1, 6) for text in _REVIEWS
        ])  # fmt: skip
        self._tails = string_table(texts)
        self._items = string_table([
            f'{{{n},"quantity":{quantity + 1},"price":{p}}}'
            for n, p in zip(names, price, strict=True) for quantity in range(_QUANTITIES)
        ])  # fmt: skip
        self._payments = string_table([f',"payment_method":"{payment}"}}' for payment in _PAYMENTS])

    def tails(
        self, visits: npt.NDArray[Any], random: np.random.Generator
    ) -> tuple[pa.Array, npt.NDArray[np.int64]]:
        """Return the end of every record, and the cents of every purchase (-1 for other types)."""
        kind, count = visits["kind"], len(visits)
        detail = visits["detail"].astype(np.int64)
        chance = random.random(count)
        shows_product = kind != Kind.PAGE_VIEW
        slot = np.where(shows_product, detail, detail - _PRODUCT_PAGE).clip(
            0, visits["products"].shape[1] - 1
        )
        every = np.arange(count)
        product = visits["products"][every, slot].astype(np.int64)
        quantity = visits["quantities"][every, slot]
        logins = len(_METHODS)
        within = np.select(
            [kind == Kind.USER_LOGIN, kind == Kind.PAGE_VIEW, kind == Kind.ITEM_CLICK, kind == Kind.CART_ADD,
             kind == Kind.SEARCH, kind == Kind.PRODUCT_REVIEW],
            [(chance < 0.04) * logins + (chance * 1e6).astype(np.int64) % logins,
             np.where(detail < _PRODUCT_PAGE, detail, _PRODUCT_PAGE + product), product,
             product * _QUANTITIES + quantity, (chance * self._searches).astype(np.int64),
             product * 5 * len(_REVIEWS) + (np.sqrt(chance) * 5 * len(_REVIEWS)).astype(np.int64)],
            0,
        )  # fmt: skip
        first = np.array([self._at.get(one, 0) for one in Kind], np.int64)
        index = first[kind] + within
        bought = np.flatnonzero(kind == Kind.PURCHASE)
        cents = np.full(count, -1, np.int64)
        if len(bought) == 0:
            return self._tails.take(pa.array(index)), cents
        purchases, cents[bought] = self._purchases(visits[bought], random)
        index[bought] = len(self._tails) + np.arange(len(bought))
        return pa.concat_arrays([self._tails, purchases]).take(pa.array(index)), cents

    def _purchases(
        self, visits: npt.NDArray[Any], random: np.random.Generator
    ) -> tuple[pa.Array, npt.NDArray[np.int64]]:
        """Return the ends of purchases: the carried products, and a total that is exactly their sum."""
        count, slots = visits["products"].shape
        carried = (visits["detail"][:, None] >> np.arange(slots)) & 1 == 1
        products = visits["products"].astype(np.int64)
        quantities = visits["quantities"].astype(np.int64)
        cents = np.where(carried, self.cents[products] * (quantities + 1), 0).sum(axis=1)
        pieces = [
            self._items.take(
                pa.array(products[:, slot] * _QUANTITIES + quantities[:, slot], mask=~carried[:, slot])
            )
            for slot in range(slots)
        ]
        items = join(*pieces, separator=",", skip_nulls=True)
        order = constant_rows(count, ',"order_id":"ord_00000000","items":[')
        write_hex(order, len(',"order_id":"ord_'), _bits(random, count))
        whole = pa.array(cents // 100).cast(pa.string()).cast(pa.binary())
        fraction = binary_of(digit_rows(cents % 100, 2))
        payment = self._payments.take(pa.array(random.integers(0, len(_PAYMENTS), count)))
        tails = join(binary_of(order), items, b'],"total_amount":', whole, b".", fraction, payment)
        return tails, cents


def _bits(random: np.random.Generator, count: int) -> npt.NDArray[np.uint32]:
    return random.integers(0, 2**32, size=count, dtype=np.uint32)
