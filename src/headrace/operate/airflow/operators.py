"""A task that polls."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from headrace.operate.airflow.hook import HeadraceHook
from headrace.operate.airflow.versions import BaseOperator

__all__ = ["HeadracePollOperator"]


class HeadracePollOperator(BaseOperator):
    """Polls the API of a stream for `seconds`; it goes on where the task before it ended.

    What it read is durable in the log when it ends, and a task that died is tried again without loss: where
    polling stands is kept in the log. Gives, for the tasks after it: stream, records, pages, malformed,
    retries, and from when until when it polled (ISO 8601).
    """

    template_fields: ClassVar[Sequence[str]] = ("project", "profile", "stream")

    def __init__(
        self,
        *,
        project: str,
        stream: str,
        seconds: float = 60.0,
        profile: str | None = None,
        **of_airflow: Any,
    ) -> None:
        super().__init__(**of_airflow)
        self.project = project
        self.stream = stream
        self.seconds = seconds
        self.profile = profile

    def execute(self, context: Any) -> dict[str, Any]:
        """Poll; called by Airflow."""
        self._stop = threading.Event()
        begun = datetime.now(UTC)
        report = HeadraceHook(self.project, self.profile).poll(self.stream, self.seconds, self._stop)
        told = {
            "stream": self.stream,
            "records": report.records,
            "pages": report.pages,
            "malformed": report.malformed,
            "retries": report.retries,
            "polled_from": begun.isoformat(),
            "polled_until": datetime.now(UTC).isoformat(),
        }
        self.log.info("polled %s", told)
        return told

    def on_kill(self) -> None:
        """End after the page that is being read; called by Airflow."""
        if hasattr(self, "_stop"):
            self._stop.set()
