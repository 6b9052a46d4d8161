"""The pipeline's own tests: `pytest` runs them in seconds, with a clock of their own, and nothing to start.

`send` appends records to the log as if they arrived at the time `at`, `table` reads the answer.
"""
# ruff: noqa: S101 - a test's name says what it shows, and it asserts

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace.operate import load_project
from headrace.testing import PipelineTest

PROJECT = Path(__file__).parent.parent
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

API_USER = {
    "gender": "female",
    "name": {"title": "Ms", "first": "Nora", "last": "Berg"},
    "location": {
        "street": {"number": 7, "name": "Storgata"},
        "city": "Bergen",
        "state": "Vestland",
        "country": "Norway",
        "postcode": 5003,
    },
    "email": "nora.berg@example.com",
    "login": {"uuid": "u1", "username": "tinynora"},
    "registered": {"date": "2019-07-03T12:33:11.123Z", "age": 6},
    "phone": "12345678",
    "picture": {"medium": "https://pictures.example/med/women/1.jpg"},
}


def flatten() -> Any:
    """Return the function of users.py, as the poller finds it."""
    spec = importlib.util.spec_from_file_location("signups_users", PROJECT / "users.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.flatten


def user(name: str = "u1", **fields: Any) -> dict[str, Any]:
    """Return a record."""
    return {**flatten()(API_USER, NOON), "id": name, **fields}


@pytest.fixture
def signups() -> Iterator[PipelineTest]:
    with PipelineTest(load_project(PROJECT).pipeline, partitions=3, start=NOON) as test:
        yield test


def test_a_user_is_flattened_and_kept_with_the_day_of_registration(signups: PipelineTest) -> None:
    signups.send("users_created", user(), at=NOON)
    signups.advance("1 second")
    [row] = signups.table("created_users")
    assert row == {
        "id": "u1",
        "first_name": "Nora",
        "last_name": "Berg",
        "gender": "female",
        "address": "7 Storgata, Bergen, Vestland, Norway",
        "post_code": "5003",
        "email": "nora.berg@example.com",
        "username": "tinynora",
        "registered_date": "2019-07-03T12:33:11.123Z",
        "phone": "12345678",
        "picture": "https://pictures.example/med/women/1.jpg",
        "year": "2019",
        "month": "07",
        "day": "03",
        "country": "Norway",
    }


def test_a_user_who_lacks_a_field_cannot_be_flattened() -> None:
    broken = {name: value for name, value in API_USER.items() if name != "login"}
    with pytest.raises(KeyError):
        flatten()(broken, NOON)


def test_a_page_that_is_polled_again_is_counted_once(signups: PipelineTest) -> None:
    signups.send("users_created", [user("u1"), user("u2"), user("u1")], at=NOON)
    signups.advance("1 second")
    assert signups.outcomes("users_created") == {"accepted": 2, "duplicate": 1}
    assert signups.table("users_total") == [{"scope": "all", "users": 2}]


def test_a_user_who_is_polled_again_days_later_changes_nothing(signups: PipelineTest) -> None:
    signups.send("users_created", user(), at=NOON)
    signups.advance("2 days")
    before = signups.table("created_users")
    later = datetime(2026, 3, 3, 13, tzinfo=UTC)
    signups.send("users_created", user(polled_at=later.isoformat()), at=later)
    signups.advance("1 second")
    assert signups.outcomes("users_created")["accepted"] == 2
    assert signups.table("created_users") == before


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""},
        {"email": "nobody"},
        {"email": "a b@example.com"},
        {"gender": "robot"},
        {"address": "somewhere,"},
        {"registered_date": "yesterday"},
        {"registered_date": "2031-01-01T00:00:00Z"},
    ],
)
def test_what_breaks_a_rule_is_set_aside(signups: PipelineTest, fields: dict[str, Any]) -> None:
    signups.send("users_created", [user("u1"), user(**{"id": "u2", **fields})], at=NOON)
    signups.advance("1 second")
    assert signups.outcomes("users_created") == {"accepted": 1, "rejected": 1}


def test_the_counts_beside_the_table_agree_with_it(signups: PipelineTest) -> None:
    signups.send(
        "users_created",
        [
            user("u1"),
            user("u2", gender="male", email="x@Mail.Example", registered_date="2020-01-31T00:00:00Z"),
            user("u3", address="1 Rue, Lyon, Rhône, France", registered_date="2020-01-01T00:00:00Z"),
        ],
        at=NOON,
    )
    signups.advance("1 second")
    counted = {
        name: {row[key]: row["users"] for row in signups.table(name)}
        for name, key in {
            "users_by_gender": "gender",
            "users_by_country": "country",
            "registrations_by_month": "month",
            "email_providers": "provider",
        }.items()
    }
    assert counted == {
        "users_by_gender": {"female": 2, "male": 1},
        "users_by_country": {"Norway": 2, "France": 1},
        "registrations_by_month": {"2019-07": 1, "2020-01": 2},
        "email_providers": {"example.com": 2, "mail.example": 1},
    }
    newest = sorted(signups.table("recent_users"), key=lambda row: row["registered_date"], reverse=True)
    assert [row["id"] for row in newest] == ["u2", "u3", "u1"]
