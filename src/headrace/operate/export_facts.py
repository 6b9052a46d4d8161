"""What a deployment is made from: the project, one of its profiles, and what that profile needs beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.errors import ProfileError
from headrace.operate.bindings import KafkaBinding
from headrace.operate.export_airflow import polled_by_dags
from headrace.operate.profiles import PROFILE_FILE, Profile
from headrace.operate.project import Project
from headrace.operate.secrets import Secret

__all__ = ["PANELS_TOKEN", "Deployment", "Neighbour", "deployment_of"]

PANELS_TOKEN = "HEADRACE_PANELS_TOKEN"  # noqa: S105 - the name of a variable
"""The variable that holds the token of the page, where Grafana is to read it."""

_ENVIRONMENT = re.compile(r"\$\{env:([^}]+)\}")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared with, not bound to
_NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Neighbour:
    """A server that the profile names.

    `kind` is kafka, registry, postgresql, elasticsearch, cassandra, or users: the API that a blueprint polls.
    """

    kind: str
    host: str
    port: int


@dataclass(frozen=True)
class Deployment:
    """A project with the profile that runs in containers.

    `variables` are the environment variables that the profile refers to. `generator_rate`: the pipeline is a
    blueprint, whose generator makes so many records a second; None: it is not.
    """

    project: Project
    neighbours: tuple[Neighbour, ...]
    variables: tuple[str, ...]
    generator_rate: float | None = None

    @property
    def profile(self) -> Profile:
        """The profile that runs."""
        return self.project.profile

    @property
    def name(self) -> str:
        """The pipeline's name, as containers and resources are called."""
        return re.sub(r"[^a-z0-9]+", "-", self.project.pipeline.name.lower()).strip("-")

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of the package that the profile needs."""
        known = ("cassandra", "delta", "postgresql")
        kinds = {options.kind for options in self.profile.replicas.values()}
        telemetry = ("telemetry",) if self.profile.telemetry.wanted else ()
        return (
            tuple(kind for kind in known if kind in kinds) + (("spark",) if self.on_spark else ()) + telemetry
        )

    @property
    def on_spark(self) -> bool:
        """Whether the pipeline runs on Spark."""
        return self.profile.engine == "spark"

    @property
    def embedded(self) -> bool:
        """Whether a stream lies in the embedded log, so that producers need the project's files."""
        streams = (self.profile.stream(each.name) for each in self.project.pipeline.streams)
        return not all(isinstance(binding, KafkaBinding) for binding in streams)

    @property
    def polled(self) -> tuple[str, ...]:
        """The streams whose pollers are processes of their own."""
        return tuple(name for name, options in self.profile.polling.items() if options.with_run == "no")

    @property
    def scheduled(self) -> tuple[str, ...]:
        """The streams among them that Airflow polls, by a DAG of the project for this profile."""
        return tuple(stream for stream in polled_by_dags(self.project) if stream in self.polled)

    @property
    def generates(self) -> bool:
        """Whether a generator makes the records."""
        return self.generator_rate is not None and not self.polled

    @property
    def page_port(self) -> int | None:
        """Where the page is; None: there is none."""
        return self.profile.page.port if self.profile.page.serve == "on" else None

    @property
    def page_for_grafana(self) -> str | None:
        """Where Grafana reaches the page; None: it is let in nowhere.

        That needs the name of the run's service in `page.names`, and a token for panels alone that Grafana's
        environment has.
        """
        page = self.profile.page
        if self.page_port is None or "headrace" not in page.names:
            return None
        for_panels = Secret(f"${{env:{PANELS_TOKEN}}}", self.project.folder)
        if page.token is not None and page.panels_token != for_panels:
            return None
        return f"{'http' if page.certificate is None else 'https'}://headrace:{self.page_port}"

    @property
    def metrics_port(self) -> int | None:
        """Where Prometheus finds metrics; None: nowhere."""
        return self.profile.metrics.port

    def one(self, kind: str) -> Neighbour | None:
        """Return the neighbour of a kind."""
        return next((each for each in self.neighbours if each.kind == kind), None)


