"""`new`: a project that runs and tests as it is; `blueprints`: what stands beside one."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import examples
from headrace.errors import RefusedError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=examples("headrace new weather", "headrace new --blueprint commerce shop"))(new)
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="What stands beside a blueprint's pipeline."
    )
    group.command(
        "serve-users",
        epilog=examples("headrace blueprints serve-users", "headrace blueprints serve-users --port 9610"),
    )(serve_users)
    app.add_typer(group, name="blueprints")


def new(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    blueprint: Annotated[
        str | None, typer.Option("--blueprint", "-b", help="An example to begin with, such as commerce.")
    ] = None,
) -> None:
    """Make a project that runs and tests as it is."""
    from headrace.cli.examples import write_blueprint, write_minimal

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedError(
            f"{folder} is not an empty folder", fix="name a folder that is empty or not there yet"
        )
    written = write_minimal(folder) if blueprint is None else write_blueprint(blueprint, folder)
    typer.echo(f"made {folder}:")
    for path in sorted(written):
        typer.echo(f"  {path.relative_to(folder)}")
    typer.echo("\nnext:")
    if folder.resolve() != Path.cwd():
        typer.echo(f"  cd {folder}")
    if blueprint is None:
        typer.echo("  headrace produce readings readings.ndjson --record-time event")
        typer.echo("  headrace run --until-caught-up")
        typer.echo("  headrace tables by_minute")
    else:
        typer.echo("  headrace run                                    (until Ctrl-C)")
        typer.echo(f"  headrace generate {blueprint:<16}              (in a second terminal)")
        typer.echo("  headrace tables                                 (in a third one)")


def serve_users(
    host: Annotated[str, typer.Option("--host", help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8610,
) -> None:
    """Serve made-up users until Ctrl-C, as the randomuser API does: GET /api/?results=100&seed=x&page=1.

    The same seed and page give the same users. The blueprint signups polls it.
    """
    import threading

    from headrace.cli.examples import people_of
    from headrace.operate.supervise import StopSignals
    from headrace.web.serving import bound_socket, serving
    from headrace.web.users import users_app

    stop = threading.Event()
    listening = bound_socket(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}/api/"
    with StopSignals(stop, lambda note: None), serving(users_app(people_of("signups")), listening) as ended:
        typer.echo(f"made-up users at {address}; Ctrl-C stops")
        while not stop.wait(0.2) and not ended.is_set():
            pass
