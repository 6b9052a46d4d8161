"""The embedded log does what every log must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from conformance import Clock, LogConformance

from headrace.log import EmbeddedLog, open_embedded_log


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Callable[..., EmbeddedLog]]:
    opened = []

    def open_one(
        name: str = "events", partitions: int | None = None, clock: Callable[[], datetime] | None = None
    ) -> EmbeddedLog:
        log = open_embedded_log(
            tmp_path / "log.db", name, partitions=partitions, clock=clock or Clock(), durable=False
        )
        opened.append(log)
        return log

    yield open_one
    for log in opened:
        log.close()


class TestEmbeddedLog(LogConformance):
    pass
