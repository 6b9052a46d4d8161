"""`logs`: what runs have written about themselves."""

import json
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of

if TYPE_CHECKING:
    from headrace.operate.journal_reading import Line

__all__ = ["register"]

_COLOURS = {"warning": "yellow", "error": "red"}
_HEAD = ("timestamp", "level", "event")


class Level(StrEnum):
    """The least level that is shown."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples("headrace logs", "headrace logs -f --level warning", "headrace logs --text replica")
    )(logs)


def logs(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they come.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=100_000, help="So many of the last.")
    ] = 50,
    level: Annotated[Level, typer.Option("--level", help="Of at least this level.")] = Level.INFO,
    text: Annotated[str, typer.Option("--text", help="Only lines that hold this text.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what runs have written about themselves, also after they ended."""
    from headrace.operate.journal_reading import follow_lines, kept, last_lines
    from headrace.operate.supervise import StopSignals

    path, keep = home_of(project, profile).journal_path, kept(level=level.value, text=text)
    if follow:
        stop = threading.Event()
        with StopSignals(stop, lambda note: None):
            for line in follow_lines(path, keep, stop, last=lines):
                _print(line, as_json)
        return
    found = last_lines(path, lines, keep)
    for line in found:
        _print(line, as_json)
    if not found and lines:
        typer.echo("no such line was written yet", err=True)


def _print(line: "Line", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(line, ensure_ascii=False))
        return
    time = str(line.get("timestamp", "")).replace("T", " ").partition(".")[0].rstrip("Z")
    level = str(line.get("level", ""))
    facts = " ".join(f"{name}={_shown(value)}" for name, value in line.items() if name not in _HEAD)
    typer.echo(f"{time} ", nl=False)
    typer.secho(f"{level:<7} ", fg=_COLOURS.get(level), nl=False)
    typer.echo(_plain(f"{line.get('event', '')}  {facts}".rstrip()))


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    """Return text in which nothing can command the terminal; the lines of a trace stay lines."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)
