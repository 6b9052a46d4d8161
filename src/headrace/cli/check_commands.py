"""`check`, `explain`, `version`: what can be said about a pipeline without running it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import JsonOption, ProfileOption, ProjectOption, examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.errors import ProfileError
    from headrace.operate import Profile, Secret
    from headrace.operate.ingest_options import IngestOptions
    from headrace.operate.page_options import PageOptions

__all__ = ["register", "version"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=examples("headrace check", "headrace check --project shop --profile production"))(
        check
    )
    app.command(epilog=examples("headrace explain revenue"))(explain)
    app.command(epilog=examples("headrace version"))(version)


def check(
    project: ProjectOption = Path(),
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Only this one of headrace.toml; default: all.", show_default=False),
    ] = None,
) -> None:
    """Find everything that is wrong with a pipeline and its profiles.

    Nothing is connected. Variables, files of secrets and packages that this machine lacks are warnings.
    """
    from headrace.operate.checking import check_project

    checked = check_project(project, profile=profile, looks=_open_to_strangers)
    plan, warnings = checked.plan, checked.warnings
    for warning in warnings:
        typer.secho("warning: ", fg="yellow", nl=False)
        typer.echo(warning)
    parts = {
        "streams": plan.streams,
        "tables": plan.tables,
        "panels": plan.panels,
        "alerts": plan.alerts,
    }
    counts = ", ".join(f"{len(each)} {name if len(each) != 1 else name[:-1]}" for name, each in parts.items())
    ending = f", {len(warnings)} warning" + ("s" if len(warnings) != 1 else "") if warnings else ""
    names = ("profile " if len(checked.profiles) == 1 else "profiles ") + ", ".join(
        f"'{name}'" for name in checked.profiles
    )
    typer.echo(f"{plan.pipeline.name}: {counts}; {names}; no problems{ending}")


def _open_to_strangers(profile: "Profile") -> "Iterator[tuple[str, ProfileError]]":
    """Give the servers of a profile that would not listen, because strangers could reach them."""
    from headrace.errors import ProfileError
    from headrace.web.exposure import Exposure

    sections: list[tuple[str, IngestOptions | PageOptions, str, str]]
    sections = [("ingest", profile.ingest, "127.0.0.1", "append")]
    if profile.page.serve == "on" and "${" not in profile.page.host:  # else it is not known here
        sections.append(("page", profile.page, profile.page.host, "read and redrive"))
    for section, options, host, lets in sections:
        exposure = Exposure(
            section=section,
            lets=lets,
            host=host,
            token=_token(options.token, "token"),
            certificate=options.certificate,
            certificate_key=options.certificate_key,
            plain_http=options.plain_http,
            panels_token=_token(getattr(options, "panels_token", None), "panels_token"),
        )
        try:
            exposure.check()
        except ProfileError as error:
            yield section, error


def _token(secret: "Secret | None", name: str) -> str | None:
    """Return the token; of one that cannot be read here, only that there is one, unlike any other."""
    from headrace.errors import ProfileError

    try:
        return None if secret is None else secret.reveal()
    except ProfileError:
        return name * 16


def explain(
    table: Annotated[str, typer.Argument(help="A table of the pipeline.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
) -> None:
    """Show how a table's query is taken apart and run."""
    from headrace.operate import load_project
    from headrace.sql import explain_table, plan_pipeline

    loaded = load_project(project, profile=profile, replicas=False)
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
