"""What the tests of every room may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tracing import save_measured, untraced, untraced_processes

pytest_plugins = ["servers.plugin"]


def pytest_configure(config: pytest.Config) -> None:
    why = "other tests run the same lines, so they are not measured in this one, which would take its time"
    config.addinivalue_line("markers", f"untraced: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("untraced") is not None:
        left_out = untraced()
    elif item.get_closest_marker("server") is not None:
        left_out = untraced_processes()  # tests without a server run the same commands
    else:
        left_out = nullcontext()
    with left_out:
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):  # the one that deals out the tests runs none of our lines
        save_measured()
