"""Polls an HTTP API page by page and appends what it answers to the log.

Where it stands is kept in the log too, in the stream's lane `polling`: a page is appended first and its
number written down then. A run that dies between the two polls the page again, so records may come twice
and are never lost; a stream with `unique` counts them once.

What does not look as it should is appended as it came: the row stage sets it aside as a dead letter. An
answer that is malformed as a whole does so once, and its page is asked for until it is right. Of what is
larger than the log takes, the beginning is appended.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pyarrow as pa

from headrace.errors import RefusedError, TransientError
from headrace.log.backoff import BackOff, Waiting
from headrace.log.between import read_between
from headrace.log.protocol import APPEND_SCHEMA, Log, LogFullError, RecordTooLargeError
from headrace.produce.polled_json import Digits, Item, read_items, write_record
from headrace.produce.polling_http import Answer, Guard, fetch

__all__ = ["LANE", "PAGE", "Flatten", "PollReport", "PollSettings", "Poller"]

LANE = "polling"
PAGE = "{page}"
"""Where the number of the page stands in a poller's URL."""

Flatten = Callable[[Any, datetime], Mapping[str, Any]]
"""Makes the record of an item, and of the time when it was polled. What it raises sets the item aside."""

_RETRY_FIRST_S = 0.5
_RETRY_LAST_S = 30.0
_RETRY_AFTER_MAX_S = 300.0
_MALFORMED_TRIES = 3
_TRY_AGAIN = frozenset((408, 425, 429, *range(500, 600))) - {501, 505}
_NO_CONTENT = 204
_LOOK_BACK_FIRST = 64
_CUT_BYTES = 1_024
"""Of a record that is too large, so much is kept: the beginning of a JSON text, which is malformed."""


@dataclass(frozen=True, kw_only=True)
class PollSettings:
    """What is polled and how.

    url              with `{page}` where the number of the page stands; without it, one page is asked for ever
    items            where the list of items is in an answer: names with dots; empty: the answer is the list
    flatten          makes a record of an item; None: the item as it is
    key              the field of a record that decides its partition
    every_s          seconds from one request to the next, at least
    timeout_s        for a whole request
    body_bytes_max   a larger answer is refused
    page_first       where a poller begins that never polled
    page_items       the items of a full page: one with fewer is asked for again until it has so many, and
                     what was added at its end is taken; None: a page with items is passed on
    """

    url: str
    items: str = "results"
    flatten: Flatten | None = None
    key: str | None = None
    every_s: float = 5.0
    timeout_s: float = 10.0
    body_bytes_max: int = 10_000_000
    page_first: int = 1
    page_items: int | None = None
    hosts: tuple[str, ...] = ()
    private_addresses: bool = False


@dataclass
class PollReport:
    """What a poller did. `malformed` counts items and answers that were appended as they came."""

    pages: int = 0
    records: int = 0
    malformed: int = 0
    retries: int = 0
    page: int = 0


class _Busy(TransientError):
    """The API answers, and says that it cannot now; it may say for how long."""

    def __init__(self, status: int, after_s: float) -> None:
        self.after_s = after_s
        super().__init__(f"the API answers {status}", fix="it is asked again")


