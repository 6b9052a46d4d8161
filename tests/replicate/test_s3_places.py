"""Which places in S3 are refused, and in which words: no server is needed for it."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from object_store import BucketTarget, delta_in_s3

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.parquet.bucket import Bucket
from headrace.replicate.shapes import tables_of
from headrace.sql import plan_pipeline
from headrace.testing.replica_runs import shop
from headrace.testing.replica_writes import opened


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"uri": "s3://a bucket"}, "Invalid bucket name"),
        ({"uri": "s3://[bucket"}, "Invalid IPv6"),
        ({"endpoint": "127.0.0.1:9000"}, "Invalid endpoint"),
    ],
)
def test_what_is_wrong_with_a_place_is_told(more: dict[str, Any], said: str) -> None:
    target = BucketTarget("http://127.0.0.1:1", "lake")
    with pytest.raises(RefusedError, match=said) as raised, opened(target, **more):
        pass
    assert "uri, region and endpoint" in raised.value.fix


def test_a_clock_that_goes_wrong_is_not_taken_for_wrong_keys() -> None:
    bucket = Bucket(BucketTarget("http://127.0.0.1:1", "lake").replica())
    answer: Any = {
        "Error": {"Code": "RequestTimeTooSkewed"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    with pytest.raises(RefusedError) as raised, bucket.failures():
        raise ClientError(answer, "PutObject")
    bucket.close()
    assert "clock" in raised.value.fix


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"path": "here"}, "path or uri"),
        ({"uri": ""}, "path or uri"),
        ({"uri": "gs://bucket/lake"}, "folder or in S3"),
        ({"secret_key": None}, "one of access_key and secret_key"),
    ],
)
def test_a_description_that_cannot_be_is_refused(more: dict[str, Any], said: str) -> None:
    target = BucketTarget("http://127.0.0.1:1", "lake")
    with pytest.raises(ProfileError, match=said), opened(target, **more):
        pass
    with pytest.raises(ProfileError, match=said):  # as `headrace check` asks
        tables_of(plan_pipeline(shop()), target.replica(**more), "copy")


NAMED = [
    {"uri": "s3://AKEY:pass-w0rd@bucket/lake"},
    {"uri": "s3://AKEY:pass/w0rd@bucket/lake"},
    {"uri": "s3://pass-w0rd@bucket"},
    {"uri": "AKEY:pass-w0rd@bucket/lake"},
    {"uri": "abfss://lake:pass-w0rd@account.dfs.core.windows.net/lake"},
    {"endpoint": "http://who:pass-w0rd@127.0.0.1:1"},
    {"endpoint": "who:pass-w0rd@127.0.0.1:1"},
]


@pytest.mark.parametrize("kind", ["delta", "parquet"])
@pytest.mark.parametrize("more", NAMED)
def test_an_address_that_names_a_password_is_refused_and_not_told(kind: str, more: dict[str, Any]) -> None:
    endpoint = "http://127.0.0.1:1"
    target = delta_in_s3(endpoint, "lake") if kind == "delta" else BucketTarget(endpoint, "lake")
    with pytest.raises(ProfileError, match="names a user or a password") as raised:
        tables_of(plan_pipeline(shop()), target.replica(**more), "copy")
    assert "w0rd" not in str(raised.value)
    assert "access_key" in raised.value.fix


@pytest.mark.parametrize(
    "uri", ["abfss://lake@account.dfs.core.windows.net/a:b", "s3://bucket/who@example", "hdfs://host:8020/a"]
)
def test_an_address_may_have_such_signs_where_they_are_of_the_place(uri: str) -> None:
    delta_in_s3("http://127.0.0.1:1", "lake").replica(uri=uri).check_place("copy")
