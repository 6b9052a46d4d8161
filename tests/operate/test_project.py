from __future__ import annotations

import gc
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace.errors import DeclarationError, ProfileError
from headrace.operate import find_home, load_project
from headrace.sql.references import reference_columns

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
"""


def write(folder: Path, text: str = PIPELINE) -> Path:
    (folder / "pipeline.py").write_text(text)
    return folder


def test_a_project_is_found_from_a_folder_inside_it(tmp_path: Path) -> None:
    inside = write(tmp_path) / "a" / "b"
    inside.mkdir(parents=True)
    project = load_project(inside)
    assert project.folder == tmp_path.resolve()
    assert project.pipeline.name == "shop"
    assert project.store_path == tmp_path.resolve() / ".headrace" / "store.duckdb"


def test_a_reference_is_the_file_beside_the_pipeline_wherever_the_command_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = 'pipeline.reference("shops", "shops.csv", key="id")\n'
    (tmp_path / "project").mkdir()
    write(tmp_path / "project", PIPELINE + reference)
    (tmp_path / "project" / "shops.csv").write_text("id,town\n1,Köln\n")
    (tmp_path / "shops.csv").write_text("id,other\n1,2\n")
    monkeypatch.chdir(tmp_path)
    (found,) = load_project(tmp_path / "project").pipeline.references
    assert found.path == str((tmp_path / "project" / "shops.csv").resolve())
    assert [column.name for column in reference_columns(found)] == ["id", "town"]


def test_a_project_is_loaded_while_another_thread_imports(tmp_path: Path) -> None:
    names = (f"imported_meanwhile_{number}" for number in itertools.count())

    def imports(phase: str, _: dict[str, int]) -> None:
        """Add a module, as an import in another thread does, whenever memory is looked after."""
        if phase == "start":
            name = next(names)
            sys.modules[name] = ModuleType(name)

    write(tmp_path)
    before = gc.get_threshold()
    gc.callbacks.append(imports)
    gc.set_threshold(1)
    try:
        project = load_project(tmp_path)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(imports)
        made = [name for name in sys.modules.copy() if name.startswith("imported_meanwhile_")]
        for name in made:
            del sys.modules[name]
    assert project.pipeline.name == "shop"
    assert made


def test_a_folder_without_a_pipeline_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no pipeline.py") as raised:
        find_home(tmp_path)
    assert "headrace new" in raised.value.fix
    with pytest.raises(ProfileError, match="no folder"):
        find_home(tmp_path / "missing")


def test_the_pipeline_and_the_modules_beside_it_are_imported_afresh(tmp_path: Path) -> None:
    (tmp_path / "names_of_shop.py").write_text('NAME = "first"\n')
    write(tmp_path, "import headrace as hr\nfrom names_of_shop import NAME\npipeline = hr.Pipeline(NAME)\n")
    assert load_project(tmp_path).pipeline.name == "first"
    (tmp_path / "names_of_shop.py").write_text('NAME = "the_second"\n')
    assert load_project(tmp_path).pipeline.name == "the_second"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("x = 1\n", "pipeline.py:1", "declares no pipeline - write: pipeline = hr.Pipeline"),
        ("import headrace as hr\na = hr.Pipeline('a')\nb = hr.Pipeline('b')\n", "pipeline.py:1", "'a', 'b'"),
        ("x = 1\ny = (\n", "pipeline.py:2", "not Python"),
        ("x = 1\n\n1 / 0\n", "pipeline.py:3", "ZeroDivisionError: division by zero"),
        ("import not_a_module_of_anyone\n", "pipeline.py:1", "install 'not_a_module_of_anyone'"),
        ("import sys\nsys.exit(3)\n", "pipeline.py:2", "SystemExit: 3"),
        ("import json\njson.loads('{')\n", "pipeline.py:2", "JSONDecodeError"),
        ("\nraise GeneratorExit\n", "pipeline.py:2", "cannot be run: GeneratorExit"),
        ("class Stop(BaseException): ...\n\nraise Stop('no')\n", "pipeline.py:3", "cannot be run: Stop: no"),
        ("class Stop(KeyboardInterrupt): ...\nraise Stop\n", "pipeline.py:2", "cannot be run: Stop"),
        ("\nexec('a b')\n", "pipeline.py:2", "cannot be run: SyntaxError: invalid syntax"),
    ],
)
def test_a_pipeline_that_cannot_be_run_is_a_problem_with_its_line(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    with pytest.raises(DeclarationError) as raised:
        load_project(write(tmp_path, text))
    assert place in str(raised.value)
    assert words in str(raised.value)


def test_one_pipeline_under_two_names_is_one_pipeline(tmp_path: Path) -> None:
    assert load_project(write(tmp_path, PIPELINE + "also = pipeline\n")).pipeline.name == "shop"


def test_a_profile_that_binds_an_unknown_stream_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "headrace.toml").write_text("[profiles.local]\nstreams.evnts = { partitions = 2 }\n")
    with pytest.raises(ProfileError, match="did you mean 'events'"):
        load_project(tmp_path)
