"""Of several streams, one whose log does not answer holds up no other one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.errors import IntegrityError, TransientError
from headrace.log import EmbeddedLog, Slice, open_embedded_log
from headrace.log.backoff import Waiting
from headrace.sql import plan_pipeline
from headrace.store import Store
from servers.guard import wait_until

NAMES = ("calm", "shaky")


class Run:
    """Two streams, each counted; `failing` says which log fails, and how."""

    def __init__(self, folder: Path) -> None:
        pipeline = hr.Pipeline("two")
        for name in NAMES:
            pipeline.stream(name, schema="n BIGINT NOT NULL")
            pipeline.table(f"total_{name}", f"SELECT count(*) AS records FROM {name}")
        plan = plan_pipeline(pipeline)
        self.logs = {name: open_embedded_log(folder / "log.db", name, durable=False) for name in NAMES}
        self.store = Store.open(
            folder / "store.duckdb", plan, identities={name: log.identity for name, log in self.logs.items()}
        )
        self.engine = LocalEngine(plan, self.logs, self.store)
        self.counted = dict.fromkeys(NAMES, 0)
        self.waits: list[Waiting | None] = []
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.engine.run(self._stop, on_epoch=self._count, on_waiting=self.waits.append)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failure = error

    def _count(self, report: Any) -> None:
        for name, records in report.records.items():
            self.counted[name] += records

    def start(self) -> None:
        self._thread.start()

    def send(self, name: str, records: int) -> None:
        self.logs[name].append(pa.table({"value": pa.array([b'{"n": 1}'] * records, pa.binary())}))

    def wait_for(self, **counted: int) -> None:
        wait_until(
            lambda: self.failure is not None or all(self.counted[n] >= each for n, each in counted.items()),
            what=f"{counted} are counted",
        )
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        self.engine.close()
        self.store.close()
        for log in self.logs.values():
            log.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.close()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Exception]]:
    """Streams whose logs fail when they are read, and with what."""
    found: dict[str, Callable[[], Exception]] = {}
    real = EmbeddedLog.read

    def read(log: EmbeddedLog, positions: Mapping[int, int], **bounds: Any) -> Slice:
        if log.stream in found:
            raise found[log.stream]()
        return real(log, positions, **bounds)

    monkeypatch.setattr(EmbeddedLog, "read", read)
    return found


def away(name: str) -> Callable[[], Exception]:
    return lambda: TransientError(f"stream '{name}': no answer", fix="start it")


def test_a_stream_whose_log_is_away_holds_up_no_other_and_is_read_when_it_is_back(
    run: Run, failing: dict[str, Callable[[], Exception]]
) -> None:
    failing["shaky"] = away("shaky")
    run.send("shaky", 3)
    run.start()
    for number in range(1, 4):
        run.send("calm", 10)
        run.wait_for(calm=10 * number)
    wait_until(lambda: bool(run.waits), what="the run says that it waits")
    assert "stream 'shaky': no answer" in str(run.waits[0])
    assert run.counted["shaky"] == 0
    assert run.waits[-1] is not None
    del failing["shaky"]
    run.wait_for(calm=30, shaky=3)
    run.send("shaky", 4)
    run.wait_for(shaky=7)
    assert run.waits[-1] is None


def test_every_stream_that_is_waited_for_is_named_and_all_come_back(
    run: Run, failing: dict[str, Callable[[], Exception]]
) -> None:
    failing.update({name: away(name) for name in NAMES})
    for name in NAMES:
        run.send(name, 2)
    run.start()
    wait_until(
        lambda: any(each is not None and all(n in str(each) for n in NAMES) for each in run.waits),
        what="both are named",
    )
    failing.clear()
    run.wait_for(calm=2, shaky=2)
    wait_until(lambda: run.waits[-1] is None, what="nothing is waited for")


def test_what_ends_a_run_is_not_hidden_by_a_stream_that_is_tried_apart(
    run: Run, failing: dict[str, Callable[[], Exception]]
) -> None:
    failing["shaky"] = away("shaky")
    run.start()
    wait_until(lambda: bool(run.waits), what="the run says that it waits")
    failing["shaky"] = lambda: IntegrityError("another log", fix="bring the old one back")
    wait_until(lambda: run.failure is not None, what="the run fails")
    assert isinstance(run.failure, IntegrityError)


def test_a_run_that_catches_up_waits_for_every_stream(
    run: Run, failing: dict[str, Callable[[], Exception]]
) -> None:
    failing["shaky"] = away("shaky")
    run.send("calm", 2)
    run.send("shaky", 2)

    def waiting(pause: Waiting | None) -> None:
        failing.clear()

    run.engine.run(threading.Event(), until_caught_up=True, on_epoch=run._count, on_waiting=waiting)
    assert run.counted == {"calm": 2, "shaky": 2}
    assert run.engine.step(wait=timedelta()) is None
