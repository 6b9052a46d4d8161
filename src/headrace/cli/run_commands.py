"""`run`: the engine at work."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, examples

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples(
            "headrace run",
            "headrace run --until-caught-up",
            "headrace run --rebuild revenue",
            "headrace run --profile cluster",
        )
    )(run)


def run(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when everything present has been read.")
    ] = False,
    rebuild: Annotated[
        list[str] | None,
        typer.Option("--rebuild", help="Compute this table anew from the log; may be given several times."),
    ] = None,
) -> None:
    """Run the pipeline until Ctrl-C, and serve its page at http://127.0.0.1:8600 meanwhile.

    Host, port and token of the page stand in the profile (page.*). With --until-caught-up there is no page.
    """
    from headrace.cli.view import RunFigures, RunView
    from headrace.log.backoff import when_ready
    from headrace.operate import Runtime, load_project
    from headrace.operate.supervise import StopSignals, supervise
    from headrace.web.page.serve import check_page, served_page

    loaded = load_project(project, profile=profile)
    check_page(loaded.profile.page)
    stop = threading.Event()
    figures = RunFigures()
    view = RunView(loaded.pipeline.name, figures)
    with StopSignals(stop, view.tell) as signals:
        opened = partial(Runtime.open, loaded, rebuild=rebuild or ())
        runtime = when_ready(opened, stop, view.waiting)
        if runtime is None:
            return
        try:
            for notice in (*runtime.store.notices, *runtime.log_warnings):
                typer.secho(f"warning: {notice}", fg="yellow", err=True)
            runtime.replicas.on_notice = runtime.pollers.on_notice = view.tell
            with served_page(runtime, view.tell, wanted=not until_caught_up) as page, view:
                if not view.live:
                    typer.echo(
                        f"running '{loaded.pipeline.name}' with profile '{loaded.profile.name}'; Ctrl-C stops"
                    )
                view.at(page.address)
                supervise(
                    runtime,
                    stop,
                    until_caught_up=until_caught_up,
                    on_epoch=page.epochs_too(figures.take),
                    on_waiting=page.waiting_too(view.waiting),
                    draw=view.draw,
                    draw_every_s=view.draw_every_s,
                )
            balanced = runtime.store.ledger().balanced
        finally:
            runtime.close()
    typer.echo(
        f"{'caught up' if until_caught_up and not signals.received else 'stopped'}: {figures.line()}; "
        f"the ledger {'balances' if balanced else 'does NOT balance'}"
    )
