"""The customers pipeline into Elasticsearch, as a user runs it: killed in the middle, then run to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from search_target import SearchTarget

from headrace.blueprints import write_project
from headrace.blueprints.customers.generator import CustomersGenerator
from headrace.store import open_store_readonly
from headrace.testing.replica_runs import sorted_rows
from servers.guard import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

WORK_S = 150
COUNT, SEED = 1_500, 9
SETTINGS = ("customers=100000", "late_share=0", "future_share=0", "duplicate_share=0")
PROFILE = """
[profiles.results]
engine_settings.epoch_rows_max = 300
streams.events = {log}

[profiles.results.replicas.search]
kind = "elasticsearch"
url = "${{env:ELASTICSEARCH_URL}}"
prefix = "{prefix}"
cursors = ".{prefix}cursors"
index_names = {{ quality = "pipeline-quality" }}
chunk_rows_max = 200
"""


class Run:
    """A project of the blueprint, and the server that its profile names."""

    def __init__(self, folder: Path, target: SearchTarget, log: str) -> None:
        self.folder, self.target = folder, target
        write_project("customers", folder)
        with (folder / "headrace.toml").open("a") as file:
            file.write(PROFILE.format(log=log, prefix=target.prefix))
        self.environment = {**os.environ, "ELASTICSEARCH_URL": target.url}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace", *words, "--profile", "results"],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def headrace(self, *words: str) -> str:
        process = self.start(*words)
        said, _ = process.communicate(timeout=WORK_S)
        assert process.returncode == 0, said
        return said

    def rows(self, index: str) -> list[dict[str, Any]]:
        return self.target.rows(index.removeprefix(self.target.prefix))


@pytest.fixture
def target(elasticsearch_server: str) -> Iterator[SearchTarget]:
    made = SearchTarget(elasticsearch_server)
    yield made
    made.close()


def oracle() -> dict[str, tuple[int, int, Decimal]]:
    """Events, purchases and money of every customer, from the same seed and without Headrace's engine."""
    generator = CustomersGenerator(
        seed=SEED, customers=100_000, late_share=0.0, future_share=0.0, duplicate_share=0.0
    )
    batch = generator.batch(datetime(2026, 3, 1, tzinfo=UTC), COUNT, rate=500.0)
    events: Counter[str] = Counter()
    purchases: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for value in batch["value"].to_pylist():
        try:
            record = json.loads(value, parse_float=Decimal)
            datetime.fromisoformat(record["timestamp"])
        except (ValueError, TypeError):
            continue
        if not is_good(record):
            continue
        bought = record["event_type"] == "purchase"
        events[record["customer_id"]] += 1
        purchases[record["customer_id"]] += bought
        spent[record["customer_id"]] += record["amount"] if bought else 0
    return {who: (count, purchases[who], Decimal(spent[who])) for who, count in events.items()}


def is_good(record: dict[str, Any]) -> bool:
    amount, quantity = record["amount"], record["quantity"]
    return bool(
        record["customer_id"]
        and record["product_id"]
        and record["product_category"]
        and record["event_type"] != "teleport"
        and isinstance(quantity, int)
        and 1 <= quantity <= 100
        and (amount is not None or record["event_type"] not in ("purchase", "return"))
        and (amount is None or amount >= 0)
    )


def check(run: Run) -> None:
    """Every index holds what its table holds, what the oracle says, and as many records as the ledger."""
    store = open_store_readonly(next((run.folder / ".headrace").glob("*.duckdb")))
    try:
        names = ("category_metrics", "customer_activity", "city_sales", "quality")
        here = {name: store.query(f"FROM {name}", seconds_max=30).to_pylist() for name in names}
    finally:
        store.close()
    for name, rows in here.items():
        index = "pipeline_quality" if name == "quality" else name
        there = [without_zone(row) for row in run.rows(index)]
        assert sorted_rows(there) == sorted_rows(map(without_zone, rows)), f"'{name}' differs"
    customers = {
        row["customer_id"]: (row["events"], row["purchases"], Decimal(row["spent"]))
        for row in run.rows("customer_activity")
    }
    assert customers == oracle()
    ledger = json.loads(run.headrace("ledger", "--json"))
    outcomes = ledger["streams"]["events"]["outcomes"]
    assert ledger["streams"]["events"]["read"] == COUNT
    for index in ("category_metrics", "customer_activity"):
        assert sum(row["events"] for row in run.rows(index)) == outcomes["accepted"]
    rejected = [row for row in run.rows("pipeline_quality") if row["rule"] == "known_type"]
    assert sum(row["checked"] for row in rejected) == COUNT - outcomes.get("malformed", 0)
    measures = {row["measure"] for row in run.rows("pipeline_metrics")}
    assert {"process_resident_memory_bytes", "disk_free_bytes"} <= measures


def without_zone(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v.astimezone(UTC) if isinstance(v, datetime) else v for k, v in row.items()}


def generate(run: Run) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ("--rate", "500", "--count", str(COUNT), "--seed", str(SEED))
    run.headrace("generate", "customers", *words, *settings)


def test_a_run_that_is_killed_leaves_no_trace_in_elasticsearch(tmp_path: Path, target: SearchTarget) -> None:
    run = Run(tmp_path / "shop", target, '{ log = "embedded", partitions = 3 }')
    generate(run)
    process = run.start("run")
    try:
        wait_until(lambda: len(run.rows("customer_activity")) >= 1, what="rows arrive", seconds=WORK_S)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run.headrace("run", "--until-caught-up")
    check(run)


@pytest.mark.soak  # each time it is done by tests/blueprints/test_end_to_end.py
def test_from_kafka_to_elasticsearch_nothing_is_lost_and_nothing_counts_twice(
    tmp_path: Path, target: SearchTarget, kafka_broker: str
) -> None:
    topic = f"customer-events-{uuid.uuid4().hex[:8]}"
    log = f'{{ log = "kafka", brokers = "{kafka_broker}", topic = "{topic}", partitions = 3 }}'
    run = Run(tmp_path / "shop", target, log)
    generate(run)
    run.headrace("run", "--until-caught-up")
    check(run)
