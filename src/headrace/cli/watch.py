"""The terminal's picture of a run, drawn with textual."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, RichLog, Static
from textual.worker import get_current_worker

from headrace.cli.watch_facts import (
    Question,
    flow_of,
    line_of,
    outcome_rows,
    questions_of,
    replica_rows,
    table_rows,
)
from headrace.errors import HeadraceError
from headrace.operate.journal_reading import Line, NewLines, kept, last_lines

if TYPE_CHECKING:
    from headrace.operate import Home

__all__ = ["WatchApp"]

_EVERY_S = 1.0
_RATE_OVER_S = 10.0
_LINES_FIRST = 50
_COLOURS = {"good": "green", "warn": "yellow", "bad": "red"}
_LEVEL_STYLES = {"warning": "yellow", "error": "red"}


class WatchApp(App[None]):
    """Asks the project at `home` once a second, in a thread; what cannot be asked is shown as such."""

    TITLE = "headrace watch"
    CSS = """
    #questions { height: 5; }
    #questions Static { width: 1fr; border: round $panel; padding: 0 1; height: 5; }
    #flow { height: 1; padding: 0 2; color: $text-muted; }
    #middle { height: 1fr; }
    #middle DataTable { width: 1fr; border: round $panel; }
    #tables { width: 2fr; }
    #journal { height: 9; border: round $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "leave"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("r", "ask", "ask now"),
    ]

    def __init__(self, home: Home) -> None:
        super().__init__()
        self._home = home
        self._journal = NewLines(home.journal_path)
        self._read: deque[tuple[float, int]] = deque()

    def compose(self) -> ComposeResult:
        """Give the parts of the picture."""
        with Horizontal(id="questions"):
            for name in ("many", "errors", "delay", "healthy"):
                yield Static(id=name)
        yield Static(id="flow")
        with Horizontal(id="middle"):
            yield DataTable(id="outcomes", cursor_type="none")
            yield DataTable(id="tables", cursor_type="row")
            yield DataTable(id="replicas", cursor_type="none")
        yield RichLog(id="journal", max_lines=500, wrap=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask."""
        for name, columns in (
            ("outcomes", ("outcome", "records", "share")),
            ("tables", ("table", "class", "rows", "closed")),
            ("replicas", ("replica", "state", "behind")),
        ):
            self.query_one(f"#{name}", DataTable).add_columns(*columns)
        self._write(last_lines(self._home.journal_path, _LINES_FIRST, kept()))
        self.action_ask()
        self.set_interval(_EVERY_S, self.action_ask)

    def on_unmount(self) -> None:
        """Give back the journal's file."""
        self._journal.close()

    def action_ask(self) -> None:
        """Ask how it stands, unless the last question is still on its way."""
        self.run_worker(self._ask, thread=True, group="ask", exclusive=True)

    def _ask(self) -> None:
        from headrace.operate import connect

        try:
            client = connect(self._home)
            try:
                status = client.status()
            finally:
                client.close()
        except (HeadraceError, OSError) as error:
            if not get_current_worker().is_cancelled:
                self.call_from_thread(self._problem, str(error))
            return
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._show, status, list(self._journal.read()))

    def _show(self, status: dict[str, Any], lines: list[Line]) -> None:
        rate = self._rate(status)
        places = ("many", "errors", "delay", "healthy")
        for place, question in zip(places, questions_of(status, rate), strict=True):
            self.query_one(f"#{place}", Static).update(_picture(question))
        self.query_one("#flow", Static).update(Text(flow_of(status, rate)))
        self._fill("outcomes", outcome_rows(status))
        self._fill("tables", table_rows(status))
        self._fill("replicas", replica_rows(status))
        self._write(lines)

    def _problem(self, why: str) -> None:
        self.query_one("#healthy", Static).update(
            _picture(Question("is it healthy", "no answer", why, "bad"))
        )

    def _rate(self, status: dict[str, Any]) -> float:
        """Return the records a second of the last seconds; of a stopped pipeline none."""
        now = time.monotonic()
        read = sum(sum(each["outcomes"].values()) for each in status["streams"].values())
        if self._read and read < self._read[-1][1]:
            self._read.clear()  # another store
        self._read.append((now, read))
        while len(self._read) > 2 and self._read[0][0] < now - _RATE_OVER_S:
            self._read.popleft()
        first, last = self._read[0], self._read[-1]
        return (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else 0.0

    def _fill(self, name: str, rows: list[tuple[str, ...]] | list[Any]) -> None:
        table = self.query_one(f"#{name}", DataTable)
        cursor, offset = table.cursor_row, table.scroll_offset
        table.clear()
        for row in rows:
            # Text, so that brackets in a name are not read as a colour.
            table.add_row(*(Text(each, justify="right" if each[:1].isdigit() else "left") for each in row))
        if 0 <= cursor < table.row_count:
            table.move_cursor(row=cursor, scroll=False)
        table.scroll_to(offset.x, offset.y, animate=False)

    def _write(self, lines: list[Line]) -> None:
        journal = self.query_one("#journal", RichLog)
        for line in lines:
            journal.write(Text(line_of(line), style=_LEVEL_STYLES.get(str(line.get("level")), "")))


def _picture(question: Question) -> Text:
    return Text.assemble(
        (question.name + "\n", "dim"),
        (question.answer + "\n", f"bold {_COLOURS[question.grade]}"),
        question.beside,
    )
