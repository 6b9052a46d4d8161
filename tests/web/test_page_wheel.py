"""The page is part of a wheel, also of one that is built where there is no Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from headrace.web.page.app import PAGE_FOLDER
from servers.absent import absent

ROOT = Path(__file__).parents[2]
INSIDE = "headrace/web/static/"
UV = Path(sys.executable).with_name("uv")
NODE = ("node", "npm", "npx")


def wheel_of(checkout: Path, folder: Path, environment: dict[str, str]) -> zipfile.ZipFile:
    command = [str(UV), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(checkout)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("headrace-*.whl")
    return zipfile.ZipFile(wheel)


def page_in(wheel: zipfile.ZipFile) -> dict[str, bytes]:
    names = [each for each in wheel.namelist() if each.startswith(INSIDE)]
    return {each.removeprefix(INSIDE): wheel.read(each) for each in names}


@pytest.mark.slow
@pytest.mark.untraced
def test_a_wheel_holds_the_page_as_it_was_built(tmp_path: Path) -> None:
    built = {
        str(each.relative_to(PAGE_FOLDER)): each.read_bytes()
        for each in PAGE_FOLDER.rglob("*")
        if each.is_file()
    }
    if "index.html" not in built:
        absent("the page is not built: make page")
    with wheel_of(ROOT, tmp_path, dict(os.environ)) as wheel:
        assert page_in(wheel) == built
        assert "headrace/cli/app.py" in wheel.namelist()


def without_node(folder: Path) -> dict[str, str]:
    """An environment in which everything that is installed is found, but no Node."""
    folder.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in sorted(Path(place).glob("*")) if Path(place).is_dir() else ():
            if program.name not in NODE and os.access(program, os.X_OK):
                (folder / program.name).unlink(missing_ok=True)
                (folder / program.name).symlink_to(program)
    return {**os.environ, "PATH": str(folder)}


ASKED = """
import importlib, sys, tomllib
from pathlib import Path

sys.path.insert(0, ".")
building = tomllib.loads(Path("pyproject.toml").read_text())["build-system"]
backend = importlib.import_module(building["build-backend"])
for asked in (backend.get_requires_for_build_editable, backend.get_requires_for_build_wheel):
    print(*(each for each in asked() if "node" in each))
"""


@pytest.mark.slow
@pytest.mark.untraced
def test_a_checkout_is_installed_without_a_node_and_only_a_wheel_asks_for_one(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "hatch_build.py", "ui/build.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    asking = [str(UV), "run", "--quiet", "--no-project", "--with", "hatchling", "python", "-c", ASKED]
    done = subprocess.run(
        asking, cwd=tmp_path, env=without_node(tmp_path / "bin"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.stdout == "\nnodejs-wheel-binaries\n", done.stderr


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_checkout_without_node_makes_the_page_and_a_wheel_that_holds_it(tmp_path: Path) -> None:
    environment = without_node(tmp_path / "bin")
    assert shutil.which("node", path=environment["PATH"]) is None
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for how in ("make", "uv"):
        checkout = tmp_path / how
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).is_file():
                (checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, checkout / name)
        assert not (checkout / PAGE_FOLDER.relative_to(ROOT)).exists()
        if how == "make":
            (checkout / ".venv").symlink_to(UV.parents[1])
            making = ["make", "-C", str(checkout), "page"]
            done = subprocess.run(
                making, env=environment, capture_output=True, text=True, timeout=900, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        with wheel_of(checkout, tmp_path / f"{how}-dist", environment) as wheel:
            page = page_in(wheel)
        assert b"/assets/" in page["index.html"]
        assert any(name.endswith(".js") for name in page)
