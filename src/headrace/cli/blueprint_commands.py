"""`new`: a project that runs and tests as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import examples
from headrace.errors import RefusedError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=examples("headrace new weather", "headrace new --blueprint commerce shop"))(new)


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
