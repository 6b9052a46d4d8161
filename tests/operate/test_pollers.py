"""What a profile says of pollers, and what is wrong with it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from headrace.errors import ProfileError
from headrace.operate import load_project
from headrace.operate.pollers import open_poller

PIPELINE = """
import headrace as hr
pipeline = hr.Pipeline("people")
pipeline.stream("users", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("all_users", "SELECT id FROM users", key="id")
"""


def project(folder: Path, polling: str) -> Path:
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text(f"[profiles.local]\n{polling}\n")
    return folder


@pytest.mark.parametrize(
    ("polling", "said"),
    [
        ('polling.user = { url = "http://h/" }', "no stream 'user'; did you mean 'users'?"),
        ("polling.users = { }", "does not say what is asked"),
        ('polling.users = { url = "http://h/", flatten = "users" }', "is no file and function"),
        ('polling.users = { url = "http://h/", every = 5 }', "takes a duration"),
        ('polling.users = { url = "http://h/", host = ["a"] }', "unknown option"),
        ('polling = "http://h/"', "takes a table"),
    ],
)
def test_a_poller_that_cannot_be_is_refused_with_its_line(tmp_path: Path, polling: str, said: str) -> None:
    with pytest.raises(ProfileError) as raised:
        load_project(project(tmp_path, polling))
    assert said in str(raised.value)
    assert "headrace.toml:2" in str(raised.value)


def test_a_stream_without_a_poller_cannot_be_polled(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="polls nothing for a stream 'users'"):
        open_poller(load_project(project(tmp_path, "")), "users", threading.Event())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "no function 'flatten'"),
        ("flatten = 5", "no function"),
        ("import nothing_there", "cannot be run"),
    ],
)
def test_a_function_that_is_not_there_is_named(tmp_path: Path, code: str, said: str) -> None:
    folder = project(tmp_path, 'polling.users = { url = "http://h/", flatten = "people:flatten" }')
    (folder / "people.py").write_text(code)
    with pytest.raises(ProfileError, match=said):
        open_poller(load_project(folder), "users", threading.Event())


def test_the_file_of_a_function_may_have_classes_that_look_their_module_up(tmp_path: Path) -> None:
    folder = project(tmp_path, 'polling.users = { url = "http://127.0.0.1:1/", flatten = "people:flatten" }')
    (folder / "people.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, KW_ONLY\n\n"
        "@dataclass\nclass Person:\n    _: KW_ONLY\n    id: str\n\n"
        "def flatten(user, polled_at):\n    return vars(Person(id=user))\n"
    )
    poller, log = open_poller(load_project(folder), "users", threading.Event())
    log.close()
    assert poller._settings.flatten is not None
    assert poller._settings.flatten("u1", None) == {"id": "u1"}
