"""Many epochs in one process, small and large in turn, against one big epoch over the same records."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.log import open_embedded_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing import PipelineTest

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

TABLES = {
    "per_user": """
        SELECT window_start, user_id, count(*) AS n, sum(amount) AS total, count(DISTINCT amount) AS amounts
        FROM events GROUP BY window(seen, '10 minutes'), user_id""",
    "sliding": """
        SELECT window_start, user_id, max(seen) AS latest FROM events
        GROUP BY window(seen, '6 minutes', '2 minutes'), user_id""",
    "overlapping": """
        SELECT window_start, count(*) AS n, mode(user_id) AS most
        FROM events GROUP BY window(seen, '5 minutes', '2 minutes')""",
    "visits": """
        SELECT user_id, window_start, window_end, count(*) AS n, count(DISTINCT amount) AS amounts
        FROM events GROUP BY session_window(seen, '1 minute'), user_id""",
    "averages": "SELECT user_id, avg(amount) AS average FROM events GROUP BY user_id HAVING count(*) < 150",
    "overall": "SELECT count(*) AS n, count(DISTINCT user_id) AS users FROM events",
    "numbers": "SELECT CAST(note AS INT) AS number, count(*) AS n FROM events GROUP BY 1",
    "rare": "SELECT window_end, count(*) AS n FROM events WHERE amount > 990 GROUP BY window(seen, '1 h')",
    "large": "SELECT id, amount FROM events WHERE amount >= 500",
}
SCHEMA = "id VARCHAR, user_id VARCHAR, seen TIMESTAMP NOT NULL, amount DECIMAL(12,2), note VARCHAR"
BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def shop() -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema=SCHEMA, event_time="seen", allowed_lateness="5 minutes", unique="id")
    for name, query in TABLES.items():
        pipeline.table(name, query)
    pipeline.table("latest", "SELECT user_id, amount, seen FROM events", key=["user_id"])
    return pipeline


def records(chance: random.Random, at: datetime, first: int) -> list[dict[str, Any]]:
    made = [
        {
            "id": f"e{first + n}",
            "user_id": f"u{chance.randrange(60)}",
            "seen": (at - timedelta(seconds=chance.randrange(310))).isoformat(),
            "amount": chance.randrange(1000),
            "note": chance.choice(["1", "2", "x"]) if chance.random() < 0.005 else "7",
        }
        for n in range(300)
    ]
    return made + chance.sample(made, 9)


def test_many_epochs_of_all_sizes_give_what_one_big_epoch_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    with PipelineTest(shop(), folder=tmp_path) as test:
        for minute in range(30):
            at = BEGIN + timedelta(minutes=minute)
            test.send("events", records(chance, at, minute * 300), at=at)
    sizes = [chance.choice([1, 1, 2, 3, 7, 40]) for _ in range(70)]
    for place, size in ((10, 2_500), (11, 300), (25, 1_999), (40, 3_000), (60, 900)):
        sizes[place] = size
    once = epochs(tmp_path, "once", [])
    monkeypatch.setattr("headrace.engine.local.sides._APPENDED_MIN", 20)  # or nothing would be compacted
    often = epochs(tmp_path, "often", sizes)
    assert once.pop("epochs") < 3
    assert often.pop("epochs") > 70
    assert often.pop("failed") == once.pop("failed") > 5
    assert often == once


def epochs(folder: Path, name: str, sizes: list[int]) -> dict[str, Any]:
    """Return every table after epochs of these sizes, and one over the rest."""
    plan = plan_pipeline(shop())
    log = open_embedded_log(folder / "log.db", "events")
    store = Store.open(folder / f"{name}.duckdb", plan, identities={"events": log.identity})
    engine = LocalEngine(plan, {"events": log}, store)
    count = sum(engine.step(rows_max=size) is not None for size in sizes)
    while engine.step() is not None:
        count += 1
    found: dict[str, Any] = {
        table.name: sorted(map(str, store.query(f"FROM {table.name}").to_pylist())) for table in plan.tables
    }
    ledger = store.ledger()
    assert ledger.balanced
    found["outcomes"] = ledger.outcomes("events")
    found["kept"] = [(line.table, line.kept, line.filtered) for line in ledger.tables]
    found["failed"] = sum(line.failed for line in ledger.tables)
    found["epochs"] = count
    engine.close()
    store.close()
    log.close()
    return found
