from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, Field, PositiveInt

import headrace as hr
from headrace.declare.schema_model import model_schema


class Device(Enum):
    MOBILE = "mobile"
    DESKTOP = "desktop"


class Level(IntEnum):
    LOW = 1


class Item(BaseModel):
    product_id: str
    price: Decimal = Field(max_digits=12, decimal_places=2)


class Event(BaseModel):
    event_id: UUID
    kind: Literal["click", "view"]
    device: Device
    level: Level
    at: datetime
    seen: AwareDatetime
    day: date
    clock: time
    count: int
    positive: PositiveInt
    share: float
    good: bool
    user: str = Field(alias="userId")
    code: str = Field(validation_alias="the_code")
    amount: Annotated[Decimal, Field(max_digits=10, decimal_places=3)] | None = None
    plain: Decimal
    whole: Decimal = Field(max_digits=9)
    note: str | None
    old: Optional[int] = None  # noqa: UP045
    colour: str = "red"
    items: list[Item]
    tags: dict[str, list[int]]
    more: Sequence[str]
    counts: Mapping[str, int]
    item: Item


def test_the_fields_of_a_model_are_columns():
    schema, mistakes = model_schema(Event)
    assert mistakes == ()
    assert {column.name: (column.type.sql, column.nullable) for column in schema.columns} == {
        "event_id": ("UUID", False),
        "kind": ("VARCHAR", False),
        "device": ("VARCHAR", False),
        "level": ("BIGINT", False),
        "at": ("TIMESTAMP WITH TIME ZONE", False),
        "seen": ("TIMESTAMP WITH TIME ZONE", False),
        "day": ("DATE", False),
        "clock": ("TIME", False),
        "count": ("BIGINT", False),
        "positive": ("BIGINT", False),
        "share": ("DOUBLE", False),
        "good": ("BOOLEAN", False),
        "userId": ("VARCHAR", False),
        "the_code": ("VARCHAR", False),
        "amount": ("DECIMAL(10,3)", True),
        "plain": ("DECIMAL(18,3)", False),
        "whole": ("DECIMAL(9,0)", False),
        "note": ("VARCHAR", True),
        "old": ("BIGINT", True),
        "colour": ("VARCHAR", True),
        "items": ('STRUCT("product_id" VARCHAR, "price" DECIMAL(12,2))[]', False),
        "tags": ("MAP(VARCHAR, BIGINT[])", False),
        "more": ("VARCHAR[]", False),
        "counts": ("MAP(VARCHAR, BIGINT)", False),
        "item": ('STRUCT("product_id" VARCHAR, "price" DECIMAL(12,2))', False),
    }


class Tree(BaseModel):
    children: "list[Tree]"


class Empty(BaseModel):
    pass


class Wrong(BaseModel):
    raw: bytes
    length: timedelta
    either: int | str
    anything: Any
    bare: list
    bare_map: dict
    several: set[int]
    pair: tuple[int, int]
    mixed: Literal[1, "a"]
    by_item: dict[bytes, int]
    tree: Tree
    empty: Empty
    big: Decimal = Field(max_digits=50)
    odd: complex
    good: int


def test_every_field_without_a_sql_type_is_named_with_what_to_write():
    Wrong.model_rebuild()
    schema, mistakes = model_schema(Wrong)
    assert [column.name for column in schema.columns] == ["good"]
    assert len(mistakes) == 14
    text = "\n".join(mistakes)
    for part in (
        "field Wrong.raw: the type bytes cannot be used; bytes have no form in JSON",
        "Wrong.length: the type timedelta cannot be used; an interval",
        "Wrong.either: it may be of several types",
        "Wrong.anything: the type Any cannot be used; say which",
        "Wrong.bare: the type list cannot be used; say of what; write list[str]",
        "write dict[str, str]",
        "write list[...]",
        "Wrong.mixed: its values have to be all strings",
        "Wrong.tree.children[]: Tree contains itself",
        "Wrong.empty: Empty has no fields",
        "not 50 with 0 places",
        "Wrong.odd: the type complex cannot be used; declare the schema as SQL instead",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Empty, "Empty has no fields"),
        (int, "int is not a pydantic model"),
        (5, "a SQL column list or a pydantic model, not int"),
    ],
)
def test_what_is_no_schema_is_a_problem(given, says):
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", given)
    assert says in str(pipeline.problems[0])
    assert pipeline.streams[0].schema.columns == ()


def test_a_stream_takes_a_model():
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema=Event, event_time="at", unique="event_id", key="userId")
    assert pipeline.problems == ()
    assert pipeline.streams[0].key == "userId"
