"""One measurement in a process of its own, so that memory and caches are its own too.

`python -m bench.worker '{"task": "...", ...}'` prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.data import START, STREAM, checksum
from bench.peers import COMMERCE_TABLES, compared, run_peer
from bench.pipelines import COMMERCE, pipeline_of

_WARM_EPOCHS = 5
"""The first epochs make files and compile plans."""

_STEPS_LEFT = 8
"""Of a day's: what was read too much of the days before is missing at its end."""


class Run:
    """An assembled pipeline: log, store, engine."""

    def __init__(self, pipeline: Any, log: Any, store: Path, *, filled: bool = False) -> None:
        from headrace.engine.local import LocalEngine
        from headrace.sql import plan_pipeline
        from headrace.store import Store

        named = isinstance(pipeline, str)
        self.plan = plan_pipeline(pipeline_of(pipeline, filled=filled) if named else pipeline)
        self.log = log
        self.store = Store.open(store, self.plan, identities={STREAM: log.identity})
        self.engine = LocalEngine(self.plan, {STREAM: log}, self.store)
        self.stages: dict[str, float] = {}
        self.epochs: list[float] = []

    def catch_up(self, *, records_max: int | None = None, rows_max: int | None = None) -> int:
        """Run as `headrace run` does until caught up, or step until at least `records_max` were read.

        Returns how many were.
        """
        read = 0
        began = time.perf_counter()

        def count(report: Any) -> None:
            nonlocal read, began
            now = time.perf_counter()
            records = sum(report.records.values())
            if records:
                self.epochs.append(now - began)
            began = now
            read += records
            for stage, seconds in report.seconds.items():
                self.stages[stage] = self.stages.get(stage, 0.0) + seconds

        if records_max is None and rows_max is None:
            self.engine.run(threading.Event(), until_caught_up=True, on_epoch=count)
            return read
        while records_max is None or read < records_max:
            began = time.perf_counter()
            report = self.engine.step(rows_max=rows_max)
            if report is None or not sum(report.records.values()):
                break
            count(report)
        return read

    def close(self) -> None:
        """Give everything back, in the order in which it was taken."""
        self.engine.close()
        self.store.close()
        self.log.close()


def open_log(folder: Path) -> Any:
    """Return the embedded log of a folder; the clock of a data set stands at its end.

    With today's time the records' days would be long past once the end of the log is reached, and what the
    tables do not keep for ever would be gone before it could be compared.
    """
    from headrace.log import open_embedded_log

    facts = folder / "facts.json"
    if not facts.exists():
        return open_embedded_log(folder / "log.db", STREAM)
    end = end_of(json.loads(facts.read_text())["data"])
    return open_embedded_log(folder / "log.db", STREAM, clock=lambda: end)


def end_of(data: dict[str, Any]) -> datetime:
    """Return when the last record of a data set arrived."""
    return START + timedelta(seconds=(data["before"] + data["measured"]) / data["rate"])


def headrace(task: dict[str, Any]) -> dict[str, Any]:
    """Run a pipeline over a data set; `before`: records worked off untimed, kept for the next run."""
    name, folder, store = task["pipeline"], Path(task["folder"]), Path(task["store"])
    filled, before = task.get("filled", False), task.get("before", 0)
    filled_store = store.with_name(f"filled-{name}.duckdb")
    if before and not filled_store.exists():
        run = Run(name, open_log(folder), filled_store, filled=True)
        run.catch_up(records_max=before)
        run.close()
    remove(store)
    if before:
        shutil.copyfile(filled_store, store)
    run = Run(name, open_log(folder), store, filled=filled)
    reader = Reader(run.store) if task.get("reader") else None
    began = time.perf_counter()
    events = run.catch_up()
    seconds = time.perf_counter() - began
    if reader is not None:
        reader.close()
    result: dict[str, Any] = {
        "seconds": seconds,
        "events": events,
        "epochs": len(run.epochs),
        "stages": {stage: round(length, 3) for stage, length in run.stages.items()},
        "peak_rss_mb": peak_rss_mb(),
        "balanced": bool(run.store.ledger().balanced),
        "queries": 0 if reader is None else reader.queries,
    }
    if not filled:
        tables = COMMERCE_TABLES if name == COMMERCE else ("result",)
        asked = {table: compared(table, since=task["since"]) for table in tables}
        result["checksums"] = {
            table: checksum(run.store.query(query, seconds_max=600.0)) for table, query in asked.items()
        }
    run.close()
    result["store_mb"] = round(store.stat().st_size / 2**20, 1)
    if task.get("compact"):
        result["live_mb"] = compacted_mb(store)
    return result


