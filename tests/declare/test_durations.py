from datetime import timedelta

import pytest

from headrace.declare import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5 minutes", timedelta(minutes=5)),
        ("90 s", timedelta(seconds=90)),
        ("1 hour 30 minutes", timedelta(minutes=90)),
        ("1.5 h", timedelta(minutes=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("10 us", timedelta(microseconds=10)),
        ("2 Weeks", timedelta(days=14)),
        ("0 s", timedelta(0)),
        (timedelta(seconds=3), timedelta(seconds=3)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text, length):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 month", "no fixed length; write days"),
        ("2 years", "no fixed length; write days"),
        ("5", "not a duration"),
        ("soon", "not a duration"),
        ("-5 minutes", "not a duration"),
        ("5 parsecs", "unknown unit"),
        ("", "empty"),
        ("99999999999 weeks", "is too long"),
        ("900000000 days 900000000 days", "is too long"),
        ("9" * 400 + " s", "is too long"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["1 hour 30 minutes", "0 seconds", "1 day", "250 ms", "2 days 1 second 5 us"]
)
def test_a_formatted_duration_reads_back_as_itself(text):
    assert format_duration(parse_duration(text)) == text
