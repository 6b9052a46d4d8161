"""`replicas`: what is copied to other systems, and how far."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of

__all__ = ["lacking_words", "print_replicas", "register"]

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
        document = client.status()
    replicas = document["replicas"]
    if as_json:
        print_json(replicas)
    elif replicas:
        print_replicas(replicas, None if document["running"] else document["profile"])
    else:
        typer.echo("the profile names no replicas - add replicas.NAME = { kind = … } to headrace.toml")


def print_replicas(replicas: Sequence[Mapping[str, Any]], stopped: str | None) -> None:
    """Print a line for each replica, and below it what an operator should know.

    `stopped` is the profile of a pipeline that does not run; None: it runs.
    """
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
    if stopped is not None and (lacking := lacking_words(replicas, stopped)):
        typer.echo(lacking)


def lacking_words(replicas: Sequence[Mapping[str, Any]], profile: str) -> str:
    """Return which replicas of a run that has ended lack something, and who sends it; empty: none does."""
    from headrace.declare.words import counted

    found = []
    behind = [each for each in replicas if each["lag_epochs"]]
    for each in behind:
        held = f" ({each['state']})" if each["state"] in ("paused", "refused") else ""
        epochs, records = each["lag_epochs"], each["lag_records"]
        last = "epoch" if epochs == 1 else counted(epochs, "epochs")
        read = f", in which {counted(records, 'records')} {'was' if records == 1 else 'were'} read"
        found.append(f"{each['replica']}{held} lacks the last {last}{read if records else ''}")
    paused = [each["state"] == "paused" for each in behind]
    run = f"the next run with profile '{profile}'"
    then = f"{run} sends that" + (", to one that is paused once it is resumed" if any(paused) else "")
    if all(paused):
        then = f"`headrace replicas resume NAME` lets {run} send that"
    return f"not copied yet: {', '.join(found)}; {then}" if found else ""


def _telling(action: str) -> Callable[..., None]:
    def tell(name: NameArgument, project: ProjectOption = Path(), profile: ProfileOption = None) -> None:
        from headrace.operate.client import tell_replica

        running = tell_replica(home_of(project, profile), name, action)
        done, becomes = _TOLD[action]
        typer.echo(f"{done}: replica '{name}' {becomes}" + ("" if running else ", from the next run on"))

    tell.__name__ = action
    return tell
