"""What services, visitors and payments of a company say: records of `events`, deterministic from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.blueprints.operations import vocabulary as words
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
    write_hex,
    write_uuid,
)

__all__ = ["OperationsGenerator"]

_BLOCK = 8_192
_LATENESS = timedelta(minutes=1)
_TOLERANCE = timedelta(minutes=1)
_OVERDUE = timedelta(minutes=1)  # by so much late records miss the lateness, in the mean
_SLOW_SHARE = 0.7  # of the calls of a service that has become slow
_SLOW_LEAST_MS = 5_500.0
_BAD_ACCOUNTS = 3  # that try again and again while payments fail
_BAD_ACCOUNT_SHARE = 0.3
_MALFORMED_SHARE = 0.3
_DAY_DEPTH = 0.5

Draw = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(eq=False)
class OperationsGenerator:
    """Makes log lines, clicks and transactions. Shares are of all records.

    disorder          longest delay of an ordinary record between event time and arrival
    late_share        records that arrive after their allowed lateness
    duplicate_share   true copies of a recent record
    malformed_share   records that no reader can use, of several kinds
    future_share      records whose event time lies beyond the tolerance
    incident          what goes wrong for as long as this generator runs, one of `incidents`; empty: nothing
    """

    seed: int = 0
    users: int = 2_000
    accounts: int = 1_000
    disorder: timedelta = timedelta(seconds=1)
    late_share: float = 0.004
    duplicate_share: float = 0.004
    malformed_share: float = 0.002
    future_share: float = 0.0002
    incident: str = ""
    stream: str = "events"

    incidents: ClassVar[Mapping[str, str]] = {
        "latency": "one service answers slowly, and payments wait for it",
        "errors": "one service fails, payments with it, and a few accounts try again and again",
        "malformed": "a writer is broken: a third of the records cannot be read",
    }
    """What can be made to go wrong on command, and what is then seen."""

    rate_default: ClassVar[float] = 20.0

    def __post_init__(self) -> None:
        self._check()
        self._random = random = np.random.default_rng(self.seed)
        self._user_keys = _numbered("user_", self.users)
        self._account_keys = _numbered("acc_", self.accounts)
        self._user_shares = power_law(self.users, 0.5)
        # Which one is popular must not follow from the number, or "user_0000" would lead every list.
        self._user_of_rank = random.permutation(self.users)
        self._currency_of_account = np.searchsorted([0.6, 0.9], random.random(self.accounts))
        self._bad_accounts = random.permutation(self.accounts)[:_BAD_ACCOUNTS]
        self._trouble = int(random.integers(0, len(words.SERVICES)))
        self._service_shares = power_law(len(words.SERVICES), 0.6)
        self._page_shares = power_law(len(words.PAGES), 0.9)
        self._records = BlockRecords(self._next_block, self._count, _DEFECTS)
        self._made = np.zeros(len(words.KINDS), np.int64)

    def _check(self) -> None:
        names = ("late", "duplicate", "malformed", "future")
        require_shares("operations", {f"{name}_share": getattr(self, f"{name}_share") for name in names})
        require_disorder(self.disorder, _LATENESS)
        require_incident("operations", self.incident, self.incidents)
        if not 1 <= self.users <= PEOPLE_MAX or not 1 <= self.accounts <= PEOPLE_MAX:
            raise ProfileError(
                f"{self.users} users and {self.accounts} accounts",
                fix=f"give from 1 to {PEOPLE_MAX:,} of each",
            )

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What was made so far, in words; copies and malformed records are named by themselves."""
        kinds = ", ".join(f"{n:,} {kind}s" for kind, n in zip(words.KINDS, self._made.tolist(), strict=True))
        set_aside = f"{self._records.broken:,} malformed, {self._records.copied:,} copies"
        named = (("records", kinds), ("on purpose", set_aside))
        if not self.incident:
            return named
        where = "" if self.incident == "malformed" else f", service {words.SERVICES[self._trouble]}"
        return (*named, ("incident", f"{self.incident}: {self.incidents[self.incident]}{where}"))

    def activity(self, at: datetime) -> float:
        """Busiest at 15:00 UTC, half as busy as the mean at night; the mean over a day is 1."""
        hour = at.hour + at.minute / 60
        return float(1 + _DAY_DEPTH * np.cos((hour - 15) / 24 * 2 * np.pi))

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        """Return the next `count` records; see `headrace.produce.generator.Generator`."""
        return self._records.batch(start, count, rate=rate)

    def _count(self, good: Mapping[str, npt.NDArray[Any]]) -> None:
        self._made += np.bincount(good["kind"], minlength=len(words.KINDS))

    def _next_block(self, rate: float) -> Block:
        """Draw the next block: first what is said, then what becomes of the records."""
        random = self._random
        kind = np.searchsorted(words.KIND_SHARES, random.random(_BLOCK)).clip(max=2).astype(np.int8)
        sizes = np.bincount(kind, minlength=len(words.KINDS)).tolist()
        parts = [self._logs(sizes[0]), self._clicks(sizes[1]), self._transactions(sizes[2])]
        # The records lie by kind; each is brought to its place.
        place = np.empty(_BLOCK, np.int64)
        place[np.argsort(kind, kind="stable")] = np.arange(_BLOCK)
        order = pa.array(place)
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
        distance = draw_copies(random, _BLOCK)
        defect = np.where(fate == 3, random.integers(1, len(_DEFECTS) + 1, _BLOCK), 0)
        head = f'{{"event_id":"{"0" * 36}","timestamp":"'
        rows = constant_rows(_BLOCK, head)
        write_uuid(rows, head.index("0"), random.integers(0, 2**64, (_BLOCK, 2), dtype=np.uint64))
        return Block(
            left=binary_of(rows),
            right=pa.concat_arrays([right for right, _ in parts]).take(order),
            key=pa.concat_arrays([key for _, key in parts]).take(order),
            delay_ms=delay,
            defect=defect.astype(np.int8),
            copy=np.where(fate == 2, distance, 0).astype(np.int32),
            counted={"kind": kind},
        )

    def _fates(self) -> tuple[float, ...]:
        malformed = self.malformed_share
        if self.incident == "malformed":
            rest = 1 - self.late_share - self.future_share - self.duplicate_share
            malformed = min(max(malformed, _MALFORMED_SHARE), rest)
        return (self.late_share, self.future_share, self.duplicate_share, malformed)

    def _logs(self, count: int) -> tuple[pa.Array, pa.Array]:
        """Return `count` log lines from behind the time on, and their keys: the services."""
        random = self._random
        service = np.searchsorted(self._service_shares, random.random(count))
        troubled = service == self._trouble
        drawn, failing = random.random(count), random.random(count)
        level = np.searchsorted(words.LEVEL_SHARES, drawn).clip(max=3)
        duration = words.SERVICE_MS[service] * random.lognormal(0, 0.6, count)
        slow = _slowness(random, count)
        if self.incident == "latency":
            duration = np.where(troubled, np.maximum(duration, slow), duration)
            level = np.where(troubled & (slow > 0) & (level == 1), 2, level)
        elif self.incident == "errors":
            bad = np.searchsorted(words.LEVEL_SHARES_IN_TROUBLE, failing).clip(max=3)
            level = np.where(troubled, bad, level)
        message = level * words.MESSAGES_PER_LEVEL + random.integers(0, words.MESSAGES_PER_LEVEL, count)
        names = _SERVICES.take(pa.array(service))
        right = join(
            b'Z","kind":"log","service":"', names, b'","level":"', _LEVELS.take(pa.array(level)),
            b'","message":"', words.MESSAGES.take(pa.array(message)),
            b'","duration_ms":', decimal_digits(duration),
            b',"host":"', names, b"-", decimal_digits(random.integers(1, words.HOSTS + 1, count)), b'"}',
        )  # fmt: skip
        return right, names

    def _clicks(self, count: int) -> tuple[pa.Array, pa.Array]:
        """Return `count` clicks from behind the time on, and their keys: the users."""
        random = self._random
        rank = np.searchsorted(self._user_shares, random.random(count))
        user = self._user_keys.take(pa.array(self._user_of_rank[rank]))
        page = np.searchsorted(self._page_shares, random.random(count))
        right = join(
            b'Z","kind":"click","user_id":"', user, b'","page":"', words.PAGES.take(pa.array(page)),
            b'","referrer":"', words.REFERRERS.take(pa.array(random.integers(0, 5, count))),
            b'","ms_on_page":', decimal_digits(random.exponential(20_000, count)), b"}",
        )  # fmt: skip
        return right, user

    def _transactions(self, count: int) -> tuple[pa.Array, pa.Array]:
        """Return `count` transactions from behind the time on, and their keys: the accounts."""
        random = self._random
        number = random.integers(0, self.accounts, count)
        status = np.searchsorted(words.STATUS_SHARES, random.random(count)).clip(max=2)
        latency = 120 * random.lognormal(0, 0.5, count)
        failing, insisting, slow = random.random(count), random.random(count), _slowness(random, count)
        chosen = self._bad_accounts[random.integers(0, len(self._bad_accounts), count)]
        if self.incident == "latency":
            latency = np.maximum(latency, slow)
        elif self.incident == "errors":
            number = np.where(insisting < _BAD_ACCOUNT_SHARE, chosen, number)
            status = np.searchsorted(words.STATUS_SHARES_IN_TROUBLE, failing).clip(max=2)
        account = self._account_keys.take(pa.array(number))
        cents = np.maximum(1, 4_000 * random.lognormal(0, 0.8, count)).astype(np.int64)
        identity = constant_rows(count, "tx_" + "0" * 8)
        write_hex(identity, 3, random.integers(0, 2**32, count, dtype=np.uint32))
        currency = _CURRENCIES.take(pa.array(self._currency_of_account[number]))
        right = join(
            b'Z","kind":"transaction","transaction_id":"', binary_of(identity), b'","account":"', account,
            b'","amount":', decimal_digits(cents // 100), b".", binary_of(digit_rows(cents % 100, 2)),
            b',"currency":"', currency, b'","status":"', _STATUSES.take(pa.array(status)),
            b'","latency_ms":', decimal_digits(latency), b"}",
        )  # fmt: skip
        return right, account


_SERVICES = string_table(words.SERVICES)
_LEVELS = string_table(words.LEVELS)
_CURRENCIES = string_table(words.CURRENCIES)
_STATUSES = string_table(words.STATUSES)


def _numbered(prefix: str, count: int) -> pa.Array:
    width = max(4, len(str(count - 1)))
    return join(prefix.encode(), binary_of(digit_rows(np.arange(count, dtype=np.int64), width)))


def _slowness(random: np.random.Generator, count: int) -> Draw:
    """Return how long calls to a slow service take in ms; 0 for those that it spares."""
    slow = _SLOW_LEAST_MS + random.exponential(4_000, count)
    return np.where(random.random(count) < _SLOW_SHARE, slow, 0.0)


_DEFECTS = (
    lambda record: record[: len(record) * 2 // 3],  # a writer that died
    lambda record: b"" if record.startswith(b" ") else b"GET /health HTTP/1.1",  # not ours at all
    lambda record: record.replace(b'"event_id"', b'"eventId"', 1),  # a column that must not be missing
    lambda record: record.replace(b'"timestamp":"20', b'"timestamp":"not a time 20', 1),
    lambda record: record.replace(b'"kind":"', b'"kind":7,"was":"', 1),  # a number for a text
    lambda record: record.replace(b'"kind":"', b'"host":"\xff\xfe","kind":"', 1),  # not UTF-8
    lambda record: record.replace(b"{", b'{"amount":NaN,', 1),
)