def deployment_of(project: Project, *, generator_rate: float | None = None) -> Deployment:
    """Return what the profile of a project needs.

    Raises ProfileError for an address that means something else inside a container.
    """
    neighbours = tuple(dict.fromkeys(_neighbours(project.profile, blueprint=generator_rate is not None)))
    _require_reachable(project, neighbours)
    return Deployment(project, neighbours, tuple(_variables(project)), generator_rate)


def _neighbours(profile: Profile, *, blueprint: bool) -> Iterator[Neighbour]:
    for binding in profile.streams.values():
        if isinstance(binding, KafkaBinding):
            for address in binding.brokers.split(","):
                yield _neighbour("kafka", address, 9092)
        if binding.format != "json" and binding.registry:
            yield _neighbour("registry", binding.registry, 8081)
    for options in profile.replicas.values():
        if options.kind == "postgresql":  # its address is in a secret, which is made to fit
            yield Neighbour("postgresql", "postgresql", 5432)
        elif options.kind == "elasticsearch":
            yield _neighbour("elasticsearch", options.url.split(",")[0], 9200)
        elif options.kind == "cassandra":
            yield _neighbour("cassandra", options.hosts.split(",")[0], 9042)
    for polling in profile.polling.values():
        at = _neighbour("users", polling.url, 8610)
        if blueprint and _NAME.fullmatch(at.host):  # a public API has dots in its name
            yield at


def _neighbour(kind: str, address: str, port: int) -> Neighbour:
    bare = address.strip().split("://")[-1].split("/")[0]
    host, colon, given = bare.rpartition(":")
    return Neighbour(kind, host, int(given)) if colon and given.isdecimal() else Neighbour(kind, bare, port)


def _require_reachable(project: Project, neighbours: tuple[Neighbour, ...]) -> None:
    where = f"profile '{project.profile.name}'"
    kinds = [each.kind for each in neighbours]
    several = [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1]
    if several:
        raise ProfileError(
            f"{where} names several servers of kind {several[0]}, and one of each runs beside the pipeline",
            fix="name one in a profile for containers",
        )
    for each in neighbours:
        if each.host in _LOCAL:
            raise ProfileError(
                f"{where}: {each.kind} is at '{each.host}', and in a container that is the container itself",
                fix=f'name it as containers find it, in a profile of its own: "{each.kind}:{each.port}"',
            )
        if not _NAME.fullmatch(each.host):
            raise ProfileError(
                f"{where}: '{each.host}' cannot be the name of a container",
                fix="use small letters, digits and - for a server that is to run beside the pipeline",
            )
    page = project.profile.page
    if page.serve == "on" and page.host in _LOCAL - {"0.0.0.0"}:  # noqa: S104
        raise ProfileError(
            f"{where}: the page listens on {page.host}, which nobody outside of its container reaches",
            fix='page = { host = "0.0.0.0", token = "${env:HEADRACE_TOKEN}", plain_http = "anywhere" }, '
            'or page = { serve = "off" }',
        )
    metrics = project.profile.metrics
    if metrics.port is not None and metrics.host in _LOCAL - {"0.0.0.0"}:  # noqa: S104
        raise ProfileError(
            f"{where}: metrics are served on {metrics.host}, which Prometheus does not reach",
            fix=f'metrics = {{ host = "0.0.0.0", port = {metrics.port} }}',
        )


def _variables(project: Project) -> Iterator[str]:
    """Give the environment variables that the profile refers to, in the order of the file."""
    document = tomllib.loads((project.folder / PROFILE_FILE).read_text(encoding="utf-8"))
    seen: dict[str, None] = {}
    for text in _texts(document["profiles"][project.profile.name]):
        seen.update(dict.fromkeys(_ENVIRONMENT.findall(text)))
    yield from seen


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _texts(held)
