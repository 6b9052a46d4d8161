"""From a profile to the engine that it names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from headrace.operate.project import Project

if TYPE_CHECKING:
    from headrace.engine.local import EngineSettings, LocalEngine
    from headrace.engine.spark import SparkSettings
    from headrace.log import Log
    from headrace.sql.plan import PipelinePlan
    from headrace.store import Store

__all__ = ["check_engine", "engine_settings", "open_engine"]


def check_engine(project: Project) -> None:
    """Raise ProfileError when the engine of the profile cannot run the pipeline; connects to nothing."""
    if project.profile.engine != "spark":
        return
    from headrace.engine.spark.gaps import refuse_gaps

    bindings = {each.name: project.profile.stream(each.name) for each in project.pipeline.streams}
    refuse_gaps(
        {name: binding.log for name, binding in bindings.items()},
        {name: binding.format for name, binding in bindings.items()},
    )


def open_engine(
    project: Project, plan: PipelinePlan, logs: Mapping[str, Log], store: Store, undo: ExitStack
) -> LocalEngine:
    """Return the engine; `undo` closes it, and what it needs.

    Raises RefusedError when it cannot run over these logs. Spark itself starts with the run.
    """
    settings = engine_settings(project)
    engine: LocalEngine
    if project.profile.engine == "spark":
        from headrace.engine.spark.engine import SparkEngine

        engine = SparkEngine(plan, logs, store, spark=_spark_settings(project), settings=settings)
    else:
        from headrace.engine.local import LocalEngine
        from headrace.operate.formats import open_framings

        framings = open_framings(project, [each.stream for each in plan.streams.values()], undo)
        engine = LocalEngine(plan, logs, store, settings=settings, framings=framings)
    undo.callback(engine.close)
    return engine


def engine_settings(project: Project) -> EngineSettings:
    """Return the engine's settings: its own defaults, where the profile says nothing."""
    from headrace.engine.local import EngineSettings

    options = project.profile.engine_settings
    given = {name: value for name, value in asdict(options).items() if value is not None}
    if options.memory_limit is not None:
        given["memory_limit"] = f"{options.memory_limit}B"  # the way DuckDB reads a size
    return EngineSettings(**given)


def _spark_settings(project: Project) -> SparkSettings:
    from headrace.engine.spark import SparkSettings

    options, settings = project.profile.spark, project.profile.engine_settings
    given: dict[str, object] = {"batch_rows_max": settings.epoch_rows_max}
    given |= {"batch_bytes_max": settings.epoch_bytes_max, "trigger": options.trigger}
    given |= {"checkpoint": options.checkpoint, "conf": options.conf}
    return SparkSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
