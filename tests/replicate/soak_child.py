"""A process that runs a pipeline with a replica, a step for each line that it is given, until it is killed.

soak_child.py FOLDER REPLICA NULL_KEYS      REPLICA: a file with the pickled description
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import feed, following, shop

START = "2026-03-01T12:00:00"
STEP = 20


def main() -> None:
    folder, described, null_keys = sys.argv[1:]
    options = pickle.loads(Path(described).read_bytes())
    with PipelineTest(shop(null_keys=null_keys == "yes"), folder=Path(folder), start=START) as test:
        (place,) = test.log("events").partitions()
        first = place.end
        with following(test, options) as follower:
            for _ in sys.stdin:
                feed(test, first, STEP)
                first += STEP
                follower.wake()
                print(first, follower.state, flush=True)


if __name__ == "__main__":
    main()
