"""The fast and the exact reading of a record are one: random records of every type, alone and in batches.

A space before a record sends it the exact way, and changes nothing else about it but its size and its bytes.
"""

from __future__ import annotations

import json
import re
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_stages import NOON, records, stream_plan, told

from headrace.rows import RowStage, proof

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

TYPES = {
    "i8": "TINYINT",
    "i64": "BIGINT",
    "i128": "HUGEINT",
    "u32": "UINTEGER",
    "u64": "UBIGINT",
    "f32": "FLOAT",
    "f64": "DOUBLE",
    "d5": "DECIMAL(5,2)",
    "d0": "DECIMAL(9,0)",
    "d38": "DECIMAL(38,10)",
    "flag": "BOOLEAN",
    "text": "VARCHAR",
    "at": "TIMESTAMP",
    "day": "DATE",
    "clock": "TIME",
    "uuid": "UUID",
    "bytes": "BLOB",
    "any": "JSON",
    "texts": "VARCHAR[]",
    "numbers": "DECIMAL(5,2)[][]",
    "times": "TIMESTAMP[]",
    "part": 'STRUCT("a.b" VARCHAR, n INT, deep STRUCT(x DOUBLE, many INT[]))',
    "parts": "STRUCT(t VARCHAR, f BOOLEAN, m MAP(VARCHAR, INT))[]",
    "words": "MAP(VARCHAR, VARCHAR)",
    "map": "MAP(VARCHAR, STRUCT(v DOUBLE))",
    "keyed": "MAP(INT, DATE)",
}
SCHEMA = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
STAGE = RowStage(stream_plan(SCHEMA, event_time=None, unique=("text", "i64")))
GOOD = [b"{}", b'{"text":"x","i64":5,"at":"2026-01-01T00:00:00Z"}']
BAD = [b"{", None, b"\xff", b'{"i64":"x"}']

numbers = st.one_of(
    st.integers(-(2**129), 2**129).map(str),
    st.integers(-300, 300).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,22})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"-?(0|[1-9][0-9]{0,2})\.[0-9]{1,3}", fullmatch=True),
    st.sampled_from(
        ["-0", "-0.0", "0.005", "1.005", "999.995", "3.4028236e38", "16777217.0", "1e-7", "5e-324"]
    ),
)
clocks = st.from_regex(r"([01][0-9]|2[0-4]):[0-6][0-9](:[0-6][0-9](\.[0-9]{0,10})?)?", fullmatch=True)
days = st.from_regex(r"(000[01]|1969|2026|9999)-[01][0-9]-[0-3][0-9]", fullmatch=True)
zones = st.sampled_from(
    ["", "", "Z", "Z", "+02:00", "-0730", "+02", "+15:59", "+16:00", " Z", " UTC", "z", "+2", " "]
)
instants = st.builds(
    lambda day, sign, clock, zone: day + sign + clock + zone, days, st.sampled_from("TTT t"), clocks, zones
)
texts = st.one_of(
    st.text(max_size=5),
    numbers,
    days,
    clocks,
    instants,
    st.uuids().map(str),
    st.uuids().map(lambda value: value.hex),
    st.from_regex(r"[A-Za-z0-9+/]{0,8}={0,2}", fullmatch=True),
    st.sampled_from(
        ["true", "false", "null", "NaN", "[", "{", "{}", "[1]", "infinity", "epoch", ",}", "12 ", " 1"]
    ),
)
strings = st.one_of(texts.map(json.dumps), texts.map(lambda text: json.dumps(text, ensure_ascii=False)))
words = st.sampled_from(
    ["true", "false", "null", "[]", "{}", "[null]", "[[1.5],null]", '["2026-01-01T00:00:00Z"]']
)
scalars = st.one_of(numbers, strings, words)
NAMES = ("a.b", "n", "deep", "x", "many", "t", "f", "m", "v", "5", "-0", "05", "w")


def as_object(pairs):
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"


values = st.recursive(
    scalars,
    lambda inside: st.one_of(
        st.lists(inside, max_size=3).map(lambda parts: "[" + ",".join(parts) + "]"),
        st.lists(st.tuples(st.sampled_from(NAMES), inside), max_size=3).map(as_object),
    ),
    max_leaves=5,
)
FITTING = {
    "DATE": days.map(json.dumps),
    "TIME": clocks.map(json.dumps),
    "TIMESTAMP": instants.map(json.dumps),
    "UUID": st.uuids().map(lambda value: json.dumps(str(value))),
    "BOOLEAN": words,
    "VARCHAR": strings,
    "VARCHAR[]": st.lists(strings, max_size=3).map(lambda parts: "[" + ",".join(parts) + "]"),
}


def value_of(name):
    kind = TYPES.get(name, "")
    likely = FITTING.get(
        kind, numbers if re.match("U?[A-Z]+INT|DEC|DOU|FLO", kind) and "[" not in kind else values
    )
    return st.tuples(st.just(name), st.one_of(likely, likely, values))


fields = st.sampled_from([*TYPES, "other"]).flatmap(value_of)
documents = st.lists(fields, max_size=4).map(lambda pairs: as_object(pairs).encode("utf-8", "surrogatepass"))


def without_bytes(answer):
    return tuple(re.sub(r"'_(size|content_hash)': \d+,? ?", "", part) for part in answer)


def check(values):
    count = len(values)
    good = told(STAGE.run(records([*values, *GOOD])))
    bad = told(STAGE.run(records([*values, *BAD])))
    exact = told(STAGE.run(records([b" " + value for value in values])))
    assert [bad[at] for at in range(count)] == [good[at] for at in range(count)]
    assert [without_bytes(exact[at]) for at in range(count)] == [
        without_bytes(good[at]) for at in range(count)
    ]
    assert told(STAGE.run(records(values[:1])))[0] == good[0]
    with patch.multiple(proof, _SHORT=0, _FEW=0):
        assert told(STAGE.run(records([*values, *GOOD]))) == good


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(documents, min_size=1, max_size=40))
def test_a_record_has_the_same_outcome_alone_in_good_company_and_in_bad(values):
    check(values)


@pytest.mark.soak
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(documents, min_size=1, max_size=40))
def test_hundreds_of_batches_have_the_same_outcomes_alone_in_good_company_and_in_bad(values):
    check(values)


def test_both_ways_are_taken():
    result = STAGE.run(records([b'{"text":"x"}', b' {"text":"x"}'], at=NOON))
    assert result.timely.num_rows == 2
    assert result.timely.column("_size").to_pylist() == [12, 13]
