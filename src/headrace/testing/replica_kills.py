"""What every replica has to pass whose process is killed: a test class to subclass.

    class TestMineKilled(KilledReplicaConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return MyTarget(tmp_path)          # a ReplicaTarget, empty

The description of the replica is pickled, and processes of their own open it. Each is killed (kill -9) before
or after a call of its writer: nothing is closed then, no buffer is written, and nobody sees an error.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_losses import Losing
from headrace.testing.replica_runs import catch_up, feed, following, shop
from headrace.testing.replicas import START, ReplicaTarget, same

__all__ = ["KilledReplicaConformance"]

TABLES = ("all_rows", "busy", "visits", "best")
PLACES = tuple(
    f"{when} {call}" for call in ("open", "cursors", "take", "write", "sweep") for when in ("before", "after")
)
ONCE = ("open", "cursors")
"""What a run calls once; the others, for each table."""
EVENTS = 24
CHILD_S = 240


class KilledReplicaConformance:
    """The rules for a process that is killed, as tests. A subclass gives the fixture `target`.

    `null_keys` says whether a key may be NULL in the target.
    """

    null_keys = True

    @pytest.mark.parametrize("seed", [6])
    def test_processes_killed_at_some_calls_leave_no_trace(
        self, target: ReplicaTarget, tmp_path: Path, seed: int
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.kill(target, tmp_path, chance.sample(PLACES, 3), chance)

    @pytest.mark.soak
    def test_processes_killed_before_and_after_every_call_leave_no_trace(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        chance = random.Random(1)  # noqa: S311 - repeatable, not secret
        self.kill(target, tmp_path, chance.sample(PLACES, len(PLACES)) * 2, chance)

    def kill(self, target: ReplicaTarget, folder: Path, places: Sequence[str], chance: random.Random) -> None:
        """Let a process end at each of these places, and compare each time what the next one makes of it."""
        options = target.replica(chunk_rows_max=20, tables=TABLES)
        described, pipeline = folder / "replica.pickle", folder / "pipeline"
        described.write_bytes(pickle.dumps(options))
        with (
            PipelineTest(shop(null_keys=self.null_keys), folder=pipeline, start=START) as test,
            following(test, options) as follower,
        ):
            feed(test, 0, EVENTS)
            catch_up(follower)
        for place in places:
            skipped = 0 if place.endswith(ONCE) else chance.randrange(3)
            words = [str(pipeline), str(described), place, str(skipped), str(self.null_keys)]
            done = subprocess.run(  # noqa: S603 - this very program
                [sys.executable, "-m", __name__, *words],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                capture_output=True, text=True, timeout=CHILD_S, check=False,
            )  # fmt: skip
            assert done.returncode == -signal.SIGKILL, f"{place}: {done.returncode}\n{done.stderr}"
            # Each time: what a later place does (a sweep fills the target anew) would mend what is wrong.
            with PipelineTest(shop(null_keys=self.null_keys), folder=pipeline, start=START) as test:
                test.run()
                with following(test, options) as follower:
                    catch_up(follower)
                same(test, target, TABLES)
                (everything,) = test.table("everything")
                assert everything["records"] > EVENTS


def main() -> None:
    """Run a pipeline with the replica and some more events, until the process is to be killed."""
    folder, described, place, skipped, null_keys = sys.argv[1:]
    options: Any = pickle.loads(Path(described).read_bytes())  # noqa: S301 - written by the test
    left = int(skipped)

    def reached(at: str) -> bool:
        nonlocal left
        if at.startswith(place):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return False

    losing: Any = Losing(options, reached)
    again = "rebuild" if place.endswith("sweep") else None
    with PipelineTest(shop(null_keys=null_keys == "True"), folder=Path(folder), start=START) as test:
        (log,) = test.log("events").partitions()
        feed(test, log.end, EVENTS)
        with following(test, losing, again=again) as follower:
            catch_up(follower)


if __name__ == "__main__":
    main()
