"""What is told of a wait: what for, since when, what to do."""

from __future__ import annotations

from datetime import UTC, datetime

from headrace.errors import TransientError
from headrace.log.backoff import Waiting
from headrace.operate.waiting import WaitingWords

BEGUN = datetime(2026, 3, 1, 11, 30, 5, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 11, 40, tzinfo=UTC)


def words() -> WaitingWords:
    return WaitingWords(iter([BEGUN, LATER]).__next__)


def away(attempt: int, message: str = "the broker is away", fix: str = "start it") -> Waiting:
    return Waiting(TransientError(message, fix=fix), attempt, 0.5)


def test_a_wait_is_told_with_its_beginning_and_its_fix() -> None:
    told = words()
    assert told.take(away(1))
    assert told.line == (
        "the broker is away; try 1 failed, the next one in 0.5 s; since 11:30:05 UTC; fix: start it"
    )
    assert not told.take(away(2)), "once is enough"
    assert told.lines() == (
        "waiting: the broker is away\n"
        "  since 11:30:05 UTC; goes on by itself when it is ready, Ctrl-C ends it\n"
        "  fix: start it"
    )
    assert "away; try 2 failed, the next one in 0.5 s\n" in told.lines(tries=True)


def test_another_thing_that_is_waited_for_is_told_too() -> None:
    told = words()
    assert told.take(away(1))
    assert told.take(away(1, "the broker is away; the registry is away"))
    assert not told.take(away(2, "the broker is on its way")), "other words of the same are no news"
    assert "since 11:30:05" in told.line


def test_of_two_things_that_are_waited_for_each_tells_since_when_it_is() -> None:
    told = words()
    told.take(away(1))
    assert told.take(away(1, "the registry is away"))
    assert "the registry is away" in told.line and "since 11:40:00" in told.line
    assert not told.take(away(2))
    assert "since 11:30:05" in told.line
    assert not told.take(away(2, "the registry is away"))
    assert "since 11:40:00" in told.line


def test_the_end_of_one_wait_leaves_the_other_its_beginning_and_tells_that_it_lasts() -> None:
    told = words()
    told.take(away(1))
    told.take(away(1, "the registry is away"))
    told.take(None)  # the registry is ready
    assert told.take(away(3)), "'ready again' was told"
    assert "since 11:30:05" in told.line
    assert not told.take(away(4))
    told.take(None)
    assert told.line == ""


def test_a_wait_long_after_another_one_in_the_same_words_begins_anew() -> None:
    passed = [0.0]
    told = WaitingWords(iter([BEGUN, LATER]).__next__, lambda: passed[0])
    told.take(away(1))
    told.take(away(2, "the broker is on its way"))
    told.take(None)
    passed[0] = 600.0
    assert told.take(away(1))
    assert not told.take(away(2, "the broker is on its way"))
    assert "since 11:40:00" in told.line


def test_a_thing_that_is_waited_for_anew_while_another_is_begins_anew() -> None:
    told = WaitingWords(iter([BEGUN, BEGUN, LATER]).__next__)
    told.take(away(1))
    told.take(away(1, "the registry is away"))
    told.take(None)
    told.take(away(2))
    assert told.take(away(1, "the registry is away"))
    assert "since 11:40:00" in told.line


def test_after_a_wait_nothing_is_told_and_the_next_one_begins_anew() -> None:
    told = words()
    told.take(away(1))
    assert not told.take(None)
    assert (told.line, told.lines(), told.fix) == ("", "", "")
    assert told.take(away(1))
    assert "since 11:40:00" in told.line


def test_a_wait_whose_error_knows_no_fix_still_says_what_to_do() -> None:
    told = words()
    told.take(away(1, fix=""))
    assert told.fix.startswith("see that it runs and can be reached from here")
