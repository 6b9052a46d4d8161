"""Lets the tests of this room import the oracle and the targets of replicas."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("oracle", "replicate")]
