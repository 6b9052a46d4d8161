"""`headrace sql` prints every value that DuckDB gives, and says what a file is that is no store."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from headrace.cli.app import run

pytestmark = pytest.mark.slow

FAR = {
    "'infinity'::TIMESTAMPTZ": '"infinity"',
    "'-infinity'::TIMESTAMPTZ": '"-infinity"',
    "'infinity'::TIMESTAMP": '"infinity"',
    "'infinity'::TIMESTAMP_NS": '"infinity"',
    "'-infinity'::TIMESTAMP_S": '"-infinity"',
    "'infinity'::DATE": '"infinity"',
    "'-infinity'::DATE": '"-infinity"',
    "'12345-01-02'::DATE": '"12345-01-02"',
    "'9999-12-31'::DATE": '"9999-12-31"',
    "'12345-01-02 03:04:05.678'::TIMESTAMP": '"12345-01-02T03:04:05.678000"',
    "'12345-01-02 03:04:05Z'::TIMESTAMPTZ": '"12345-01-02T03:04:05.000000+00:00"',
    "'0044-03-15 (BC)'::DATE": '"-0043-03-15"',
    "'2020-01-01 00:00:00.123456789'::TIMESTAMP_NS": '"2020-01-01T00:00:00.123456789"',
    "'01:02:03.123456789'::TIME_NS": '"01:02:03.123456789"',
    "INTERVAL '1 year 2 days 3.5 seconds'": '"1 year 2 days 00:00:03.5"',
    "-INTERVAL '14 months'": '"-1 year -2 months"',
    "INTERVAL '-100 hours'": '"-100:00:00"',
    "INTERVAL '0 days'": '"00:00:00"',
    "99999999999999999999999999999999999999::DECIMAL(38,0)": "9" * 38,
    "1e-30::DECIMAL(38,37)": "0.0000000000000000000000000000010000000",
    "['infinity'::DATE, NULL, '2020-01-02']": '["infinity", null, "2020-01-02"]',
    "{'a': 'infinity'::TIMESTAMPTZ, 'b': [INTERVAL '1 day']}": '{"a": "infinity", "b": ["1 day"]}',
    "MAP {'a': 'infinity'::DATE}": '[["a", "infinity"]]',
    "'nan'::DOUBLE": "null",
    "TIME '24:00:00'": '"24:00:00"',
    "'24:00:00'::TIME_NS": '"24:00:00"',
    "[TIME '24:00:00', '01:02:03.5', NULL]": '["24:00:00", "01:02:03.500000", null]',
    "'12:34:56+05:30'::TIMETZ": '"12:34:56+05:30"',
    "'24:00:00-15:59'::TIMETZ": '"24:00:00-15:59"',
    "340282366920938463463374607431768211455::UHUGEINT": "340282366920938463463374607431768211455",
    "[340282366920938463463374607431768211455::UHUGEINT]": '["340282366920938463463374607431768211455"]',
    "123456789012345678901234567890123456789::BIGNUM": '"123456789012345678901234567890123456789"',
    "'0101011'::BIT": '"0101011"',
    "{'a': '01'::BIT, 'b': [MAP {'1'::BIT: 5}]}": '{"a": "01", "b": [[["1", 5]]]}',
    "['011'::BIT]::BIT[1]": '["011"]',
    "union_value(bits := '011'::BIT)": '"011"',
    "42::VARIANT": '"42"',
    "{'a': 1, 'b': ['x', NULL]}::VARIANT": "\"{'a': 1, 'b': [x, NULL]}\"",
    "'BIT'::ENUM('BIT')": '"BIT"',
}
"""Expressions, and the JSON of each."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql") / "weather"
    assert run(["new", str(folder)]) == 0
    assert run(["run", "--until-caught-up", "-C", str(folder)]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(words) == code
    answer = capsys.readouterr()
    return answer.out if code == 0 else answer.err


def test_values_that_python_cannot_hold_are_printed_in_every_form(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = ", ".join(f"{expression} AS c{number}" for number, expression in enumerate(FAR))
    query = ("sql", f"SELECT {listed}", "-C", str(project), "--format")
    (row,) = said(capsys, *query, "json").strip().removeprefix("[").removesuffix("]").splitlines()
    assert row == "{" + ", ".join(f'"c{number}": {text}' for number, text in enumerate(FAR.values())) + "}"
    shown = said(capsys, *query, "csv").splitlines()[1]
    for text in FAR.values():
        if text.startswith('"'):
            assert json.loads(text) in shown
    shown = said(capsys, *query, "table")
    for text in ("infinity", "12345-01-02 03:04:05.000000 ", "1 year 2 days 00:00:03.5", "9" * 38):
        assert text in shown


def test_a_value_that_is_far_away_leaves_the_others_as_they_are(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT unnest(['2020-01-02 03:04:05Z'::TIMESTAMPTZ, NULL, 'infinity']) AS at"
    here = ("-C", str(project), "--format")
    assert said(capsys, "sql", query, *here, "csv") == 'at\n2020-01-02T03:04:05+00:00\n""\ninfinity\n'
    table = [line.strip() for line in said(capsys, "sql", query, *here, "table").splitlines()]
    assert table[-3:] == ["2020-01-02 03:04:05", "NULL", "infinity"]


def test_a_value_that_comes_as_a_text_may_stand_beside_a_comment_and_a_second_one_of_its_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "/* ; */ SELECT '01'::BIT AS a, '10'::BIT AS a, 'é;' AS \"b;\" ; -- ü ;"
    assert said(capsys, "sql", query, "-C", str(project), "--format", "csv") == "a,a,b;\n01,10,é;\n"


@pytest.mark.parametrize(
    ("statement", "words"),
    [("SELECT 1", "is an empty DuckDB file"), ("CREATE TABLE mine (n INT)", "but no store of a pipeline")],
)
def test_a_file_that_is_no_store_is_told_as_what_it_is(
    statement: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weather"
    assert run(["new", str(folder)]) == 0
    (folder / ".headrace").mkdir()
    with duckdb.connect(str(folder / ".headrace" / "store.duckdb")) as connection:
        connection.execute(statement)
    for command in (["status"], ["tables"], ["ledger"], ["sql", "SELECT 1"], ["dead-letters", "list"]):
        told = said(capsys, *command, "-C", str(folder), code=1)
        assert words in told and "fix:" in told
