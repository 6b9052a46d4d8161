"""Views whose text leaves open which rows they take."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.errors import DeclarationError
from headrace.sql import plan_pipeline


def declared(view: str, *, panel: bool = False) -> hr.Pipeline:
    pipeline = hr.Pipeline("x")
    pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, who VARCHAR", event_time="seen")
    pipeline.table("users", "SELECT who, count(*) AS n FROM events GROUP BY who")
    if panel:
        pipeline.panel("Users", view)
    else:
        pipeline.table("chosen", view)
    return pipeline


OPEN = [
    ("SELECT who FROM users USING SAMPLE 10 ROWS", "a sample of rows", "WHERE hash(id)"),
    ("SELECT who FROM users TABLESAMPLE 10%", "a sample of rows", "WHERE hash(id)"),
    ("SELECT who FROM (FROM users USING SAMPLE 3) s", "a sample of rows", "WHERE hash(id)"),
    ("WITH a AS (SELECT who FROM users LIMIT 3) FROM a", "LIMIT or OFFSET without ORDER BY", "ORDER BY"),
    ("SELECT who FROM users LIMIT 10%", "LIMIT or OFFSET without ORDER BY", "ORDER BY"),
    ("SELECT who FROM users OFFSET 2", "LIMIT or OFFSET without ORDER BY", "ORDER BY"),
    ("SELECT who FROM users UNION ALL FROM (SELECT who FROM users) LIMIT 2", "LIMIT or OFFSET", "ORDER BY"),
    ("SELECT n, (SELECT who FROM users LIMIT 1) AS w FROM users", "LIMIT or OFFSET", "ORDER BY"),
    ("SELECT DISTINCT ON (n) n, who FROM users", "DISTINCT ON without ORDER BY", "ORDER BY"),
    ("SELECT who, row_number() OVER () AS r FROM users", "row_number() in a view", "OVER (... ORDER BY ...)"),
    ("SELECT lag(who) OVER (PARTITION BY n) AS w FROM users", "lag() in a view", "OVER (... ORDER BY ...)"),
]


@pytest.mark.parametrize(("view", "what", "fix"), OPEN)
def test_a_view_that_would_change_by_itself_is_refused(view: str, what: str, fix: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        plan_pipeline(declared(view))
    assert what in str(raised.value)
    assert fix in str(raised.value)


@pytest.mark.parametrize("view", [view for view, _, _ in OPEN])
def test_a_panel_may_show_any_rows(view: str) -> None:
    assert plan_pipeline(declared(view, panel=True)).panels


@pytest.mark.parametrize(
    "view",
    [
        "SELECT who FROM users ORDER BY n DESC, who LIMIT 3 OFFSET 1",
        "SELECT who FROM users UNION ALL FROM (SELECT who FROM users) ORDER BY ALL LIMIT 2",
        "SELECT DISTINCT n FROM users",
        "SELECT DISTINCT ON (n) n, who FROM users ORDER BY n, who",
        "SELECT who, sum(n) OVER (PARTITION BY who) AS s, rank() OVER (ORDER BY n) AS r FROM users",
        "SELECT who, row_number() OVER by_n AS r FROM users WINDOW by_n AS (ORDER BY n, who)",
        "SELECT who FROM users QUALIFY row_number() OVER (PARTITION BY n ORDER BY who) = 1",
    ],
)
def test_a_view_that_says_which_rows_it_takes_is_planned(view: str) -> None:
    assert plan_pipeline(declared(view)).tables[-1].name == "chosen"
