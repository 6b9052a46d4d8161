"""Makes signups without an API: the same people, flattened as the poller flattens them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

import numpy as np
import pyarrow as pa

from headrace.blueprints.signups.people import person
from headrace.blueprints.signups.users import flatten
from headrace.errors import ProfileError
from headrace.log.protocol import APPEND_SCHEMA

__all__ = ["SignupsGenerator"]


@dataclass(eq=False)
class SignupsGenerator:
    """Makes the records of new users. Shares are of all records.

    malformed_share   users of whom a field is missing, which are appended as the API gave them
    again_share       users who come a second time, as a page that is polled again brings them
    """

    seed: int = 0
    malformed_share: float = 0.005
    again_share: float = 0.01
    stream: str = "users_created"

    incidents: ClassVar[Mapping[str, str]] = {}
    rate_default: ClassVar[float] = 10.0
    history_rate: ClassVar[float] = 1000 / 7200
    """A demo begins with two hours of history: a thousand users."""

    def __post_init__(self) -> None:
        for name in ("malformed_share", "again_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ProfileError(f"{name} of the signups generator is {share}", fix="give it from 0 to 1")
        self._random = np.random.default_rng(self.seed)
        self._made = self._malformed = self._again = 0

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        """See `Generator`."""
        malformed = self._random.random(count) < self.malformed_share
        again = self._random.random(count) < self.again_share
        rows = []
        for i in range(count):
            moment = start + timedelta(seconds=i / rate)
            if again[i] and self._made:
                number = int(self._random.integers(0, self._made))
                self._again += 1
            else:
                number = self._made
                self._made += 1
            user = person(str(self.seed), number)
            if malformed[i]:
                del user["email"]
                self._malformed += 1
                rows.append({"record_time": moment, "key": None, "value": json.dumps(user).encode()})
                continue
            record = flatten(user, moment)
            value = json.dumps(record).encode()
            rows.append({"record_time": moment, "key": record["id"].encode(), "value": value})
        return pa.Table.from_pylist(rows, APPEND_SCHEMA)

    def activity(self, at: datetime) -> float:
        """See `Generator`: people sign up at every hour."""
        return 1.0

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """See `BlueprintGenerator`."""
        if not self._made:
            return ()
        return (
            ("users", f"{self._made:,}"),
            ("users who came again", f"{self._again:,}"),
            ("with a field missing", f"{self._malformed:,}"),
        )
