"""Writes what Prometheus, Alertmanager and Grafana need of a project, into a folder beside its pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ProfileError, RefusedError
from headrace.operate.alert_options import EmailOptions, WebhookOptions
from headrace.operate.alerting import rules_of
from headrace.operate.export_panels import (
    SHOWN_KINDS,
    LeftOut,
    grafana_panels,
    page_address,
    page_dashboard,
    replicas_of,
    search_replica,
    searched_panels,
)
from headrace.operate.export_yaml import to_yaml
from headrace.operate.project import Project

if TYPE_CHECKING:
    from headrace.observe.export_prometheus import Target

__all__ = [
    "FOLDER",
    "page_of_spark",
    "spark_targets",
    "write_alertmanager",
    "write_grafana",
    "write_kibana",
    "write_prometheus",
]

FOLDER = "monitoring"
_MARK = "# Made by `headrace export`: edit the project, then run it again.\n"
_SPARK_PAGE_PORT = 4040
_SPARK_JOBS = {"spark_driver": "/metrics/prometheus", "spark_executors": "/metrics/executors/prometheus"}


def write_prometheus(
    project: Project,
    folder: Path,
    *,
    generator: str | None,
    spark: str | None,
    others: Sequence[str],
    alertmanager: str | None,
) -> list[Path]:
    """Write prometheus.yml, the alert rules and their tests; addresses are HOST:PORT, others NAME=HOST:PORT.

    What is None is as the profile says: `metrics.generator`, and the page of the driver where Spark is the
    engine and `spark.ui.enabled` is true. `others` are scraped beside those of `metrics.targets`, or in their
    place. Raises ProfileError when the profile serves no metrics, or an address is none.
    """
    from headrace.observe.export_prometheus import (
        RULES_FILE,
        Target,
        prometheus_document,
        rule_tests_document,
        rules_document,
    )

    options = project.profile.metrics
    if options.port is None:
        raise ProfileError(
            f"profile '{project.profile.name}' serves no metrics",
            fix=f"add to headrace.toml: [profiles.{project.profile.name}.metrics] port = 9464",
        )
    targets = [Target("headrace", f"{options.host}:{options.port}")]
    generator = generator or options.generator
    if generator is not None:
        targets.append(Target("generator", _address(generator)))
    spark = spark or page_of_spark(project)
    if spark is not None:
        targets += spark_targets(_address(spark))
    named = (other.partition("=") for other in others)
    beside = {**(options.targets or {}), **{name: address for name, _, address in named}}
    targets += [Target(name, _address(address)) for name, address in beside.items()]
    if len({target.job for target in targets}) < len(targets):
        raise ProfileError("two targets have one name", fix="give each target a name of its own")
    rules, name = rules_of(project), project.pipeline.name
    documents = {
        "prometheus.yml": prometheus_document(
            targets, alertmanager=None if alertmanager is None else _address(alertmanager)
        ),
        RULES_FILE: rules_document(rules, name),
        RULES_FILE.replace(".yml", ".test.yml"): rule_tests_document(rules, name),
    }
    return [_write_yaml(folder / "prometheus" / file, document) for file, document in documents.items()]


def write_alertmanager(project: Project, folder: Path, *, reveal: bool) -> list[Path]:
    """Write alertmanager.yml with the notifiers of the profile, in a file that only its owner may read.

    Alertmanager reads no environment: with `reveal`, secrets are written out. Raises RefusedError without it.
    """
    options = project.profile.alerts
    secret = [
        name
        for name, (_, each) in options.notify.items()
        if isinstance(each, WebhookOptions) or (isinstance(each, EmailOptions) and each.password is not None)
    ]
    if secret and not reveal:
        raise RefusedError(
            "Alertmanager needs the secrets of " + ", ".join(f"'{name}'" for name in secret) + " in its file",
            fix="allow that with --reveal-secrets, and keep the file out of version control",
        )
    receivers = [_receiver(name, kind, each) for name, (kind, each) in options.notify.items()]
    routes = [
        {
            "receiver": name,
            "continue": True,
            **({} if each.severity == "info" else {"matchers": [_at_least(each.severity)]}),
        }
        for name, (_, each) in options.notify.items()
    ]
    document: dict[str, Any] = {
        "route": {
            "receiver": "nobody",
            "group_by": ["pipeline"],
            "group_wait": _lasts(options.group),
            "group_interval": "1m",
            "repeat_interval": _lasts(options.repeat),
            "routes": routes,
        },
        "receivers": [{"name": "nobody"}, *receivers],
    }
    return [_write_yaml(folder / "alertmanager" / "alertmanager.yml", document, private=True)]


def write_grafana(
    project: Project, folder: Path, *, prometheus: str, page: str | None = None
) -> tuple[list[Path], list[LeftOut]]:
    """Write dashboards, data sources, alerts and provisioning; `prometheus` is the address that Grafana uses.

    A dashboard shows all metrics, and one for each replica that Grafana can read shows the panels over its
    tables. Those that no replica can show are asked of the run's page, at the address `page`; None: where the
    profile serves it. Returns what was written, and the panels that cannot be shown there either.
    """
    from headrace.observe.export_grafana import (
        PROMETHEUS_UID,
        dashboards_provider,
        data_sources,
        metrics_dashboard,
    )
    from headrace.observe.grafana_alerts import alert_groups
    from headrace.observe.grafana_tables import tables_dashboard

    name, place = project.pipeline.name, folder / "grafana"
    dashboards = {name: metrics_dashboard(name)}
    sources: list[dict[str, Any]] = []
    shown: set[str] = set()
    left: dict[str, LeftOut] = {}
    for replica in replicas_of(project, SHOWN_KINDS):
        panels, asked, missing = grafana_panels(project, replica)
        left |= {each.title: each for each in missing}
        if panels:
            shown |= {each.panel.title for each in panels}
            dashboards[f"{name}-{replica}"] = tables_dashboard(name, replica, panels)
            sources += asked
    page = page or page_address(project)
    of_page = None if page is None else page_dashboard(project, page, shown=shown, beside=dashboards)
    if of_page is not None:
        file, dashboard, source = of_page
        dashboards[file] = dashboard
        shown |= {each.title for each in project.pipeline.panels}
        sources.append(source)
    provisioning = place / "provisioning"
    rules = alert_groups(rules_of(project), name, PROMETHEUS_UID)
    written = [
        _write(place / "dashboards" / f"{file}.json", json.dumps(dashboard, indent=2) + "\n")
        for file, dashboard in dashboards.items()
    ]
    written += [
        _write_yaml(provisioning / "dashboards" / "headrace.yaml", dashboards_provider()),
        _write_yaml(provisioning / "datasources" / "headrace.yaml", data_sources(prometheus, sources)),
        _write_yaml(provisioning / "alerting" / "headrace.yaml", rules),
    ]
    nowhere = "no replica has its table, and the profile serves no page at a port of its own"
    return written, [
        left.get(each.title, LeftOut(each.title, nowhere))
        for each in project.pipeline.panels
        if each.title not in shown
    ]


def write_kibana(
    project: Project, folder: Path, *, replica: str | None = None
) -> tuple[list[Path], list[LeftOut]]:
    """Write the saved objects of a search replica's tables: data views, the panels over them, a dashboard.

    Returns what was written, and the panels that are not in it. Raises ProfileError when the profile has no
    such replica.
    """
    from headrace.observe.export_kibana import saved_objects, saved_objects_text

    panels, views, left = searched_panels(project, search_replica(project, replica))
    name = project.pipeline.name
    text = saved_objects_text(saved_objects(name, views, panels))
    return [_write(folder / "kibana" / f"{name}.ndjson", text)], left


def _at_least(severity: str) -> str:
    return 'severity="critical"' if severity == "critical" else 'severity=~"warning|critical"'


def _receiver(name: str, kind: str, options: Any) -> dict[str, Any]:
    if isinstance(options, EmailOptions):
        mail: dict[str, Any] = {
            "to": ", ".join(options.to),
            "from": options.sender,
            "smarthost": f"{options.host}:{options.port}",
            "require_tls": options.encryption == "starttls",
        }
        if options.user is not None:
            mail["auth_username"] = options.user
        if options.password is not None:
            mail["auth_password"] = options.password.reveal()
        return {"name": name, "email_configs": [mail]}
    url = options.url.reveal()
    http = {}
    if options.token is not None:
        http = {"http_config": {"authorization": {"credentials": options.token.reveal()}}}
    if kind == "slack":
        return {"name": name, "slack_configs": [{"api_url": url, "send_resolved": True, **http}]}
    return {"name": name, "webhook_configs": [{"url": url, **http}]}


def spark_targets(address: str) -> list[Target]:
    """Return what of a driver tells of Spark, at the HOST:PORT of its page."""
    from headrace.observe.export_prometheus import Target

    return [Target(job, address, path) for job, path in _SPARK_JOBS.items()]


def page_of_spark(project: Project, host: str | None = None) -> str | None:
    """Return where the driver serves its page, and its metrics; None when it does not, as by default.

    `host` is the name by which others reach the driver; None: as the profile says.
    """
    conf = project.profile.spark.conf
    if project.profile.engine != "spark" or conf.get("spark.ui.enabled") != "true":
        return None
    name = host or conf.get("spark.driver.host", "localhost")
    return f"{name}:{conf.get('spark.ui.port', _SPARK_PAGE_PORT)}"


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ProfileError(f"'{text}' is not an address", fix="write HOST:PORT, for example localhost:9465")
    return text


def _lasts(length: Any) -> str:
    return f"{max(1, round(length.total_seconds()))}s"


def _write_yaml(path: Path, document: Mapping[str, Any], *, private: bool = False) -> Path:
    return _write(path, _MARK + to_yaml(document), private=private)


def _write(path: Path, text: str, *, private: bool = False) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".new")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}", fix="name another folder with --folder"
        ) from error
    return path
