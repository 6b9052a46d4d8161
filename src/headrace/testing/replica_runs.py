"""What tests of a replica run: a pipeline with a table of every class, and a follower beside it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from headrace.declare import Pipeline
from headrace.testing.pipeline_test import PipelineTest

if TYPE_CHECKING:
    from headrace.replicate.follower import Follower
    from headrace.replicate.options import CommonOptions
    from headrace.replicate.protocol import Refusal
    from headrace.store import Store

__all__ = [
    "Kept",
    "catch_up",
    "compute_again",
    "events",
    "feed",
    "following",
    "pass_hours",
    "shop",
    "short",
    "sorted_rows",
    "tell_expired",
    "wait_for",
]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIT_S = 120


def shop(*, null_keys: bool = True) -> Pipeline:
    """Return a pipeline with a table of every class: keys that may be NULL, nested columns, views.

    Without `null_keys`, keys are never NULL, for targets whose keys cannot be.
    """
    pipeline = Pipeline("shop")
    who = "who" if null_keys else "coalesce(who, 'nobody')"
    kind = "kind" if null_keys else "coalesce(kind, 'none')"
    pipeline.stream(
        "events",
        schema="id VARCHAR, seen TIMESTAMP NOT NULL, who VARCHAR, kind VARCHAR, amount DECIMAL(12,2), "
        "n INT, tags VARCHAR[], place STRUCT(city VARCHAR, zip INT)",
        event_time="seen",
        allowed_lateness="3 minutes",
        unique="id",
    )
    pipeline.table("all_rows", "SELECT id, seen, who, amount, tags, place FROM events")
    pipeline.table("latest", f"SELECT {who} AS who, kind, amount, place FROM events", key="who")
    pipeline.table(
        "revenue",
        f"SELECT window_start, window_end, {kind} AS kind, count(*) AS events, sum(amount) AS amount, "
        "avg(n) AS average, count(DISTINCT who) AS people FROM events "
        f"GROUP BY window(seen, '10 minutes'), {kind}",
    )
    pipeline.table(
        "busy",
        f"SELECT window_start, {who} AS who, count(*) AS events, sum(n) AS n FROM events "
        f"GROUP BY window(seen, '10 minutes'), {who} HAVING sum(n) > 0",
    )
    pipeline.table(
        "visits",
        f"SELECT {who} AS who, window_start, window_end, count(*) AS events, max(amount) AS most FROM events "
        f"GROUP BY session_window(seen, '6 minutes'), {who}",
    )
    pipeline.table(
        "totals", f"SELECT {who} AS who, sum(n) AS n, sum(amount) AS amount FROM events GROUP BY {who}"
    )
    pipeline.table("counted", "SELECT count(*) AS records, sum(n) AS n FROM events GROUP BY kind")
    pipeline.table("everything", "SELECT count(*) AS records FROM events")
    pipeline.table("best", "SELECT kind, max(amount) AS most FROM revenue GROUP BY kind", key="kind")
    pipeline.table("windows", "SELECT window_start, sum(events) AS events FROM revenue GROUP BY window_start")
    return pipeline


def events(first: int, count: int, *, step_s: float = 15.0) -> list[dict[str, Any]]:
    """Make events `first` and following, one every `step_s`; the same ones every time."""
    return [
        {
            "id": f"e{i}",
            "seen": (NOON + timedelta(seconds=i * step_s)).isoformat(),
            "who": None if i % 11 == 0 else f"u{i * 7 % 13}",
            "kind": ("view", "buy", None)[i % 3],
            "amount": Decimal(f"{i % 97}.{i % 10}5") if i % 5 else None,
            "n": (i % 7) - 3,
            "tags": [f"t{i % 3}", "x"] if i % 4 else None,
            "place": {"city": f"c{i % 5}", "zip": i} if i % 6 else None,
        }
        for i in range(first, first + count)
    ]


def feed(test: PipelineTest, first: int, count: int, *, seed: int = 0) -> None:
    """Send so many events in disorder, each few at the time when they were seen, and let the engine run."""
    made, chance = events(first, count), random.Random(seed + first)  # noqa: S311 - repeatable, not secret
    for start in range(0, count, 10):
        some = made[start : start + 10]
        at = max(one["seen"] for one in some)
        chance.shuffle(some)
        test.send("events", some, at=at)
    test.run()


def short() -> Pipeline:
    """Return a pipeline of which every class of table that can forget does, after an hour; and a view."""
    pipeline = Pipeline("short")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, who VARCHAR NOT NULL, n INT NOT NULL, amount DECIMAL(12,2) NOT NULL",
        event_time="seen",
        allowed_lateness="1 minute",
    )
    keep = timedelta(hours=1)
    pipeline.table(
        "counts",
        "SELECT window_start, who, amount, count(*) AS events, count(DISTINCT n) AS numbers FROM events "
        "GROUP BY window(seen, '10 minutes'), who, amount",
        keep=keep,
    )
    pipeline.table(
        "busy",
        "SELECT window_start, who, sum(n) AS n FROM events "
        "GROUP BY window(seen, '10 minutes'), who HAVING sum(n) > 2",
        keep=keep,
    )
    pipeline.table(
        "visits",
        "SELECT who, window_start, window_end, count(*) AS events FROM events "
        "GROUP BY session_window(seen, '6 minutes'), who",
        keep=keep,
    )
    pipeline.table("unnamed", "SELECT count(*) AS n FROM events GROUP BY window(seen, '1 hour')", keep=keep)
    pipeline.table("latest", "SELECT who, seen, amount FROM events", key="who", keep=keep)
    pipeline.table("people", "SELECT who, sum(events) AS events FROM counts GROUP BY who", key="who")
    return pipeline


def pass_hours(test: PipelineTest, first: int, last: int) -> None:
    """Let the hours from `first` to `last` pass in the pipeline `short`, with two events in each quarter."""
    for quarter in range(first * 4, last * 4):
        at = NOON + timedelta(minutes=15 * quarter)
        some = [
            {
                "seen": (at + timedelta(minutes=minute)).isoformat(),
                "who": f"u{(quarter + minute) % 23}",  # who is not seen again for hours is forgotten
                "n": quarter % 4,
                "amount": Decimal(f"{quarter % 7}.50"),
            }
            for minute in (0, 1)
        ]
        test.send("events", some, at=at + timedelta(minutes=1))
        if quarter % 2:
            test.run()


def compute_again(test: PipelineTest, *tables: str) -> None:
    """Let the store compute tables again from the log, as `headrace run --rebuild` does. No follower runs."""
    from headrace.engine.local import LocalEngine

    with _opened(test, rebuild=tables) as store:
        LocalEngine(test._plan, test._logs, store).close()  # which begins what the store was asked for
    test.run()


def tell_expired(test: PipelineTest, **tables: Sequence[str]) -> None:
    """Let the store write down which rows expire: of these tables, by replica. No follower runs."""
    with _opened(test, expired=tables):
        pass


@contextmanager
def _opened(test: PipelineTest, **asked: Any) -> Iterator[Store]:
    """Open the test's store otherwise than the test does, which waits."""
    from headrace.store import Store

    test._close()
    assert test._folder is not None
    identities = {name: log.identity for name, log in test._logs.items()}
    store = Store.open(test._folder / "store.duckdb", test._plan, identities=identities, **asked)
    try:
        yield store
    finally:
        store.close()
        test._open()


