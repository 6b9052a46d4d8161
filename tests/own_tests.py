"""Runs the tests that come with a project, in a process of their own, as who has the project does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tracing import untraced_processes

__all__ = ["own_tests_pass"]

_NOT_A_USERS = ("cacheprovider", "xdist", "schemathesis")
"""Plugins of our environment; some take longer to import than the tests to run."""


def own_tests_pass(folder: Path, *which: str) -> None:
    """Fail with what pytest says unless the tests in `folder` pass; `which` are more words for pytest."""
    left_out = [word for name in _NOT_A_USERS for word in ("-p", f"no:{name}")]
    with untraced_processes():  # what they run of ours, tests of ours run as well
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *left_out, "--rootdir", ".", *which],
            cwd=folder, capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
