"""`watch` and `logs`: a run in the terminal, live."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of
from headrace.errors import ProfileError

__all__ = ["register"]

_LOOK_AGAIN_S = 0.5


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=examples("headrace watch", "headrace watch -C my-pipeline"))(watch)
    app.command(epilog=examples("headrace logs", "headrace logs -f --level warning"))(logs)


def watch(project: ProjectOption = Path(), profile: ProfileOption = None) -> None:
    """Watch a pipeline in the terminal: how many, any errors, what delay, is it healthy.

    Below stand the flow, outcomes, tables, replicas and the journal. It asks the running pipeline once a
    second; of a stopped one it shows how it stood.
    """
    try:
        from headrace.cli.watch import WatchApp
    except ModuleNotFoundError as error:
        if error.name != "textual":
            raise
        raise ProfileError(
            "`headrace watch` needs textual", fix="pip install 'headrace[tui]'; or look at `headrace status`"
        ) from None
    WatchApp(home_of(project, profile)).run()


def logs(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=2000, help="Begin with so many.")] = 20,
    level: Annotated[str, typer.Option("--level", help="info, warning or error: this or worse.")] = "info",
    as_json: JsonOption = False,
) -> None:
    """Show what runs say about themselves: their journal."""
    from headrace.cli.output import json_text
    from headrace.cli.watch_facts import line_of
    from headrace.operate.supervise import StopSignals
    from headrace.web.page.journal_lines import LEVELS, JournalReader

    if level not in LEVELS:
        raise ProfileError(f"--level: '{level}' is not a level", fix="one of: " + ", ".join(LEVELS))
    reader = JournalReader(home_of(project, profile).journal_path)
    stop = threading.Event()
    given = reader.last(level=level, limit=lines)
    with StopSignals(stop, lambda note: None):
        while True:
            for line in given:
                typer.echo(json_text(line) if as_json else line_of(line))
            if not follow or stop.wait(_LOOK_AGAIN_S):
                return
            shown = LEVELS[LEVELS.index(level) :]
            given = [each for each in reader.new_lines() if each["level"] in shown or level == LEVELS[0]]
