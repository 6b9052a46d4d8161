"""The signups blueprint as a user gets it: the people, the generator, the API, and the lesson on schemas."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.blueprints import make_generator, project_files, write_project
from headrace.blueprints.signups.people import NATIONS, page_of_people, person
from headrace.blueprints.signups.pipeline import pipeline
from headrace.blueprints.signups.users import flatten
from headrace.errors import ProfileError
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.derive import avro_of
from headrace.sql import plan_pipeline
from headrace.testing import PipelineTest
from headrace.web.registry import RegistryServer
from headrace.web.serving import bound_socket, serving
from headrace.web.users import RESULTS_MAX, users_app
from own_tests import own_tests_pass

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUBJECT = "users_created-value"


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    listening = bound_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with serving(users_app(page_of_people), listening), httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_the_pipeline_has_the_table_and_its_views() -> None:
    keys = {table.name: table.key for table in plan_pipeline(pipeline).tables}
    assert keys["created_users"] == ("id",)
    assert keys["recent_users"] == ("list", "registered_date", "id")
    assert len(keys) == 7


def test_a_page_of_people_is_the_same_whenever_it_is_asked_for(api: httpx.Client) -> None:
    asked = {"results": 20, "seed": "x", "page": 3}
    first, second = api.get("/api/", params=asked).json(), api.get("/api/", params=asked).json()
    assert first == second
    assert first["info"] == {"seed": "x", "results": 20, "page": 3, "version": "1.4"}
    assert [each["login"]["uuid"] for each in first["results"]] == [
        person("x", number)["login"]["uuid"] for number in range(40, 60)
    ]
    assert first != api.get("/api/", params={**asked, "seed": "y"}).json()


def test_people_are_of_more_than_ten_countries_and_nobody_is_there_twice() -> None:
    people = page_of_people("headrace", 1, 1000)["results"]
    assert len({each["location"]["country"] for each in people}) == len(NATIONS) > 10
    assert len({each["login"]["uuid"] for each in people}) == 1000


@pytest.mark.parametrize("word", ["0", "-5", "abc", "", "1e9", "٣", "9" * 40])
def test_numbers_that_are_none_count_as_one(api: httpx.Client, word: str) -> None:
    answer = api.get("/api/", params={"results": word, "page": word})
    assert answer.status_code == 200
    assert (len(answer.json()["results"]), answer.json()["info"]["page"]) == (1, 1)


def test_no_more_than_so_many_are_given_at_once(api: httpx.Client) -> None:
    assert len(api.get("/api", params={"results": "100000"}).json()["results"]) == RESULTS_MAX


def test_the_generator_gives_what_the_pipeline_expects() -> None:
    generator = make_generator("signups", seed=5, settings=["malformed_share=0.02", "again_share=0.05"])
    with PipelineTest(pipeline, start=NOON, partitions=3) as test:
        batch = generator.batch(NOON, 1000, rate=100.0)
        for value in batch.column("value").to_pylist():
            test.send_bytes("users_created", value)
        test.advance("1 second")
        outcomes, facts = test.outcomes("users_created"), dict(generator.facts)
        assert set(outcomes) <= {"accepted", "malformed", "duplicate", "future"}
        assert outcomes["malformed"] == int(facts["with a field missing"]) > 5
        assert sum(outcomes.values()) == 1000
        assert test.table("users_total")[0]["users"] == len(test.table("created_users"))


def test_two_hours_of_history_are_a_thousand_users() -> None:
    generator: Any = make_generator("signups")
    assert round(generator.history_rate * 7200) == 1000
    assert generator.activity(NOON) == 1


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ProfileError, match="again_share"):
        make_generator("signups", settings=["again_share=2"])


@pytest.mark.slow
def test_the_project_passes_its_own_tests(tmp_path: Path) -> None:
    write_project("signups", tmp_path)
    own_tests_pass(tmp_path)


# --- what the lesson says of schemas


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    server = RegistryServer(tmp_path / "registry.db")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join()


def test_nat_with_a_default_is_accepted_and_without_one_refused(
    registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stream,) = pipeline.streams
    client = RegistryClient(registry.url)
    try:
        client.register(SUBJECT, "AVRO", avro_of(stream.name, stream.schema.columns))
    finally:
        client.close()
    monkeypatch.chdir(tmp_path)
    lesson = project_files("signups")["README.md"].decode()
    (script,) = re.findall(r"Make the two files</summary>\n\n```python\n(.*?)```", lesson, re.DOTALL)
    exec(script.replace("http://127.0.0.1:8081", registry.url), {})
    assert compatible(registry, "with-default.avsc") is True
    assert compatible(registry, "without-default.avsc") is False


def compatible(registry: RegistryServer, name: str) -> bool:
    body = json.dumps({"schema": Path(name).read_text()}).encode()
    url = f"{registry.url}/compatibility/subjects/{SUBJECT}/versions/latest"
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        found: bool = json.load(answer)["is_compatible"]
    return found


def test_a_user_without_an_address_cannot_be_flattened() -> None:
    user = person("x", 1)
    del user["location"]
    with pytest.raises(KeyError):
        flatten(user, NOON)
