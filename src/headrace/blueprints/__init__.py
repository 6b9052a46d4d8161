"""Complete example pipelines, shipped in the package.

A blueprint is a folder here. What of it becomes a user's project is listed in its `PROJECT_FILES`: the file
in this package, and where it goes. (Files that begin with a dot are kept without it, because build tools skip
them.) Its generator, which `headrace generate NAME` runs, stays in the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module, resources
from pathlib import Path

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError, RefusedError

__all__ = ["BLUEPRINTS", "project_files", "write_project"]

BLUEPRINTS: tuple[str, ...] = ("commerce",)
"""The names of the blueprints."""


def project_files(blueprint: str) -> dict[str, bytes]:
    """Return what a new project of the blueprint holds, by path. Raises ProfileError for an unknown name."""
    if blueprint not in BLUEPRINTS:
        hint = did_you_mean(blueprint, BLUEPRINTS)
        known = ", ".join(BLUEPRINTS)
        raise ProfileError(f"there is no blueprint '{blueprint}'{hint}", fix=f"use one of: {known}")
    files: Mapping[str, str] = import_module(f"headrace.blueprints.{blueprint}").PROJECT_FILES
    source = resources.files(f"headrace.blueprints.{blueprint}")
    return {path: source.joinpath(*stored.split("/")).read_bytes() for stored, path in files.items()}


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
