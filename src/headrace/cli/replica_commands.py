"""`replicas` and `export sql`: what is copied to other systems, how far, and what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of
from headrace.errors import ProfileError

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
    export = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Write what other systems need to know."
    )
    export.command(
        "sql", epilog=examples("headrace export sql > init.sql", "headrace export sql --roles > init.sql")
    )(export_sql)
    app.add_typer(export, name="export")


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


def export_sql(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    replica: Annotated[
        str | None, typer.Option("--replica", help="Which PostgreSQL replica of the profile.")
    ] = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Also make roles for a writer and a reader, without passwords.")
    ] = False,
) -> None:
    """Print the statements that make the tables of a PostgreSQL replica, for an init.sql.

    The profile needs no such replica: without one, the statements are for every table, in schema public.
    """
    from headrace.operate import load_project
    from headrace.replicate.postgresql import PostgresReplica
    from headrace.replicate.shapes import shape_of, tables_of
    from headrace.sql import plan_pipeline

    loaded = load_project(project, profile=profile)
    known = {n: r for n, r in loaded.profile.replicas.items() if isinstance(r, PostgresReplica)}
    if replica is not None and replica not in known:
        raise ProfileError(
            f"profile '{loaded.profile.name}' has no PostgreSQL replica '{replica}'",
            fix="one of: " + ", ".join(known) if known else "leave --replica out",
        )
    if replica is None and len(known) > 1:
        raise ProfileError("the profile has several PostgreSQL replicas", fix="name one with --replica")
    name = replica or next(iter(known), "postgresql")
    described = known.get(name, PostgresReplica(kind="postgresql"))
    plan = plan_pipeline(loaded.pipeline)
    shapes = tuple(shape_of(table, described) for table in tables_of(plan, described, name))
    typer.echo("-- Made by `headrace export sql`; each statement may be run again.\n")
    for statement in described.init_sql(shapes, roles=roles):
        typer.echo(f"{statement};\n")