class Reader:
    """A page that is open: asks a question of the tables, reads the answer, and asks again."""

    def __init__(self, store: Any, pause_s: float = 0.2) -> None:
        self.queries = 0
        self._store, self._pause_s, self._stop = store, pause_s, threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.wait(self._pause_s):
            self._store.query(
                "SELECT window_start, event_type, events FROM event_counts ORDER BY 1 DESC, 2 LIMIT 500"
            )
            self.queries += 1

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()
        self._thread.join()


def peer(task: dict[str, Any]) -> dict[str, Any]:
    """Run the peer of a pipeline."""
    result = run_peer(
        task["pipeline"], Path(task["folder"]), filled=task.get("filled", False), since=task["since"]
    )
    return result | {"peak_rss_mb": peak_rss_mb()}


def history(task: dict[str, Any]) -> dict[str, Any]:
    """Compare epochs of the first day with epochs of the last, all of the same number of records.

    In turns, a store that begins beside one that has all days but the last: a process that has just caught
    up, and the machine under it, are slower than new ones, whatever the store holds.
    """
    path, day, rows = Path(task["store"]), task["day_records"], task["epoch_rows"]
    beginning = path.with_name("beginning.duckdb")
    remove(path)
    remove(beginning)
    old = Run(COMMERCE, open_log(Path(task["folder"])), path)
    # In steps that are small beside a day: what the last of them reads too much is missing at the end.
    old.catch_up(records_max=(task["days"] - 1) * day, rows_max=day // 8)
    new = Run(COMMERCE, open_log(Path(task["folder"])), beginning)
    old.epochs.clear()
    for _ in range(day // rows - _STEPS_LEFT):
        for run in (new, old):
            run.catch_up(records_max=rows, rows_max=rows)
    first, last = new.epochs[_WARM_EPOCHS:], old.epochs[_WARM_EPOCHS:]
    for run in (new, old):
        run.close()
    return {
        "first_day_ms": round(statistics.median(first) * 1000, 2),
        "last_day_ms": round(statistics.median(last) * 1000, 2),
        "ratio": statistics.median(last) / statistics.median(first),
        "epochs": [len(first), len(last)],
        "store_mb": round(path.stat().st_size / 2**20, 1),
        "live_mb": compacted_mb(path),
    }


def live(task: dict[str, Any]) -> dict[str, Any]:
    """Follow a generator in another process at 14 events/s; measure delay and processor share, then idle."""
    folder = Path(task["store"]).parent / "live"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    from headrace.blueprints.commerce.generator import CommerceGenerator
    from headrace.log import open_embedded_log
    from headrace.produce.generator import load_history, run_generator

    log = open_embedded_log(folder / "log.db", STREAM, partitions=3)
    load_history(CommerceGenerator(seed=2), log, hours=2, until=datetime.now(UTC))
    noting = NotingLog(log)
    run = Run(COMMERCE, noting, folder / "store.duckdb")
    run.catch_up()
    noting.taken.clear()
    stop, delays, epochs = threading.Event(), [], []

    def committed(report: Any) -> None:
        now = datetime.now(UTC).timestamp()
        delays.extend(now - moment for moment in noting.taken)
        epochs.append(1)
        noting.taken.clear()

    engine = threading.Thread(target=run.engine.run, args=(stop,), kwargs={"on_epoch": committed})
    engine.start()
    command = [sys.executable, "-m", "bench.worker"]
    produce = json.dumps({"task": "produce", "folder": str(folder), "seconds": task["seconds"]})
    import subprocess

    began, cpu = time.perf_counter(), time.process_time()
    subprocess.run([*command, produce], check=True, capture_output=True)
    busy = (time.process_time() - cpu) / (time.perf_counter() - began)
    stop.wait(1.0)
    began, cpu = time.perf_counter(), time.process_time()
    stop.wait(task["seconds"] / 3)
    idle = (time.process_time() - cpu) / (time.perf_counter() - began)
    stop.set()
    engine.join()
    run.close()
    ordered = sorted(delays)
    del run_generator
    return {
        "events": len(ordered),
        "epochs": len(epochs),
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "cpu_percent": round(busy * 100, 1),
        "idle_percent": round(idle * 100, 2),
    }


class NotingLog:
    """The log, noting when every record that is read was taken by it."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.taken: list[float] = []

    def read(self, *arguments: Any, **named: Any) -> Any:
        slice_ = self._log.read(*arguments, **named)
        self.taken.extend(moment.timestamp() for moment in slice_.records["record_time"].to_pylist())
        return slice_

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def produce(task: dict[str, Any]) -> dict[str, Any]:
    """Generate 14 events/s into a log for some seconds."""
    from headrace.blueprints.commerce.generator import CommerceGenerator
    from headrace.produce.generator import run_generator

    log = open_log(Path(task["folder"]))
    report = run_generator(CommerceGenerator(seed=3), log, duration=timedelta(seconds=task["seconds"]))
    log.close()
    return {"events": report.events, "append_p99_ms": round(report.append_p99_s * 1000, 2)}


def generate(task: dict[str, Any]) -> dict[str, Any]:
    """Measure the generator alone, on one core, then with the durable log behind it."""
    from headrace.blueprints.commerce.generator import CommerceGenerator
    from headrace.log import open_embedded_log
    from headrace.produce.generator import run_generator

    generator, count = CommerceGenerator(seed=1), task["count"]
    generator.batch(datetime(2026, 1, 1, tzinfo=UTC), 20_000, rate=14.0)
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(count // 20_000):
        generator.batch(datetime(2026, 1, 1, tzinfo=UTC), 20_000, rate=14.0)
    alone, used = time.perf_counter() - began, time.process_time() - cpu
    path = Path(task["store"]).with_name("generate.db")
    remove(path)
    log = open_embedded_log(path, STREAM, partitions=3)
    report = run_generator(generator, log, rate=None, count=count)
    log.close()
    remove(path)
    return {
        "alone_per_s": round(count // 20_000 * 20_000 / alone),
        "alone_per_core_s": round(count // 20_000 * 20_000 / used),
        "durable_per_s": round(report.rate),
        "append_p99_ms": round(report.append_p99_s * 1000, 1),
    }


def restart(task: dict[str, Any]) -> dict[str, Any]:
    """Open the store that a killed run left and commit once; tell when that was done, then go on or end."""
    store = Path(task["store"])
    run = Run(COMMERCE, open_log(Path(task["folder"])), store)
    read = run.catch_up(records_max=1)
    print(json.dumps({"first_commit": read}), flush=True)
    run.catch_up(records_max=None if task.get("go_on") else 0)
    balanced = bool(run.store.ledger().balanced)
    run.close()
    return {"balanced": balanced}


def remove(path: Path) -> None:
    """Delete a database file with what stands beside it."""
    for file in path.parent.glob(path.name + "*"):
        if file.is_file():
            file.unlink()


def peak_rss_mb() -> float:
    """Return the peak of this process; `ru_maxrss` would also tell of the parent's before `exec`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def compacted_mb(store: Path) -> float:
    """Return the size of the same database written anew: what is alive in it."""
    import duckdb

    copy = store.with_name("compacted.duckdb")
    remove(copy)
    con = duckdb.connect()
    con.execute(f"ATTACH '{store}' AS old (READ_ONLY)")
    con.execute(f"ATTACH '{copy}' AS new")
    con.execute("COPY FROM DATABASE old TO new")
    con.close()
    size = round(copy.stat().st_size / 2**20, 1)
    remove(copy)
    return size


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    task.__name__: task for task in (headrace, peer, history, live, produce, generate, restart)
}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(TASKS[given["task"]](given)))
