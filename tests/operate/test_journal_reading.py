"""The journal, read while it is written: last lines, new ones, and a file that is put aside meanwhile."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue

import headrace
from headrace.operate.journal import Journal
from headrace.operate.journal_reading import Line, Part, follow_lines, kept, last_lines, part_of


def events(lines: list[Line]) -> list[str]:
    return [str(line["event"]) for line in lines]


def test_the_last_lines_are_found_by_level_and_text_also_in_files_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "headrace.log"
    journal = Journal(path)
    journal.info("first", table="Orders")
    journal.close()
    path.rename(tmp_path / "headrace.log.1")
    journal = Journal(path)
    journal.warning("second")
    journal.failed("third", ValueError("orders are wrong"))
    with path.open("a") as file:
        file.write('{"event": "half')
    journal.close()
    assert events(last_lines(path, 10, kept())) == ["first", "second", "third"]
    assert events(last_lines(path, 2, kept())) == ["second", "third"]
    assert events(last_lines(path, 10, kept(level="warning"))) == ["second", "third"]
    assert events(last_lines(path, 10, kept(text="orders"))) == ["first", "third"]
    assert last_lines(tmp_path / "none.log", 10, kept()) == []


def test_lines_are_found_by_the_time_at_which_they_were_written(tmp_path: Path) -> None:
    path, noon = tmp_path / "headrace.log", datetime(2026, 3, 1, 12, tzinfo=UTC)
    with path.open("w") as file:
        for minute in range(4):
            at = (noon + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")
            file.write(f'{{"event": "{minute}", "level": "info", "timestamp": "{at}"}}\n')
        for wrong in ('"timestamp": 5', '"timestamp": "2026-03-01T12:01:00"', '"no": "time"'):
            file.write(f'{{"event": "wrong", "level": "info", {wrong}}}\n')
    between = (noon + timedelta(minutes=1), noon + timedelta(minutes=2))
    assert events(last_lines(path, 10, kept(between=between))) == ["1", "2"]


def test_lines_are_followed_into_the_file_that_takes_the_place_of_a_full_one(tmp_path: Path) -> None:
    path, stop = tmp_path / "headrace.log", threading.Event()
    seen: Queue[str] = Queue()
    journal = Journal(path)
    journal.info("before")

    def follow() -> None:
        for line in follow_lines(path, kept(), stop):
            seen.put(str(line["event"]))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        number = 0
        while seen.empty():  # until the follower stands at the end of the file
            journal.info(f"line {number}")
            number += 1
            stop.wait(0.05)
        journal.close()
        path.rename(tmp_path / "headrace.log.1")
        again = Journal(path)
        again.info("in the new file")
        while (event := seen.get(timeout=20)) != "in the new file":
            assert event.startswith("line ")
        again.close()
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_every_event_of_a_run_belongs_to_a_part_by_which_lines_are_found(tmp_path: Path) -> None:
    told = re.compile(
        r'journal\.(?:info|warning|failed)\(\s*"([^"]+)"|self\._tell\(\s*"((?:setting|dead)[^"]*)"'
    )
    rooms = Path(headrace.__file__).parent
    found = {one or other for file in rooms.rglob("*.py") for one, other in told.findall(file.read_text())}
    assert len(found) > 20
    of_the_run = {event for event in found if part_of(event) is Part.RUN}
    assert of_the_run == {
        "run started", "run stopped", "run failed", "handing over", "declaration changed", "not observed",
        "table computed again",
    }  # fmt: skip
    assert {part_of(event) for event in found} == set(Part)
    path = tmp_path / "headrace.log"
    journal = Journal(path)
    for event in ("run started", "poller", "replica told", "alert fires", "setting changed back"):
        journal.info(event)
    journal.close()
    assert events(last_lines(path, 10, kept(part=Part.REPLICAS))) == ["replica told"]
    assert events(last_lines(path, 10, kept(part=Part.SETTINGS, text="back"))) == ["setting changed back"]
    assert events(last_lines(path, 10, kept(part=Part.RUN, level="warning"))) == []


def test_no_line_is_lost_or_told_twice_between_the_last_ones_and_those_that_come(tmp_path: Path) -> None:
    path, stop, asked = tmp_path / "headrace.log", threading.Event(), list[str]()
    journal = Journal(path)
    for event in ("first", "second"):
        journal.info(event)

    def keep(line: Line) -> bool:
        if not asked:
            journal.info("while the last ones are read")
        asked.append(str(line["event"]))
        return True

    seen = []
    for line in follow_lines(path, keep, stop, last=10):
        if line["event"] == "second":
            journal.info("before it is followed")
        seen.append(line)
        if line["event"] == "before it is followed":
            stop.set()
    journal.close()
    assert events(seen) == ["first", "second", "while the last ones are read", "before it is followed"]
