"""Commerce with a replica of every kind: how long an event takes from the log into each store.

A run in a process of its own works off the history and then the events that a generator, a process too, sends
at its pace. For every event that came live, the delay is from its record time until the store had confirmed
the epoch that it is in. Afterwards each store is asked with its own client how many events it has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.replicas.case import cassandra_server, postgresql_server, search_server
from bench.replicas.rows import require

EVENTS_PER_HOUR = 65_000
HISTORY_HOURS = 0.5
BAR_S = 1.0
FRESHNESS_S = 60.0
"""For how long rows gather before they become a file of Parquet or Delta: the bar is that and `BAR_S`."""
GATHERING = ("parquet", "delta")
SEED = 7
_LOOK_S = 0.01
_STEP_S = 600.0

PROFILE = """
[profiles.local]
page.serve = "off"
streams.events = {{ log = "embedded", partitions = 3 }}

[profiles.local.replicas]
postgresql = {{ kind = "postgresql", dsn = "${{env:BENCH_DSN}}" }}
elasticsearch = {{ kind = "elasticsearch", url = "{search}" }}
cassandra = {{ kind = "cassandra", hosts = "{cassandra}", keyspace = "bench" }}
kafka = {{ kind = "kafka", brokers = "{brokers}", prefix = "bench-" }}
parquet = {{ kind = "parquet", path = "warehouse/parquet", linger = "1 minute" }}
delta = {{ kind = "delta", path = "warehouse/delta", linger = "1 minute" }}
files = {{ kind = "files", path = "changes" }}
"""


def commerce(minutes: float) -> dict[str, tuple[float, list[float]]]:
    """Return bar and delays by store, in seconds."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))) / "shop"
        dsn = undo.enter_context(postgresql_server())
        search = undo.enter_context(search_server("elasticsearch"))
        cassandra = undo.enter_context(cassandra_server())
        brokers = undo.enter_context(_broker())
        prepare(folder, PROFILE.format(search=search, cassandra=cassandra, brokers=brokers))
        environment = {**os.environ, "BENCH_DSN": dsn, "PYTHONFAULTHANDLER": "1"}
        words = [sys.executable, "-m", "bench.replicas.delay_commerce", str(folder)]
        run = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert run.stdout is not None
            require(int(run.stdout.readline() == "caught up\n"), 1, "the history")
            words = [sys.executable, "-m", "headrace", "generate", "commerce", "--seed", str(SEED + 1)]
            words += ["--rate", str(EVENTS_PER_HOUR / 3600), "--for", f"{minutes:g} minutes"]
            quiet = subprocess.DEVNULL
            subprocess.run(words, cwd=folder, check=True, timeout=minutes * 60 + _STEP_S, stdout=quiet)
            run.send_signal(signal.SIGINT)
            said = run.stdout.readline()
            require(run.wait(_STEP_S), 0, "how the run ended")
            found = json.loads(said)
        finally:
            run.kill()
            run.wait()
        counts = _counts(dsn, search, cassandra, folder)
        for store, count in counts.items():
            require(count, found["accepted"], store)
        bars = {name: BAR_S + (FRESHNESS_S if name in GATHERING else 0) for name in found["seconds"]}
        return {name: (bars[name], seconds) for name, seconds in found["seconds"].items()}


def prepare(folder: Path, profile: str) -> None:
    """Write the project, and fill its log with the history."""
    from headrace.blueprints import make_generator, write_project
    from headrace.operate import load_project, open_log
    from headrace.produce.generator import load_history

    write_project("commerce", folder)
    (folder / "headrace.toml").write_text(
        '[profiles.local]\nstreams.events = { log = "embedded", partitions = 3 }\n'
    )
    log = open_log(load_project(folder), "events")
    try:
        rate = EVENTS_PER_HOUR / 3600
        until = datetime.now(UTC) - timedelta(seconds=1)
        generator = make_generator("commerce", seed=SEED)
        load_history(generator, log, hours=HISTORY_HOURS, until=until, rate=rate)
    finally:
        log.close()
    (folder / "headrace.toml").write_text(profile)


@contextmanager
def _broker() -> Iterator[str]:
    from servers.jars import fetched
    from servers.kafka import kafka_broker

    fetched("kafka")
    with kafka_broker() as broker:
        yield broker.bootstrap


