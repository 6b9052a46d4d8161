"""An archive of what executors import, for machines that have Python and nothing of Headrace.

It holds the packages of this environment that Headrace needs, and those that the profile names; PySpark is
left out, because a worker of Spark has its own.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import headrace
from headrace.errors import ProfileError

__all__ = ["pack_environment"]

_NOT_SENT = {"pyspark", "py4j"}
_NEEDLESS = {"__pycache__", "tests", "include"}


def pack_environment(folder: Path, packages: Iterable[str]) -> Path:
    """Return the archive (tar, gzip) in `folder`; it is made when something changed since the last one.

    Its top is a folder for PYTHONPATH. Raises ProfileError for a package that is not installed here.
    """
    files = _files(_needed(["headrace", *packages]))
    state = hashlib.sha256()
    for name, file in sorted(files.items()):
        found = file.stat()
        state.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    archive = folder / f"environment-{state.hexdigest()[:16]}.tar.gz"
    if archive.exists():
        return archive
    beside = archive.with_suffix(".new")
    # Level 1: executors wait for it, and most of it is machine code, which hardly gets smaller.
    with tarfile.open(beside, "w:gz", compresslevel=1) as tar:
        for name, file in sorted(files.items()):
            tar.add(file, arcname=name, recursive=False)
    for old in folder.glob("environment-*.tar.gz"):
        old.unlink()
    beside.replace(archive)
    return archive


def _needed(names: Iterable[str]) -> list[Distribution]:
    """Return the installed distributions of these names, and what they need, without extras."""
    found: dict[str, Distribution] = {}
    asked, implied = list(names), set[str]()
    while asked:
        name = asked.pop()
        if name in found or name in _NOT_SENT:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name in implied:
                continue  # a requirement of other systems or versions of Python
            raise ProfileError(
                f"spark.environment_packages names '{name}', which is not installed here",
                fix=f"pip install {name}, or take it out",
            ) from None
        for line in found[name].requires or ():
            wanted, _, condition = line.partition(";")
            if "extra" not in condition:
                implied.add(_name_of(wanted))
                asked.append(_name_of(wanted))
    return list(found.values())


def _name_of(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


def _files(distributions: Iterable[Distribution]) -> Mapping[str, Path]:
    """Return the files of the distributions by their names in the archive."""
    found = dict(_of_headrace())
    for each in distributions:
        for line in each.files or ():
            if ".." in line.parts or line.suffix == ".pth" or _NEEDLESS.intersection(line.parts):
                continue  # programs, and links to folders of this machine
            file = Path(str(line.locate()))
            if file.is_file():
                found.setdefault(str(line), file)
    return found


def _of_headrace() -> Iterator[tuple[str, Path]]:
    """Give our own files from where they are imported: an editable installation lists none."""
    home = Path(headrace.__file__).parent
    for file in home.rglob("*"):
        place = file.relative_to(home)
        if file.is_file() and not _NEEDLESS.intersection(place.parts):
            yield str(Path("headrace") / place), file
