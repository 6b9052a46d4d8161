"""The rules that hold the house together, checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "headrace"

# The order in which a record meets the rooms. A room may import the rooms before it, never one after it.
ROOMS = (
    "errors",
    "declare",
    "sql",
    "log",
    "rows",
    "store",
    "produce",
    "engine",
    "replicate",
    "observe",
    "operate",
    "web",
    "cli",
    "testing",
    "blueprints",
)
# These rooms are told the time; they never ask for it.
TIMELESS = ("declare", "sql", "rows", "store", "engine")
CLOCKS = {"now", "utcnow", "today", "time", "time_ns"}
ONE_USER = {"sqlite3": "log", "fastapi": "web", "typer": "cli", "rich": "cli"}
VAGUE_NAMES = ("util", "utils", "helper", "helpers", "common", "manager", "misc")
LINES_MAX, FUNCTION_LINES_MAX = 500, 70

pytestmark = pytest.mark.untraced


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(path)))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            if node.module == "headrace":
                yield from ((node.lineno, f"headrace.{alias.name}") for alias in node.names)


def found(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_every_folder_of_the_package_is_a_room() -> None:
    present = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert present <= set(ROOMS)


def test_imports_point_up_the_list_of_rooms() -> None:
    problems = []
    for path in sources("src"):
        room = room_of(path)
        if room not in ROOMS:
            continue
        for line, module in imports_of(path):
            parts = module.split(".")
            imported = parts[1] if parts[0] == "headrace" and len(parts) > 1 else ""
            if imported in ROOMS and ROOMS.index(imported) > ROOMS.index(room):
                problems.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {module}")
    found(problems)


def test_a_library_with_one_home_is_imported_only_there() -> None:
    problems = []
    for path in sources("src"):
        for line, module in imports_of(path):
            home = ONE_USER.get(module.split(".")[0])
            if home is not None and room_of(path) != home:
                problems.append(f"{path.relative_to(ROOT)}:{line}: {module} belongs to {home}/")
    found(problems)


def test_what_reads_a_log_does_not_know_which_one_it_is() -> None:
    one_log = ("headrace.log.embedded", "headrace.log.kafka", "headrace.log.database")
    problems = []
    for path in sources("src"):
        # Spark reads Kafka by itself: its executors are told how.
        if room_of(path) not in {"rows", "store", "engine"} or path.is_relative_to(PACKAGE / "engine/spark"):
            continue
        for line, module in imports_of(path):
            if module.startswith(one_log):
                problems.append(f"{path.relative_to(ROOT)}:{line}: imports {module}")
    found(problems)


def test_every_library_that_is_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    declared = {re.split(r"[<>=\[ ]", line)[0].replace("-", "_") for line in lines}
    optional = {"pytest"}  # only in a user's tests
    optional |= {"cassandra"} & {each.removesuffix("_driver") for each in declared}  # a package's other name
    optional |= {"openlineage", "opentelemetry"} & {each.partition("_")[0] for each in declared}
    optional |= {"airflow"} & {each.removeprefix("apache_") for each in declared}
    problems = []
    for path in sources("src"):
        for line, module in imports_of(path):
            name = module.split(".")[0]
            if name not in declared | optional | {"headrace"} and name not in sys.stdlib_module_names:
                problems.append(f"{path.relative_to(ROOT)}:{line}: {name} is no dependency")
    found(problems)


def test_rooms_that_are_told_the_time_do_not_ask_for_it() -> None:
    problems = []
    for path in sources("src"):
        if room_of(path) not in TIMELESS:
            continue
        for node in nodes(path):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in CLOCKS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"datetime", "date", "time"}
            ):
                problems.append(f"{path.relative_to(ROOT)}:{node.lineno}: asks what time it is")
    found(problems)


def test_no_two_files_of_tests_have_the_same_name() -> None:
    # pytest imports them by that name alone, and only a run of all of them finds out.
    names = Counter(path.name for path in sources("tests") if path.name.startswith("test_"))
    found([f"{name}: {count} files" for name, count in names.items() if count > 1])


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_files_and_functions_stay_small() -> None:
    problems = []
    for path in sources("src", "bench", "tests"):
        text = path.read_text()
        if (lines := text.count("\n")) > LINES_MAX:
            problems.append(f"{path.relative_to(ROOT)}: {lines} lines (at most {LINES_MAX})")
        if path.is_relative_to(PACKAGE):
            for node in nodes(path):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > FUNCTION_LINES_MAX:
                        problems.append(
                            f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {length} lines"
                        )
    found(problems)


def test_no_file_has_a_name_that_says_nothing() -> None:
    found([str(path.relative_to(ROOT)) for path in sources("src") if path.stem.strip("_") in VAGUE_NAMES])


def test_every_module_lists_what_is_public_or_is_private() -> None:
    problems = []
    for path in sources("src"):
        if path.name == "__init__.py" or path.is_relative_to(PACKAGE / "blueprints"):
            continue
        tree = parsed(path)
        names = {
            t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        }
        names |= {
            n.target.id for n in tree.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
        if "__all__" not in names and not path.name.startswith("_"):
            problems.append(f"{path.relative_to(ROOT)}: no __all__")
    found(problems)


def test_modules_that_declare_commands_hold_their_annotations_ready() -> None:
    problems = [
        f"{path.relative_to(ROOT)}: typer compiles each annotation again; see headrace/cli/__init__.py"
        for path in sources("src/headrace/cli")
        if "typer" in {name for _, name in imports_of(path)}
        and "__future__" in {name for _, name in imports_of(path)}
        and "typer.Option(" in path.read_text()
    ]
    found(problems)


def test_tests_wait_for_events_and_never_sleep() -> None:
    problems = []
    for path in sources("tests"):
        for node in nodes(path):
            called = getattr(node, "func", None)
            name = getattr(called, "id", getattr(called, "attr", ""))
            if name == "sleep" and ast.unparse(called) in {"time.sleep", "sleep"}:
                problems.append(f"{path.relative_to(ROOT)}:{node.lineno}: sleeps")
    found(problems)


def tracked_texts() -> Iterator[tuple[Path, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.name == "uv.lock" or path == Path(__file__) or not path.exists():
            continue
        try:
            yield path, path.read_text()
        except UnicodeDecodeError:
            continue


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a leftover", r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b|NotImplemented[E]rror|lorem [i]psum"),
        ("a path of one machine", r"/(work|farm|root)/|/home/\w"),
        ("a registry's host name", r"\b(pypi|pythonhosted|npmjs|crates)\.(org|io)\b|repo\d?\.maven"),
    ],
)
def test_the_repository_holds_no(what: str, pattern: str) -> None:
    wanted = re.compile(pattern)
    problems = []
    for path, text in tracked_texts():
        for number, line in enumerate(text.splitlines(), 1):
            if wanted.search(line):
                problems.append(f"{path.relative_to(ROOT)}:{number}: {what}: {line.strip()[:80]}")
    found(problems)
