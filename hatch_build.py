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

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page for a wheel; `version` is "editable" for a checkout."""
        root = Path(self.root)
        if version == "editable" or (root / "src/headrace/web/static/index.html").exists():
            return
        subprocess.run([sys.executable, str(root / "ui" / "build.py")], check=True)  # noqa: S603 - our own words
