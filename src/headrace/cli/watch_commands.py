"""`watch`: a run in the terminal, live."""

from __future__ import annotations

from pathlib import Path

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, examples, home_of
from headrace.errors import ProfileError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=examples("headrace watch", "headrace watch -C my-pipeline"))(watch)


def watch(project: ProjectOption = Path(), profile: ProfileOption = None) -> None:
    """Watch a pipeline in the terminal: how many, any errors, what delay, is it healthy.

    Below stand the flow, outcomes, tables, replicas and the journal. It asks the running pipeline once a
    second; of a stopped one it shows how it stood.
    """
    from headrace.operate.extras import missing_extra

    try:
        from headrace.cli.watch import WatchApp
    except ModuleNotFoundError as error:
        lacking = missing_extra(error, "`headrace watch`")
        if lacking is None:
            raise
        raise ProfileError(lacking.message, fix=f"{lacking.fix}; or look at `headrace status`") from None
    WatchApp(home_of(project, profile)).run()
