"""The jars of a server: named by its `pom.xml`, fetched with Maven, kept in a cache outside the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["FOR_LONG_TESTS", "POMS", "ServerMissing", "fetched", "jars_of", "java"]

POMS = Path(__file__).parent / "poms"
FOR_LONG_TESTS = {"hadoop-aws", "hadoop-minicluster", "jmx"}
"""Fetched by the tests that need them, which only `make soak` runs."""
_FETCH_S_MAX = 900


class ServerMissing(Exception):
    """A server cannot be started here; the text says what is missing and how to get it."""


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headrace" / "servers"


def _place(name: str) -> Path:
    pom = POMS / name / "pom.xml"
    return cache_folder() / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"


def jars_of(name: str) -> Path:
    """Return the folder with the jars that `poms/NAME/pom.xml` names. Raises ServerMissing."""
    place = _place(name)
    if not place.is_dir():
        raise ServerMissing(f"the jars of {name} are not here; `make servers` fetches them")
    return place


def fetched(name: str) -> Path:
    """Fetch the jars unless they are here, and return their folder. Raises ServerMissing."""
    place = _place(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            return place
        maven = shutil.which("mvn")
        if maven is None:
            raise ServerMissing(f"Maven (mvn) is needed to fetch the jars of {name}; install it")
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            command = [maven, "-q", "-B", "-ntp", "-f", str(POMS / name / "pom.xml")]
            command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
            done = subprocess.run(
                [*command, f"-DoutputDirectory={folder}/jars"],
                capture_output=True,
                text=True,
                timeout=_FETCH_S_MAX,
                check=False,
            )
            if done.returncode:
                raise ServerMissing(f"Maven could not fetch the jars of {name}:\n{done.stdout[-2000:]}")
            # At once under its name: a run that is killed leaves nothing that looks complete.
            Path(folder, "jars").rename(place)
    return place


def java(version_min: int = 17) -> str:
    """Return a `java` of at least that version. Raises ServerMissing."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("java"):
        homes.append(Path(on_path).resolve().parents[1])
    homes += sorted(Path("/usr/lib/jvm").glob("*"))
    for home in homes:
        release, program = home / "release", home / "bin" / "java"
        if not (release.is_file() and program.is_file()):
            continue
        version = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', release.read_text())
        if version and int(version.group(1)) >= version_min:
            return str(program)
    raise ServerMissing(f"Java {version_min} or later is needed; install it, or set JAVA_HOME")
