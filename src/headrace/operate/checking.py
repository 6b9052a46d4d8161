"""What is wrong with a project: its pipeline and its profiles, everything at once, and nothing connected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.declare.words import did_you_mean
from headrace.errors import DeclarationError, HeadraceError, Problem, ProfileError
from headrace.operate.engines import check_engine
from headrace.operate.extras import extra_of, install_extra, installed
from headrace.operate.outside import wrong_outside
from headrace.operate.profile_file import ProfileFile, read_profile_file
from headrace.operate.profiles import DEFAULT_PROFILE, Profile, examine_profile, problems_of_streams
from headrace.operate.project import PIPELINE_FILE, Project, declared_pipeline, find_folder
from headrace.operate.secrets import AbsentError, unreadable_secrets

if TYPE_CHECKING:
    from headrace.declare import Pipeline
    from headrace.sql.plan import PipelinePlan

__all__ = ["Checked", "Looks", "check_project"]

_DRIVERS = {"cassandra": "cassandra", "delta": "deltalake", "postgresql": "psycopg"}
"""What a kind of replica imports when it opens."""

Looks = Callable[[Profile], Iterable[tuple[str, ProfileError]]]
"""Gives what else is wrong with a profile: a dotted key without `profiles.NAME.`, and the error."""


@dataclass(frozen=True)
class Checked:
    """A project that nothing is wrong with."""

    plan: PipelinePlan
    profiles: tuple[str, ...]
    warnings: tuple[str, ...]
    """What may be meant, and what this machine lacks: unset variables, files of secrets, packages."""


def check_project(folder: Path, *, profile: str | None = None, looks: Looks = lambda profile: ()) -> Checked:
    """Check the project that `folder` lies in: its pipeline, and one profile or all that are written down.

    Raises ProfileError or DeclarationError that holds every problem of both files. What a profile needs and
    this machine lacks is a warning: where the check runs is not where the pipeline does.
    """
    home = find_folder(folder)
    file = read_profile_file(home)
    found = _Found(home, file, looks)
    pipeline, plan, wrong = _planned(home)
    names = tuple(file.profiles) or (DEFAULT_PROFILE,) if profile is None else (profile,)
    if file.profiles or not file.problems:  # else nobody knows which there are
        for name in names:
            found.examine(name, pipeline, plan)
    problems = (*file.problems, *found.problems)
    if wrong:
        raise DeclarationError((*problems, *wrong))
    if len(problems) == 1 and not problems[0].file:
        raise ProfileError(problems[0].what, fix=problems[0].fix)
    if problems or plan is None:
        raise ProfileError("\n".join(str(each) for each in sorted(problems, key=lambda each: each.line)))
    return Checked(plan, names, (*(str(each) for each in plan.warnings), *_lacking(found.absent)))


def _lacking(absent: Iterable[Problem]) -> list[str]:
    """Return what this machine lacks in the order of the file; a variable once for each profile."""
    once: dict[tuple[str, str], Problem] = {}
    for each in absent:
        once.setdefault((each.subject.partition(": ")[0], each.what), each)
    return [str(each) for each in sorted(once.values(), key=lambda each: each.line)]


def _planned(home: Path) -> tuple[Pipeline | None, PipelinePlan | None, tuple[Problem, ...]]:
    """Return the pipeline and its plan, as far as there are any, and what is wrong with them."""
    from headrace.sql import plan_pipeline

    pipeline = None
    try:
        pipeline = declared_pipeline(home)
        return pipeline, plan_pipeline(pipeline), ()
    except DeclarationError as error:
        return pipeline, None, error.problems
    except HeadraceError as error:  # what pipeline.py calls may raise anything of ours
        path = str(home / PIPELINE_FILE)
        return pipeline, None, (Problem(path, 1, PIPELINE_FILE, error.message, error.fix),)


class _Found:
    """Collects what is wrong with profiles."""

    def __init__(self, home: Path, file: ProfileFile, looks: Looks) -> None:
        self._home = home
        self._file = file
        self._looks = looks
        self.problems: list[Problem] = []
        self.absent: list[Problem] = []

    def examine(self, name: str, pipeline: Pipeline | None, plan: PipelinePlan | None) -> None:
        """Examine one profile, against the pipeline as far as there is one."""
        read = examine_profile(self._file, name, self._home)
        self.problems.extend(read.problems)
        self.absent.extend(read.absent)
        self._tell(read.profile, self._looks(read.profile))
        self._tell(read.profile, unreadable_secrets(read.profile))
        if pipeline is not None:
            streams = tuple(each.name for each in pipeline.streams)
            self.problems.extend(problems_of_streams(read.profile, self._file, streams))
            project = Project(self._home, read.profile, pipeline)
            for look in (_engine, _schemas, _pollers, _packages):
                self._tell(read.profile, look(project))
            self._tell(read.profile, _replicas(project, plan))
            self._tell(read.profile, _outside(project, plan))

    def _tell(self, profile: Profile, errors: Iterable[tuple[str, ProfileError]]) -> None:
        for key, error in errors:
            problem = self._file.problem(profile.name, key, error.message, error.fix)
            (self.absent if isinstance(error, AbsentError) else self.problems).append(problem)


def _engine(project: Project) -> Iterator[tuple[str, ProfileError]]:
    try:
        check_engine(project)
    except ProfileError as error:
        yield "engine", error


def _schemas(project: Project) -> Iterator[tuple[str, ProfileError]]:
    for stream, binding in project.profile.streams.items():
        schema = binding.registry_schema
        if schema is not None and "${" not in schema and not (project.folder / schema).is_file():
            error = ProfileError(f"there is no file '{schema}'", fix="name the file of the schema")
            yield f"streams.{stream}.registry_schema", error


def _pollers(project: Project) -> Iterator[tuple[str, ProfileError]]:
    from headrace.operate.pollers import flatten_of

    streams = {each.name for each in project.pipeline.streams}
    for stream, options in project.profile.polling.items():
        place = options.flatten or ""
        if stream in streams and all(place.partition(":")) and "${" not in place:
            try:
                flatten_of(project, place)
            except ProfileError as error:
                yield f"polling.{stream}.flatten", error


def _outside(project: Project, plan: PipelinePlan | None) -> Iterator[tuple[str, ProfileError]]:
    """Give what executors cannot write; a replica that is wrong is told of as such."""
    if plan is not None and not any(_replicas(project, plan)):
        for error in wrong_outside(project, plan):
            yield "spark.rows_by_executors", error


def _packages(project: Project) -> Iterator[tuple[str, ProfileError]]:
    """Give what this machine does not have of what a run would import, when it starts or as it goes on."""
    for key, who, package in _imported(project.profile):
        extra = extra_of(package)
        if extra is not None and not installed(package):
            what = f"{who} needs '{package}', which is not installed"
            yield key, AbsentError(what, fix=install_extra(extra))


def _imported(profile: Profile) -> Iterator[tuple[str, str, str]]:
    if profile.engine == "spark":
        yield "engine", "the Spark engine", "pyspark"
    for name, options in profile.replicas.items():
        if options.kind in _DRIVERS:
            yield f"replicas.{name}.kind", f"a replica of kind '{options.kind}'", _DRIVERS[options.kind]
        if options.kind == "parquet" and getattr(options, "uri", ""):
            yield f"replicas.{name}.uri", "a Parquet replica in S3", "boto3"
    if profile.telemetry.traces is not None:
        yield "telemetry.traces", "telemetry", "opentelemetry.sdk"
    if profile.telemetry.lineage is not None:
        yield "telemetry.lineage", "telemetry", "openlineage.client"


def _replicas(project: Project, plan: PipelinePlan | None) -> Iterator[tuple[str, ProfileError]]:
    """Give replicas of tables that the pipeline does not have, or not in this way."""
    from headrace.replicate.shapes import tables_of

    known = [table.name for table in project.pipeline.tables]
    for name, options in project.profile.replicas.items():
        unknown = [table for table in options.tables if table != "*" and table not in known]
        for table in unknown:
            what = f"the pipeline has no table '{table}'{did_you_mean(table, known)}"
            fix = "it has: " + (", ".join(known) or "none")
            yield f"replicas.{name}.tables", ProfileError(what, fix=fix)
        if plan is not None and not unknown:
            try:
                tables_of(plan, options, name)
            except ProfileError as error:
                yield f"replicas.{name}", error
