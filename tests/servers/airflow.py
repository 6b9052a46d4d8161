"""Airflow in an environment of its own, in the cache: it is no package of the project's environment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from servers.jars import ServerMissing, cache_folder

__all__ = ["AIRFLOW", "AIRFLOW_2", "Airflow", "airflow_python", "fetched_airflow"]

AIRFLOW = "apache-airflow==3.3.2"
AIRFLOW_2 = "apache-airflow==2.11.2"
_AS_OF = {AIRFLOW_2: "2026-11-20T00:00:00Z"}
"""What it needs is taken as of then: nobody keeps a release that has ended working with what comes after."""
_REPOSITORY = Path(__file__).parents[2]
_FETCH_S_MAX = 900
_RUN_S_MAX = 280


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]
    return project


def _wanted(release: str) -> list[str]:
    return [release, *_project()["dependencies"]]  # type: ignore[misc]


def _place(release: str) -> Path:
    named = "\n".join([*_wanted(release), sys.version])
    return cache_folder() / f"airflow-{hashlib.sha256(named.encode()).hexdigest()[:12]}"


def airflow_python(release: str = AIRFLOW) -> Path:
    """Return the Python that has Airflow. Raises ServerMissing."""
    found = _place(release) / "bin" / "python"
    if not found.exists():
        raise ServerMissing(f"{release} is not here; `make servers` fetches it")
    return found


def fetched_airflow(release: str = AIRFLOW) -> Path:
    """Make the environment unless it is here, with what Headrace needs, and return its folder."""
    place = _place(release)
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            return place
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if uv is None:
            raise ServerMissing("uv is needed to fetch Airflow; `make test` sets it up")
        made = Path(tempfile.mkdtemp(dir=place.parent, prefix="airflow-"))
        as_of = ["--exclude-newer", _AS_OF[release]] if release in _AS_OF else []
        try:
            for command in (
                [uv, "venv", "-q", "--clear", "--relocatable", "--python", sys.executable, str(made)],
                [
                    uv,
                    "pip",
                    "install",
                    "-q",
                    "--python",
                    str(made / "bin" / "python"),
                    *as_of,
                    *_wanted(release),
                ],
            ):
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=_FETCH_S_MAX, check=False
                )
                if done.returncode:
                    raise ServerMissing(f"uv could not fetch {release}:\n{done.stderr[-2000:]}")
            made.rename(place)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return place


class Airflow:
    """An Airflow with a home of its own, to which this checkout is an installed provider.

    It reads DAGs in `dags`.
    """

    def __init__(self, folder: Path, dags: Path, release: str = AIRFLOW) -> None:
        self._python = airflow_python(release)
        site = folder / "site"
        facts = site / f"headrace-{metadata.version('headrace')}.dist-info"
        facts.mkdir(parents=True)
        # What an installed package says of itself, and where Airflow looks for its providers.
        (facts / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: headrace\nVersion: {metadata.version('headrace')}\n"
        )
        (provider,) = _project()["entry-points"]["apache_airflow_provider"].items()  # type: ignore[index]
        (facts / "entry_points.txt").write_text(f"[apache_airflow_provider]\n{provider[0]} = {provider[1]}\n")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
            "PYTHONDONTWRITEBYTECODE": "",  # its thousands of files are compiled once
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "PYTHONPATH": f"{site}:{_REPOSITORY / 'src'}",
            "no_proxy": "*",
        }
        self.run("-m", "airflow", "db", "migrate")

    def run(self, *words: str) -> str:
        """Run its Python and return what it says; what fails is a failure with its words."""
        done = subprocess.run(
            [str(self._python), *words], env=self.environment, capture_output=True, text=True,
            timeout=_RUN_S_MAX, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout + done.stderr
