"""`check`, `explain`, `version`: what can be said about a pipeline without running it."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples

__all__ = ["register", "version"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=examples("headrace check", "headrace check --project shop --profile production"))(
        check
    )
    app.command(epilog=examples("headrace explain revenue"))(explain)
    app.command(epilog=examples("headrace version"))(version)


def check(project: ProjectOption = Path(), profile: ProfileOption = None) -> None:
    """Find everything that is wrong with a pipeline."""
    from headrace.operate import load_project
    from headrace.operate.engines import check_engine
    from headrace.sql import plan_pipeline

    loaded = load_project(project, profile=profile)
    plan = plan_pipeline(loaded.pipeline)
    check_engine(loaded)
    warnings = plan.warnings
    for warning in warnings:
        typer.secho("warning: ", fg="yellow", nl=False)
        typer.echo(str(warning))
    parts = {
        "streams": plan.streams,
        "tables": plan.tables,
        "panels": plan.panels,
        "alerts": plan.alerts,
    }
    counts = ", ".join(f"{len(each)} {name if len(each) != 1 else name[:-1]}" for name, each in parts.items())
    ending = f", {len(warnings)} warning" + ("s" if len(warnings) != 1 else "") if warnings else ""
    typer.echo(f"{loaded.pipeline.name}: {counts}; profile '{loaded.profile.name}'; no problems{ending}")


def explain(
    table: Annotated[str, typer.Argument(help="A table of the pipeline.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
) -> None:
    """Show how a table's query is taken apart and run."""
    from headrace.operate import load_project
    from headrace.sql import explain_table, plan_pipeline

    loaded = load_project(project, profile=profile)
    typer.echo(explain_table(plan_pipeline(loaded.pipeline), table))


def version(as_json: JsonOption = False) -> None:
    """Show versions."""
    import platform
    from importlib.metadata import version as version_of

    from headrace.cli.output import print_facts, print_json

    versions = {"headrace": version_of("headrace"), "python": platform.python_version()}
    versions |= {name: version_of(name) for name in ("duckdb", "pyarrow")}
    versions["system"] = f"{platform.system()} {platform.machine()}"
    if as_json:
        print_json(versions)
    else:
        print_facts(versions.items())
