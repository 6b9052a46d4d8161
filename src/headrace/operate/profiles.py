"""Profiles: where a pipeline runs. They stand in `headrace.toml`; without one, everything is embedded."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from headrace.declare.words import did_you_mean
from headrace.errors import Problem, ProfileError
from headrace.operate.alert_options import AlertOptions, read_alerts
from headrace.operate.bindings import EmbeddedBinding, StreamBinding, read_binding
from headrace.operate.ingest_options import IngestOptions
from headrace.operate.metrics_options import MetricsOptions
from headrace.operate.options import Kind, Report, option, read_options
from headrace.operate.page_options import PageOptions
from headrace.operate.polling_options import PollingOptions, read_polling
from headrace.operate.profile_file import PROFILE_FILE, ProfileFile, read_profile_file
from headrace.operate.replica_options import read_replicas
from headrace.operate.secrets import unreadable_secrets
from headrace.operate.spark_options import SparkOptions, read_spark
from headrace.operate.telemetry_options import TelemetryOptions, read_telemetry

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILE_FILE",
    "EngineOptions",
    "Profile",
    "ReadProfile",
    "StoreBinding",
    "check_secrets",
    "check_streams",
    "examine_profile",
    "problems_of_streams",
    "read_profile",
    "read_profile_names",
]

DEFAULT_PROFILE = "local"


@dataclass(frozen=True)
class StoreBinding:
    """Where the store lies."""

    path: str = option(Kind.PATH, ".headrace/store.duckdb", "the store's file, relative to the project")


@dataclass(frozen=True)
class EngineOptions:
    """How the engine works. An option that is absent keeps the engine's own default."""

    epoch_rows_max: int | None = option(Kind.WHOLE, None, "the most records of one epoch (80,000)")
    epoch_bytes_max: int | None = option(Kind.SIZE, None, "the most bytes of one epoch (64 MiB)")
    linger: timedelta | None = option(
        Kind.DURATION, None, "how long an epoch waits for more, at most (175 ms)"
    )
    threads: int | None = option(Kind.WHOLE, None, "threads for large epochs (2)", at_most=1_024)
    memory_limit: int | None = option(
        Kind.SIZE, None, "memory of the store before it spills to disk (176 MiB)"
    )
    on_data_loss: str = option(
        Kind.CHOICE,
        "stop",
        "what to do when the log no longer holds what was not read yet",
        choices={"stop": "", "continue": ""},
    )
    side_values_max: int | None = option(
        Kind.WHOLE,
        None,
        "the most values that a distinct count, a mode or a quantile of a table may hold in all its groups "
        "(50,000,000)",
    )


@dataclass(frozen=True)
class Profile:
    """One `[profiles.NAME]` section. A stream that is not named in it is embedded, with the defaults."""

    name: str = DEFAULT_PROFILE
    engine: str = option(
        Kind.CHOICE,
        "local",
        "which engine runs the pipeline",
        choices={"local": "", "spark": ""},
    )
    streams: Mapping[str, StreamBinding] = field(default_factory=dict)
    store: StoreBinding = field(default_factory=StoreBinding)
    engine_settings: EngineOptions = field(default_factory=EngineOptions)
    ingest: IngestOptions = field(default_factory=IngestOptions)
    page: PageOptions = field(default_factory=PageOptions)
    replicas: Mapping[str, Any] = field(default_factory=dict)
    """The description of each replica, by its name; `headrace.replicate.CommonOptions` is part of each."""
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    alerts: AlertOptions = field(default_factory=AlertOptions)
    polling: Mapping[str, PollingOptions] = field(default_factory=dict)
    """The poller of each stream that has one."""
    spark: SparkOptions = field(default_factory=SparkOptions)
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)

    def stream(self, name: str) -> StreamBinding:
        """Return where a stream lies."""
        return self.streams.get(name, EmbeddedBinding())


_SECTIONS = (
    "engine",
    "streams",
    "store",
    "engine_settings",
    "ingest",
    "page",
    "replicas",
    "metrics",
    "alerts",
    "polling",
    "spark",
    "telemetry",
)


