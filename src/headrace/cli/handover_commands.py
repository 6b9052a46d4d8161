"""`handover`: another profile, and so another engine, goes on with a running pipeline."""

import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import ProjectOption, examples
from headrace.cli.run_commands import run_project
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.operate.handover import Handover

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples(
            "headrace handover --to cluster",
            "headrace handover --to cluster --at 12:00",
            "headrace handover --to local --at 2026-03-01T12:00:00Z",
        )
    )(handover)


def handover(
    to: Annotated[str, typer.Option("--to", help="The profile that goes on: a section of headrace.toml.")],
    project: ProjectOption = Path(),
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="The record time to pass first: 12:00 (today, UTC) or an instant. Default: at once."
        ),
    ] = None,
) -> None:
    """Let another profile go on with a running pipeline, and run it here until Ctrl-C.

    The engine that runs, in a process of its own, stops at the end of an epoch; the profile given goes on
    with the same store and log, on its own engine, as `headrace run --profile` does. Nothing is computed
    twice and nothing is left out. Before anything is stopped, the profile, the store, the logs, the tables,
    what tells records apart and the tables of replicas are checked, and Spark is started. Ports and the
    targets of replicas are not: where the run then fails, the message says how to go back.
    """
    from headrace.operate import load_project
    from headrace.operate.handover import Handover, mark_of
    from headrace.operate.supervise import StopSignals
    from headrace.web.page.serve import check_page

    mark = None if at is None else mark_of(at, datetime.now(UTC))
    loaded = load_project(project, profile=to)
    check_page(loaded.profile.page)
    stop = threading.Event()
    with closing(Handover(loaded)) as one:
        before = one.before.profile.name
        with StopSignals(stop, lambda note: None):
            taken = _taken(one, mark, stop)
        if not taken:
            raise typer.Exit(130)
        one.keep_engine()
    try:
        run_project(loaded)
    except HeadraceError as error:
        back = f"nothing is lost; to go on as before: headrace run --profile {before}"
        error.fix = f"{error.fix}; {back}" if error.fix else back
        raise


def _taken(one: "Handover", mark: datetime | None, stop: threading.Event) -> bool:
    """Bring the store over; False when a signal came first."""
    for what in one.left_out:
        typer.secho(f"warning: {what}", fg="yellow", err=True)
    if not one.running:
        typer.echo(f"nothing runs; profile '{one.target.profile.name}' goes on where the last run stood")
    elif mark is not None:
        one.wait_for(mark, stop, typer.echo)
    if not stop.is_set():
        one.start()
    if stop.is_set():
        typer.echo("nothing was changed")
        return False
    return one.take(stop, typer.echo)
