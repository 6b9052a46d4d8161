"""Finds out that a micro-batch waits for executors: Spark itself waits without an end, and without a word."""

from __future__ import annotations

from collections.abc import Callable

from headrace.engine.spark.cluster import ClusterFacts
from headrace.errors import TransientError
from headrace.log.backoff import Waiting

__all__ = ["TOLD_AFTER_S", "ExecutorsWait"]

TOLD_AFTER_S = 15.0
"""To start executors takes some seconds on a cluster that has room, and is nothing to tell."""


class ExecutorsWait:
    """Follows one query by looks at it, every `every_s` seconds; `tell` is given what `when_ready` gives.

    `alone` says whether a micro-batch was at work at the last look, and nobody there to do any of it.
    """

    def __init__(self, tell: Callable[[Waiting | None], None], every_s: float) -> None:
        self.alone = False
        self._tell = tell
        self._every = every_s
        self._since = 0.0
        self._told = False

    def look(self, facts: ClusterFacts | None, *, at_work: bool, now: float) -> None:
        """Take what was seen at `now`, in seconds of any clock; `facts` None: nothing could be seen.

        A run without work that gives its executors back waits for records, and not for them.
        """
        alone = at_work and facts is not None and facts.executors == 0
        if alone and not self.alone:
            self._since = now
        self.alone = alone
        if not alone and self._told:
            self._told = False
            self._tell(None)
        if alone and not self._told and facts is not None and now - self._since >= TOLD_AFTER_S:
            self._told = True
            self._tell(Waiting(_nobody_works(facts.master), 1, self._every))


def _nobody_works(master: str) -> TransientError:
    return TransientError(
        f"Spark at {master} has no executor for this: what else runs there may have taken every core, or "
        "what is left has too little memory for one",
        fix="let something there end, or take less (spark.cores.max, spark.executor.memory), or add workers; "
        "it goes on by itself then",
    )
