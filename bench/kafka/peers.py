"""The peers: what each is, the environment it runs in, made on first use outside the checkout.

An environment is made from `requirements/NAME.txt` (every package with its version) and, for those on the
JVM, from `poms/NAME.xml`. Its folder's name says from what it was made, so a change makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.kafka.oracle import COMMERCE, TYPE, USER

HERE = Path(__file__).parent
PYTHON = "3.11"  # what all the peers have wheels for
_INSTALL_S_MAX = 1800


class PeerMissing(Exception):
    """A peer cannot be installed here; the text says why."""


@dataclass(frozen=True)
class Contestant:
    """What is measured.

    environment   whose requirements it runs with; empty: those of the benchmarks themselves
    cases         what it computes
    slow          it reads the smaller stream, so that a run ends
    """

    name: str
    title: str
    environment: str = ""
    cases: tuple[str, ...] = (TYPE, USER)
    slow: bool = False
    java: bool = False


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("consume", "consume only", "plain", ("consume",)),
        Contestant("headrace", "Headrace", cases=(TYPE, USER, COMMERCE)),
        Contestant("plain", "confluent-kafka and a dict", "plain"),
        Contestant("spark", "Spark Structured Streaming", "spark", (TYPE, USER, COMMERCE), java=True),
        Contestant("flink", "Flink SQL", "flink", java=True),
        Contestant("pathway", "Pathway", "pathway"),
        Contestant("bytewax", "Bytewax", "bytewax", slow=True),
        Contestant("quix", "Quix Streams", "quix", slow=True),
    )
}


def cache_folder() -> Path:
    """Return where environments and jars of peers are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headrace" / "peers"


def program(contestant: Contestant) -> str:
    """Return the interpreter of a contestant; its environment is made if need be. Raises PeerMissing."""
    if not contestant.environment:
        return sys.executable
    listed = HERE / "requirements" / f"{contestant.environment}.txt"
    return program_of(contestant.environment, listed, contestant.title)


def program_of(name: str, listed: Path, title: str = "") -> str:
    """Return the interpreter of an environment with the packages that a file lists, made if need be.

    Raises PeerMissing.
    """
    place = _place(name, listed)
    with _lock():
        if not place.is_dir():
            print(f"installing {name} (once)", flush=True)
            uv = str(Path(sys.executable).with_name("uv"))
            beside = place.with_name(f"{place.name}.new")
            shutil.rmtree(beside, ignore_errors=True)
            _run([uv, "venv", "-q", "--relocatable", "--python", PYTHON, str(beside)], title or name)
            python = str(beside / "bin" / "python")
            _run([uv, "pip", "install", "-q", "--python", python, "-r", str(listed)], title or name)
            beside.rename(place)
    return str(place / "bin" / "python")


def jars(contestant: Contestant) -> list[str]:
    """Return the jars of a contestant's Kafka connector, fetched now if they are not there."""
    if not contestant.java:
        return []
    pom = HERE / "poms" / f"{contestant.environment}.xml"
    place = _place(f"{contestant.environment}-jars", pom)
    with _lock():
        if not place.is_dir():
            if shutil.which("mvn") is None:
                raise PeerMissing(f"Maven (mvn) is needed to fetch the connector of {contestant.title}")
            beside = place.with_name(f"{place.name}.new")
            shutil.rmtree(beside, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-ntp", "-f", str(pom), "dependency:copy-dependencies"]
            _run([*command, "-DincludeScope=runtime", f"-DoutputDirectory={beside}"], contestant.title)
            beside.rename(place)
    # Spark brings Hadoop, Scala and what compresses itself, in versions that fit together.
    own = ("hadoop", "scala", "slf4j", "lz4", "snappy", "spark-tags")
    return [str(jar) for jar in sorted(place.glob("*.jar")) if not jar.name.startswith(own)]


def versions(contestant: Contestant) -> list[str]:
    """Return the packages that a contestant is given, with their versions."""
    if not contestant.environment:
        return []
    return (HERE / "requirements" / f"{contestant.environment}.txt").read_text().split("\n")[:-1]


def _place(name: str, source: Path) -> Path:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"


class _lock:
    def __enter__(self) -> None:
        self._file = (cache_folder() / "install.lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _run(command: list[str], title: str) -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S_MAX, check=False)
    if done.returncode:
        raise PeerMissing(f"{title}: {(done.stderr or done.stdout).strip()[-400:]}")
