"""`run`: the engine at work."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, examples
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.operate import Project

__all__ = ["register", "run_project"]

_NOTHING = "stopped: nothing was read"


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
    with _interrupted_early():
        from headrace.operate import load_project

        loaded = load_project(project, profile=profile)
    run_project(loaded, until_caught_up=until_caught_up, rebuild=rebuild or ())


@contextmanager
def _interrupted_early() -> Iterator[None]:
    """Frame what comes before a run takes its signals: Ctrl-C ends it there and then."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(_NOTHING)
        raise


def run_project(loaded: "Project", *, until_caught_up: bool = False, rebuild: Iterable[str] = ()) -> None:
    """Run a project in this process until a signal, showing how it goes."""
    with _interrupted_early():
        from headrace.cli.replica_commands import lacking_words
        from headrace.cli.view import RunFigures, RunView
        from headrace.log.backoff import when_ready
        from headrace.operate import Runtime
        from headrace.operate.extras import require_extra
        from headrace.operate.profiles import check_secrets
        from headrace.operate.replicas import replica_states
        from headrace.operate.supervise import StopSignals, supervise
        from headrace.web.page.serve import check_page, served_page

        check_secrets(loaded.profile, loaded.folder)
        check_page(loaded.profile.page)
        if loaded.profile.engine == "spark":  # before brokers are waited for
            require_extra("spark", "the Spark engine")
    stop = threading.Event()
    figures = RunFigures()
    view = RunView(loaded.pipeline.name, figures)
    with StopSignals(stop, view.tell) as signals:
        signals.at_work = False
        opened = partial(Runtime.open, loaded, rebuild=rebuild)
        runtime = when_ready(opened, stop, view.waiting)
        if runtime is None or stop.is_set():
            if runtime is not None:
                runtime.close()
            typer.echo(_NOTHING)
            return
        signals.at_work = True
        try:
            for notice in (*runtime.store.notices, *runtime.log_warnings):
                typer.secho(f"warning: {notice}", fg="yellow", err=True)
            runtime.replicas.on_notice = runtime.pollers.on_notice = view.tell
            figures.unread = runtime.unread.count
            page_served = served_page(runtime, view.tell, wanted=not until_caught_up)
            with page_served as page, runtime.unread, view:
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
            balanced, lacking = runtime.store.ledger().balanced, ""
            with suppress(HeadraceError):  # the run has ended well, whatever can be told of it
                lacking = lacking_words(replica_states(loaded, None, runtime.store), loaded.profile.name)
        finally:
            runtime.close()
    ended = "caught up" if until_caught_up and not signals.received else "stopped"
    if runtime.handed_to:
        ended = f"handed over to profile '{runtime.handed_to}'"
    typer.echo(f"{ended}: {figures.line()}; the ledger {'balances' if balanced else 'does NOT balance'}")
    if lacking:
        typer.echo(lacking)
