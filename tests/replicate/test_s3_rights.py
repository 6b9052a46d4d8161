"""Replicas in S3 that may not write there, or that sign with wrong keys: the server looks at both here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from object_store import (
    KEY,
    SECRET,
    BucketTarget,
    Guard,
    delta_in_s3,
    made_bucket,
    only_known_keys,
    s3_server,
)

from headrace.errors import HeadraceError
from headrace.operate.secrets import Secret
from headrace.replicate.options import CommonOptions
from headrace.testing.replica_obstacles import ReadOnlyTargetConformance, WrongCredentialsConformance
from headrace.testing.replica_writes import THINGS

pytestmark = pytest.mark.slow

SHAPE = replace(THINGS, name="things")  # the server takes a ~ in a name for a wrong signature


class GuardedBucket:
    """A bucket of a server that asks; `wrong` is what is wrong of the credentials."""

    def __init__(self, target: Any, guard: Guard, wrong: str = "") -> None:
        self._target = target
        self._guard = guard
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def read_only(self) -> AbstractContextManager[None]:
        return self._guard.read_only()

    def wrong_credentials(self) -> dict[str, Any]:
        return {"access_key": Secret(KEY)} if self._wrong == "key" else {"secret_key": Secret(SECRET)}

    def secret_words(self) -> tuple[str, ...]:
        return KEY, SECRET, *self._guard.keys


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Guard]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint, only_known_keys(endpoint) as guard:
        yield endpoint, guard


def target_of(kind: str, endpoint: str, guard: Guard) -> Any:
    key, secret = guard.keys
    bucket = made_bucket(endpoint, key=key, secret=secret)
    if kind == "delta":
        return delta_in_s3(endpoint, bucket, access_key=Secret(key), secret_key=Secret(secret))
    return BucketTarget(endpoint, bucket, keys=guard.keys)


@pytest.mark.parametrize("kind", ["parquet", "delta"])
@pytest.mark.parametrize("wrong", ["key", "secret"])
class TestWrongKeys(WrongCredentialsConformance):
    advice = "access_key and secret_key"
    shape = SHAPE

    def check(self, error: HeadraceError | None, options: CommonOptions, *words: str) -> None:
        super().check(error, options, *words)
        assert re.search("InvalidAccessKeyId|SignatureDoesNotMatch", str(error)), "what S3 says is not told"

    @pytest.fixture
    def target(self, guarded: tuple[str, Guard], kind: str, wrong: str) -> GuardedBucket:
        return GuardedBucket(target_of(kind, *guarded), guarded[1], wrong)


@pytest.mark.parametrize("kind", ["parquet", "delta"])
class TestKeysWithoutTheRightToWrite(ReadOnlyTargetConformance):
    advice = "rights of the"
    shape = SHAPE

    @pytest.fixture
    def target(self, guarded: tuple[str, Guard], kind: str) -> GuardedBucket:
        return GuardedBucket(target_of(kind, *guarded), guarded[1])
