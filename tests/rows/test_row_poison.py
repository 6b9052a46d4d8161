"""Records that are meant to break a reader: each gets its outcome, and its neighbours get theirs."""

from __future__ import annotations

import pytest
from row_stages import EVENTS, records, stream_plan, told

from headrace.rows import RowStage

GOOD = b'{"id":"a","at":"2026-01-01T12:00:00Z"}'


def with_field(field: bytes) -> bytes:
    return GOOD[:-1] + b"," + field + b"}"


def with_id(value: bytes) -> bytes:
    return GOOD.replace(b'"a"', value)


def with_at(value: bytes) -> bytes:
    return GOOD.replace(b'"2026-01-01T12:00:00Z"', value)


MALFORMED = {
    "a tombstone": (None, "json", "the record has no value (a tombstone)"),
    "an empty value": (b"", "json", "the value is empty"),
    "white space": (b" \n", "json", "not JSON: expecting value at character 2"),
    "a word": (b"nope", "json", "not JSON: expecting value at character 0"),
    "a list": (b"[1]", "json", "expected an object, found a list"),
    "a string": (b'"x"', "json", "expected an object, found a string"),
    "a number": (b"1", "json", "expected an object, found a number"),
    "null": (b"null", "json", "expected an object, found null"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "json", "the value starts with a byte order mark"),
    "invalid UTF-8": (b"\xff\xfe", "utf8", "invalid UTF-8 at byte 0"),
    "invalid UTF-8 in a string": (with_id(b'"\xc3("'), "utf8", "invalid UTF-8 at byte 7"),
    "binary noise": (bytes(range(256)), "utf8", "invalid UTF-8 at byte 128"),
    "zeros": (b"\x00" * 20, "json", "not JSON: expecting value at character 0"),
    "half a record": (GOOD[:-1], "json", "not JSON: expecting ',' delimiter at character 37"),
    "half a text": (b'{"id": "a', "json", "not JSON: unterminated string starting at character 7"),
    "a line in a text": (b'{"id": "a\nb"}', "json", "not JSON: invalid control character at character 9"),
    "no escape": (b'{"id": "a\\q"}', "json", "not JSON: invalid \\escape at character 9"),
    "two records": (GOOD + GOOD, "json", "not JSON: extra data at character 38"),
    "text after it": (GOOD + b" x", "json", "not JSON: extra data at character 39"),
    "a comment": (GOOD + b"/*x*/", "json", "not JSON: extra data at character 38"),
    "a trailing comma": (GOOD[:-1] + b",}", "json", None),
    "a trailing comma and spaces": (GOOD[:-1] + b", \n\t }", "json", None),
    "a trailing comma and much space": (GOOD[:-1] + b"," + b" " * 999 + b"}", "json", None),
    "a trailing comma in a list": (with_field(b'"x":[1,]'), "json", None),
    "NaN in a field that nobody declared": (
        with_field(b'"x":NaN'),
        "json",
        "not JSON: NaN is not a JSON value",
    ),
    "nan": (with_field(b'"x":[1, nan]'), "json", None),
    "-Infinity": (with_field(b'"x":-Infinity'), "json", "not JSON: -Infinity is not a JSON value"),
    "inf": (with_field(b'"x": inf'), "json", None),
    "a number with a leading zero": (with_field(b'"x":01'), "json", None),
    "a number with a plus": (with_field(b'"x":+1'), "json", None),
    "single quotes": (b"{'id':'a'}", "json", None),
    "a control character in a string": (with_id(b'"\x01"'), "json", None),
    "half of a surrogate pair": (with_id(rb'"\ud800"'), "json", "a string holds half of a surrogate pair"),
    "half of a pair in a name": (
        with_field(rb'"\udc00":1'),
        "json",
        "a string holds half of a surrogate pair",
    ),
    "65 levels": (with_field(b'"x":' + b"[" * 64 + b"]" * 64), "json", "nested deeper than 64 levels"),
    "100,000 levels": (b"[" * 100_000, "json", "nested deeper than 64 levels"),
    "a number for a VARCHAR": (with_id(b"12"), "column:id", "expected VARCHAR, found a number"),
    "a long number for a VARCHAR": (with_id(b"1" * 400), "column:id", "expected VARCHAR, found a number"),
    "true for a VARCHAR": (with_id(b"true"), "column:id", "expected VARCHAR, found a boolean"),
    "an object for a VARCHAR": (with_id(b'{"x":1}'), "column:id", "expected VARCHAR, found an object"),
    "a list for a VARCHAR": (with_id(b"[]"), "column:id", "expected VARCHAR, found a list"),
    "null for NOT NULL": (with_id(b"null"), "column:id", "is NULL, and declared NOT NULL"),
    "a missing column": (b'{"at":"2026-01-01T12:00:00Z"}', "column:id", "is missing, and declared NOT NULL"),
    "a column of another case": (
        GOOD.replace(b'"id"', b'"ID"'),
        "column:id",
        "is missing, and declared NOT NULL",
    ),
    "1.0 for an INT": (
        with_field(b'"count":1.0'),
        "column:count",
        "expected INTEGER, found a number with a point or an exponent",
    ),
    "1e2 for an INT": (
        with_field(b'"count":1e2'),
        "column:count",
        "expected INTEGER, found a number with a point or an exponent",
    ),
    "a string for an INT": (with_field(b'"count":"12"'), "column:count", "expected INTEGER, found a string"),
    "true for an INT": (with_field(b'"count":true'), "column:count", "expected INTEGER, found a boolean"),
    "NaN for a DOUBLE": (with_field(b'"ratio":NaN'), "json", "not JSON: NaN is not a JSON value"),
    "an INT that does not fit": (
        with_field(b'"count":2147483648'),
        "column:count",
        "out of range for INTEGER",
    ),
    "a huge INT": (with_field(b'"count":' + b"9" * 5000), "column:count", "out of range for INTEGER"),
    "a huge DOUBLE": (with_field(b'"ratio":1e400'), "column:ratio", "out of range for DOUBLE"),
    "a huge DECIMAL": (with_field(b'"amount":1e10'), "column:amount", "out of range for DECIMAL(12,2)"),
    "an exponent without end": (
        with_field(b'"amount":1e' + b"9" * 99),
        "column:amount",
        "out of range for DECIMAL(12,2)",
    ),
    "a DECIMAL that rounds over": (
        with_field(b'"amount":9999999999.995'),
        "column:amount",
        "out of range for DECIMAL(12,2)",
    ),
    "1 for a BOOLEAN": (with_field(b'"flag":1'), "column:flag", "expected BOOLEAN, found a number"),
    "a word for a BOOLEAN": (with_field(b'"flag":"true"'), "column:flag", "expected BOOLEAN, found a string"),
    "a number for a list": (with_field(b'"items":5'), "column:items", "expected a list, found a number"),
    "an object for a list": (with_field(b'"items":{}'), "column:items", "expected a list, found an object"),
    "a number for a struct": (
        with_field(b'"items":[{"product":"p"},5]'),
        "column:items",
        "item 2: expected an object, found a number",
    ),
    "a number inside a list": (
        with_field(b'"items":[{"product":7}]'),
        "column:items",
        "item 1, field product: expected VARCHAR, found a number",
    ),
    "a string inside a list": (
        with_field(b'"items":[{"product":"p","quantity":"7"}]'),
        "column:items",
        "item 1, field quantity: expected INTEGER, found a string",
    ),
    "no event time": (b'{"id":"a"}', "column:at", "is missing, and declared NOT NULL"),
    "a number for a time": (with_at(b"1767268800"), "column:at", "expected TIMESTAMP, found a number"),
    "text for a time": (
        with_at(b'"yesterday"'),
        "column:at",
        "expected TIMESTAMP, found a string that is not an ISO 8601 instant",
    ),
    "a time zone by name": (with_at(b'"2026-01-01T12:00:00 Europe/Paris"'), "column:at", None),
    "infinity for a time": (with_at(b'"infinity"'), "column:at", None),
    "a day that does not exist": (
        with_at(b'"2026-02-30T12:00:00Z"'),
        "column:at",
        "expected TIMESTAMP, found a day or time that does not exist",
    ),
    "the year 0": (with_at(b'"0000-01-01T00:00:00Z"'), "column:at", None),
    "an instant before the year 1": (with_at(b'"0001-01-01T00:00:00+05:00"'), "column:at", None),
}

