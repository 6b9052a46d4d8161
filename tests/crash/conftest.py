"""Lets the tests of this room import the oracle, which lives in a folder of its own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))
