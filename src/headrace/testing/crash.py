"""Simulated crashes: the run is stopped between two effects of an epoch, and started again from its files.

    with PipelineTest(pipeline, crashes=every_step()) as test:   # after every step of every epoch, once each
        test.send("events", records)
        test.run()
        assert test.table("revenue") == [...]                    # as if nothing had happened

The engine reports each step of an epoch; a policy says whether the run dies there. Dying means: everything
that is not committed is lost, the engine and the store are thrown away and opened again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["CrashPolicy", "SimulatedCrash", "every_step", "once"]

CrashPolicy = Callable[[int, str, int], bool]
"""(epochs committed so far, name of the step, how often it came in this epoch) -> whether to crash there.

A policy must let every epoch through in the end, or the run would not."""


class SimulatedCrash(BaseException):
    """The run died here. A BaseException, so that no handler of ordinary errors can soften it."""

    def __init__(self, epoch: int, step: str) -> None:
        super().__init__(f"simulated crash after step '{step}' of the epoch after {epoch}")
        self.epoch = epoch
        self.step = step


def every_step(*, share: float = 1.0, seed: int = 0) -> CrashPolicy:
    """Crash once after every step of every epoch; with `share` < 1 after a seeded sample of them."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    seen: set[tuple[int, str, int]] = set()

    def crash_here(epoch: int, step: str, count: int) -> bool:
        place = (epoch, step, count)
        if place in seen:
            return False
        seen.add(place)
        return chance.random() < share

    return crash_here


def once(step: str) -> CrashPolicy:
    """Crash at the first step called `step`, or `step:…` (`"table"` is any table), and never again."""
    left = [step]

    def crash_here(epoch: int, name: str, count: int) -> bool:
        if left and (name == left[0] or name.startswith(f"{left[0]}:")):
            left.clear()
            return True
        return False

    return crash_here
