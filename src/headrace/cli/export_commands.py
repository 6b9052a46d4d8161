"""`export`: what other systems need to know of a pipeline, written for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import export_monitoring_commands
from headrace.cli.arguments import ProfileOption, ProjectOption, examples
from headrace.errors import ProfileError

if TYPE_CHECKING:
    from headrace.operate.export_facts import Deployment

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Write what other systems need to know."
    )
    group.command(
        "sql", epilog=examples("headrace export sql > init.sql", "headrace export sql --roles > init.sql")
    )(sql)
    group.command("compose", epilog=examples("headrace export compose --profile compose"))(compose)
    shown = "headrace export kubernetes --profile compose --image shop:1 > pipeline.yaml"
    group.command("kubernetes", epilog=examples(shown))(kubernetes)
    shown = "headrace export airflow --profile cassandra --dag user_automation"
    group.command("airflow", epilog=examples(shown))(airflow)
    export_monitoring_commands.add_to(group)
    app.add_typer(group, name="export")


def sql(
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


def compose(project: ProjectOption = Path(), profile: ProfileOption = None) -> None:
    """Write a compose file with everything that a profile needs, and what it mounts, into deploy/.

    Passwords are made once, into a file .env beside it; a file that somebody else wrote is never touched.
    """
    from headrace.operate.export_files import write_deployment

    deployment = _deployment(project, profile)
    written, missing = write_deployment(deployment)
    for path in written:
        typer.echo(f"wrote {path}")
    folder = deployment.project.folder / "deploy"
    if missing:
        typer.echo(f"set in {folder / '.env'} before it is started: {', '.join(missing)}")
    typer.echo(f"start it: docker compose -f {folder / 'compose.yaml'} up --build --wait")


def kubernetes(
    image: Annotated[
        str, typer.Option("--image", help="The image that deploy/Containerfile makes, with a tag.")
    ],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    storage: Annotated[
        str, typer.Option("--storage", help="The size of the volume for log and store.")
    ] = "10Gi",
) -> None:
    """Print manifests for Kubernetes: the pipeline, its volume, its settings; secrets by name only."""
    from headrace.operate.export_kubernetes import kubernetes_text

    typer.echo(kubernetes_text(_deployment(project, profile), image=image, storage=storage), nl=False)


def airflow(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    stream: Annotated[
        str | None, typer.Option("--stream", help="The stream that is polled, if the profile polls several.")
    ] = None,
    dag: Annotated[
        str | None, typer.Option("--dag", help="What the DAG is called. Default: poll_STREAM.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Airflow's folder of DAGs; default: airflow/dags/ in the project."),
    ] = None,
) -> None:
    """Write a DAG for Airflow: every 5 minutes it polls a stream, and waits until the run has read it all.

    Airflow needs headrace[airflow], and the project's folder where its tasks run.
    """
    from headrace.operate import load_project
    from headrace.operate.export_airflow import write_dag

    loaded = load_project(project, profile=profile)
    typer.echo(f"wrote {write_dag(loaded, stream=stream, dag_id=dag, folder=folder)}")


def _deployment(folder: Path, profile: str | None) -> "Deployment":
    from headrace.cli.examples import generator_for
    from headrace.operate import load_project
    from headrace.operate.export_facts import deployment_of

    project = load_project(folder, profile=profile)
    generator = generator_for(project.pipeline)
    rate = None if generator is None else generator.rate_default
    return deployment_of(project, generator_rate=rate)
