"""What a run looks like while it works: in a terminal, and elsewhere."""

from __future__ import annotations

import io
import json
import sys
import time
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from rich.console import Console

from headrace.cli.arguments import Format
from headrace.cli.output import print_rows, spell_rate
from headrace.cli.view import RunFigures, RunView
from headrace.engine.local import EpochReport
from headrace.errors import TransientError
from headrace.log.backoff import Waiting


def figures() -> RunFigures:
    taken = RunFigures(unread=lambda: 120, started=time.monotonic() - 10)
    for epoch, late in ((3, 4), (4, 6)):
        taken.take(
            EpochReport(
                epoch=epoch,
                records={"events": 2_000},
                outcomes={"events": {"accepted": 2_000 - late, "late": late}},
                rows={"counts": 7},
                seconds={},
                frontiers={"events": datetime(2026, 3, 1, 12, tzinfo=UTC)},
            )
        )
    return taken


SAID = (
    "4,000 records",
    "lag 120 records",
    "3,990 accepted + 10 late",
    "read up to 2026-03-01 12:00:00",
)


def test_a_terminal_shows_rate_lag_outcomes_and_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("headrace.cli.view.console", lambda: screen)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with RunView("shop", figures()) as view:
        view.draw()
        view.tell("stopping after this epoch")
    shown = screen.file.getvalue()
    for words in (
        *SAID,
        "shop",
        "800/s",
        "epoch 4",
        "counts",
        "14",
        "Ctrl-C stops",
        "stopping after this epoch",
    ):
        assert words in shown, words


def test_elsewhere_a_line_is_told_when_there_is_something_new(capsys: pytest.CaptureFixture[str]) -> None:
    with RunView("shop", figures()) as view:
        view.draw()
        view.draw()
    (line,) = capsys.readouterr().out.splitlines()
    assert all(words in line for words in SAID)


@pytest.mark.parametrize(
    ("unread", "words"),
    [
        (None, "0.0/s: none yet"),
        (0, "/s, lag none: "),
        (1, "/s, lag 1 record: "),
        (1200, "/s, lag 1,200 records: "),
    ],
)
def test_a_lag_that_is_not_known_is_left_out(unread: int | None, words: str) -> None:
    assert words in RunFigures(unread=lambda: unread, started=time.monotonic() - 10).line()


def test_a_rate_over_less_than_a_second_is_left_out() -> None:
    taken = figures()
    assert taken.line().startswith("4,000 records, 800/s, lag 120 records: 3,990 accepted")
    taken.started = time.monotonic() + 1_000  # however slow the machine is, it has not run for a second
    assert taken.line().startswith("4,000 records, lag 120 records: 3,990 accepted")
    assert (spell_rate(980.0, 0.005), spell_rate(980.0, 1.0)) == ("", "980/s")


def test_what_is_read_again_for_a_table_is_told_apart_from_records_and_their_outcomes() -> None:
    taken = figures()
    for epoch in (5, 6):
        taken.take(
            EpochReport(
                epoch=epoch,
                records={"events": 2_000},
                outcomes={},
                rows={"counts": 7},
                seconds={},
                frontiers={},
                rebuilding=("counts",),
            )
        )
    line = taken.line()
    assert line.startswith("4,000 records, ")
    assert ": 3,990 accepted + 10 late; 4,000 records read again for counts; read up to " in line


def test_progress_of_tables_that_are_computed_again_is_told_while_nothing_else_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    taken = RunFigures()
    again = EpochReport(
        epoch=1,
        records={"events": 1},
        outcomes={},
        rows={},
        seconds={},
        frontiers={},
        rebuilding=("counts",),
    )
    with RunView("shop", taken) as view:
        for _ in range(2):
            taken.take(again)
            view.draw()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("0 records")
    assert first.endswith("; 1 record read again for counts")
    assert second.endswith("; 2 records read again for counts")


def test_what_tables_were_computed_again_without_is_told_by_table() -> None:
    taken = figures()
    done = EpochReport(
        epoch=5,
        records={"events": 2_000},
        outcomes={},
        rows={},
        seconds={},
        frontiers={},
        rebuilding=("counts", "totals"),
        missing={"counts": 1, "totals": 1_200},
    )
    taken.take(done)
    assert (
        "; counts was computed again without 1 record that was accepted, because today's rules refuse it, "
        "totals was computed again without 1,200 records that were accepted, because "
        "today's rules refuse them; "
    ) in taken.line()


def test_two_columns_of_one_name_are_both_shown_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.Table.from_arrays([pa.array([n]) for n in (1, 2, 3)], names=["a", "a", "a_1"])
    print_rows(rows, Format.JSON)
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "a_2": 2, "a_1": 3}]
    print_rows(rows, Format.CSV)
    assert capsys.readouterr().out == "a,a,a_1\n1,2,3\n"
    print_rows(rows, Format.TABLE)
    names, *_, values = capsys.readouterr().out.strip().splitlines()
    assert (names.split(), values.split()) == (["a", "a", "a_1"], ["1", "2", "3"])


def test_elsewhere_than_in_a_terminal_a_wait_is_told_once_with_its_fix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    away = TransientError("the brokers do not answer", fix="start them")
    with RunView("shop", RunFigures()) as view:
        view.waiting(Waiting(away, 1, 0.2))
        view.waiting(Waiting(away, 2, 0.4))
        view.waiting(None)
    told = capsys.readouterr()
    assert told.err.startswith("waiting: the brokers do not answer\n  since ")
    assert told.err.endswith("\n  fix: start them\n")
    assert told.err.count("waiting: ") == 1
    assert told.out == "ready again\n"


def test_a_terminal_shows_what_is_waited_for_how_often_it_was_tried_and_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr("headrace.cli.view.console", lambda: screen)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    away = TransientError("the brokers do not answer", fix="start them")
    with RunView("shop", RunFigures()) as view:
        view.waiting(Waiting(away, 3, 0.2))
        view.draw()
    shown = screen.file.getvalue()
    for words in ("waiting: the brokers do not answer; try 3 failed", "since ", "fix: start them"):
        assert words in shown, words