def _counts(dsn: str, search: str, cassandra: str, folder: Path) -> dict[str, int]:
    """Return how many events each store has, as its own client sees it."""
    import duckdb
    import httpx
    import psycopg
    from deltalake import DeltaTable

    from servers.cassandra import connected

    with psycopg.connect(dsn) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM events_clean").fetchone() or (0,)
    httpx.post(f"{search}/events-clean/_refresh", timeout=60).raise_for_status()
    with connected(cassandra) as session:
        kept = sum(1 for _ in session.execute("SELECT event_id FROM bench.events_clean"))
    files = f"{folder}/warehouse/parquet/events_clean/**/*.parquet"
    found = duckdb.sql(f"SELECT count(*) FROM read_parquet('{files}')").fetchall()
    return {
        "postgresql": int(rows),
        "elasticsearch": int(httpx.get(f"{search}/events-clean/_count", timeout=60).json()["count"]),
        "cassandra": kept,
        "parquet": int(found[0][0]),
        "delta": DeltaTable(f"{folder}/warehouse/delta/events_clean").to_pyarrow_dataset().count_rows(),
    }


class Delays:
    """When each live event was confirmed by each store, less its record time."""

    def __init__(self, followers: Any) -> None:
        self.seconds: dict[str, list[float]] = {each.name: [] for each in followers}
        self._followers = followers
        self._waiting: dict[str, deque[tuple[int, list[int]]]] = {each.name: deque() for each in followers}
        self.live_from: int | None = None

    def committed(self, report: Any) -> None:
        """Take note of the events of an epoch; in the engine's thread, before a store can have them."""
        if self.live_from is None:
            return
        times = [at for at, _ in report.times.get("events", ()) if at >= self.live_from]
        if not times:  # it closes windows: nobody waits for it, and there may always be one more
            return
        for waiting in self._waiting.values():
            waiting.append((report.epoch, times))

    def look(self) -> bool:
        """Count what was confirmed until now; return whether that is all there is."""
        now = time.time()
        for follower in self._followers:
            copies = [copy for copy in follower.copies if not copy.plan.view_sql]
            reached, waiting = min(copy.reached for copy in copies), self._waiting[follower.name]
            while waiting and waiting[0][0] <= reached:
                self.seconds[follower.name] += [now - at / 1e6 for at in waiting.popleft()[1]]
        return not any(self._waiting.values())


def main() -> None:
    """Run a project: say when the history is in every store, and on SIGINT what was measured."""
    from headrace.operate import Runtime, load_project

    runtime, stop, asked = Runtime.open(load_project(Path(sys.argv[1]))), threading.Event(), threading.Event()
    delays = Delays(runtime.replicas.followers)
    signal.signal(signal.SIGINT, lambda *_: asked.set())
    engine = threading.Thread(target=lambda: runtime.run(stop, on_epoch=delays.committed))
    engine.start()
    try:
        held = sum(each.end - each.start for each in runtime.logs["events"].partitions())
        _until(lambda: runtime.store.ledger().read("events") >= held, engine)
        head = runtime.store.status().epoch
        _until(lambda: all(each.reached >= head for each in runtime.replicas.followers), engine)
        delays.live_from = int(time.time() * 1e6)
        print("caught up", flush=True)
        while not asked.wait(_LOOK_S):
            delays.look()
        held = sum(each.end - each.start for each in runtime.logs["events"].partitions())
        _until(lambda: runtime.store.ledger().read("events") >= held, engine)
        _until(delays.look, engine, every_s=_LOOK_S)
        accepted = runtime.answers.ledger()["streams"]["events"]["outcomes"]["accepted"]
    finally:
        stop.set()
        engine.join()
        runtime.close()
    print(json.dumps({"seconds": delays.seconds, "accepted": accepted}))


def _until(condition: Callable[[], bool], engine: threading.Thread, every_s: float = 0.2) -> None:
    deadline, pause = time.monotonic() + _STEP_S, threading.Event()
    while not condition():
        if time.monotonic() > deadline or not engine.is_alive():
            raise RuntimeError("the run has not come so far")
        pause.wait(every_s)


if __name__ == "__main__":
    main()
