"""What the lessons tell a reader to type is what the command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_lines import parsed
from headrace.blueprints import BLUEPRINTS, project_files, write_project
from headrace.operate import load_project
from headrace.testing import PipelineTest

_COMMAND = re.compile(r"(?:^|[|`(]\s*|&& )headrace ([^|`#&]+)", re.MULTILINE)


def commands_of(lesson: str) -> Iterator[list[str]]:
    """Every `headrace …` of a lesson, in blocks of shell and in the text, as words."""
    joined = lesson.replace("\\\n", " ")
    # A quoted query goes over several lines.
    joined = re.sub(r'"[^"`]*"', lambda text: re.sub(r"[\n|>;#&]", " ", text[0]), joined)
    for found in _COMMAND.finditer(joined):
        words = shlex.split(found[1].split(">")[0].split(";")[0].split("\n")[0].rstrip(":,. "), comments=True)
        if words:
            yield words


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_every_command_of_a_lesson_is_one(blueprint: str) -> None:
    lesson = project_files(blueprint)["README.md"].decode()
    found = list(commands_of(lesson))
    assert len(found) >= 20
    for words in found:
        if words != ["COMMAND", "--help"]:
            parsed(words)


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_every_query_of_a_lesson_is_answered(blueprint: str, tmp_path: Path) -> None:
    write_project(blueprint, tmp_path / "project")
    lesson = project_files(blueprint)["README.md"].decode()
    taught = re.findall(r'pipeline\.table\(\s*"(\w+)"', lesson)  # tables of its challenges
    asked = re.findall(r'headrace sql "([^"]+)"', lesson)
    with PipelineTest(load_project(tmp_path / "project").pipeline) as test:
        for query in asked:
            if not any(table in query for table in taught):
                test.query(query)
    assert len(asked) >= 5


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_every_file_that_a_lesson_lists_is_in_the_project(blueprint: str) -> None:
    files = project_files(blueprint)
    lesson = files["README.md"].decode()
    (table,) = re.findall(r"^\| file \| what it is \|\n\|---\|---\|\n((?:\|.*\n)+)", lesson, re.MULTILINE)
    listed = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert "pipeline.py" in listed
    for name in listed:
        made = any(path == name or path.startswith(name) for path in files)
        assert made or Path(name).name == ".headrace", f"'{name}' is not in the project"
