"""How a question to a cluster is put again: while nobody answers, and while answers are of old metadata."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.errors import TransientError
from headrace.log.kafka import connection as module
from headrace.log.kafka.connection import Connection
from headrace.log.kafka.settings import KafkaSettings


class Question:
    """A question whose answers the test gives, one for each time that it is put; None: never."""

    def __init__(self, *answers: object) -> None:
        self.asked: list[Future[Any]] = []
        self._answers = answers

    def __call__(self) -> dict[str, Future[Any]]:
        answer = self._answers[min(len(self.asked), len(self._answers) - 1)]
        future: Future[Any] = Future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        self.asked.append(future)
        return {"n": future}


def failed(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Nobody listens there: what is asked of Kafka is the test's affair."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    return Connection(KafkaSettings(topic="t", brokers="127.0.0.1:1"), "topic 't'")


def test_a_question_that_nobody_answers_is_put_again_until_somebody_does(connection: Connection) -> None:
    question = Question(None, None, None, 7)
    assert connection.look(question) == {"n": 7}
    assert len(question.asked) == 4


def test_an_answer_that_comes_late_is_taken_although_the_question_was_put_again(
    connection: Connection,
) -> None:
    question = Question(None)

    def again() -> dict[str, Future[Any]]:
        if len(question.asked) == 3:
            question.asked[0].set_result(5)
        return question()

    assert connection.ask(question(), again=again) == {"n": 5}


def test_a_question_that_changes_something_is_put_once(connection: Connection) -> None:
    question = Question(None)
    with pytest.raises(TransientError, match="no answer"):
        connection.ask(question(), seconds_max=0.05)
    assert len(question.asked) == 1


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
    ],
)
def test_an_answer_of_old_metadata_is_asked_for_again(connection: Connection, code: int) -> None:
    assert connection.look(Question(failed(code), failed(code), 3)) == {"n": 3}


def test_answers_that_stay_of_old_metadata_are_told(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_S_MAX", 0.02)
    question = Question(failed(KafkaError.OFFSET_NOT_AVAILABLE))
    with pytest.raises(TransientError, match="OFFSET_NOT_AVAILABLE"):
        connection.look(question)
    assert len(question.asked) > 1


def test_what_is_no_matter_of_metadata_is_told_at_once(connection: Connection) -> None:
    question = Question(failed(KafkaError.INVALID_CONFIG))
    with pytest.raises(TransientError, match="INVALID_CONFIG"):
        connection.look(question)
    assert len(question.asked) == 1
