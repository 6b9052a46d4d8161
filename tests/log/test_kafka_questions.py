"""How a question to a cluster is put again: while nobody answers, and while answers are of old metadata."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.errors import TransientError
from headrace.log.kafka import connection as module
from headrace.log.kafka import groups as groups_module
from headrace.log.kafka.connection import Connection
from headrace.log.kafka.groups import Groups
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
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
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


# --- consumer groups, whose topic a broker makes when it is first asked for one


class Offsets:
    """A consumer that gives answers in turn when it is asked for its group's offsets."""

    def __init__(self, *answers: int | KafkaException) -> None:
        self.asked = 0
        self._answers = answers

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return [TopicPartition(place.topic, place.partition, answer) for place in places]

    def close(self) -> None:
        pass


@pytest.fixture
def groups(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Groups:
    monkeypatch.setattr(module, "_SETTLED_S_MAX", 0.02)
    return Groups(connection)


def test_a_group_whose_coordinator_is_not_ready_yet_is_asked_for_again(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_S_MAX", 30.0)
    consumer = Offsets(failed(KafkaError.NOT_COORDINATOR), failed(KafkaError.COORDINATOR_NOT_AVAILABLE), 7)
    monkeypatch.setattr(groups, "_consumer", lambda group: consumer)
    assert groups.readers(1, "engine") == {"engine": {0: 7}}
    assert consumer.asked == 3


def test_a_coordinator_that_stays_away_is_told_with_the_topics_to_look_at(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Offsets(failed(KafkaError.NOT_COORDINATOR))
    monkeypatch.setattr(groups, "_consumer", lambda group: consumer)
    with pytest.raises(TransientError, match="NOT_COORDINATOR") as told:
        groups.readers(1, "engine")
    assert "__consumer_offsets" in told.value.fix
    assert consumer.asked > 1


def test_a_broker_that_is_away_when_a_group_is_asked_for_is_told_at_once(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_S_MAX", 30.0)
    consumer = Offsets(failed(KafkaError._TRANSPORT))
    monkeypatch.setattr(groups, "_consumer", lambda group: consumer)
    with pytest.raises(TransientError, match="no answer"):
        groups.readers(1, "engine")
    assert consumer.asked == 1


def test_a_list_of_groups_that_is_not_whole_is_asked_for_again(
    groups: Groups, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTLED_S_MAX", 30.0)
    load = SimpleNamespace(group_id="headrace-t.load-1")
    reading = SimpleNamespace(valid=[], errors=[KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)])
    question = Question(reading, reading, SimpleNamespace(valid=[load], errors=[]))
    monkeypatch.setattr(type(connection.admin), "list_consumer_groups", lambda admin: question()["n"])
    monkeypatch.setattr(groups, "_consumer", lambda group: Offsets(2**62))
    assert groups.loading(), "a broker that still reads its groups may have one that says so"
    assert len(question.asked) == 3


def test_a_position_that_brokers_refuse_is_sent_again_though_no_other_comes(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "_PACE_S", 0.0)
    sent: list[tuple[str, dict[int, int]]] = []
    limits: list[float] = []
    taken = threading.Event()

    def commit(group: str, places: list[TopicPartition], seconds_max: float) -> None:
        sent.append((group, {place.partition: place.offset for place in places}))
        limits.append(seconds_max)
        if len(sent) < 3:
            raise failed(KafkaError.NOT_COORDINATOR)
        taken.set()

    monkeypatch.setattr(groups, "_commit", commit)
    groups.publish("engine", {0: 5, 1: 7})
    try:
        assert taken.wait(30), "the group stands still until the pipeline commits its next epoch"
    finally:
        groups.close()
    assert sent == [("headrace-t", {0: 5, 1: 7})] * 3
    assert max(limits[1:]) <= 3.0 < limits[0], "who closes the log waits for a try that is under way"
