"""How far replicas are behind, asked of the store, whatever it has been through; and what is told of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import headrace as hr
from headrace.errors import DeclarationError, Problem, TransientError
from headrace.operate.replicas import Replicas, replica_states
from headrace.sql import plan_pipeline
from headrace.store import Store


def test_the_lag_of_replicas_is_right_behind_more_epochs_than_a_question_may_have_rows(
    tmp_path: Path,
) -> None:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen")
    store = Store.open(tmp_path / "s.duckdb", plan_pipeline(pipeline), identities={"events": "log-1"})
    options = SimpleNamespace(kind="stdout")
    replicas = {"near": options, "far": options, "new": options, "there": options, "near2": options}
    home = cast("Any", SimpleNamespace(profile=SimpleNamespace(replicas=replicas), data=tmp_path))
    states = [
        {"replica": name, "kind": "stdout", "state": "following", "epoch": epoch, "tables": []}
        for name, epoch in (("near", 1_000_098), ("near2", 1_000_098), ("far", 100), ("there", 1_000_100))
    ]
    none = replica_states(home, states, store)
    assert [(one["lag_epochs"], one["lag_seconds"], one["store_epoch"]) for one in none] == [(0, 0.0, 0)] * 5
    first = datetime.now(UTC) - timedelta(hours=1)
    store.connection.execute(
        "INSERT INTO _headrace.epochs SELECT range, CASE range WHEN 1000099 THEN ?::TIMESTAMPTZ "
        "ELSE now() END, 1, 0.1 FROM range(1, 1000101)",
        [first],
    )
    found = {one["replica"]: one for one in replica_states(home, states, store)}
    store.close()
    assert {name: one["lag_epochs"] for name, one in found.items()} == {
        "near": 2, "near2": 2, "far": 1_000_000, "new": 1_000_100, "there": 0,
    }  # fmt: skip
    assert {one["store_epoch"] for one in found.values()} == {1_000_100}
    assert [found[name]["lag_seconds"] > 3_599 for name in ("near", "far", "there")] == [True, True, False]


def told_by(tmp_path: Path) -> tuple[Replicas, Any, list[str], list[tuple[str, str, Any]]]:
    """Replicas without a run, a follower to be shown to them, and what they tell: notices and lines."""
    home = cast("Any", SimpleNamespace(profile=SimpleNamespace(replicas={}), data=tmp_path))
    lines: list[tuple[str, str, Any]] = []

    def line(event: str, **facts: Any) -> None:
        lines.append((event, facts["state"], facts.get("why")))

    journal = cast("Any", SimpleNamespace(info=line, warning=line))
    replicas = Replicas(home, cast("Any", None), cast("Any", None), journal)
    notices: list[str] = []
    replicas.on_notice = notices.append
    follower = SimpleNamespace(
        name="copy", options=SimpleNamespace(kind="files"), state="following", error=None, reached=1,
        rows_refused=0, copies=[],
    )  # fmt: skip
    return replicas, follower, notices, lines


def test_a_target_that_takes_a_chunk_at_each_try_writes_no_line_for_each(tmp_path: Path) -> None:
    replicas, follower, notices, lines = told_by(tmp_path)
    away = TransientError("the target is away")
    for state, error in (
        ("starting", None),
        *[("waiting", away), ("starting", None)] * 20,
        ("following", None),
    ):
        follower.state, follower.error = state, error
        replicas.state(follower)
    assert lines == [
        ("replica", "starting", None),
        ("replica", "waiting", "the target is away"),
        ("replica", "following", None),
    ]
    assert notices == ["replica 'copy' waiting: the target is away", "replica 'copy' goes on"]


def test_that_a_view_is_not_copied_is_told_once_and_so_is_that_it_is_again(tmp_path: Path) -> None:
    replicas, follower, notices, lines = told_by(tmp_path)
    follower.error = DeclarationError(
        [Problem("pipeline.py", 7, "table 'best'", "it is not copied", "mend it")]
    )
    said = "pipeline.py:7: table 'best': it is not copied - mend it"
    replicas.state(follower)
    replicas.state(follower)
    assert (notices, lines) == ([f"replica 'copy' following: {said}"], [("replica", "following", said)])
    follower.error = None
    replicas.state(follower)
    assert notices[1:] == ["replica 'copy' goes on"]
