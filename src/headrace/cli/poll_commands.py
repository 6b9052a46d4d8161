"""`poll`: an HTTP API into the log, from a process of its own."""

import threading
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, duration_of, examples

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=examples("headrace poll users_created", 'headrace poll users_created --for "60 s"'))(
        poll
    )


def poll(
    stream: Annotated[str, typer.Argument(help="A stream that the profile has a poller for.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="End after so long: '60 s', '5 minutes'.")
    ] = None,
    pages: Annotated[int | None, typer.Option("--pages", min=1, help="End after so many pages.")] = None,
) -> None:
    """Poll the API of a stream and append what it answers, until Ctrl-C.

    It goes on where the last poller ended: that is kept in the log. `headrace run` polls too, unless the
    profile says with_run = "no".
    """
    from headrace.declare.words import counted
    from headrace.operate import load_project
    from headrace.operate.pollers import open_poller
    from headrace.operate.supervise import StopSignals

    length = duration_of("--for", duration)
    stop = threading.Event()
    poller, log = open_poller(
        load_project(project, profile=profile, replicas=False),
        stream,
        stop,
        tell=lambda pause: typer.echo(
            f"{pause.error.message}; tried again in {pause.seconds:.1f} s" if pause else "it answers again"
        ),
    )
    try:
        with StopSignals(stop, lambda note: None):
            report = poller.run(seconds=None if length is None else length.total_seconds(), pages=pages)
    finally:
        log.close()
    typer.echo(
        f"{counted(report.records, 'records')} of {counted(report.pages, 'pages')} appended to '{stream}'"
        + (f", and {report.malformed:,} as they came" if report.malformed else "")
        + (f"; {report.retries:,} requests were tried again" if report.retries else "")
    )
