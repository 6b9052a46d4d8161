"""Tables posted to an HTTP endpoint: chunks of JSON, each with an idempotency key."""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from headrace.errors import ProfileError
from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["WebhookReplica"]


@dataclass(frozen=True, kw_only=True)
class WebhookReplica(CommonOptions):
    """Posts changes to an endpoint. Connects only when there is something to post."""

    url: str = setting("text", "", "where changes are posted to: https://host/path", required=True)
    path: str = setting("path", "", "the folder that keeps how far tables were posted", required=True)
    authorization: Revealed | None = setting(
        "secret", None, "the header Authorization, such as: Bearer TOKEN; none: no such header"
    )
    timeout: timedelta = setting("duration", timedelta(seconds=30), "how long an answer is waited for")
    chunk_rows_max: int = setting("whole number", 1_000, "the most rows that are posted at once")
    chunk_bytes_max: int = setting("size", 1_000_000, "about the most bytes that are posted at once")

    @property
    def row_keys(self) -> bool:
        """Rows of a table without a key come with a `_key`, by which the endpoint knows them again."""
        return True

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        from headrace.replicate.webhook.writer import WebhookWriter

        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ProfileError(f"replica '{task.replica}' has no url", fix='write url = "https://host/path"')
        if parts.username or parts.password:
            raise ProfileError(
                f"replica '{task.replica}': the url holds a user or a password",
                fix='write authorization = "${env:NAME}" instead',
            )
        if not self.path:
            raise ProfileError(
                f"replica '{task.replica}' has no path", fix='write path = ".headrace/webhook"'
            )
        return WebhookWriter(self, task)
