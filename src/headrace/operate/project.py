"""From a folder to a project: its pipeline, its profile and where its files lie."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from headrace.declare import Pipeline
from headrace.errors import DeclarationError, HeadraceError, Problem, ProfileError
from headrace.operate.extras import extra_of, install_extra
from headrace.operate.profiles import Profile, check_streams, read_profile

__all__ = [
    "PIPELINE_FILE",
    "Home",
    "Project",
    "declared_pipeline",
    "find_folder",
    "find_home",
    "load_pipeline",
    "load_project",
]

PIPELINE_FILE = "pipeline.py"


@dataclass(frozen=True)
class Home:
    """A project's folder and profile: enough to ask what a run left behind."""

    folder: Path
    profile: Profile

    @property
    def data(self) -> Path:
        """The folder of everything that a run writes."""
        return self.folder / ".headrace"

    @property
    def log_path(self) -> Path:
        """The file of the embedded log."""
        return self.data / "log.db"

    @property
    def store_path(self) -> Path:
        """The store's file."""
        return self.folder / self.profile.store.path

    @property
    def run_path(self) -> Path:
        """Says which process runs the pipeline, and how to reach it."""
        return self.data / "run.json"

    @property
    def last_run_path(self) -> Path:
        """Says which profile ran last, and with which store, also when it has ended."""
        return self.data / "last_run.json"

    @property
    def journal_path(self) -> Path:
        """What runs have written about themselves, as JSON lines."""
        return self.data / "logs" / "headrace.log"


@dataclass(frozen=True)
class Project(Home):
    """A home and the pipeline that is declared in it."""

    pipeline: Pipeline


def find_home(folder: Path, *, profile: str | None = None, replicas: bool = True) -> Home:
    """Return the project that `folder` lies in. Raises ProfileError when there is none.

    Whoever opens no replica says so, and gets a profile also where what they alone need is not set.
    """
    found = find_folder(folder)
    return Home(found, read_profile(found, profile, replicas=replicas))


def find_folder(folder: Path) -> Path:
    """Return the folder of the project that `folder` lies in. Raises ProfileError when there is none."""
    start = folder.expanduser().resolve()
    if not start.is_dir():
        raise ProfileError(f"there is no folder {folder}", fix="name a folder that holds a pipeline.py")
    for candidate in (start, *start.parents):
        if (candidate / PIPELINE_FILE).is_file():
            return candidate
    raise ProfileError(
        f"there is no {PIPELINE_FILE} in {start} or above it",
        fix="go to a project's folder, or make one: headrace new my-pipeline",
    )


def load_project(folder: Path, *, profile: str | None = None, replicas: bool = True) -> Project:
    """Read the project that `folder` lies in; `pipeline.py` is imported afresh. `replicas`: see `find_home`.

    Relative paths of reference tables are those beside `pipeline.py`, wherever the process stands.
    Raises ProfileError for the profile, DeclarationError when `pipeline.py` cannot be run or does not hold
    exactly one pipeline. What is wrong inside the pipeline is found by the planner.
    """
    home = find_home(folder, profile=profile, replicas=replicas)
    pipeline = declared_pipeline(home.folder)
    check_streams(home.profile, home.folder, tuple(each.name for each in pipeline.streams))
    return Project(home.folder, home.profile, pipeline)


def declared_pipeline(folder: Path) -> Pipeline:
    """Return the pipeline of the project in `folder`. Raises as `load_pipeline` does."""
    pipeline = load_pipeline(folder / PIPELINE_FILE)
    # A project means the same wherever the command is typed: its files lie beside its pipeline.
    pipeline.references = tuple(replace(each, path=str(folder / each.path)) for each in pipeline.references)
    return pipeline


def load_pipeline(path: Path) -> Pipeline:
    """Import `path` as a fresh module and return its pipeline; modules beside it are imported afresh too.

    Raises DeclarationError with the author's line for whatever goes wrong in it.
    """
    module = _import_fresh(path)
    found: dict[int, tuple[str, Pipeline]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Pipeline):
            found.setdefault(id(value), (name, value))
    if len(found) == 1:
        return next(iter(found.values()))[1]
    if not found:
        what, fix = "it declares no pipeline", 'write: pipeline = hr.Pipeline("name")'
    else:
        what = "it declares several pipelines: " + ", ".join(f"'{name}'" for name, _ in found.values())
        fix = "keep one here, and give each other one a folder of its own"
    raise DeclarationError([Problem(str(path), 1, path.name, what, fix)])


def _import_fresh(path: Path) -> ModuleType:
    folder = str(path.parent)
    _forget_modules_of(path.parent)
    # A name of its own, so that a project's tests can still `import pipeline`; registered, because
    # dataclasses, pydantic and pickle look a class up by its module's name.
    name = "headrace_project_" + hashlib.sha256(folder.encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DeclarationError([Problem(str(path), 1, path.name, "it is not a Python file")])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except HeadraceError:
        sys.modules.pop(name, None)
        raise
    except BaseException as error:  # the author's code may raise anything
        sys.modules.pop(name, None)
        if type(error) is KeyboardInterrupt:  # Ctrl-C
            raise
        if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
            file, what = error.filename, f"it is not Python: {error.msg}"
            problem = Problem(file, error.lineno or 1, Path(file).name, what)
            raise DeclarationError([problem]) from None
        raise DeclarationError([_problem_of(error, path)]) from error
    return module


def _forget_modules_of(folder: Path) -> None:
    for name, module in sys.modules.copy().items():  # a list of them breaks when another thread imports
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and Path(file).parent == folder:
            del sys.modules[name]


def _problem_of(error: BaseException, path: Path) -> Problem:
    """Say where in the author's own files `error` was raised, not where in somebody's library."""
    file, line = str(path), 1
    for frame in traceback.extract_tb(error.__traceback__):
        if (
            Path(frame.filename).is_relative_to(path.parent)
            and frame.lineno
            and ".venv" not in frame.filename
        ):
            file, line = frame.filename, frame.lineno
    fix = "mend this line"
    if isinstance(error, SystemExit):
        fix = "a pipeline is declared and does not end the process: take the exit out"
    elif isinstance(error, ModuleNotFoundError):
        extra = extra_of(error.name)
        other = f"install '{error.name}' into the environment that runs headrace, or correct the name"
        fix = other if extra is None else install_extra(extra)
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Problem(file, line, Path(file).name, f"it cannot be run: {words}", fix)
