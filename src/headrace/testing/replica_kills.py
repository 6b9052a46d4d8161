"""What every replica has to pass whose process is killed: a test class to subclass.

    class TestMineKilled(KilledReplicaConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return MyTarget(tmp_path)          # a ReplicaTarget, empty

The description of the replica is pickled, and processes of their own open it. Each is killed (kill -9)
before, inside or after a call of its writer: nothing is closed then, no buffer is written, and nobody sees an
error. Inside is before any call that the replica's own code makes there: between two of its steps.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from headrace.replicate.options import CommonOptions
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_losses import Losing
from headrace.testing.replica_runs import catch_up, feed, following, shop
from headrace.testing.replicas import START, ReplicaTarget, same

__all__ = ["KilledReplicaConformance"]

TABLES = ("all_rows", "busy", "visits", "best")
CALLS = ("open", "cursors", "take", "write", "sweep")
AROUND = tuple(f"{when} {call}" for call in CALLS for when in ("before", "after"))
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
        self.kill(target, tmp_path, ["inside take", "inside sweep", *chance.sample(AROUND, 1)], chance)

    @pytest.mark.soak
    def test_processes_killed_before_and_after_every_call_leave_no_trace(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        chance = random.Random(1)  # noqa: S311 - repeatable, not secret
        self.kill(target, tmp_path, chance.sample(AROUND, len(AROUND)) * 2, chance)

    @pytest.mark.soak
    @pytest.mark.parametrize("call", CALLS)
    def test_processes_killed_inside_a_call_leave_no_trace(
        self, target: ReplicaTarget, tmp_path: Path, call: str
    ) -> None:
        chance = random.Random(call)  # noqa: S311 - repeatable, not secret
        self.kill(target, tmp_path, [f"inside {call}"] * 5, chance)

    def kill(self, target: ReplicaTarget, folder: Path, places: Sequence[str], chance: random.Random) -> None:
        """Let a process end at each of these places, and compare each time what the next one makes of it."""
        options = target.replica(chunk_rows_max=20, tables=TABLES)
        described, pipeline, other = folder / "replica.pickle", folder / "pipeline", folder / "other"
        described.write_bytes(pickle.dumps(options))
        steps = self.counted(options, pipeline, other)
        for place in places:
            if place.startswith("inside") and not steps[place.removeprefix("inside ")]:
                continue  # what the package of this replica does there is one step
            if place.endswith("sweep"):  # whose rows it has to take out
                with PipelineTest(self.shop(), folder=other, start=START) as test:
                    self.follow(test, options, again="rebuild")
            count = 0 if place.endswith(ONCE) else chance.randrange(3)
            if place.startswith("inside"):
                count = chance.randrange(steps[place.removeprefix("inside ")])
            words = [str(pipeline), str(described), place, str(count), str(self.null_keys)]
            done = subprocess.run(  # noqa: S603 - this very program
                [sys.executable, "-m", __name__, *words],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                capture_output=True, text=True, timeout=CHILD_S, check=False,
            )  # fmt: skip
            assert done.returncode == -signal.SIGKILL, f"{place}: {done.returncode}\n{done.stderr}"
            # Each time: what a later place does (a sweep fills the target anew) would mend what is wrong.
            with PipelineTest(self.shop(), folder=pipeline, start=START) as test:
                test.run()
                try:
                    self.follow(test, options)
                    same(test, target, TABLES)
                except Exception as error:
                    error.add_note(f"after a process was killed {place}: {done.stderr}")
                    raise
                (everything,) = test.table("everything")
                assert everything["records"] > EVENTS

    def counted(self, options: CommonOptions, pipeline: Path, other: Path) -> Counter[str]:
        """Fill the target from two stores in turn; return how many steps there are inside of each call."""
        steps = Counter[str]()
        stepping: Any = Stepping(options, lambda _: False, lambda call, _: steps.update([call]))
        for folder, first, again in ((other, 500, None), (pipeline, 0, "rebuild")):
            steps.clear()
            with PipelineTest(self.shop(), folder=folder, start=START) as test:
                feed(test, first, EVENTS)
                self.follow(test, stepping, again=again)
        return steps

    def shop(self) -> Any:
        """Return the pipeline that runs beside the replica."""
        return shop(null_keys=self.null_keys)

    def follow(self, test: PipelineTest, options: CommonOptions, *, again: str | None = None) -> None:
        """Copy what there is."""
        with following(test, options, again=again) as follower:
            catch_up(follower)


class Stepping(Losing):
    """A replica that is also asked at each step: a call that its own code makes inside of one to its writer.

    `step` is given what was called, and where the step is.
    """

    def __init__(
        self, options: CommonOptions, lose: Callable[[str], bool], step: Callable[[str, FrameType], None]
    ) -> None:
        super().__init__(options, lose)
        self._step = step
        self._package = type(options).__module__.partition(".")[0]

    def lossy(self, place: str, call: Callable[[], Any]) -> Any:
        """See `Losing`."""
        what = place.partition(" ")[0]

        def look(frame: FrameType, event: str, _: object) -> None:
            caller = frame.f_back if event == "call" else frame
            if event in ("call", "c_call") and caller is not None and self._own(caller):
                self._step(what, caller)

        def told() -> Any:
            before = sys.getprofile()
            sys.setprofile(look)
            try:
                return call()
            finally:
                sys.setprofile(before)

        return super().lossy(place, told)

    def _own(self, frame: FrameType) -> bool:
        name: str = frame.f_globals.get("__name__", "")
        return name.partition(".")[0] == self._package and not name.startswith("headrace.testing.")


def main() -> None:
    """Run a pipeline with the replica and some more events, until the process is to be killed."""
    folder, described, place, count, null_keys = sys.argv[1:]
    options: Any = pickle.loads(Path(described).read_bytes())  # noqa: S301 - written by the test
    passed = 0

    def come(where: str) -> None:
        nonlocal passed
        if passed == int(count):
            die(where)
        passed += 1

    def reached(at: str) -> bool:
        if at.startswith(place):
            come(at)
        return False

    def step(call: str, frame: FrameType) -> None:
        if place == f"inside {call}":
            come(f"at {frame.f_code.co_filename}:{frame.f_lineno}")

    stepping: Any = Stepping(options, reached, step)
    again = "rebuild" if place.endswith("sweep") else None
    with PipelineTest(shop(null_keys=null_keys == "True"), folder=Path(folder), start=START) as test:
        (log,) = test.log("events").partitions()
        feed(test, log.end, EVENTS)
        with following(test, stepping, again=again) as follower:
            catch_up(follower)
            if passed:  # there were fewer of them than in another run
                die("behind the last one")


def die(where: str) -> None:
    """End this process as `kill -9` does."""
    print(where, file=sys.stderr, flush=True)  # noqa: T201 - for who looks why a test failed
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
