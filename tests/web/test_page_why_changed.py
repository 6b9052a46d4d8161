"""Why is this number this: of records that the rules of today judge in another way than those before."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.operate import Runtime, load_project, open_log
from headrace.testing.records import append_table
from headrace.web.page.sources import PageSources
from headrace.web.page.tracing import why

pytestmark = pytest.mark.slow

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("changing")
pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, id VARCHAR", event_time="seen", {rules})
pipeline.table("counts", "SELECT count(*) AS n FROM events")
pipeline.table(
    "by_minute",
    "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '1 minute')",
)
"""
USUAL = 'allowed_lateness="5 minutes"'
STRICT = USUAL + ", expect={'known': \"id <> 'odd'\"}"
SHORT = 'allowed_lateness="1 minute"'
LOOKED_AT_ANYWAY = 2_000
"""Records around the end of a search that are read whatever their times."""
PATIENT = 'allowed_lateness="3 hours"'


def value(identifier: str, seen: datetime) -> bytes:
    return json.dumps({"seen": seen.isoformat(), "id": identifier}).encode()


@contextmanager
def run(folder: Path, rules: str, *ids: str, ago: timedelta = timedelta(0)) -> Iterator[PageSources]:
    """Read records of these ids, and what else the log has, under these rules."""
    (folder / "pipeline.py").write_text(PIPELINE.format(rules=rules))
    project = load_project(folder)
    log = open_log(project, "events")
    if ids:
        seen = log.now() - ago
        log.append(append_table([value(each, seen) for each in ids]))
    log.close()
    runtime = Runtime.open(project)
    try:
        runtime.run(threading.Event(), until_caught_up=True)
        sources = PageSources(runtime)
        yield sources
        sources.close()
    finally:
        runtime.close()


def give_back(folder: Path, address: str, ago: timedelta, *, times: int) -> None:
    """Append records to the redrive lane that stand for the one at an address of the main lane."""
    log = open_log(load_project(folder), "events")
    values = [value("odd", log.now() - ago)] * times
    log.lane("redrive").append(append_table(values, address=address.removeprefix("events:")))
    log.close()


def asked(sources: PageSources) -> tuple[int, dict[str, Any]]:
    """Return the number, and what the page says of it."""
    (row,) = sources.records("SELECT * FROM counts", rows_max=10)
    return row["n"], why(sources, "counts", row)


def left_out(answer: dict[str, Any]) -> dict[str, int]:
    return {each["what"]: each["records"] for each in answer["left_out"]}


@pytest.mark.parametrize(
    ("before", "since", "ago", "told"),
    [
        (STRICT, USUAL, timedelta(0), {"set aside": 1, "rejected": 1}),
        (USUAL, PATIENT, timedelta(hours=1), {"set aside": 1}),
    ],
    ids=["rejected", "late"],
)
def test_a_record_that_was_set_aside_stands_behind_a_number_once_it_is_given_back_and_not_before(
    before: str, since: str, ago: timedelta, told: dict[str, int], tmp_path: Path
) -> None:
    with run(tmp_path, before, "usual"):
        pass
    with run(tmp_path, before, "odd", ago=ago):
        pass
    with run(tmp_path, since) as sources:
        number, answer = asked(sources)
    assert (number, answer["records"], answer["notes"]) == (1, 1, [])
    assert left_out(answer) == told
    (address,) = {one["address"] for each in answer["left_out"] for one in each["samples"]}
    give_back(tmp_path, address, ago, times=2)
    with run(tmp_path, since) as sources:
        number, answer = asked(sources)
    assert (number, answer["records"]) == (2, 2)
    assert left_out(answer) == {**told, "given back": 1}


@pytest.mark.parametrize(
    ("since", "ago"), [(STRICT, timedelta(0)), (SHORT, timedelta(minutes=3))], ids=["rejected", "late"]
)
def test_records_that_the_rules_of_today_would_set_aside_are_told_to_be_in_numbers_of_before(
    since: str, ago: timedelta, tmp_path: Path
) -> None:
    with run(tmp_path, USUAL, "odd", "odd", ago=ago):
        pass
    with run(tmp_path, since, "usual") as sources:
        number, answer = asked(sources)
    assert (number, answer["records"]) == (3, 1)
    (note,) = answer["notes"]
    assert note.startswith("2 records of that time were accepted when read, and would be set aside")


@pytest.mark.parametrize(
    ("before", "since", "ago"),
    [
        (USUAL, SHORT, timedelta(minutes=3)),
        (
            USUAL + ', future_tolerance="5 minutes"',
            USUAL + ', future_tolerance="1 second"',
            -timedelta(minutes=3),
        ),
    ],
    ids=["lateness", "future tolerance"],
)
def test_records_of_a_window_are_looked_for_as_far_as_any_rule_of_before_has_taken_them(
    before: str, since: str, ago: timedelta, tmp_path: Path
) -> None:
    usual = ["usual"] * 2 * LOOKED_AT_ANYWAY
    first, then = ((), usual) if ago < timedelta(0) else (usual, ())
    with run(tmp_path, before, *first):
        pass
    with run(tmp_path, before, "odd", "odd", ago=ago):
        pass
    with run(tmp_path, before, *then):
        pass
    with run(tmp_path, since, "usual") as sources:
        (row,) = sources.records("SELECT * FROM by_minute WHERE n = 2", rows_max=10)
        answer = why(sources, "by_minute", row)
    assert answer["records"] == 0
    (note,) = answer["notes"]
    assert note.startswith("2 records of that time were accepted when read, and would be set aside")


def test_of_a_number_whose_rules_never_changed_nothing_of_this_is_said(tmp_path: Path) -> None:
    with run(tmp_path, STRICT, "usual", "odd") as sources:
        number, answer = asked(sources)
    assert (number, answer["records"], answer["notes"]) == (1, 1, [])
    assert left_out(answer) == {"rejected": 1}