@dataclass(frozen=True)
class ReadProfile:
    """A profile, with everything that is wrong with it. An option that is wrong has its default."""

    profile: Profile
    problems: tuple[Problem, ...]
    absent: tuple[Problem, ...]
    """What is written as it should be, and leads to something that is not on this machine."""
    absent_to_replicas: tuple[Problem, ...] = ()
    """Those of `absent` without which no replica can be opened, and everything else can."""


def read_profile(folder: Path, name: str | None, *, replicas: bool = True) -> Profile:
    """Return the profile `name` of the project in `folder`; None: `local`, or the defaults.

    Without `replicas` none of them will be opened, so what they alone need may be absent.
    Raises ProfileError that holds every problem with its place.
    """
    file = read_profile_file(folder)
    _raise_all(file.problems)
    wanted = DEFAULT_PROFILE if name is None else name
    if wanted not in file.profiles:
        if name is None or (name == DEFAULT_PROFILE and not file.profiles):
            return Profile()
        what, fix = _no_profile(file, name)
        raise ProfileError(what, fix=fix)
    read = examine_profile(file, wanted, folder)
    may_lack = () if replicas else read.absent_to_replicas
    absent = tuple(each for each in read.absent if each not in may_lack)
    if read.problems or absent:
        _raise_all((*read.problems, *absent, *_unreadable(read.profile, file)))
    return read.profile


def examine_profile(file: ProfileFile, name: str, folder: Path) -> ReadProfile:
    """Read the profile `name` of a file of the project in `folder`, whatever is wrong with it.

    One that the file does not have is a problem, but for the profile of a file without any.
    """
    problems: list[Problem] = []
    missing: list[Problem] = []
    to_replicas: list[Problem] = []

    def report(key: str, what: str, fix: str, *, absent: bool = False) -> None:
        key = key.removeprefix(f"profiles.{name}").removeprefix(".")
        problem = file.problem(name, key, what, fix)
        (missing if absent else problems).append(problem)
        # Without the package of its kind nothing is known of a replica: it would be left out of its status.
        if absent and key.startswith("replicas.") and not key.endswith(".kind"):
            to_replicas.append(problem)

    if name in file.profiles:
        profile = _read_section(name, file.profiles[name], folder, report)
    else:
        profile = Profile(name)
        if file.profiles or name != DEFAULT_PROFILE:
            what, fix = _no_profile(file, name)
            problems.append(Problem("", 0, f"--profile {name}", what, fix))  # no line of the file is wrong
    return ReadProfile(profile, tuple(problems), tuple(missing), tuple(to_replicas))


def _no_profile(file: ProfileFile, name: str) -> tuple[str, str]:
    what = f"there is no profile '{name}' in {PROFILE_FILE}{did_you_mean(name, file.profiles)}"
    if not file.profiles:
        return what, f"write a section [profiles.{name}], or leave --profile out: all is embedded then"
    known = ", ".join(f"'{each}' (line {file.lines.get(f'profiles.{each}', 1)})" for each in file.profiles)
    return what, f"take one of {PROFILE_FILE}: {known}; or write a section [profiles.{name}]"


