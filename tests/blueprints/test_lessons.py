"""What the lessons tell a reader to type is what the command line takes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_lines import parsed
from headrace.blueprints import BLUEPRINTS, project_files, write_project
from headrace.engine.local import EngineSettings
from headrace.operate import load_project
from headrace.operate.options import parse_size
from headrace.operate.profiles import Profile, read_profile
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


def shell(folder: Path, script: str) -> str:
    """What a block of a lesson prints where it is typed; every line has to do what it is there for."""
    own = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PATH": own, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_a_lesson_looks_at_what_came_out_as_tables_by_sql_and_as_files(
    blueprint: str, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    write_project(blueprint, folder)
    lesson = project_files(blueprint)["README.md"].decode()
    experiments = lesson.partition("\n## Experiments\n")[2].partition("\n## ")[0]
    (block,) = re.findall(
        r"\*\*Look at what came out\*\*.*?```sh\n(.*?)```", textwrap.dedent(experiments), re.DOTALL
    )
    shell(folder, f"headrace generate {blueprint} --count 600 --rate unlimited --seed 7")
    shell(folder, "headrace run --until-caught-up")
    said = shell(folder, textwrap.dedent(block))
    (table,) = re.findall(r"headrace tables (\w+)", block)
    (file,) = re.findall(r"> (\S+)", block)
    rows = shell(folder, f"headrace sql 'SELECT count(*) AS n FROM {table}' --format csv").split()[1]
    assert int(rows) > 0
    assert len((folder / file).read_text().splitlines()) == int(rows) + 1
    for each in (table, file, "log.db", "store.duckdb"):
        assert each in said


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


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_a_lesson_says_how_to_install_what_it_asks_for_beside_headrace(blueprint: str) -> None:
    files = project_files(blueprint)
    lesson, profiles = files["README.md"].decode(), tomllib.loads(files["headrace.toml"].decode())["profiles"]
    kinds = {each["kind"] for one in profiles.values() for each in one.get("replicas", {}).values()}
    needed = {"delta", "cassandra", "postgresql"} & {*kinds, *re.findall(r'kind = "(\w+)"', lesson)}
    needed |= {"spark"} if any(one["engine"] == "spark" for one in profiles.values()) else set()
    needed |= {"tui"} if "headrace watch" in lesson else set()
    told = re.findall(r"pip install 'headrace\[([\w,]+)\]'", lesson)
    assert needed <= {extra for each in told for extra in each.split(",")}
    assert "python -m pytest" not in lesson or "pip install pytest" in lesson


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_who_asks_for_replicas_names_their_profile_where_it_has_a_store_of_its_own(blueprint: str) -> None:
    files = project_files(blueprint)
    profiles = tomllib.loads(files["headrace.toml"].decode())["profiles"]
    copied = [one for name, one in profiles.items() if "replicas" in one and name != "compose"]
    if any("store" not in one for one in copied):
        return  # the store of the profile that commands take
    asked = [words for words in commands_of(files["README.md"].decode()) if words[0] == "replicas"]
    assert [words for words in asked if "--profile" not in words] == []


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_a_variable_is_exported_for_every_command_of_its_profile(blueprint: str) -> None:
    lesson = project_files(blueprint)["README.md"].decode()
    assert re.findall(r"^[A-Z_]+=\S+ headrace .*", lesson, re.MULTILINE) == []


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_the_card_of_a_lesson_says_how_to_start_watch_peek_submit_and_count(blueprint: str) -> None:
    lesson = project_files(blueprint)["README.md"].decode()
    card = lesson.partition("\n## Quick reference\n")[2].partition("\n## ")[0]
    told = [" ".join(words) for words in commands_of(card)]
    for command in ("run", "status", "log peek", "run --profile cluster", "ledger"):
        assert any(each == command or each.startswith(f"{command} ") for each in told), command
    assert "Ctrl-C" in card and "8600" in card


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_the_troubleshooting_of_a_lesson_knows_what_goes_wrong_in_all_of_them(blueprint: str) -> None:
    lesson = project_files(blueprint)["README.md"].decode()
    rows = lesson.partition("\n## Troubleshooting\n")[2].partition("\n## ")[0].splitlines()
    seen = [row.split("|")[1].strip() for row in rows if row.startswith("| ")]
    for trouble in ("the broker ", "the topic is absent", "port ", "the run has failed", "out of memory"):
        assert [each for each in seen if trouble in each] != [], trouble


@pytest.mark.parametrize("blueprint", ["commerce", "customers", "operations"])
def test_settings_that_a_profile_shows_as_left_out_are_the_defaults(blueprint: str, tmp_path: Path) -> None:
    text = project_files(blueprint)["headrace.toml"].decode()
    shown = text.partition("with what they are when they are left out:\n")[2]
    lines = re.findall(r"^# (\w.*)$", shown.partition("\n\n")[0], re.MULTILINE)
    (tmp_path / "headrace.toml").write_text("\n".join(["[profiles.local]", *lines]))
    profile, defaults = read_profile(tmp_path, "local"), EngineSettings()
    assert profile.store.path == str(tmp_path / Profile().store.path)
    assert profile.engine_settings.linger == defaults.linger
    assert profile.engine_settings.threads == defaults.threads
    assert profile.engine_settings.memory_limit == parse_size(defaults.memory_limit)
