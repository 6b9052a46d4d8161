"""What the blueprints ship in `monitoring/`: what `headrace export` makes of them, but for addresses.

After a change of what is exported: `python tests/blueprints/shipped_monitoring.py` writes it anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import headrace.blueprints
from headrace.blueprints import BLUEPRINTS, write_project
from headrace.cli.app import run

PROFILE = "compose"
"""It serves metrics, and has the replicas that dashboards read where there is one."""
VARIABLES = {"PG_DSN": "postgresql://somebody@postgresql:5432/operations"}
"""What the profile asks of the environment; nothing of it is in a file that is shipped."""
_WITH_ADDRESSES = (
    "prometheus/prometheus.yml",
    "grafana/provisioning/datasources/headrace.yaml",
    "grafana/provisioning/dashboards/headrace.yaml",
)
_EXPORTS = dict.fromkeys(BLUEPRINTS, ("prometheus", "grafana")) | {
    "customers": ("prometheus", "grafana", "kibana")
}


def exported(blueprint: str, project: Path) -> dict[str, bytes]:
    """Write a new project of the blueprint; return what of its exports is shipped, by path in the project.

    The environment has to hold `VARIABLES`.
    """
    write_project(blueprint, project)
    shutil.rmtree(project / "monitoring", ignore_errors=True)
    for what in _EXPORTS[blueprint]:
        if run(["export", what, "--project", str(project), "--profile", PROFILE]) != 0:
            raise RuntimeError(f"headrace export {what} of {blueprint} failed")
    made = project / "monitoring"
    files = {path.relative_to(made).as_posix(): path for path in sorted(made.rglob("*")) if path.is_file()}
    return {
        f"monitoring/{name}": path.read_bytes() for name, path in files.items() if name not in _WITH_ADDRESSES
    }


def main() -> None:
    """Write into the checkout what each blueprint ships."""
    os.environ.update(VARIABLES)
    package = Path(headrace.blueprints.__file__).parent
    for blueprint in BLUEPRINTS:
        (package / blueprint / "monitoring").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            made = exported(blueprint, Path(folder) / blueprint)
        shutil.rmtree(package / blueprint / "monitoring", ignore_errors=True)
        for name, content in made.items():
            path = package / blueprint / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    main()