GOOD_AFTER_ALL = {
    "white space around it": b" \r\n\t" + GOOD + b"\n ",
    "a name with an escape": GOOD.replace(b'"id"', rb'"\u0069d"'),
    "a zero character": with_id(rb'"a\u0000b"'),
    "an emoji": with_id('"\U0001f600"'.encode()),
    "an emoji as a pair": with_id(rb'"\ud83d\ude00"'),
    "a string that looks like a number": with_id(b'"12"'),
    "a string that looks like an object": with_id(rb'"{\"x\":1}"'),
    "a string that looks like a word": with_id(b'"true"'),
    "an empty string": with_id(b'""'),
    "NaN in a string": with_id(b'"x: NaN, inf ,}"'),
    "brackets in a string": with_id(b'"' + b"[" * 100 + b"]" * 100 + b'"'),
    "a huge number that nobody declared": with_field(b'"x":1e400'),
    "a field twice": with_field(b'"x":1,"x":2'),
    "null": with_field(b'"count":null,"items":null'),
    "null in a list": with_field(b'"items":[null,{"product":null}]'),
    "an empty object in a list": with_field(b'"items":[{}]'),
    "64 levels": with_field(b'"x":' + b"[" * 63 + b"]" * 63),
    "many objects": with_field(b'"x":[' + b",".join([b"{}"] * 500) + b"]"),
    "100,000 fields": with_field(b",".join(b'"f%d":%d' % (at, at) for at in range(100_000))),
    "10 MB": with_field(b'"x":"' + b"y" * 10_000_000 + b'"'),
}


