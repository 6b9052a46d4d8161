"""A poller holds nothing of the pages that it has appended, however many they are."""

from __future__ import annotations

import gc
import json
import tracemalloc
from array import array
from contextlib import closing
from pathlib import Path

import pytest
from polled_api import Api, Reply, api, poller

from headrace.blueprints.signups.people import page_of_people
from headrace.blueprints.signups.users import flatten
from headrace.log import open_embedded_log
from headrace.log.between import read_between
from headrace.testing import VirtualClock

PAGE_USERS = 100
DAY = 24 * 600
"""Pages of a day: 1,000 users a minute."""


GROWTH_MAX = 200_000
"""Bytes; a page of users has 100,000."""


@pytest.mark.parametrize("pages", [12, pytest.param(DAY, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_pages_that_were_polled(pages: int, tmp_path: Path) -> None:
    asked = array("i", [0] * pages)  # made before memory is looked at: it must not grow with the pages
    times = 0

    def reply(path: str, request: int) -> Reply:
        nonlocal times
        server.asked.clear()  # what the API remembers is no memory of the poller either
        page = int(path.rpartition("=")[2])
        asked[times] = page
        times += 1
        return 200, {}, json.dumps(page_of_people("headrace", page, PAGE_USERS)).encode()

    server: Api
    clock = VirtualClock("2026-11-01T00:00:00")
    log = open_embedded_log(tmp_path / "log.db", "users", partitions=3, clock=clock, durable=False)
    with closing(log), api(reply) as server:
        polling = poller(server, log, flatten=flatten, key="id", every_s=6.0, page_items=PAGE_USERS)
        held = []
        tracemalloc.start()
        try:
            for third in (1, 2, 3):
                report = polling.run(pages=pages * third // 3)
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert list(asked) == list(range(1, pages + 1))
        assert (report.records, report.malformed, report.retries) == (pages * PAGE_USERS, 0, 0)
        ranges = log.partitions()
        found = [
            json.loads(value)["id"]
            for records in read_between(
                log,
                {each.partition: each.start for each in ranges},
                {each.partition: each.end for each in ranges},
            )
            for value in records.column("value").to_pylist()
        ]
    assert len(found) == len(set(found)) == pages * PAGE_USERS
    assert held[2] - held[0] < GROWTH_MAX, held
