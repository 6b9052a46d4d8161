"""What executors need to know of a run: the plan, where its streams lie, and how their records are read."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headrace.errors import RefusedError
from headrace.log.kafka import KafkaSettings
from headrace.rows.framing import Framing
from headrace.sql.plan import PipelinePlan

if TYPE_CHECKING:
    from headrace.engine.local import EngineSettings
    from headrace.engine.spark.outside import Stage
    from headrace.engine.spark.settings import SparkSettings

__all__ = ["LaneTask", "Task", "as_option", "of_option", "pickled"]

Lane = tuple[str, str]
"""Stream and lane."""

_AFTER_VERSIONS = "|"


@dataclass(frozen=True)
class LaneTask:
    """One lane of a stream: its topic, as it was when the run began, and where reading begins.

    loading   whether a load of history may be announced for it (see `Log.load`)
    """

    settings: KafkaSettings
    identity: str
    start: Mapping[int, int]
    loading: bool

    @property
    def place(self) -> str:
        """How errors call it."""
        return f"topic '{self.settings.topic}'"


@dataclass(frozen=True)
class Task:
    """One run of a pipeline; `run` is another value for each: executors know by it what they have opened.

    framings  by stream, what reads records that are not plain JSON; each process opens connections of its own
    pace      the file that says how many records a micro-batch may have (see `pace`); on the driver's machine
    outside   by table whose rows executors write into files: where
    """

    run: str
    plan: PipelinePlan
    lanes: Mapping[Lane, LaneTask]
    framings: Mapping[str, Framing]
    engine: EngineSettings
    spark: SparkSettings
    pace: str
    outside: Mapping[str, Stage] = field(default_factory=dict)


def pickled(value: object, plan: PipelinePlan) -> bytes:
    """Return `value` pickled; the user's own modules go with it, because executors do not have them."""
    from pyspark import cloudpickle as untyped

    cloudpickle: Any = untyped
    modules = list(_modules_of(plan))
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        data: bytes = cloudpickle.dumps(value)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return data


def _modules_of(plan: PipelinePlan) -> Iterable[ModuleType]:
    """Give the modules of the pipeline's functions, and those that lie beside them."""
    functions = [function for stream in plan.streams.values() for function in stream.functions]
    homes = {getattr(function.call, "__module__", None) for function in functions}
    folders = {Path(file).parent for name in homes if (file := _file_of(sys.modules.get(name or "")))}
    for name, module in sys.modules.copy().items():
        file = _file_of(module)
        if name != "__main__" and file is not None and Path(file).parent in folders:
            yield module


def _file_of(module: ModuleType | None) -> str | None:
    return getattr(module, "__file__", None)


def as_option(task: Task) -> str:
    """Return the task as the text of an option of the data source, after the versions that wrote it."""
    return json.dumps(_versions()) + _AFTER_VERSIONS + base64.b64encode(pickled(task, task.plan)).decode()


def of_option(text: str) -> Task:
    """Return the task of an option. Raises RefusedError where other versions are at work than wrote it."""
    import pickle

    head, _, body = text.partition(_AFTER_VERSIONS)
    driver, here = json.loads(head), _versions()
    differing = [name for name, mine in here.items() if driver.get(name, mine) != mine]
    if differing:
        raise RefusedError(
            "executors and driver differ, and their answers could: "
            + ", ".join(f"{name} {here[name]} there, {driver[name]} here" for name in differing),
            fix='install the same on every machine, or let it be sent: spark.environment = "archive"',
        )
    found: Task = pickle.loads(base64.b64decode(body))  # noqa: S301 - written by this run's own driver
    return found


def _versions() -> dict[str, str]:
    """Return the versions on which answers rest, of what is installed where this runs."""
    import duckdb

    found = {"Python": f"{sys.version_info.major}.{sys.version_info.minor}", "DuckDB": duckdb.__version__}
    with suppress(PackageNotFoundError):  # a copy that was not installed
        found["Headrace"] = version("headrace")
    return found
