"""What the Spark engine does not do as the local one does: one table, for `check`, the docs and the tests.

What stands here is refused before Spark starts; nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from headrace.errors import ProfileError, RefusedError

__all__ = ["GAPS", "Gap", "refuse_creation_times", "refuse_gaps"]


@dataclass(frozen=True)
class Gap:
    """One gap. `ever` says whether it is there to stay."""

    name: str
    what: str
    why: str
    instead: str
    ever: Literal["never", "not yet"]


GAPS: tuple[Gap, ...] = (
    Gap(
        "embedded_log",
        "a stream on the embedded log",
        "it is a file of one machine, and executors run on others",
        'bind the stream to Kafka: streams.NAME = { log = "kafka", brokers = "…" }; `headrace log copy` '
        "takes along what is there",
        "never",
    ),
    Gap(
        "creation_times",
        "a topic whose record times are set by producers (CreateTime), without headers",
        "a micro-batch ends at one record time, found in the topic's time index; producers' clocks would "
        "move it, and close windows early",
        "alter the topic to message.timestamp.type=LogAppendTime, or write the times into headers and set "
        'record_time = "header"',
        "never",
    ),
)
"""Every gap; the docs print them, and `refuse_gaps` finds them in a profile."""

_BY_NAME = {gap.name: gap for gap in GAPS}


def refuse_gaps(logs: Mapping[str, str]) -> None:
    """Raise ProfileError that names every gap that a pipeline has.

    `logs` says by stream which log holds it: "kafka" or "embedded".
    """
    found = [(stream, "embedded_log") for stream, log in logs.items() if log != "kafka"]
    if found:
        raise ProfileError("\n".join(_told(stream, _BY_NAME[name]) for stream, name in found))


def refuse_creation_times(streams: Iterable[str]) -> None:
    """Raise RefusedError when there is a stream whose topic has the times of its producers."""
    found = list(streams)
    if found:
        gap = _BY_NAME["creation_times"]
        names = ", ".join(f"'{name}'" for name in found)
        raise RefusedError(f"stream {names}: {gap.what}: not on Spark: {gap.why}", fix=gap.instead)


def _told(stream: str, gap: Gap) -> str:
    ever = "" if gap.ever == "never" else " yet"
    return f"stream '{stream}': {gap.what}: not on Spark{ever}, because {gap.why}\n  fix: {gap.instead}"
