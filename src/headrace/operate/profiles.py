"""Profiles: where a pipeline runs. They stand in `headrace.toml`; without one, everything is embedded."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
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
from headrace.operate.options import Kind, option, read_options
from headrace.operate.page_options import PageOptions
from headrace.operate.polling_options import PollingOptions, read_polling
from headrace.operate.replica_options import read_replicas
from headrace.operate.spark_options import SparkOptions, read_spark
from headrace.operate.telemetry_options import TelemetryOptions, read_telemetry

__all__ = [
    "PROFILE_FILE",
    "EngineOptions",
    "Profile",
    "StoreBinding",
    "check_formats",
    "check_stream_names",
    "read_profile",
    "read_profile_names",
]

PROFILE_FILE = "headrace.toml"
DEFAULT_PROFILE = "local"


@dataclass(frozen=True)
class StoreBinding:
    """Where the store lies."""

    path: str = option(Kind.TEXT, ".headrace/store.duckdb", "the store's file, relative to the project")


@dataclass(frozen=True)
class EngineOptions:
    """How the engine works. An option that is absent keeps the engine's own default."""

    epoch_rows_max: int | None = option(Kind.WHOLE, None, "the most records of one epoch")
    epoch_bytes_max: int | None = option(Kind.SIZE, None, "the most bytes of one epoch")
    linger: timedelta | None = option(Kind.DURATION, None, "how long an epoch waits for more records")
    threads: int | None = option(Kind.WHOLE, None, "threads for large epochs")
    memory_limit: int | None = option(Kind.SIZE, None, "memory of the store before it spills to disk")
    on_data_loss: str = option(
        Kind.CHOICE,
        "stop",
        "what to do when the log no longer holds what was not read yet",
        choices={"stop": "", "continue": ""},
    )
    side_values_max: int | None = option(
        Kind.WHOLE,
        None,
        "the most values that a distinct count, a mode or a quantile of a table may hold in all its groups; "
        "none: 50 million",
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


def read_profile(folder: Path, name: str | None) -> Profile:
    """Return the profile `name` of the project in `folder`; None: `local`, or the defaults.

    Raises ProfileError that holds every problem with its place.
    """
    profiles, lines = _read_sections(folder)
    wanted = DEFAULT_PROFILE if name is None else name
    if wanted not in profiles:
        if name is None or (name == DEFAULT_PROFILE and not profiles):
            return Profile()
        known = ", ".join(f"'{each}'" for each in profiles) or "none"
        raise ProfileError(
            f"there is no profile '{name}' in {PROFILE_FILE}{did_you_mean(name, profiles)}",
            fix=f"write a section [profiles.{name}], or use one of: {known}",
        )
    problems: list[Problem] = []

    def report(key: str, what: str, fix: str) -> None:
        subject = f"profile '{wanted}': '{key.removeprefix(f'profiles.{wanted}.')}'"
        problems.append(Problem(PROFILE_FILE, _line_of(lines, key), subject, what, fix))

    profile = _read_section(wanted, profiles[wanted], folder, report)
    _raise_all(problems)
    return profile


def read_profile_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the profiles that are written down, in the order of the file."""
    return tuple(_read_sections(folder)[0])


def check_stream_names(profile: Profile, folder: Path, streams: tuple[str, ...]) -> None:
    """Raise ProfileError when the profile binds a stream that the pipeline does not have."""
    bound = [
        *(("streams", name) for name in profile.streams),
        *(("polling", name) for name in profile.polling),
    ]
    unknown = [(section, name) for section, name in bound if name not in streams]
    if unknown:
        lines = _read_sections(folder)[1]
        _raise_all(
            [
                Problem(
                    PROFILE_FILE,
                    _line_of(lines, f"profiles.{profile.name}.{section}.{name}"),
                    f"profile '{profile.name}'",
                    f"the pipeline has no stream '{name}'{did_you_mean(name, streams)}",
                    "it has: " + ", ".join(streams),
                )
                for section, name in unknown
            ]
        )


def check_formats(profile: Profile, folder: Path) -> None:
    """Raise ProfileError when a stream's format needs a registry and the profile names none."""
    without = [
        name for name, binding in profile.streams.items() if binding.format != "json" and not binding.registry
    ]
    if without:
        lines = _read_sections(folder)[1]
        _raise_all(
            [
                Problem(
                    PROFILE_FILE,
                    _line_of(lines, f"profiles.{profile.name}.streams.{name}.format"),
                    f"profile '{profile.name}': 'streams.{name}.format'",
                    f"{profile.stream(name).format} needs a schema registry",
                    'add registry = "http://localhost:8081" (headrace registry serve runs one)',
                )
                for name in without
            ]
        )


def _raise_all(problems: list[Problem]) -> None:
    if problems:
        raise ProfileError("\n".join(str(each) for each in sorted(problems, key=lambda each: each.line)))


def _read_sections(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    path = folder / PROFILE_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ProfileError(f"{path} cannot be read: {reason}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{PROFILE_FILE} is not TOML: {error}", fix="correct that line") from None
    lines: dict[str, int] = {}
    for path_of_key, line in _lines_of_keys(text):
        lines.setdefault(path_of_key, line)
    for key in document:
        if key != "profiles":
            place = f"{PROFILE_FILE}:{_line_of(lines, key)}"
            hint = did_you_mean(key, ("profiles",))
            raise ProfileError(f"{place}: unknown section '{key}'{hint}", fix="write [profiles.NAME]")
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict):
        raise ProfileError(f"{PROFILE_FILE}: 'profiles' is not a section", fix="write [profiles.local]")
    return profiles, lines


def _read_section(name: str, raw: object, folder: Path, report: Any) -> Profile:
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


_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")
_INNER_KEY = re.compile(r"[{,]\s*([A-Za-z0-9_-]+)\s*=")


def _lines_of_keys(text: str) -> Iterator[tuple[str, int]]:
    """Give (dotted key, line): TOML's own reader keeps no places."""
    prefix = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            prefix = _dotted(header.group(1))
            yield prefix, number
        elif key := _KEY.match(line):
            path = ".".join(part for part in (prefix, _dotted(key.group(1))) if part)
            for parents in range(key.group(1).count("."), -1, -1):
                yield path.rsplit(".", parents)[0], number
            for inner in _INNER_KEY.finditer(line):
                yield f"{path}.{inner.group(1)}", number


def _dotted(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _line_of(lines: Mapping[str, int], key: str) -> int:
    while key:
        if key in lines:
            return lines[key]
        key = key.rpartition(".")[0]
    return 1
