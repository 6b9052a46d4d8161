"""What a run looks like while it works: a live picture in a terminal, a line every few seconds elsewhere.

It is made of the engine's epoch reports: the store is not asked. There are at most four pictures a second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from headrace.cli.output import cell, console, spell_number, spell_rate
from headrace.declare.words import counted
from headrace.operate.waiting import WaitingWords

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.engine.local import EpochReport
    from headrace.log.backoff import Waiting

__all__ = ["OUTCOMES", "RunFigures", "RunView"]

OUTCOMES = ("accepted", "duplicate", "late", "future", "rejected", "malformed", "expired")
LIVE_EVERY_S = 0.25
LINE_EVERY_S = 5.0
_RATE_OVER_S = 5.0


@dataclass
class RunFigures:
    """Adds up epoch reports; written by the engine's thread, read by the one that draws.

    again   records that were read anew for tables that are rebuilt, by the tables' names: they have their
            outcomes already
    missing  records that rebuilt tables lack, by table: they were accepted, and today's rules refuse them
    unread  returns how many records wait, None where that is not known
    """

    epoch: int = 0
    records: int = 0
    again: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    frontiers: dict[str, datetime] = field(default_factory=dict)
    unread: Callable[[], int | None] = lambda: None
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def take(self, report: EpochReport) -> None:
        """Add what one epoch did."""
        with self._lock:
            self.epoch = report.epoch
            records = sum(report.records.values())
            if report.rebuilding:
                names = ", ".join(report.rebuilding)
                self.again[names] = self.again.get(names, 0) + records
                self.missing.update(report.missing)
            else:
                self.records += records
            for counts in report.outcomes.values():
                for outcome, count in counts.items():
                    self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
            for table, rows in report.rows.items():
                self.rows[table] = self.rows.get(table, 0) + rows
            self.frontiers.update({k: v for k, v in report.frontiers.items() if v is not None})
            self._recent.append((time.monotonic(), records))

    def rate(self) -> float:
        """Return the records a second of the last few seconds."""
        now = time.monotonic()
        with self._lock:
            while self._recent and self._recent[0][0] < now - _RATE_OVER_S:
                self._recent.popleft()
            records = sum(each for _, each in self._recent)
        return records / min(_RATE_OVER_S, max(now - self.started, 0.001))

    def rate_words(self) -> str:
        """Return the rate of the last few seconds: `980/s`; empty in the first one, where it says nothing."""
        return spell_rate(self.rate(), self.seconds)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started

    def outcome_words(self) -> str:
        """Return the outcomes that occurred: `980 accepted + 20 late`."""
        found = [
            f"{spell_number(self.outcomes[name])} {name}" for name in OUTCOMES if self.outcomes.get(name)
        ]
        return " + ".join(found) or "none yet"

    def line(self) -> str:
        """Return how things stand, in one line."""
        frontier = max(self.frontiers.values(), default=None)
        lag = self.lag_words()
        head = (counted(self.records, "records"), self.rate_words(), lag and f"lag {lag}")
        parts = (
            f"{', '.join(filter(None, head))}: {self.outcome_words()}",
            self.again_words(),
            self.missing_words(),
            f"read up to {_clock(frontier)}" if frontier else "",
        )
        return "; ".join(filter(None, parts))

    def again_words(self) -> str:
        """Return what was read anew: `2,000 records read again for revenue`; empty where nothing was."""
        with self._lock:
            found = dict(self.again)
        return ", ".join(
            f"{counted(count, 'records')} read again for {name}" for name, count in found.items()
        )

    def missing_words(self) -> str:
        """Return what tables were computed again without, though it was accepted; empty where nothing was."""
        with self._lock:
            found = dict(self.missing)
        return ", ".join(
            f"{name} was computed again without {counted(count, 'records')} that "
            + ("was" if count == 1 else "were")
            + f" accepted, because today's rules refuse {'it' if count == 1 else 'them'}"
            for name, count in found.items()
        )

    def lag_words(self) -> str:
        """Return the records that wait: `none`, `120 records`; empty while that is not known."""
        unread = self.unread()
        return "" if unread is None else counted(unread, "records") if unread else "none"

    def is_behind(self) -> bool:
        """Whether more records wait than were read in the last seconds."""
        return (self.unread() or 0) > _RATE_OVER_S * self.rate()


class RunView:
    """Shows `figures` until it is closed; `extra` gives what stands below them in a terminal.

    `draw` is called every `draw_every_s`: in a terminal it draws, elsewhere it prints a line.
    """

    def __init__(
        self, title: str, figures: RunFigures, *, extra: Callable[[], RenderableType | None] | None = None
    ) -> None:
        self.figures = figures
        self.live = sys.stdout.isatty()
        self.draw_every_s = LIVE_EVERY_S if self.live else LINE_EVERY_S
        self._title = title
        self._extra = extra
        self._note = ""
        self._address = ""
        self._screen: Any = None
        self._told = (-1, "")
        self._waits = WaitingWords()

    def __enter__(self) -> RunView:
        if self.live:
            from rich.live import Live

            # We say when to draw: rich's own thread would draw also when nothing changed.
            self._screen = Live(self._picture(), console=console(), auto_refresh=False, transient=False)
            self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None:
            self._screen.update(self._picture(), refresh=True)
            self._screen.stop()

    def at(self, address: str) -> None:
        """Say where the page of the run is; empty: there is none."""
        self._address = address
        if address and self._screen is None:
            typer.echo(f"the page is at {address}")

    def draw(self) -> None:
        """Show how things stand now."""
        if self._screen is not None:
            self._screen.update(self._picture(), refresh=True)
        elif (news := (self.figures.records, self.figures.again_words())) != self._told:
            self._told = news
            typer.echo(self.figures.line())

    def tell(self, note: str) -> None:
        """Show a note; may be called from a signal handler."""
        self._note = note
        if self._screen is None:
            typer.echo(note)

    def waiting(self, pause: Waiting | None) -> None:
        """Show what a run waits for; None: it goes on. Elsewhere than in a terminal, once for each wait."""
        news = self._waits.take(pause)
        if self._screen is not None:
            self._note = self._waits.lines(tries=True)
        elif pause is None:
            typer.echo("ready again")
        elif news:
            typer.echo(self._waits.lines(), err=True)

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        figures = self.figures
        lag = figures.lag_words()
        head = Text.assemble(
            (self._title, "bold"),
            f"   {counted(figures.records, 'records')}",
            (rate := figures.rate_words()) and f"   {rate}",
            (lag and f"   lag {lag}", "yellow" if figures.is_behind() else "green"),
            f"   epoch {figures.epoch}   {figures.seconds:.0f} s",
        )
        parts: list[RenderableType] = [head, Text("  " + figures.outcome_words(), style="dim")]
        if again := figures.again_words():
            parts.append(Text("  " + again, style="dim"))
        if missing := figures.missing_words():
            parts.append(Text("  " + missing, style="yellow"))
        for stream, frontier in sorted(figures.frontiers.items()):
            parts.append(Text(f"  {stream}: read up to {_clock(frontier)}", style="dim"))
        below = self._extra() if self._extra is not None else _rows_changed(figures.rows)
        if below is not None:
            parts += [Text(), below]
        if self._address:
            parts.append(Text(f"the page is at {self._address}", style="dim"))
        if self._note:
            parts.append(Text(self._note, style="yellow"))
        parts.append(Text("Ctrl-C stops", style="dim"))
        return Group(*parts)


def _rows_changed(rows: Mapping[str, int]) -> RenderableType | None:
    from headrace.cli.output import rows_table

    if not rows:
        return None
    return rows_table(("table", "rows written"), [(name, rows[name]) for name in sorted(rows)])


def _clock(time_: datetime | None) -> str:
    return "" if time_ is None else cell(time_.replace(microsecond=0))
