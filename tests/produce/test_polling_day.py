"""A poller holds nothing of the pages that it has appended, however many they are."""

from __future__ import annotations

import gc
import json
import tracemalloc
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


# Bytes. A page of users has 100,000; what the standard library keeps for the next time grows for a while.
@pytest.mark.parametrize(
    ("pages", "growth_max"), [(12, 100_000), pytest.param(DAY, 500_000, marks=pytest.mark.soak)]
)
def test_memory_does_not_grow_with_the_pages_that_were_polled(
    pages: int, growth_max: int, tmp_path: Path
) -> None:
    asked: list[int] = []

    def reply(path: str, request: int) -> Reply:
        server.asked.clear()  # what the API remembers is no memory of the poller
        asked.append(int(path.rpartition("=")[2]))
        return 200, {}, json.dumps(page_of_people("headrace", asked[-1], PAGE_USERS)).encode()

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
        assert asked == list(range(1, pages + 1))
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
    assert held[2] - held[0] < growth_max, held
