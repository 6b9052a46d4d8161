"""`replicas`: what is copied to other systems, and how far."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of

__all__ = ["print_replicas", "register"]

NameArgument = Annotated[str, typer.Argument(help="The replica's name in the profile.")]
_TOLD = {
    "pause": ("paused", "is paused"),
    "resume": ("resumed", "follows"),
    "adopt": ("told", "writes every row over what the target holds"),
    "rebuild": ("told", "writes every row, and then takes out what the store does not have"),
}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Follow and steer the copies in other systems."
    )
    group.command("status", epilog=examples("headrace replicas status", "headrace replicas status --json"))(
        status
    )
    for action, text in _COMMANDS.items():
        group.command(action, epilog=examples(f"headrace replicas {action} results"), help=text)(
            _telling(action)
        )
    app.add_typer(group, name="replicas")


_COMMANDS = {
    "rebuild": "Copy every row again, then take out of the target what the store does not have.",
    "adopt": "Copy every row again over what the target holds, and keep the rest of it.",
    "pause": "Send nothing more to a replica, also in later runs, until it is resumed.",
    "resume": "Go on after a pause, or after the target has refused and was corrected.",
}


def status(
    project: ProjectOption = Path(), profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Show how far every replica is, and why one stands still."""
    from headrace.cli.output import print_json
    from headrace.cli.store_commands import client_of

    with client_of(project, profile) as client:
        replicas = client.status()["replicas"]
    if as_json:
        print_json(replicas)
    elif replicas:
        print_replicas(replicas)
    else:
        typer.echo("the profile names no replicas - add replicas.NAME = { kind = … } to headrace.toml")


def print_replicas(replicas: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each replica, and below it what an operator should know."""
    from headrace.cli.output import console, rows_table

    names = ("replica", "kind", "state", "epoch", "lag epochs", "lag s", "rows refused")
    keys = ("replica", "kind", "state", "epoch", "lag_epochs", "lag_seconds", "rows_refused")
    console().print(rows_table(names, [[line.get(key) for key in keys] for line in replicas]))
    for line in replicas:
        if line["why"]:
            typer.echo(f"{line['replica']}: {line['why']}")
            if line["fix"]:
                typer.echo(f"  fix: {line['fix']}")
        for table in line["tables"]:
            if table["problem"]:
                typer.echo(f"{line['replica']}: table '{table['table']}' is not copied: {table['problem']}")
        if line["rows_refused"]:
            typer.echo(
                f"{line['replica']}: refused rows: .headrace/replicas/{line['replica']}.refused.ndjson"
            )


def _telling(action: str) -> Callable[..., None]:
    def tell(name: NameArgument, project: ProjectOption = Path(), profile: ProfileOption = None) -> None:
        from headrace.operate.client import tell_replica

        running = tell_replica(home_of(project, profile), name, action)
        done, becomes = _TOLD[action]
        typer.echo(f"{done}: replica '{name}' {becomes}" + ("" if running else ", from the next run on"))

    tell.__name__ = action
    return tell