class Kept:
    """Keeps what a follower tells (`headrace.replicate.follower.Telling`)."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.states: list[str] = []
        self.begun = threading.Event()

    def state(self, follower: Follower) -> None:
        """See `Telling`."""
        if not self.states or self.states[-1] != follower.state:
            self.states.append(follower.state)

    def refused(self, follower: Follower, refusals: Sequence[Refusal]) -> None:
        """See `Telling`."""
        self.refusals += refusals

    def begun_again(self, follower: Follower) -> None:
        """See `Telling`."""
        self.begun.set()


@contextmanager
def following(
    test: PipelineTest, options: CommonOptions, *, name: str = "copy", told: Kept | None = None, **more: Any
) -> Iterator[Follower]:
    """Run a follower beside the pipeline, until the block ends."""
    from headrace.replicate.follower import Follower

    follower = Follower(name, options, test.store.plan, test.store, told or Kept(), **more)
    follower.start()
    try:
        yield follower
    finally:
        follower.stop(time.monotonic() + 10)


def catch_up(follower: Follower, *, seconds: float = WAIT_S) -> None:
    """Wait until the target has everything. Raises what it stands still for."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        follower.wake()
        follower.wait_until_caught_up(stop)
    finally:
        timer.cancel()
    if stop.is_set():
        raise AssertionError(f"not caught up in {seconds} s: {follower.state} {follower.error}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when `condition` holds; an AssertionError when it does not in time."""
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not in {WAIT_S} s")
        pause.wait(0.01)


def plain(value: Any) -> Any:
    """Return a value in a form that is equal for every client: one kind of number, instants in UTC."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | Decimal):
        return Decimal(value).normalize()
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def sorted_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the columns that only a target has, in an order of their own."""
    shown = [{k: plain(v) for k, v in row.items() if not k.startswith("_")} for row in rows]
    return sorted(shown, key=lambda row: str(sorted(row.items(), key=lambda item: item[0])))