def read_profile_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the profiles that are written down, in the order of the file."""
    file = read_profile_file(folder)
    _raise_all(file.problems)
    return tuple(file.profiles)


def check_streams(profile: Profile, folder: Path, streams: tuple[str, ...]) -> None:
    """Raise ProfileError when the profile cannot be the one of a pipeline with these streams."""
    _raise_all(problems_of_streams(profile, read_profile_file(folder), streams))


def check_secrets(profile: Profile, folder: Path) -> None:
    """Raise ProfileError that names every secret which a run reads when it starts, and cannot."""
    _raise_all(_unreadable(profile, read_profile_file(folder)))


def _unreadable(profile: Profile, file: ProfileFile) -> tuple[Problem, ...]:
    page = None if profile.page.serve == "off" else profile.page
    parts = {
        "streams": profile.streams,
        "page": page,
        "replicas": profile.replicas,
        "alerts": profile.alerts,
        "telemetry": profile.telemetry.secrets,
    }
    found = (each for path, part in parts.items() for each in unreadable_secrets(part, path))
    return tuple(file.problem(profile.name, key, error.message, error.fix) for key, error in found)


def problems_of_streams(profile: Profile, file: ProfileFile, streams: tuple[str, ...]) -> tuple[Problem, ...]:
    """Return what is wrong: streams that the pipeline does not have, formats without a registry."""
    bound = [
        *(("streams", name) for name in profile.streams),
        *(("polling", name) for name in profile.polling),
    ]
    unknown = [
        file.problem(
            profile.name,
            f"{section}.{name}",
            f"the pipeline has no stream '{name}'{did_you_mean(name, streams)}",
            "it has: " + (", ".join(streams) or "none"),
        )
        for section, name in bound
        if name not in streams
    ]
    without = [
        file.problem(
            profile.name,
            f"streams.{name}.format",
            f"{binding.format} needs a schema registry",
            'add registry = "http://localhost:8081" (headrace registry serve runs one)',
        )
        for name, binding in profile.streams.items()
        if binding.format != "json" and not binding.registry
    ]
    return (*unknown, *without)


def _raise_all(problems: Iterable[Problem]) -> None:
    told = [str(each) for each in sorted(problems, key=lambda each: each.line)]
    if told:
        raise ProfileError("\n".join(told))


def _read_section(name: str, raw: object, folder: Path, report: Report) -> Profile:
    prefix = f"profiles.{name}"
    if not isinstance(raw, Mapping):
        report(prefix, "is not a section", f"write [profiles.{name}]")
        return Profile(name)
    for key in raw:
        if key not in _SECTIONS and not key.startswith("spark."):
            report(
                f"{prefix}.{key}",
                f"unknown key{did_you_mean(key, _SECTIONS)}",
                "known: " + ", ".join(_SECTIONS),
            )
    engine = read_options(
        Profile, {k: raw[k] for k in ("engine",) if k in raw}, path=prefix, folder=folder, report=report
    ).engine
    streams: dict[str, StreamBinding] = {}
    bindings = raw.get("streams", {})
    if not isinstance(bindings, Mapping):
        report(f"{prefix}.streams", "takes a table", 'write streams.NAME = { log = "embedded" }')
        bindings = {}
    for stream, binding in bindings.items():
        streams[stream] = read_binding(
            binding, path=f"{prefix}.streams.{stream}", folder=folder, report=report
        )
    store = read_options(
        StoreBinding, raw.get("store", {}), path=f"{prefix}.store", folder=folder, report=report
    )
    settings = read_options(
        EngineOptions,
        raw.get("engine_settings", {}),
        path=f"{prefix}.engine_settings",
        folder=folder,
        report=report,
    )
    ingest = read_options(
        IngestOptions, raw.get("ingest", {}), path=f"{prefix}.ingest", folder=folder, report=report
    )
    page = read_options(PageOptions, raw.get("page", {}), path=f"{prefix}.page", folder=folder, report=report)
    replicas = read_replicas(raw.get("replicas", {}), f"{prefix}.replicas", folder, report)
    metrics = read_options(
        MetricsOptions, raw.get("metrics", {}), path=f"{prefix}.metrics", folder=folder, report=report
    )
    alerts = read_alerts(raw.get("alerts", {}), f"{prefix}.alerts", folder, report)
    polling = read_polling(raw.get("polling", {}), f"{prefix}.polling", folder, report)
    spark = read_spark(raw, prefix, folder, report)
    telemetry = read_telemetry(raw.get("telemetry", {}), f"{prefix}.telemetry", folder, report)
    return Profile(
        name,
        engine,
        streams,
        store,
        settings,
        ingest,
        page,
        replicas,
        metrics,
        alerts,
        polling,
        spark,
        telemetry,
    )
