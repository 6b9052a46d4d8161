"""Complete example pipelines, shipped in the package.

A blueprint is a folder here. What of it becomes a user's project is listed in its `PROJECT_FILES`: the file
in this package, and where it goes. (Files that begin with a dot are kept without it, because build tools skip
them.) All of its `monitoring/` goes there too: dashboards and alert rules, as `headrace export` makes them.
Its generator, which `headrace generate NAME` runs, stays in the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from importlib import import_module, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.declare.durations import parse_duration
from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError, RefusedError

if TYPE_CHECKING:
    from headrace.produce.generator import BlueprintGenerator

__all__ = ["BLUEPRINTS", "make_generator", "project_files", "write_project"]

BLUEPRINTS: tuple[str, ...] = ("commerce", "customers", "operations", "signups")
"""The names of the blueprints."""


def project_files(blueprint: str) -> dict[str, bytes]:
    """Return what a new project of the blueprint holds, by path. Raises ProfileError for an unknown name."""
    if blueprint not in BLUEPRINTS:
        hint = did_you_mean(blueprint, BLUEPRINTS)
        known = ", ".join(BLUEPRINTS)
        raise ProfileError(f"there is no blueprint '{blueprint}'{hint}", fix=f"use one of: {known}")
    files: Mapping[str, str] = import_module(f"headrace.blueprints.{blueprint}").PROJECT_FILES
    source = resources.files(f"headrace.blueprints.{blueprint}")
    listed = {path: source.joinpath(*stored.split("/")).read_bytes() for stored, path in files.items()}
    return listed | dict(_files_in(source.joinpath("monitoring"), "monitoring"))


def _files_in(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for each in sorted(folder.iterdir(), key=lambda found: found.name):
        below = f"{path}/{each.name}"
        if each.is_dir():
            yield from _files_in(each, below)
        else:
            yield below, each.read_bytes()


def make_generator(
    blueprint: str, *, seed: int = 0, settings: Iterable[str] = (), incident: str | None = None
) -> BlueprintGenerator:
    """Return the generator of the blueprint; `settings` are texts such as `"late_share=0.05"`.

    The settings are the fields of the generator's class, of the types of their defaults. `incident` is one of
    those that the generator declares. Raises ProfileError for an unknown blueprint, setting or incident, and
    for a value that cannot be read.
    """
    project_files(blueprint)  # says which blueprints there are
    module: Any = import_module(f"headrace.blueprints.{blueprint}.generator")
    maker = getattr(module, f"{blueprint.capitalize()}Generator")
    defaults: dict[str, Any] = {
        field.name: field.default for field in fields(maker) if field.name not in ("seed", "stream")
    }
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (word.strip() for word in setting.partition("="))
        if not equals or name not in defaults:
            raise ProfileError(
                f"the generator of '{blueprint}' has no setting '{name}'{did_you_mean(name, defaults)}"
                if equals
                else f"'{setting}' is not a setting",
                fix=f"write NAME=VALUE with one of: {', '.join(defaults)}",
            )
        kind = type(defaults[name])
        try:
            values[name] = parse_duration(text) if kind is timedelta else kind(text)
        except ValueError:
            example = "2 seconds" if kind is timedelta else str(defaults[name])
            raise ProfileError(
                f"the setting {name} of the generator cannot be '{text}'",
                fix=f"write for example {name}={example}",
            ) from None
    if incident is not None:
        _require_incident(blueprint, maker.incidents, incident)
        values["incident"] = incident
    made: BlueprintGenerator = maker(seed=seed, **values)
    return made


def _require_incident(blueprint: str, incidents: Mapping[str, str], incident: str) -> None:
    if incident not in incidents:
        known = "; ".join(f"{name}: {seen}" for name, seen in incidents.items())
        raise ProfileError(
            f"the generator of '{blueprint}' has no incident '{incident}'{did_you_mean(incident, incidents)}",
            fix=f"one of {known}" if known else "leave --incident out: this generator makes none",
        )


def write_project(blueprint: str, folder: Path) -> tuple[Path, ...]:
    """Write a new project of the blueprint into `folder`, made if it is missing; return the files in it.

    Raises ProfileError for an unknown blueprint, and RefusedError when a file would be overwritten or cannot
    be written; no file that was there before is ever touched.
    """
    files = {folder / path: content for path, content in project_files(blueprint).items()}
    present = sorted(str(path.relative_to(folder)) for path in files if path.exists() or path.is_symlink())
    if present:
        raise RefusedError(
            f"{folder} holds {', '.join(present)} already", fix="name a folder that is empty or not there yet"
        )
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
        except OSError as error:
            raise RefusedError(
                f"{path} cannot be written: {error.strerror}", fix="choose a folder that you may write to"
            ) from error
    return tuple(files)