class Poller:
    """Polls from where the log says that the last one ended, until `stop`."""

    def __init__(
        self,
        settings: PollSettings,
        log: Log,
        stop: threading.Event,
        *,
        wait: Callable[[float], bool] | None = None,
        tell: Callable[[Waiting | None], None] = lambda pause: None,
    ) -> None:
        """`wait` passes so many seconds and says whether to stop.

        `tell` is given every failure, and None when the API answers again, or the log takes records.
        """
        self.report = PollReport()
        self._settings = settings
        self._log = log
        self._stop = stop
        self._wait = wait or stop.wait
        self._tell = tell
        self._guard = Guard.of(
            settings.url.replace(PAGE, "1"), settings.hosts, private=settings.private_addresses
        )

    def run(self, *, seconds: float | None = None, pages: int | None = None) -> PollReport:
        """Poll until `stop`, for so long, or so many pages. Raises RefusedError when the API says no."""
        end = None if seconds is None else time.monotonic() + seconds
        page, taken = self._page_next()
        due = time.monotonic()
        while not self._stop.is_set() and (pages is None or self.report.pages < pages):
            pause = due - time.monotonic()
            if end is not None and time.monotonic() + max(0.0, pause) >= end:
                break
            if pause > 0 and self._wait(pause):
                break
            due = time.monotonic() + self._settings.every_s
            items = self._answer(page, end)
            if items is None:
                break
            count = self._take(items, taken)
            if count >= (self._settings.page_items or 1):
                page, taken = page + 1, 0
                self._remember(page, taken)
            elif count > taken and self._settings.page_items is not None:
                taken = count
                self._remember(page, taken)
            self.report.pages += 1
            self.report.page = page
        return self.report

    # --- asking

    def _answer(self, page: int, end: float | None) -> list[Item] | None:
        """Ask until there is an answer that can be used, and return its items; None: stopped."""
        url = self._settings.url.replace(PAGE, str(page))
        back_off, malformed = self._back_off(), 0
        while not self._stop.is_set():
            try:
                answer = self._asked(url)
                items = self._items(answer)
                if items is not None:
                    back_off.over()
                    return items
                malformed += 1
                if malformed == _MALFORMED_TRIES:
                    self._append([answer.body], [None])
                    self.report.malformed += 1
                raise TransientError("the API's answer is not of the shape that was declared")
            except TransientError as error:
                self.report.retries += 1
                seconds = back_off.failed(error, least_s=error.after_s if isinstance(error, _Busy) else 0.0)
            if (end is not None and time.monotonic() + seconds >= end) or self._wait(seconds):
                return None
        return None

    def _back_off(self) -> BackOff:
        return BackOff(self._tell, first_s=_RETRY_FIRST_S, max_s=_RETRY_LAST_S)

    def _asked(self, url: str) -> Answer:
        settings = self._settings
        answer = fetch(url, self._guard, timeout_s=settings.timeout_s, body_bytes_max=settings.body_bytes_max)
        if answer.status in _TRY_AGAIN:
            raise _Busy(answer.status, _retry_after(answer.headers.get("retry-after"), self._log.now()))
        if not 200 <= answer.status < 300:
            raise RefusedError(
                f"the API answers {answer.status}",
                fix="look at the url of the poller in the profile: it would be answered the same again",
            )
        return answer

    def _items(self, answer: Answer) -> list[Item] | None:
        """Return the items of an answer; None when it is not what an answer looks like."""
        return [] if answer.status == _NO_CONTENT else read_items(answer.body, self._settings.items)

    # --- appending

    def _take(self, items: list[Item], taken: int) -> int:
        """Append the items of an answer, but for the first `taken`; return how many it has."""
        settings, now = self._settings, self._log.now()
        values, keys = [], []
        for item in items[taken:]:
            try:
                record = item.value if settings.flatten is None else settings.flatten(item.value, now)
                value = item.text if settings.flatten is None else write_record(record)
                key = record.get(settings.key) if settings.key and isinstance(record, Mapping) else None
                keys.append(None if key is None else _key(key))
                values.append(value)
                self.report.records += 1
            except Exception:  # noqa: BLE001 - whatever it is, the item is kept as it came and set aside
                values.append(item.text)
                keys.append(None)
                self.report.malformed += 1
        if values:
            self._append(values, keys)
        return len(items)

    def _append(self, values: list[bytes], keys: list[bytes | None]) -> None:
        try:
            self._durably(self._log, _records(values, keys))
        except RecordTooLargeError:
            # Refused, it would be refused at every start: one by one, and of that one what the log takes.
            if len(values) > 1:
                for value, key in zip(values, keys, strict=True):
                    self._append([value], [key])
            elif len(values[0]) <= _CUT_BYTES:
                raise
            else:
                self.report.malformed += 1
                self._append([values[0][:_CUT_BYTES]], keys)

    def _durably(self, log: Log, records: pa.Table) -> None:
        back_off = self._back_off()
        while True:
            try:
                log.append(records)
            except (TransientError, LogFullError) as error:  # a run, or retention, makes room
                if self._wait(back_off.failed(TransientError(error.message, fix=error.fix))):
                    raise
            else:
                back_off.over()
                return

    # --- where it stands

    def _page_next(self) -> tuple[int, int]:
        """Return the page to ask for, and how many of its items were taken."""
        lane = self._lane
        held = next((each for each in lane.partitions() if each.partition == 0), None)
        if held is None or not held.end:
            return self._settings.page_first, 0
        if held.end <= held.start:
            raise RefusedError(
                f"stream '{self._log.stream}': lane '{LANE}' does not say any more where the poller stands",
                fix="delete the lane's topic to begin again at page_first; the next one is kept for ever",
            )
        name = _name_of(self._settings.url)
        end, back = held.end, _LOOK_BACK_FIRST
        while end > held.start:  # other pollers of the stream have written between, perhaps much
            start = max(held.start, end - back)
            found: tuple[int, int] | None = None
            for records in read_between(lane, {0: start}, {0: end}):
                for value in _in_order(records):
                    if name.encode() in value and (said := json.loads(value))["of"] == name:
                        found = said["page"], said.get("taken", 0)
            if found is not None:
                return found
            end, back = start, back * 4
        return self._settings.page_first, 0

    def _remember(self, page: int, taken: int) -> None:
        value = json.dumps({"of": _name_of(self._settings.url), "page": page, "taken": taken}).encode()
        self._durably(self._lane, _records([value], [_name_of(self._settings.url).encode()], partition=0))

    @property
    def _lane(self) -> Log:
        return self._log.lane(LANE, latest=True)


def _key(value: Any) -> bytes:
    return (value.text if isinstance(value, Digits) else str(value)).encode(errors="replace")


def _name_of(url: str) -> str:
    """Return what tells a URL from others; not the URL, which may hold a key."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _records(values: list[bytes], keys: list[bytes | None], partition: int | None = None) -> pa.Table:
    rows = [
        {"partition": partition, "key": key, "value": value} for value, key in zip(values, keys, strict=True)
    ]
    return pa.Table.from_pylist(rows, APPEND_SCHEMA)


def _in_order(records: pa.Table) -> list[bytes]:
    found: list[bytes] = records.sort_by("offset").column("value").to_pylist()
    return found


def _retry_after(said: str | None, now: datetime) -> float:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), bounded; 0 when it says nothing."""
    if said is None:
        return 0.0
    try:
        seconds = (
            float(said) if said.strip().isdecimal() else (parsedate_to_datetime(said) - now).total_seconds()
        )
    except (ValueError, TypeError):
        return 0.0
    return min(max(0.0, seconds), _RETRY_AFTER_MAX_S)
