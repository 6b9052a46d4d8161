"""Commands that are sent where they cannot do what they are asked: each says where, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headrace.cli.app import run

pytestmark = pytest.mark.slow


@pytest.fixture
def club(tmp_path: Path) -> Path:
    assert run(["new", "--blueprint", "signups", str(tmp_path / "club")]) == 0
    return tmp_path / "club"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command says that is refused, and is no bug."""
    assert run(words) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "this is a bug" not in said
    return said


@pytest.mark.parametrize("command", [("poll", "users"), ("generate", "signups")])
@pytest.mark.parametrize("length", ["99999999999999999 days", "", "5 months", "-5 s", "soon"])
def test_a_length_that_is_none_is_told_with_one_that_is(
    command: tuple[str, ...], length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *command, "--for", length)
    assert said.startswith("error: --for: ")
    assert said.endswith("\n  fix: write for example --for '5 minutes'\n")
    assert said.count("for example") == 1


def test_a_demo_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop").touch()
    assert "shop is not a folder" in refused(capsys, "demo", "--folder", str(tmp_path / "shop"))


def test_what_is_deployed_is_not_written_over_what_is_there(
    club: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", "compose", "--profile", "compose", "-C", str(club))
    shutil.rmtree(club / "deploy")
    (club / "deploy").touch()
    assert "deploy cannot be written: File exists" in refused(capsys, *words)
    (club / "deploy").unlink()
    (club / "deploy" / "compose.yaml").mkdir(parents=True)
    assert "compose.yaml cannot be written: Is a directory" in refused(capsys, *words)


def test_passwords_that_are_no_text_are_not_read(club: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (club / "deploy" / ".env").write_bytes(b"A=\xff\n")
    words = ("export", "compose", "--profile", "compose", "-C", str(club))
    assert ".env cannot be read: it is not UTF-8 text" in refused(capsys, *words)


@pytest.mark.parametrize("words", [("ingest", "--port", "0"), ("run", "--until-caught-up"), ("status",)])
def test_a_file_where_the_data_folder_belongs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(["new", str(tmp_path / "weather")]) == 0
    (tmp_path / "weather" / ".headrace").touch()
    said = refused(capsys, *words, "-C", str(tmp_path / "weather"))
    assert "fix: " in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--for", "99999999999 weeks"), ("--set", "disorder=99999999999 weeks")],
)
def test_a_length_that_no_clock_counts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert run(["new", "--blueprint", "commerce", str(tmp_path / "shop")]) == 0
    words = ("generate", "commerce", "--count", "1", option, value, "-C", str(tmp_path / "shop"))
    assert "99999999999 weeks'" in refused(capsys, *words)


@pytest.mark.parametrize("blueprint", ["commerce", "customers", "operations"])
@pytest.mark.parametrize("number", ["0", "10000001", "9" * 30])
def test_there_is_a_limit_to_the_people_that_are_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blueprint: str, number: str
) -> None:
    assert run(["new", "--blueprint", blueprint, str(tmp_path / "shop")]) == 0
    people = "customers" if blueprint == "customers" else "users"
    words = (
        "generate",
        blueprint,
        "--count",
        "1",
        "--set",
        f"{people}={number}",
        "-C",
        str(tmp_path / "shop"),
    )
    assert "1 to 10,000,000" in refused(capsys, *words)


def test_a_profile_with_endless_brackets_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["new", str(tmp_path / "weather")]) == 0
    (tmp_path / "weather" / "headrace.toml").write_text(f"a = {'[' * 5_000}{']' * 5_000}\n")
    said = refused(capsys, "check", "-C", str(tmp_path / "weather"))
    assert "headrace.toml:1: the file: its values are nested too deeply" in said
