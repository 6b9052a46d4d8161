"""A pipeline in virtual time with an observer beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import headrace as hr
from headrace.engine.local.settings import EpochReport
from headrace.log import Log
from headrace.observe import Observer, Sample
from headrace.testing import PipelineTest

START = "2026-03-01T12:00:00"


def shop() -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    pipeline.stream(
        "events",
        schema="id VARCHAR NOT NULL, happened TIMESTAMP NOT NULL, amount INT",
        event_time="happened",
        unique="id",
        label="amount",
        expect={"not_negative": "amount IS NULL OR amount >= 0"},
    )
    pipeline.table(
        "by_minute", "SELECT window_start, count(*) AS n FROM events GROUP BY window(happened, '1 minute')"
    )
    pipeline.table("large", "SELECT count(*) AS n FROM events WHERE amount > 100")
    pipeline.table("most", "SELECT id, CAST(max(amount) AS TINYINT) AS amount FROM events GROUP BY id")
    return pipeline


class Facts:
    """What a run would tell, for an observer without one."""

    def __init__(self, test: PipelineTest) -> None:
        self.test = test
        self.failures: list[Exception] = []
        self.replicas: list[dict[str, Any]] = []

    def log_of(self, stream: str) -> Log | None:
        return self.test.log(stream)

    def replica_states(self) -> Sequence[Mapping[str, Any]]:
        return self.replicas

    def journal_lines(self) -> Mapping[str, int]:
        return {"warning": 0, "error": 0}

    def observing_failed(self, error: Exception) -> None:
        self.failures.append(error)


def observer_of(test: PipelineTest, facts: Facts | None = None) -> Observer:
    return Observer(
        test.store,
        facts or Facts(test),
        streams={stream.name: stream.allowed_lateness for stream in test.pipeline.streams},
        log_path=test.store.path.with_name("log.db"),
        version="1.2.3",
        clock=lambda: test.clock.time,
    )


def step(test: PipelineTest, observer: Observer) -> EpochReport | None:
    """Run an epoch and tell the observer, as a run does."""
    report = test.engine.step()
    if report is not None:
        observer.committed(report)
    return report


def value_of(samples: Sequence[Sample], name: str, **labels: str) -> float:
    """Return the one value of a series; several or none is a failure."""
    (found,) = [each.value for each in samples if each.name == name and dict(each.labels) == labels]
    return found
