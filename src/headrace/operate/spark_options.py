"""Options of the Spark engine: a few of ours, and whatever Spark itself may be told."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from headrace.errors import ProfileError
from headrace.operate.options import Kind, Report, option, option_names, read_options
from headrace.operate.secrets import AbsentError, resolve_references

__all__ = ["SparkOptions", "read_spark"]

_OF_DSTREAMS = "spark.streaming."


@dataclass(frozen=True)
class SparkOptions:
    """What stands under `spark.` in a profile. All but these options are Spark's own, and passed on."""

    trigger: timedelta | None = option(
        Kind.DURATION,
        None,
        "micro-batches begin at multiples of it since 1970; none: as soon as there is something",
    )
    checkpoint: str | None = option(
        Kind.TEXT, None, "where Spark keeps its notes on a run, a folder or a URI; none: beside the store"
    )
    environment: str = option(
        Kind.CHOICE,
        "installed",
        "what executors import: it is installed where they run, or this machine's packages are sent to them",
        choices={"installed": "", "archive": ""},
    )
    environment_packages: tuple[str, ...] = option(
        Kind.LIST, (), "packages for the archive beside Headrace's own: what functions of the pipeline import"
    )
    rows_by_executors: tuple[str, ...] = option(
        Kind.LIST,
        (),
        "tables without GROUP BY and key= whose rows executors write into their Delta or Parquet replica",
    )
    master_page: str | None = option(
        Kind.TEXT,
        None,
        "the page of a standalone cluster's master, which tells the workers; none: port 8080 of its host",
    )
    conf: Mapping[str, str] = field(default_factory=dict)


def read_spark(section: Mapping[str, object], prefix: str, folder: Path, report: Report) -> SparkOptions:
    """Read the `spark.NAME = value` lines of a profile's section; problems go to `report`.

    The names may stand in quotes, as Spark's own files have them: `"spark.executor.memory" = "2g"`.
    """
    path = f"{prefix}.spark"
    table = section.get("spark", {})
    if not isinstance(table, Mapping):
        report(path, "takes a table", 'write spark.master = "local[2]"')
        return SparkOptions()
    whole = {name.removeprefix("spark."): value for name, value in section.items() if name[:6] == "spark."}
    raw = {**table, **whole}
    ours = {name: raw[name] for name in option_names(SparkOptions) if name in raw}
    options = read_options(SparkOptions, ours, path=path, folder=folder, report=report)
    conf = {}
    for name, value in _flat({n: v for n, v in raw.items() if n not in ours}, "spark"):
        place = f"{path}.{name.removeprefix('spark.')}"
        if name.startswith(_OF_DSTREAMS):
            report(
                place,
                f"{name} belongs to DStreams, Spark's older streaming, and means nothing here",
                "leave it out; engine_settings.epoch_rows_max bounds a micro-batch",
            )
        elif isinstance(value, list | tuple) or value is None:
            report(place, "takes a text, a number, true or false", 'write for example "2g"')
        else:
            try:
                conf[name] = _text(value, folder)
            except ProfileError as error:
                report(place, error.message, error.fix, absent=isinstance(error, AbsentError))
    return replace(options, conf=conf)


def _flat(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def _text(value: object, folder: Path) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return resolve_references(value, folder) if isinstance(value, str) else str(value)
