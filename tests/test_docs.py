"""Documentation is tested: pages that are made of the code are fresh, links lead somewhere, examples work."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

from headrace import errors
from headrace.cli.app import app
from headrace.declare import Pipeline
from headrace.sql import plan_pipeline

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])


def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def whole_lines(block: str) -> Iterator[str]:
    """Lines as the shell sees them: a line goes on after a backslash and inside a quotation."""
    line = ""
    for part in block.splitlines():
        line += part
        if part.endswith("\\"):
            line = line[:-1]
        elif line.count("'") % 2 == 0 and line.count('"') % 2 == 0:
            yield line
            line = ""
        else:
            line += " "
    assert not line, f"an open quotation in {block!r}"


def known_commands() -> dict[str, set[str]]:
    def walk(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*words, name))
        if not getattr(command, "commands", {}):
            options = {
                name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
            }
            yield " ".join(words), options | {"--help", "--debug"}

    return dict(walk(typer.main.get_command(app), ()))


@pytest.mark.parametrize("name", ["commands.md", "profile.md", "functions.md", "relations.md", "metrics.md"])
def test_a_page_made_of_the_code_is_fresh(name: str) -> None:
    page = generated().PAGES[name]() + "\n"
    assert (ROOT / "docs" / name).read_text() == page, "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_exist_with_their_options(page: Path) -> None:
    known = known_commands()
    for block in blocks(page.read_text(), "sh"):
        for line in whole_lines(block):
            for part in re.split(r"\s+&&\s+|\s+\|\s+", line):
                if not part.strip().startswith("headrace ") or part.strip().startswith("headrace --"):
                    continue
                words = shlex.split(part.split("  #")[0], comments=True)[1:]
                name = next((n for n in (" ".join(words[:2]), words[0]) if n in known), None)
                assert name, f"{page.name}: `{part.strip()}`: no such command"
                used = {
                    word.split("=")[0] for word in words if re.fullmatch(r"--?[a-zA-Z][\w-]*(=.*)?", word)
                }
                assert used <= known[name], f"{page.name}: `{part.strip()}`: {used - known[name]}"


def test_every_command_shows_an_example() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    for section in page.split("\n## ")[1:]:
        assert "```sh\nheadrace " in section, section.splitlines()[0]


def test_the_pipeline_in_the_readme_is_right() -> None:
    readme = (ROOT / "README.md").read_text()
    (code,) = blocks(readme, "python")
    assert "## Ten lines of pipeline\n\n<!-- fmt: off -->\n```python\n" in readme
    assert len(code.strip().splitlines()) == 10
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    pipeline = names["pipeline"]
    assert isinstance(pipeline, Pipeline)
    plan = plan_pipeline(pipeline)
    assert [table.name for table in plan.tables] == ["revenue"]


def test_every_error_class_is_documented_with_its_exit_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    for name in set(errors.__all__) - {"HeadraceError", "Problem"}:
        assert f"| `{name}` | {getattr(errors, name).exit_code} |" in page


def test_every_decision_says_context_choice_and_price() -> None:
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        text = page.read_text()
        for word in ("**Context.**", "**Choice.**", "**Price.**"):
            assert word in text, f"{page.name} has no {word}"


def test_the_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for room in sorted(path.name for path in (ROOT / "src" / "headrace").iterdir() if path.is_dir()):
        if room != "__pycache__":
            assert f"`{room}/`" in text, room