@pytest.fixture(scope="module")
def stage():
    stage = RowStage(stream_plan(EVENTS))
    yield stage
    stage.close()


@pytest.mark.parametrize("name", MALFORMED)
def test_a_poisonous_record_is_malformed_and_its_neighbours_are_not(stage, name):
    value, rule, detail = MALFORMED[name]
    result = stage.run(records([GOOD, value, GOOD]))
    assert result.timely.column("_offset").to_pylist() == [0, 2]
    (letter,) = result.dead.to_pylist()
    assert (letter["offset"], letter["outcome"], letter["value"]) == (1, "malformed", value)
    assert letter["key"] == b"k"
    (reason,) = letter["reasons"]
    assert reason["rule"] == rule
    assert detail is None or reason["detail"] == detail


@pytest.mark.parametrize("name", GOOD_AFTER_ALL)
def test_a_strange_record_that_is_json_is_taken(stage, name):
    result = stage.run(records([GOOD, GOOD_AFTER_ALL[name], GOOD]))
    assert result.dead.num_rows == 0
    assert sorted(result.timely.column("_offset").to_pylist()) == [0, 1, 2]


def test_all_poison_at_once_is_told_as_one_by_one(stage):
    values = [value for value, _, _ in MALFORMED.values()] + list(GOOD_AFTER_ALL.values())[:-2]
    together = told(stage.run(records(values)))
    for at, value in enumerate(values):
        assert together[at] == told(stage.run(records([value])))[0], value


def test_every_problem_of_a_record_is_told_at_once(stage):
    (letter,) = stage.run(records([b'{"at":5,"count":"x"}'])).dead.to_pylist()
    assert [reason["rule"] for reason in letter["reasons"]] == ["column:id", "column:at", "column:count"]


def test_a_reason_never_holds_the_payload(stage):
    secret = b"4929123412341234"
    values = [with_field(b'"count":"%s"' % secret), with_at(b'"%s"' % secret), secret, b"{" + secret]
    for letter in stage.run(records(values)).dead.to_pylist():
        assert secret.decode() not in repr(letter["reasons"])
