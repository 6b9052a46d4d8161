from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import RefusedError
from headrace.log import open_embedded_log
from headrace.operate.redrive import (
    ADDRESS_HEADER,
    Address,
    append_redriven,
    find_letters,
    prepare,
    replace_bytes,
    set_fields,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def letter(offset: int, value: bytes | None, **changes: Any) -> dict[str, Any]:
    return {
        "stream": "events",
        "lane": "main",
        "partition": 0,
        "offset": offset,
        "record_time": NOON,
        "outcome": "rejected",
        "reasons": [{"rule": "expect:known", "detail": "is not true"}],
        "key": b"k",
        "value": value,
        "headers": None,
        **changes,
    }


class Client:
    running = False

    def __init__(self, letters: list[dict[str, Any]]) -> None:
        self.letters = letters

    def dead_letters(self, *, limit: int = 100, addresses: Any = None) -> pa.Table:
        names = ("stream", "lane", "partition", "offset")
        chosen = [each for each in self.letters if tuple(each[name] for name in names) in addresses]
        assert limit <= len(addresses)  # no more than was asked for is ever in memory
        return pa.Table.from_pylist(chosen[:limit])


def test_an_address_is_read_as_it_is_written() -> None:
    for text in ("events:0:1234", "events@redrive:2:7"):
        assert str(Address.parse(text)) == text
    for wrong in (
        "",
        "events",
        "events:0",
        "events:a:1",
        ":0:1",
        "events:0:-1",
        "events:2147483648:1",
        "events:0:9223372036854775808",
    ):
        with pytest.raises(RefusedError, match="not the address"):
            Address.parse(wrong)


def test_letters_are_found_by_address_and_a_missing_one_is_named() -> None:
    client: Any = Client([letter(1, b"{}"), letter(2, b"{}")])
    assert [each["offset"] for each in find_letters(client, [Address.parse("events:0:2")])] == [2]
    with pytest.raises(RefusedError, match="no dead letter events:0:3"):
        find_letters(client, [Address.parse("events:0:3")])


def test_a_field_is_set_and_every_other_digit_stays() -> None:
    change = set_fields(["device=mobile", "shop.city=Köln", "amount=1.10", "note=null"])
    before = b'{"price": 12345678901234567890.123456789012345, "device": "mobil", "n": [1.50, {"a": 1e400}]}'
    assert change(before).decode() == (
        '{"price":12345678901234567890.123456789012345,"device":"mobile","n":[1.50,{"a":1e400}],'
        '"shop":{"city":"Köln"},"amount":1.10,"note":null}'
    )


def test_what_cannot_be_set_says_what_to_do() -> None:
    with pytest.raises(RefusedError, match="sets nothing"):
        set_fields(["device"])
    for record in (b"", b"[1]", b"\xff", b"{", b"[" * 100_000):
        with pytest.raises(RefusedError, match=r"events:0:1: the record is not a JSON object") as raised:
            prepare([letter(1, record)], set_fields(["a=1"]))
        assert "--with" in raised.value.fix


def _deepest(texts: Iterable[str]) -> str:
    """Return the first that is read, by C: how deep that goes differs, but deeper than what writes it."""
    for text in texts:
        with suppress(RecursionError):
            json.loads(text)
            return text
    raise AssertionError("none of them is read")


def test_a_value_of_more_brackets_than_can_be_read_is_refused() -> None:
    with pytest.raises(RefusedError, match="nested too deeply"):
        set_fields(["a=" + "[" * 100_000])
    deep = _deepest("[" * depth + "]" * depth for depth in (5_000, 1_400, 600))
    with pytest.raises(RefusedError, match="nested too deeply"):
        set_fields([f"a={deep}"])(b"{}")


def test_a_corrected_file_loses_only_its_last_line_break() -> None:
    assert replace_bytes(b'{"a": 1}\r\n')(b"") == b'{"a": 1}'
    assert replace_bytes(b"a\n\n")(b"") == b"a\n"


def test_a_redriven_record_lies_in_the_lane_with_the_address_it_stands_for(tmp_path: Path) -> None:
    again = letter(
        0, b"second", lane="redrive", headers=[{"key": "trace", "value": b"1"},
                                               {"key": "headrace.address", "value": b"2:9"}]
    )  # fmt: skip
    records = prepare([letter(5, b"first"), again, letter(6, None)], None)
    path = tmp_path / "log.db"
    assert append_redriven(records, lambda stream: open_embedded_log(path, stream)) == 3
    log = open_embedded_log(path, "events")
    assert log.partitions()[0].end == 0
    rows = log.lane("redrive").read({}, rows_max=10, bytes_max=10_000, wait=timedelta()).records.to_pylist()
    log.close()
    assert [row["value"] for row in rows] == [b"first", b"second", None]
    assert [row["record_time"] for row in rows] == [NOON] * 3
    assert [
        [header["value"] for header in row["headers"] if header["key"] == "headrace.address"] for row in rows
    ] == [[b"0:5"], [b"2:9"], [b"0:6"]]
    assert rows[1]["headers"][0] == {"key": "trace", "value": b"1"}


def test_tries_of_a_record_that_are_named_together_are_given_back_once() -> None:
    again = {"lane": "redrive", "headers": [{"key": ADDRESS_HEADER, "value": b"0:5"}]}
    tries = [letter(5, b"first"), letter(3, b"third", **again), letter(2, b"second", **again)]
    assert [(record.stands_for, record.value) for record in prepare(tries)] == [("0:5", b"third")]


def test_a_record_that_came_with_an_address_of_its_own_stands_for_itself() -> None:
    forged = letter(5, b"x", headers=[{"key": ADDRESS_HEADER, "value": b"0:1"}])
    assert [record.stands_for for record in prepare([forged])] == ["0:5"]


def test_set_fields_gives_what_json_reads_back() -> None:
    record = {"a": True, "b": None, "c": '\u0000"', "d": [], "e": {}, "f": -3}
    assert json.loads(set_fields(["f=-4"])(json.dumps(record).encode())) == {**record, "f": -4}
