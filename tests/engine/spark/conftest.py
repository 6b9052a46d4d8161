"""Lets the tests of Spark import the oracle and others' pipelines, which live in folders of their own."""

import sys
from pathlib import Path

for folder in ("oracle", "testing", "crash"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))
