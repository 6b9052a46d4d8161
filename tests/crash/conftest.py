"""Lets the tests of this room import the oracle, which lives in a folder of its own, and its blueprints."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("oracle", "blueprints")]
