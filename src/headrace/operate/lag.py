"""How far a pipeline is behind its logs, and how fast it is: what `status` says beside the store's facts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import HeadraceError, RefusedError, TransientError

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

    from headrace.log import Log, PartitionRange
    from headrace.operate.project import Home
    from headrace.store import Store

__all__ = ["LogsForQuestions", "UnreadRecords", "add_lag", "throughput"]

_BYTES_MAX = 1024 * 1024
_PARTITIONS_ASKED_MAX = 64
_MINUTE_S = 60.0
_UNREAD_EVERY_S = 1.0
_UNREAD_OLD_S = 5.0


class LogsForQuestions:
    """Opens a project's logs when somebody asks, apart from those that an engine reads.

    A question reads at another place than the engine does; on the engine's own log it would take it away
    from there.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._opened: dict[str, Log] = {}
        self._closed = threading.Event()

    def __call__(self, stream: str) -> Log | None:
        """Return the log of `stream`; None when it is embedded and its file was deleted by hand.

        A log that is away takes long to say so: meanwhile others are opened, and `close` does not wait.
        Raises TransientError after `close`.
        """
        from headrace.operate.runtime import open_log

        with self._lock:
            opening = self._opening.setdefault(stream, threading.Lock())
        with opening:
            with self._lock:
                if stream in self._opened:
                    return self._opened[stream]
                if self._closed.is_set():
                    raise _run_is_over()
            embedded = self._home.profile.stream(stream).log == "embedded"
            if embedded and not self._home.log_path.exists():
                return None
            log = open_log(self._home, stream, make=False)
            with self._lock:
                if not self._closed.is_set():
                    self._opened[stream] = log
                    return log
            log.close()  # it came too late
            raise _run_is_over()

    def close(self) -> None:
        """Give back files and connections."""
        with self._lock:
            self._closed.set()
            opened, self._opened = self._opened, {}
        with ExitStack() as files:
            for log in opened.values():
                files.callback(log.close)


def _run_is_over() -> TransientError:
    return TransientError("the run is over", fix="ask again when it runs")


_Lane = tuple[str, str, "Sequence[PartitionRange]"]
"""Stream, lane, and what its partitions hold."""


