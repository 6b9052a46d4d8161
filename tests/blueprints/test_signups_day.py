"""Signups holds 1,000 users a minute for a day, in less memory than half a gigabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from day_of_signups import EVERY_S, PAGE_USERS

from headrace.blueprints.signups.people import page_of_people
from headrace.web.serving import bound_socket, serving
from headrace.web.users import users_app

DAY = 24 * 600
"""Pages of a day, of 100 users every six seconds."""
MEMORY_MB = 500


@pytest.mark.slow
@pytest.mark.parametrize("pages", [30, pytest.param(DAY, marks=pytest.mark.soak)])
def test_users_polled_for_long_are_each_counted_once_within_bounded_memory(
    pages: int, tmp_path: Path
) -> None:
    listening = bound_socket("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with serving(users_app(page_of_people), listening):
        program = Path(__file__).with_name("day_of_signups.py")
        command = [sys.executable, str(program), url, str(pages), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    found = json.loads(done.stdout)
    users = pages * PAGE_USERS
    assert found["balanced"]
    assert (found["pages"], found["outcomes"], found["users"]) == (pages, {"accepted": users}, users)
    assert found["epochs"] >= pages
    assert found["seconds"] == (pages - 1) * EVERY_S
    assert found["memory_mb"] < MEMORY_MB
