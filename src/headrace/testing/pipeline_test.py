"""`PipelineTest`: a pipeline inside a pytest, with virtual time, crash points and random cuts."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headrace.declare import Pipeline, Reference
from headrace.declare.durations import parse_duration
from headrace.testing.clock import VirtualClock, instant
from headrace.testing.crash import CrashPolicy, SimulatedCrash, once
from headrace.testing.records import append_table, record_json

if TYPE_CHECKING:
    from headrace.engine.local import EngineSettings, LocalEngine
    from headrace.log import Log
    from headrace.rows.framing import Framing
    from headrace.store import Ledger, Store

__all__ = ["OpenLog", "PipelineTest"]

_EPOCHS_MAX = 1_000_000
Record = Mapping[str, Any]

OpenLog = Callable[[str, int, VirtualClock], "Log"]
"""(name of the stream, how many partitions, the test's clock) -> its opened log.

The log must keep the record times that it is given; what a topic holds already is read, so give it a name of
its own:

    def on_kafka(stream, partitions, clock):
        settings = KafkaSettings(brokers="localhost:9092", topic=f"{stream}-{uuid4()}", partitions=partitions,
                                 record_time="header")
        return open_kafka_log(settings, stream, clock=clock)
"""


class PipelineTest:
    """Runs `pipeline` on a log and a store of its own, in virtual time; use it in a `with`.

        with PipelineTest(pipeline, start="2026-03-01T12:00:00") as test:
            test.send("events", {"event_id": "a", "timestamp": "2026-03-01T12:00:00", "total_amount": 3})
            test.advance("20 minutes")
            assert test.table("revenue") == [{"window_start": ..., "revenue": Decimal("3.00")}]

    partitions  of every stream, or by stream
    folder      where its files go, for example pytest's `tmp_path`; None: a temporary folder
    start       what the clock says at first
    cuts        a seed: every epoch then reads a small random number of records, which may change no answer
    crashes     after which steps the run dies and is started again (`headrace.testing.every_step()`)
    settings    of the engine
    framings    by stream, what reads records that are not plain JSON; whoever made them closes them
    open_log    opens the log of each stream, for a run on a real broker (see `OpenLog`); None: an embedded
                log in `folder`. The test closes what it opened

    Records that a test appends have the clock's time as their record time, or `at`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        partitions: int | Mapping[str, int] = 1,
        folder: Path | None = None,
        start: datetime | str = "2026-01-01T00:00:00",
        cuts: int | None = None,
        crashes: CrashPolicy | None = None,
        settings: EngineSettings | None = None,
        framings: Mapping[str, Framing] | None = None,
        open_log: OpenLog | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.clock = VirtualClock(start)
        self.crashes_seen: list[tuple[int, str]] = []
        self._partitions = partitions
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._cuts = None if cuts is None else random.Random(cuts)  # noqa: S311 - repeatable, not secret
        self._policies: list[CrashPolicy] = [] if crashes is None else [crashes]
        self._settings = settings
        self._framings = framings
        self._open_log = open_log or self._embedded_log
        self._logs: dict[str, Log] = {}
        self._store: Store | None = None
        self._engine: LocalEngine | None = None
        self._epoch = 0
        self._steps_of_epoch: dict[str, int] = {}

    def __enter__(self) -> PipelineTest:
        from headrace.sql import plan_pipeline

        pipeline = copy.copy(self.pipeline)
        pipeline.references = tuple(_beside_its_declaration(one) for one in pipeline.references)
        self._plan = plan_pipeline(pipeline)
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="headrace-test-")
            self._folder = Path(self._temporary.name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for stream in self.pipeline.streams:
                partitions = self._partitions_of(stream.name)
                self._logs[stream.name] = self._open_log(stream.name, partitions, self.clock)
            self._open()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    # --- what goes in

    def send(
        self,
        stream: str,
        records: Record | Iterable[Record],
        *,
        at: datetime | str | None = None,
        partition: int | None = None,
    ) -> None:
        """Append one record or several to `stream` as JSON.

        `at` is their record time; a later one than the clock's moves the clock there. An earlier one leaves
        the clock alone: to the engine that is a clock which stepped back. Without `partition` the log
        chooses, by the stream's `key` if it declares one. Decimals keep all their digits, times are ISO 8601.
        """
        several = [records] if isinstance(records, Mapping) else list(records)
        key = next(one.key for one in self.pipeline.streams if one.name == stream)
        keys = [None if key is None or one.get(key) is None else str(one[key]).encode() for one in several]
        values: list[bytes | None] = [record_json(one).encode() for one in several]
        self._append(stream, values, keys, at=at, partition=partition)

    def send_bytes(
        self,
        stream: str,
        values: bytes | Iterable[bytes | None] | None,
        *,
        at: datetime | str | None = None,
        partition: int | None = None,
        key: bytes | None = None,
    ) -> None:
        """Append values as they are: poison, tombstones (None), or text that a dict cannot say."""
        several = [values] if values is None or isinstance(values, bytes) else list(values)
        self._append(stream, several, [key] * len(several), at=at, partition=partition)

    def redrive(self, stream: str, partition: int, offset: int, value: bytes | Record | None = None) -> None:
        """Send the dead letter at this address through the redrive lane, with `value` instead if given."""
        if value is None:
            sent: bytes | None = next(
                letter["value"]
                for letter in self.dead_letters(stream)
                if (letter["partition"], letter["offset"]) == (partition, offset)
            )
        else:
            sent = value if isinstance(value, bytes) else record_json(value).encode()
        self._logs[stream].lane("redrive").append(append_table([sent], address=f"{partition}:{offset}"))

    # --- what moves

    def advance(self, duration: str | timedelta) -> None:
        """Move the clock by `duration`, then run until caught up: windows that are over get closed."""
        self.clock.move(parse_duration(duration))
        self.run()

    def run(self) -> None:
        """Run epochs until everything in the logs is read. A crash on the way is followed by a restart."""
        for _ in range(_EPOCHS_MAX):
            if not self.step():
                return
        raise AssertionError(f"not caught up after {_EPOCHS_MAX} epochs")

    def step(self, *, rows_max: int | None = None) -> bool:
        """Run one epoch, or less if it crashes; False when there was nothing to do."""
        if rows_max is None and self._cuts is not None:
            rows_max = self._cuts.choice((1, 2, 3, 5, 8, 13))
        self._steps_of_epoch = {}
        try:
            report = self.engine.step(rows_max=rows_max)
        except SimulatedCrash as crash:
            self.crashes_seen.append((crash.epoch, crash.step))
            self.restart()
            return True
        if report is not None:
            self._epoch = report.epoch
        return report is not None

    def restart(self) -> None:
        """Throw the engine and the store away without a word and open them again from their files."""
        self._close()
        self._open()

    def crash_at(self, step: str) -> None:
        """Let the run die after the next step called `step` (or that begins so: `"table"`), once."""
        self._policies.append(once(step))

    # --- what comes out

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of table or view `name`, ordered by their columns from the left."""
        rows: list[dict[str, Any]] = self.query(f"SELECT * FROM {_quoted(name)}")
        return sorted(rows, key=lambda row: [_order(value) for value in row.values()])

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of any query over what the store shows."""
        rows: list[dict[str, Any]] = self.store.query(sql).to_pylist()
        return rows

    def late(self, stream: str) -> list[dict[str, Any]]:
        """The late rows of `stream`, with their addresses."""
        return self.query(f"SELECT * FROM {_quoted('late_' + stream)}")

    def dead_letters(
        self, stream: str | None = None, *, outcome: str | None = None, rule: str | None = None
    ) -> list[dict[str, Any]]:
        """The dead letters, all or of one stream, outcome or rule."""
        found = self.store.dead_letters(stream=stream, outcome=outcome, rule=rule, limit=_EPOCHS_MAX)
        letters: list[dict[str, Any]] = found.to_pylist()
        return letters

    def outcomes(self, stream: str | None = None, *, lane: str = "main") -> dict[str, int]:
        """How many records, all or of one stream, ended in each outcome; one that none had is left out."""
        total: dict[str, int] = {}
        for line in self.ledger().lanes:
            if line.lane == lane and stream in (None, line.stream):
                for outcome, records in line.outcomes.items():
                    total[str(outcome)] = total.get(str(outcome), 0) + records
        return {outcome: records for outcome, records in total.items() if records}

    def ledger(self) -> Ledger:
        """The store's ledger: `.lanes`, `.tables`, `.balanced`."""
        return self.store.ledger()

    def log(self, stream: str) -> Log:
        """The opened log of `stream`."""
        return self._logs[stream]

    @property
    def store(self) -> Store:
        """The opened store, for what this class does not show."""
        if self._store is None:
            raise RuntimeError("PipelineTest is not open; use it in a `with`")
        return self._store

    @property
    def engine(self) -> LocalEngine:
        """The opened engine."""
        if self._engine is None:
            raise RuntimeError("PipelineTest is not open; use it in a `with`")
        return self._engine

    # --- inside

    def _partitions_of(self, stream: str) -> int:
        return self._partitions if isinstance(self._partitions, int) else self._partitions.get(stream, 1)

    def _append(
        self,
        stream: str,
        values: list[bytes | None],
        keys: list[bytes | None],
        *,
        at: datetime | str | None,
        partition: int | None,
    ) -> None:
        record_time = None if at is None else instant(at)
        if record_time is not None and record_time > self.clock.time:
            self.clock.time = record_time
        self._logs[stream].append(
            append_table(values, keys=keys, record_time=record_time, partition=partition)
        )

    def _embedded_log(self, stream: str, partitions: int, clock: VirtualClock) -> Log:
        from headrace.log import open_embedded_log

        if self._folder is None:
            raise RuntimeError("PipelineTest is not open; use it in a `with`")
        return open_embedded_log(
            self._folder / "log.db",
            stream,
            partitions=partitions,
            clock=clock,
            durable=False,  # a test's crash is a process's, not a power cut
        )

    def _give_back(self) -> None:
        self._close()
        for log in self._logs.values():
            log.close()
        self._logs = {}
        if self._temporary is not None:
            self._temporary.cleanup()

    def _open(self) -> None:
        from headrace.engine.local import EngineSettings, LocalEngine
        from headrace.store import Store

        if self._folder is None:
            raise RuntimeError("PipelineTest is not open; use it in a `with`")
        identities = {name: log.identity for name, log in self._logs.items()}
        self._store = Store.open(self._folder / "store.duckdb", self._plan, identities=identities)
        self._engine = LocalEngine(
            self._plan,
            self._logs,
            self._store,
            settings=self._settings or EngineSettings(),
            on_step=self._on_step,
            framings=self._framings,
        )
        self._epoch = self._store.status().epoch

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._store is not None:
            self._store.close()
        self._engine = self._store = None

    def _on_step(self, step: str) -> None:
        count = self._steps_of_epoch.get(step, 0)
        self._steps_of_epoch[step] = count + 1
        if [True for policy in self._policies if policy(self._epoch, step, count)]:
            raise SimulatedCrash(self._epoch, step)


def _beside_its_declaration(reference: Reference) -> Reference:
    """A reference file lies in the project's folder, which to a test is that of the declaring file."""
    return replace(reference, path=str(Path(reference.place.file).absolute().parent / reference.path))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _order(value: Any) -> tuple[bool, str, Any]:
    """A key that orders values of one column; NULL comes last, values that have no order go by their text."""
    if isinstance(value, int | float | Decimal):
        return (False, "", value)
    if isinstance(value, str | datetime | date | time | bytes):
        return (False, "", value)
    return (value is None, "~", repr(value))
