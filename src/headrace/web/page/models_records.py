"""What the page's API answers and takes about records that were set aside or came late; see `models`."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = [
    "Again",
    "DeadLetter",
    "DeadLetterGroup",
    "DeadLetterPage",
    "LateGroup",
    "Reason",
    "Redrive",
    "RedrivePreview",
    "RedriveResult",
    "RedriveSample",
]


class DeadLetterGroup(BaseModel):
    """Dead letters of one stream, outcome and rule; `sample` is the address of the newest.

    `records` were set aside ever, `accepted` of them were given back and accepted since, `again` given back
    and set aside once more.
    """

    stream: str
    outcome: str
    rule: str
    records: int
    accepted: int
    again: int
    first: str
    last: str
    detail: str
    sample: str


class Reason(BaseModel):
    """A rule that a record broke, and how."""

    rule: str
    detail: str


class Again(BaseModel):
    """The letter of a record that was given back and set aside once more."""

    address: str
    outcome: str
    reasons: list[Reason]


class DeadLetter(BaseModel):
    """A record that was set aside; what is no UTF-8 is shown as in a Python literal.

    `accepted`: it was given back, and accepted since. `again`: it was given back, and stands there now.
    """

    address: str
    stream: str
    outcome: str
    record_time: str
    event_time: str | None
    reasons: list[Reason]
    key: str | None
    value: str | None
    text: bool
    accepted: bool
    again: Again | None


class DeadLetterPage(BaseModel):
    """Records that were set aside; `more`: there are others."""

    letters: list[DeadLetter]
    more: bool


class Redrive(BaseModel):
    """What is given back: addresses, or all of a group. `rule` is the first that a record broke.

    `value` stands in the place of one record, `assignments` (`field=value`) set fields of JSON records.
    """

    addresses: list[str] = Field(default=[], max_length=10_000)
    stream: str | None = None
    outcome: str | None = None
    rule: str | None = None
    value: str | None = Field(default=None, max_length=1_000_000)
    assignments: list[str] = Field(default=[], max_length=100)


class RedriveSample(BaseModel):
    """A record on its way back, before and after it was changed.

    `would`: the outcome that the row stage gives it, null where it was not asked; `reasons`: what it breaks.
    """

    address: str
    outcome: str
    before: str | None
    after: str | None
    changed: bool
    would: str | None
    reasons: list[Reason]


class RedrivePreview(BaseModel):
    """What would be given back; `samples` are the first of them.

    The row stage was asked of the first `checked`: `outcomes` they would get, rules `broken` and those that
    only warned, with the number of records. `accepted`: unless it is a copy of what was accepted.
    `unchecked` says why nobody could be asked.
    """

    records: int
    samples: list[RedriveSample]
    checked: int
    outcomes: dict[str, int]
    broken: dict[str, int]
    warned: dict[str, int]
    unchecked: str


class RedriveResult(BaseModel):
    """How many records went to the redrive lane; the ledger says what becomes of them."""

    records: int


class LateGroup(BaseModel):
    """Late rows of one stream, by how much too late they came: so many seconds or more, below so many.

    `most_seconds` is the most of them; an allowed lateness that is longer by that would have taken them all.
    """

    stream: str
    over_seconds: float
    below_seconds: float | None
    records: int
    most_seconds: float
    first: str
    last: str
