"""Objects of S3, or of a server that speaks its language: read, written, replaced if they are unchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.exceptions import ProfileNotFound as ProfileNotFoundError

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.replicate.columns import LakeOptions

__all__ = ["Bucket", "Found"]

_SAID_MAX = 200
_CONNECT_S, _READ_S = 5, 30
_PROBE = "_headrace/_condition"  # no table's folder begins with _
_CHANGED = ("PreconditionFailed", "412")
_ABSENT = ("NoSuchKey", "404")
_KEYS = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Forbidden|Token|Credential|^40[13]$"
)
_ELSEWHERE = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
)
_LATER = ("RequestTimeout", "SlowDown", "Throttling", "ConditionalRequestConflict")
_FULL = re.compile(r"StorageFull|QuotaExceeded|InsufficientStorage|^507$")
_OF_SETTINGS = (InvalidRegionError, NoRegionError, ParamValidationError, ProfileNotFoundError)


@dataclass(frozen=True)
class Found:
    """An object, and by which word S3 tells whether it is still the same."""

    body: bytes
    tag: str


class Bucket:
    """The objects below one place such as s3://bucket/path. Keys are relative to it.

    Every call is inside `failures`.
    """

    def __init__(self, options: LakeOptions) -> None:
        self.place = options.uri.rstrip("/")
        given = (options.access_key, options.secret_key)
        self._secrets = [each.reveal() for each in given if each is not None]
        with self.failures():
            try:
                at = urlsplit(options.uri)
                self._client = _client(options, self._secrets, attempts=3)
                # A repeated put would meet what its first try, of which the answer was lost, has made, and
                # be refused: as if somebody else had been there.
                self._client_once = _client(options, self._secrets, attempts=1)
            except ValueError as error:  # of an address; anywhere else it is none of the profile's
                raise self._misdescribed(error) from None
        self._bucket, path = at.netloc, at.path.strip("/")
        self._prefix = f"{path}/" if path else ""

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Say who must act when the server says no, or nothing. No message holds a secret."""
        try:
            yield
        except HeadraceError:
            raise
        except ClientError as error:
            raise self._answered(error) from None
        except (NoCredentialsError, PartialCredentialsError) as error:
            what = f"{self.place} cannot be written: {self._said(error)}"
            fix = "give access_key and secret_key in the profile, or let the machine's environment or role"
            raise RefusedError(what, fix=fix) from None
        except _OF_SETTINGS as error:
            raise self._misdescribed(error) from None
        except BotoCoreError as error:
            what = f"{self.place} cannot be reached: {self._said(error)}"
            raise TransientError(what, fix="it is tried again") from None

    def _misdescribed(self, error: Exception) -> RefusedError:
        what = f"{self.place}: {self._said(error)}"
        return RefusedError(what, fix="correct uri, region and endpoint in the profile")

    def _said(self, error: Exception) -> str:
        text = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_SAID_MAX] or type(error).__name__

    def _answered(self, error: ClientError) -> HeadraceError:
        code, said = _code(error), self._said(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _LATER or status in (409, 429):
            return TransientError(f"{self.place} is busy: {said}", fix="it is tried again")
        if _FULL.search(code) or status == 507:
            return TransientError(f"{self.place} is full: {said}", fix="make room; it is tried again")
        if code == "NoSuchBucket":
            return RefusedError(f"{self.place}: {said}", fix="make the bucket, or correct uri in the profile")
        if code in _ELSEWHERE:
            return RefusedError(f"{self.place}: {said}", fix="correct region and endpoint in the profile")
        if code == "RequestTimeTooSkewed":
            return RefusedError(f"{self.place}: {said}", fix="set the clock of this machine, then resume")
        if _KEYS.search(code) or status in (401, 403):
            fix = "correct access_key and secret_key in the profile, or the rights of the bucket"
            return RefusedError(f"{self.place} cannot be written: {said}", fix=fix)
        if status >= 500:
            return TransientError(f"{self.place} cannot be reached: {said}", fix="it is tried again")
        return RefusedError(
            f"{self.place}: {said}", fix="correct uri, region and endpoint in the profile, then resume"
        )

    def address(self, key: str) -> str:
        """Return where an object is, or objects are, in words."""
        return f"{self.place}/{key}"

    def require_conditions(self) -> None:
        """Raise RefusedError when the server puts an object in the place of another one than was named.

        Then two runs could both believe that they have committed. The empty object that is asked about stays:
        nobody takes it away from who asks at the same time.
        """
        for header, condition in (
            ("If-None-Match", {"IfNoneMatch": "*"}),
            ("If-Match", {"IfMatch": '"none"'}),
        ):
            if not any(self._looks(condition) for _ in range(2)):  # the first time it may not be there yet
                self.delete(_PROBE)
                raise RefusedError(
                    f"{self.place}: its server does not compare an object before it replaces it ({header})",
                    fix='use a server that does, as S3 itself, or kind = "delta"',
                )

    def _looks(self, condition: dict[str, str]) -> bool:
        """Return whether the server refused to write the object that is asked about."""
        try:
            self._client_once.put_object(**self._at(_PROBE), Body=b"", **condition)
        except ClientError as error:
            if _code(error) in (*_CHANGED, *_ABSENT):
                return True
            if _code(error) != "NotImplemented":
                raise
        return False

    def read(self, key: str) -> Found | None:
        """Return an object; None when there is none."""
        try:
            answer = self._client.get_object(**self._at(key))
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                return None
            raise
        with answer["Body"] as body:
            return Found(body.read(), answer["ETag"])

    def put(self, key: str, body: bytes) -> None:
        """Write an object, whole or not at all, durably."""
        self._client.put_object(**self._at(key), Body=body)

    def put_file(self, key: str, file: Path) -> None:
        """Write an object with the bytes of a file, whole or not at all, durably."""
        with file.open("rb") as body:
            self._client.put_object(**self._at(key), Body=body)

    def replace(self, key: str, body: bytes, tag: str | None) -> str | None:
        """Write an object if the one that is there has `tag`, or, without, if none is there.

        Return its tag; None when that is not so. When the answer is lost it may have been written.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            answer = self._client_once.put_object(**self._at(key), Body=body, **condition)
        except ClientError as error:
            if _code(error) in (*_CHANGED, *_ABSENT):
                return None
            raise
        written: str = answer["ETag"]
        return written

    def keys(self, below: str) -> Iterator[str]:
        """Give the keys of all objects that begin with `below`."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + below):
            for each in page.get("Contents", ()):
                yield each["Key"].removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        """Take an object away, if it is there."""
        self._client.delete_object(**self._at(key))

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
        self._client_once.close()


def _client(options: LakeOptions, secrets: list[str], *, attempts: int) -> Any:
    # Sums that not every server knows are sent where S3 asks for them, and Amazon's own gets them all.
    sums = "when_required" if options.endpoint else "when_supported"
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        s3={"addressing_style": "path" if options.endpoint else "auto"},
        request_checksum_calculation=sums,
        response_checksum_validation=sums,
    )
    key, secret = secrets or (None, None)
    return boto3.session.Session().client(
        "s3",
        region_name=options.region or ("us-east-1" if options.endpoint else None),
        endpoint_url=options.endpoint or None,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
