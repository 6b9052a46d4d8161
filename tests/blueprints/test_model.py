"""A model on the stream: the example of docs/model scores on either engine what ONNX scores beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from headrace.blueprints import make_generator
from headrace.operate import load_project
from headrace.store import open_store_readonly
from headrace.testing import check_function

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "docs" / "model"
RECORDS = 900


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "model"))


def headrace(folder: Path, profile: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words, "--profile", profile],
        cwd=folder, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def produce(folder: Path, profile: str) -> dict[str, float]:
    """Put a quiet quarter of an hour and one with an incident into the log; the score of each payment."""
    session = onnxruntime.InferenceSession((folder / "trouble.onnx").read_bytes())
    began = datetime.now(UTC) - timedelta(hours=1)
    settings = ("late_share=0", "future_share=0", "duplicate_share=0")
    values, scores = [], {}
    for number, incident in enumerate((None, "latency")):
        made = make_generator("operations", seed=11 + number, settings=settings, incident=incident)
        values += made.batch(began + timedelta(minutes=15 * number), RECORDS, rate=1.0)["value"].to_pylist()
    for value in values:
        try:
            record = json.loads(value)
            row = [float(record["amount"]), float(record["latency_ms"]), float(record["status"] == "failed")]
        except (ValueError, KeyError, TypeError):
            continue
        found = session.run(None, {"payments": np.array([row])})[0]
        scores[record["event_id"]] = round(float(found[0, 0]), 3)
    path = folder / "events.ndjson"
    path.write_bytes(b"".join(value + b"\n" for value in values))
    headrace(folder, profile, "produce", "events", str(path), "--record-time", "event")
    return scores


def check(folder: Path, profile: str, scores: dict[str, float]) -> None:
    store = open_store_readonly(load_project(folder, profile=profile).store_path)
    try:
        scored = store.query("FROM scored WHERE score IS NOT NULL", seconds_max=30).to_pylist()
        minutes = store.query("FROM trouble_by_minute ORDER BY window_start", seconds_max=30).to_pylist()
    finally:
        store.close()
    assert len(scored) > 100
    assert {row["event_id"]: row["score"] for row in scored} == {
        row["event_id"]: pytest.approx(scores[row["event_id"]], abs=0.0011) for row in scored
    }
    assert sum(row["suspicious"] for row in minutes) == sum(row["score"] > 0.9 for row in scored)
    half = len(minutes) // 2
    quiet, incident = (share(part) for part in (minutes[:half], minutes[half + 1 :]))
    assert quiet < 0.2
    assert incident > 0.5, "which is when the alert fires"


def share(minutes: list[dict[str, Any]]) -> float:
    return float(sum(row["suspicious"] for row in minutes) / sum(row["payments"] for row in minutes))


def test_records_are_scored_in_the_stream(folder: Path) -> None:
    scores = produce(folder, "local")
    headrace(folder, "local", "run", "--until-caught-up")
    check(folder, "local", scores)


@pytest.mark.soak
@pytest.mark.server
def test_records_are_scored_on_spark(
    folder: Path, kafka_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKERS", kafka_broker)
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    path = folder / "headrace.toml"
    topic = f'topic = "model-{uuid.uuid4().hex[:10]}", record_time = "header"'
    path.write_text(path.read_text().replace('topic = "events"', topic))
    scores = produce(folder, "cluster")
    headrace(folder, "cluster", "run", "--until-caught-up")
    check(folder, "cluster", scores)


def test_the_script_trains_the_model_that_lies_beside_it(folder: Path) -> None:
    kept = onnxruntime.InferenceSession((folder / "trouble.onnx").read_bytes())
    (folder / "trouble.onnx").unlink()
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trouble.onnx: 834 bytes"), "docs/model.md says so, too"
    made = onnxruntime.InferenceSession((folder / "trouble.onnx").read_bytes())
    chance = np.random.default_rng(1)
    rows = np.column_stack([
        chance.uniform(-10, 2_000, 5_000), chance.uniform(-10, 9_000, 5_000), chance.integers(0, 2, 5_000)
    ]).astype(float)  # fmt: skip
    before, after = (each.run(None, {"payments": rows})[0] for each in (kept, made))
    # Not its bytes: the last digits of a sum are the processor's.
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
    assert before.min() < 0.1
    assert before.max() > 0.9


def test_a_score_depends_on_its_own_row_alone() -> None:
    spec = importlib.util.spec_from_file_location("scoring", EXAMPLE / "scoring.py")
    assert spec is not None and spec.loader is not None
    scoring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scoring)
    amounts = [float(n) for n in range(200)]
    latencies = [None if n % 17 == 0 else 40.0 * n for n in range(200)]
    found = check_function(scoring.trouble, amounts, latencies, [float(n % 2) for n in range(200)])
    assert [value is None for value in found] == [value is None for value in latencies]
    assert all(0 <= value <= 1 for value in found if value is not None)
