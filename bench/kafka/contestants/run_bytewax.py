"""Bytewax: two processes, event-time tumbling windows, the records decoded a batch at a time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main
from marks import TASK, begin, cents, counts_at, end, event_ms, write

ALIGN = datetime(2020, 1, 1, tzinfo=UTC)


class Kept(StatelessSinkPartition):
    """Keeps what comes in a list."""

    def __init__(self, rows: list) -> None:
        self.rows = rows

    def write_batch(self, items: list) -> None:
        self.rows.extend(items)


class Keep(DynamicSink):
    """The sink of the flow."""

    def __init__(self, rows: list) -> None:
        self.rows = rows

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Kept:
        return Kept(self.rows)


def decoded(messages: list, key: str) -> list:
    """Return (key, (event time, cents)) of the records of a batch that count."""
    found = []
    for message in messages:
        row = orjson.loads(message.value)
        at = event_ms(row["timestamp"])
        if counts_at(at, message.timestamp[1]):
            found.append((row[key], (datetime.fromtimestamp(at / 1000, UTC), cents(row.get("total_amount")))))
    return found


def folded(group: tuple[int, int], item: tuple[datetime, int]) -> tuple[int, int]:
    return group[0] + 1, group[1] + item[1]


def flow_of(stream: dict, key: str, rows: list) -> Dataflow:
    """Return the dataflow over a topic; it ends where the topic ends."""
    flow = Dataflow("peer")
    settings = {"fetch.queue.backoff.ms": "5", "queued.min.messages": "200000", "log_level": "3"}
    source = KafkaSource(
        [TASK["brokers"]], [stream["topic"]], tail=False, batch_size=5000, add_config=settings
    )
    records = op.input("records", flow, source)
    keyed = op.flat_map_batch("decode", records, lambda batch: decoded(batch, key))
    clock = windowing.EventClock(lambda item: item[0], timedelta(hours=2))
    windower = windowing.TumblingWindower(timedelta(minutes=1), ALIGN)
    windows = windowing.fold_window(
        "window", keyed, clock, windower, lambda: (0, 0), folded,
        lambda a, b: (a[0] + b[0], a[1] + b[1]), ordered=False,
    )  # fmt: skip
    op.output("kept", windows.down, Keep(rows))
    return flow


def work(number: int, addresses: list[str]) -> None:
    """Be one of the two processes."""
    rows: list = []
    print("ready", flush=True)
    sys.stdin.readline()
    cluster_main(flow_of(TASK["stream"], TASK["key"], rows), addresses, number)
    print("done", flush=True)
    first = int(ALIGN.timestamp() * 1000)
    lines = [[first + window * 60_000, key, *group] for key, (window, group) in rows]
    Path(TASK["out"], f"part-{number}.json").write_text(json.dumps(lines))


def free_addresses(count: int) -> list[str]:
    """Return addresses of the loopback that were free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()
    return addresses


def main() -> None:
    """Start two processes, let them begin together, wait for both."""
    addresses = free_addresses(2)
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, sys.argv[1], str(number), json.dumps(addresses)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    begin()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        if "done\n" not in iter(worker.stdout.readline, ""):  # it also tells there of tries to connect
            raise SystemExit(f"a process of Bytewax ended with {worker.wait()}")
    end(processes=2)
    for worker in workers:
        worker.wait()
    parts = [json.loads(Path(TASK["out"], f"part-{number}.json").read_text()) for number in range(2)]
    write(tuple(row) for part in parts for row in part)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        work(int(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        main()
