"""Waiting for another system."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from headrace.errors import RefusedError, TransientError
from headrace.log import backoff
from headrace.log.backoff import BackOff, Waiting, when_ready


class _Stop(threading.Event):
    """Notes pauses instead of making them, and is set after `pauses_max` of them."""

    def __init__(self, pauses_max: int) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.pauses_max = pauses_max

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        return len(self.pauses) > self.pauses_max


def failing(times: int) -> Iterator[int]:
    for _ in range(times):
        yield 0
    while True:
        yield 1


def test_a_system_that_comes_back_gives_its_answer_and_the_waiting_ends() -> None:
    answers = failing(3)
    told: list[Waiting | None] = []

    def ask() -> str:
        if not next(answers):
            raise TransientError("broker down")
        return "here"

    assert when_ready(ask, _Stop(10), told.append) == "here"
    assert [pause and pause.attempt for pause in told] == [1, 2, 3, None]
    assert "broker down; try 1 failed" in str(told[0])


def test_pauses_grow_up_to_a_bound_and_differ_between_those_who_wait() -> None:
    stop, other = _Stop(40), _Stop(40)

    def ask() -> None:
        raise TransientError("down")

    assert when_ready(ask, stop, lambda pause: None) is None
    assert when_ready(ask, other, lambda pause: None) is None
    assert stop.pauses[0] < 0.5 < stop.pauses[4] < stop.pauses[-1] <= backoff._MAX_S * 1.25
    assert stop.pauses != other.pauses


def test_an_answer_at_once_tells_nothing() -> None:
    told: list[Waiting | None] = []
    assert when_ready(lambda: 7, _Stop(0), told.append) == 7
    assert not told


def test_an_error_that_trying_again_does_not_mend_is_raised_at_once() -> None:
    def ask() -> None:
        raise RefusedError("wrong password")

    with pytest.raises(RefusedError, match="wrong password"):
        when_ready(ask, _Stop(5), lambda pause: None)


def test_what_works_for_long_tells_when_it_does_and_a_later_failure_is_the_first_of_another_wait() -> None:
    told: list[Waiting | None] = []
    back_off, works = BackOff(told.append), iter((False, False, True, False, True))
    stop = _Stop(10)

    def work() -> None:
        if next(works):
            back_off.over()
        if len(stop.pauses) < 4:
            raise TransientError("broker down")

    when_ready(work, stop, back_off)
    assert [pause and pause.attempt for pause in told] == [1, 2, None, 1, 2, None]
    assert stop.pauses[2] < stop.pauses[1]
