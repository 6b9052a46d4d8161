"""`alerts`: what fires, and silences."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples, home_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["print_alerts", "register"]

_ORDER = ("firing", "pending", "resolved", "ok")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(no_args_is_help=True, help="What fires, and silences.")
    group.command("list", epilog=examples("headrace alerts list", "headrace alerts list --json"))(list_alerts)
    group.command("silence", epilog=examples("headrace alerts silence delay --minutes 90"))(silence)
    group.command("unsilence", epilog=examples("headrace alerts unsilence delay"))(unsilence)
    app.add_typer(group, name="alerts")


def list_alerts(
    project: ProjectOption = Path(), profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """List every alert: what fires stands first.

    Of a stopped pipeline it is what its last run wrote down.
    """
    from headrace.cli.output import print_json
    from headrace.operate.alerting import alerts_of

    found = alerts_of(home_of(project, profile))
    if as_json:
        print_json(found)
        return
    if not found["alerts"]:
        typer.echo("nothing was written down of alerts: `headrace run` looks at them")
        return
    if not found["running"]:
        typer.echo("the pipeline is stopped: this is how its last run left them")
    print_alerts(found["alerts"])


def print_alerts(alerts: "Iterable[Mapping[str, Any]]") -> None:
    """Print alerts for people."""
    from headrace.cli.output import console, rows_table

    names = ("alert", "state", "severity", "since", "value", "summary")
    rows = [
        (
            one["name"],
            one["state"] + (" (silenced)" if one.get("silenced_until") else ""),
            one.get("severity", ""),
            (one["since"] or "").partition(".")[0].replace("T", " "),
            "" if one.get("value") is None else one["value"],
            one.get("problem") or one.get("summary", ""),
        )
        for one in sorted(alerts, key=lambda one: _ORDER.index(one["state"]))
    ]
    console().print(rows_table(names, rows))


def silence(
    name: Annotated[str, typer.Argument(help="The alert.")],
    minutes: Annotated[float, typer.Option("--minutes", min=1, max=43200, help="For so long.")] = 60,
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
) -> None:
    """Tell nobody of an alert for a while; it is still looked at and shown."""
    from headrace.operate.alerting import silence_alert

    silence_alert(home_of(project, profile), name, minutes)
    typer.echo(f"'{name}' is silenced for {minutes:g} minutes")


def unsilence(
    name: Annotated[str, typer.Argument(help="The alert.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
) -> None:
    """End a silence."""
    from headrace.operate.alerting import silence_alert

    silence_alert(home_of(project, profile), name, 0)
    typer.echo(f"'{name}' is told again")