class UnreadRecords:
    """How many records of a run's streams wait in their logs; asked every second while open, in a thread.

    An engine's report cannot say it: that is as old as the epoch, and records arrive while it works.
    """

    def __init__(
        self,
        store: Store,
        streams: Iterable[str],
        logs: Callable[[str], Log | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._streams = tuple(streams)
        self._logs = logs
        self._clock = clock
        self._ended = threading.Event()
        self._known: tuple[list[_Lane], float] | None = None
        """What was found last, and when."""

    def __enter__(self) -> UnreadRecords:
        threading.Thread(target=self._ask_on, name="headrace-unread", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()  # a log that is away takes long to say so: nobody waits for the thread

    def count(self) -> int | None:
        """Return how many there are, of all lanes; None while it is not known, and at the end.

        Waits for nothing: it is what the logs held a moment ago, less what was read by now.
        """
        known = self._known
        if known is None or self._ended.is_set() or self._clock() - known[1] > _UNREAD_OLD_S:
            return None
        progress, unread = self._store.progress, 0
        for stream, lane, held in known[0]:
            read = progress.positions(stream, lane)
            unread += sum(each.unread(read.get(each.partition)) for each in held)
        return unread

    def ask(self) -> None:
        """Ask once. While one log does not answer, the number is not known."""
        try:
            found = [lane for name in self._streams for lane in self._lanes_of(name)]
        except HeadraceError:  # the run says it
            self._known = None
        else:
            self._known = found, self._clock()

    def _lanes_of(self, name: str) -> Iterator[_Lane]:
        log = self._logs(name)
        if log is None:
            raise RefusedError(f"stream '{name}' has no log any more")
        for lane, read in (("main", log), ("redrive", log.lane("redrive"))):
            yield name, lane, read.partitions()

    def _ask_on(self) -> None:
        while not self._ended.wait(_UNREAD_EVERY_S):
            try:
                self.ask()
            except Exception:  # noqa: BLE001 - it shows only: a run must not depend on it
                self._known = None


def add_lag(streams: Mapping[str, dict[str, Any]], logs: Callable[[str], Log | None]) -> str:
    """Add to each stream and partition what its log says, and return why a log does not answer, or nothing.

    `end`, `lag_records` and `lag_seconds` (how long the oldest unread record waits) are None where the log
    does not say. After one log that does not answer, no other is asked: each would take its time.
    """
    problem = ""
    for name, stream in streams.items():
        for line in stream["partitions"]:
            line.update(end=None, lag_records=None, lag_seconds=None)
        stream.update(lag_records=None, lag_seconds=None)
        if problem:
            continue
        try:
            log = logs(name)
            if log is not None:
                _add_to_stream(stream, log)
        except TransientError as error:
            problem = f"stream '{name}': {error.message}"
        except RefusedError as error:
            problem = f"stream '{name}': {error.message}"
    return problem


def _add_to_stream(stream: dict[str, Any], log: Log) -> None:
    for lane in sorted({line["lane"] for line in stream["partitions"]}):
        lines = [line for line in stream["partitions"] if line["lane"] == lane]
        read = log if lane == "main" else log.lane(lane)
        held = {each.partition: each for each in read.partitions()}
        for line in lines:
            here = held.get(line["partition"])
            line["end"] = line["position"] if here is None else here.end
            line["lag_records"] = 0 if here is None else here.unread(line["position"])
        behind = [line for line in lines if line["lag_records"]]
        for line in lines:
            line["lag_seconds"] = 0.0
        ends = {each.partition: each.end for each in held.values()}
        for line in behind[:_PARTITIONS_ASKED_MAX]:
            line["lag_seconds"] = _waiting_s(read, line["partition"], line["position"], ends)
    lags = [line["lag_seconds"] for line in stream["partitions"] if line["lag_seconds"] is not None]
    stream["lag_records"] = sum(line["lag_records"] for line in stream["partitions"])
    stream["lag_seconds"] = max(lags, default=0.0)


def _waiting_s(log: Log, partition: int, position: int, ends: Mapping[int, int]) -> float | None:
    try:
        first = log.read(
            {**ends, partition: position}, rows_max=1, bytes_max=_BYTES_MAX, wait=timedelta()
        ).records
    except TransientError:
        raise
    except HeadraceError:
        return None  # retention was faster than the engine: the run itself says so, and stops
    if not len(first) or first["partition"][0].as_py() != partition:
        return None  # on its way
    waited = (log.now() - first["record_time"][0].as_py()).total_seconds()
    return round(max(0.0, float(waited)), 3)


class _Queried(Protocol):
    def query(self, sql: str, *, rows_max: int | None = None, seconds_max: float = 5.0) -> pa.Table:
        """Run one reading query."""


def throughput(store: _Queried, now: datetime | None) -> dict[str, Any]:
    """Return records a second over the last minute before `now`; None: before the last epoch there was.

    `seconds` is shorter than a minute when the first epoch of all began later than that.
    """
    end = "last" if now is None else f"TIMESTAMPTZ '{now.isoformat()}'"
    row = store.query(
        f"SELECT first, {end} AS until, recent.records, recent.began "
        "FROM (SELECT max(committed_at) AS last, min(committed_at) AS first FROM epochs) AS bounds, "
        "LATERAL (SELECT CAST(coalesce(sum(records), 0) AS BIGINT) AS records, "
        "min(committed_at - to_microseconds(CAST(seconds * 1000000 AS BIGINT))) AS began FROM epochs "
        f"WHERE committed_at > {end} - to_seconds({_MINUTE_S})) AS recent"
    ).to_pylist()[0]
    until = row["until"]
    if row["first"] is None:
        return {"records_per_second": 0.0, "records": 0, "seconds": 0.0, "until": None}
    seconds = _MINUTE_S
    if row["first"] > until - timedelta(seconds=_MINUTE_S) and row["began"] is not None:
        seconds = min(_MINUTE_S, max((until - row["began"]).total_seconds(), 0.001))
    return {
        "records_per_second": round(row["records"] / seconds, 1),
        "records": row["records"],
        "seconds": round(seconds, 3),
        "until": until.isoformat(),
    }
