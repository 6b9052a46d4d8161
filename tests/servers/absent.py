"""What a test does that needs something which is not here."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["absent"]


def absent(what: str) -> NoReturn:
    """Skip the test and say why, or fail it in continuous integration: there, nothing may be skipped."""
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(f"{what} (in continuous integration what is missing is a failure)", pytrace=False)
    pytest.skip(what)
