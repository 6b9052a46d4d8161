"""`export prometheus`, `alertmanager`, `grafana` and `kibana`: for the tools that people watch with."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, examples

if TYPE_CHECKING:
    from headrace.operate.export_panels import LeftOut

__all__ = ["add_to"]

FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Where the files go; default: monitoring/ in the project.")
]


def add_to(group: typer.Typer) -> None:
    """Add these commands to `export`."""
    group.command(
        "prometheus",
        epilog=examples(
            "headrace export prometheus --profile kafka",
            "headrace export prometheus --generator localhost:9465 --target node=localhost:9100",
        ),
    )(prometheus)
    group.command("alertmanager", epilog=examples("headrace export alertmanager --reveal-secrets"))(
        alertmanager
    )
    group.command("grafana", epilog=examples("headrace export grafana --prometheus http://localhost:9090"))(
        grafana
    )
    group.command(
        "kibana",
        epilog=examples(
            "headrace export kibana --profile elasticsearch",
            "curl -F file=@monitoring/kibana/customers.ndjson -H 'kbn-xsrf: true' "
            "'http://localhost:5601/api/saved_objects/_import?overwrite=true'",
        ),
    )(kibana)


def prometheus(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    folder: FolderOption = None,
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator",
            help="HOST:PORT of `headrace generate --metrics-port`. Default: as the profile has it.",
        ),
    ] = None,
    spark: Annotated[
        str | None,
        typer.Option(
            "--spark", help="HOST:PORT of the Spark driver's own page. Default: as the profile has it."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="NAME=HOST:PORT of another exporter, beside metrics.targets: a broker's, a database's.",
        ),
    ] = None,
    alertmanager: Annotated[
        str | None, typer.Option("--alertmanager", help="HOST:PORT of the Alertmanager that is told.")
    ] = None,
) -> None:
    """Write prometheus.yml, the alerts as rules, and a test of each rule for promtool."""
    from headrace.operate import load_project
    from headrace.operate.export_monitoring import FOLDER, write_prometheus

    loaded = load_project(project, profile=profile)
    written = write_prometheus(
        loaded,
        folder or loaded.folder / FOLDER,
        generator=generator,
        spark=spark,
        others=tuple(target or ()),
        alertmanager=alertmanager,
    )
    _tell(written)


def alertmanager(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    folder: FolderOption = None,
    reveal_secrets: Annotated[
        bool, typer.Option("--reveal-secrets", help="Write secrets into the file; Alertmanager needs them.")
    ] = False,
) -> None:
    """Write alertmanager.yml with the notifiers of the profile."""
    from headrace.operate import load_project
    from headrace.operate.export_monitoring import FOLDER, write_alertmanager

    loaded = load_project(project, profile=profile)
    _tell(write_alertmanager(loaded, folder or loaded.folder / FOLDER, reveal=reveal_secrets))


def grafana(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    folder: FolderOption = None,
    prometheus: Annotated[
        str, typer.Option("--prometheus", help="The address of Prometheus as Grafana reaches it.")
    ] = "http://localhost:9090",
    page: Annotated[
        str | None,
        typer.Option(
            "--page",
            help="The address of the run's page as Grafana reaches it, for panels that no replica can show. "
            "Default: as the profile has it.",
        ),
    ] = None,
) -> None:
    """Write dashboards of all metrics and of the pipeline's panels, with data sources and alerts.

    Grafana takes the folder as its provisioning; passwords of data sources are variables of its environment.
    """
    from headrace.operate import load_project
    from headrace.operate.export_monitoring import FOLDER, write_grafana

    loaded = load_project(project, profile=profile)
    written, left = write_grafana(loaded, folder or loaded.folder / FOLDER, prometheus=prometheus, page=page)
    _tell(written)
    _tell_left_out(left)


def kibana(
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    folder: FolderOption = None,
    replica: Annotated[
        str | None,
        typer.Option("--replica", help="Which Elasticsearch or OpenSearch replica of the profile."),
    ] = None,
) -> None:
    """Write saved objects for Kibana and OpenSearch Dashboards: data views, the panels, a dashboard."""
    from headrace.operate import load_project
    from headrace.operate.export_monitoring import FOLDER, write_kibana

    loaded = load_project(project, profile=profile)
    written, left = write_kibana(loaded, folder or loaded.folder / FOLDER, replica=replica)
    _tell(written)
    _tell_left_out(left)


def _tell_left_out(left: "Iterable[LeftOut]") -> None:
    for each in left:
        typer.echo(f"not in it: '{each.title}', because {each.reason}")


def _tell(written: Iterable[Path]) -> None:
    for path in written:
        typer.echo(f"wrote {path}")
