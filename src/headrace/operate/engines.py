"""From a profile to the engine that it names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headrace.operate.outside import stages_of
from headrace.operate.project import Project

if TYPE_CHECKING:
    from headrace.engine.local import EngineSettings, LocalEngine
    from headrace.engine.spark import SparkSettings
    from headrace.log import Log
    from headrace.operate.spark_master import MasterPage
    from headrace.sql.plan import PipelinePlan
    from headrace.store import Store

__all__ = ["check_engine", "check_logs", "engine_settings", "open_engine", "spark_settings", "start_engine"]


def check_engine(project: Project) -> None:
    """Raise ProfileError when the engine of the profile cannot run the pipeline; connects to nothing."""
    if project.profile.engine != "spark":
        return
    from headrace.engine.spark.gaps import refuse_gaps

    logs = {each.name: project.profile.stream(each.name).log for each in project.pipeline.streams}
    refuse_gaps(logs, project.profile.spark.conf)


def check_logs(project: Project, logs: Mapping[str, Log]) -> None:
    """Raise RefusedError when the engine of the profile cannot run over these logs."""
    if project.profile.engine == "spark":
        from headrace.engine.spark.engine import refuse_unfit

        refuse_unfit(logs)


def start_engine(project: Project, undo: ExitStack) -> None:
    """Start what the engine needs beside this process; `undo` ends it. The store is not needed for it.

    Raises ProfileError and RefusedError when it does not start.
    """
    if project.profile.engine == "spark":
        from headrace.engine.spark.engine import start_spark

        session = start_spark(project.pipeline.name, spark_settings(project), project.store_path)
        undo.callback(session.stop)


def open_engine(
    project: Project, plan: PipelinePlan, logs: Mapping[str, Log], store: Store, undo: ExitStack
) -> LocalEngine:
    """Return the engine; `undo` closes it, and what it needs.

    Raises RefusedError when it cannot run over these logs. Spark itself starts with the run.
    """
    from headrace.operate.formats import open_framings

    settings = engine_settings(project)
    framings = open_framings(project, [each.stream for each in plan.streams.values()], undo)
    engine: LocalEngine
    if project.profile.engine == "spark":
        from headrace.engine.spark.engine import SparkEngine

        engine = SparkEngine(
            plan,
            logs,
            store,
            spark=spark_settings(project),
            settings=settings,
            framings=framings,
            outside=stages_of(project, plan, store),
        )
    else:
        from headrace.engine.local import LocalEngine

        engine = LocalEngine(plan, logs, store, settings=settings, framings=framings)
    undo.callback(engine.close)
    return engine


def spark_facts(engine: LocalEngine, master: MasterPage | None = None) -> dict[str, Any] | None:
    """Return what Spark says of the run, as plain values; None where there is no Spark, or not yet.

    `master` tells the workers of a standalone cluster; without one, there is no word of workers.
    """
    facts = getattr(engine, "cluster", None)
    if facts is None:
        return None
    return {**facts.to_json(), **({} if master is None else master.facts())}


def engine_settings(project: Project) -> EngineSettings:
    """Return the engine's settings: its own defaults, where the profile says nothing."""
    from headrace.engine.local import EngineSettings

    options = project.profile.engine_settings
    given = {name: value for name, value in asdict(options).items() if value is not None}
    if options.memory_limit is not None:
        given["memory_limit"] = f"{options.memory_limit}B"  # the way DuckDB reads a size
    given["parents"] = project.profile.telemetry.traces is not None
    return EngineSettings(**given)


def spark_settings(project: Project) -> SparkSettings:
    """Return the Spark engine's settings: its own defaults, where the profile says nothing."""
    from headrace.engine.spark import SparkSettings

    options, settings = project.profile.spark, project.profile.engine_settings
    given: dict[str, object] = {"batch_rows_max": settings.epoch_rows_max}
    given |= {"batch_bytes_max": settings.epoch_bytes_max, "trigger": options.trigger}
    given |= {"checkpoint": options.checkpoint, "conf": options.conf, "environment": options.environment}
    given |= {"environment_packages": options.environment_packages}
    return SparkSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
