"""Arguments and options that several commands share, and what they mean."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.errors import ProfileError

if TYPE_CHECKING:
    from datetime import timedelta

    from headrace.operate import Home

__all__ = [
    "Format",
    "JsonOption",
    "ProfileOption",
    "ProjectOption",
    "duration_of",
    "examples",
    "hint_other_run",
    "home_of",
]

ProjectOption = Annotated[
    Path, typer.Option("--project", "-C", help="The project's folder, or one inside it.", show_default=False)
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="A section [profiles.NAME] of headrace.toml.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def home_of(project: Path, profile: str | None) -> "Home":
    """Return the project that a command is about which opens no replica."""
    from headrace.operate import find_home

    return find_home(project, profile=profile, replicas=False)


def hint_other_run(home: "Home", asked: str | None, streams: Sequence[str]) -> None:
    """Tell who asked for no profile of a run of another one, when that has one of these streams otherwise.

    What is shown of the default profile's log, or appended to it, has nothing to do with such a run.
    """
    from headrace.operate.client import is_running, running_process
    from headrace.operate.profiles import read_profile

    facts = running_process(home) if asked is None else None
    there = None if facts is None else facts.get("profile")
    here = home.profile
    if not isinstance(there, str) or there == here.name or not is_running(home):
        return
    try:
        other = read_profile(home.folder, there, replicas=False)
    except ProfileError:
        # It was changed since, or needs what is not set here: nothing says that it is the same.
        differ = list(streams)
    else:
        differ = [name for name in streams if other.stream(name) != here.stream(name)]
    if differ:
        names = ", ".join(f"'{name}'" for name in differ)
        typer.secho(
            f"hint: a run of profile '{there}' is alive here, and this takes profile '{here.name}', which "
            f"has stream {names} otherwise; --profile {there} takes that run's",
            fg="yellow",
            err=True,
        )


def duration_of(option: str, text: str | None) -> "timedelta | None":
    """Read a duration that was given on the command line. Raises ProfileError that names the option."""
    from headrace.declare.durations import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(f"{text} s" if text.strip().isdecimal() else text)
    except ValueError as error:
        what = str(error).partition("; write for example")[0]
        raise ProfileError(f"{option}: {what}", fix=f"write for example {option} '5 minutes'") from None


def examples(*lines: str) -> str:
    """Return what stands at the end of a command's `--help`."""
    # The first character tells typer to keep the lines as they are.
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
