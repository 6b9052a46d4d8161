"""What commands say of a store: of views, of one record, and of a profile that has not run."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from headrace.cli.app import run

_PIPELINE = """import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL")
pipeline.table("totals", "SELECT id, count(*) AS n FROM events GROUP BY id")
pipeline.table("most", "SELECT max(n) AS n FROM totals")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.py").write_text(_PIPELINE)
    (tmp_path / "headrace.toml").write_text(
        "[profiles.local]\n[profiles.apart]\nstore.path = 'apart.duckdb'\n"
    )
    return tmp_path


def test_the_rows_of_a_view_are_not_counted_and_not_told_as_null(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "one.ndjson").write_text('{"id": "a"}\n')
    assert run(["produce", "events", str(folder / "one.ndjson"), "-C", str(folder)]) == 0
    assert run(["run", "--until-caught-up", "-C", str(folder)]) == 0
    assert "caught up: 1 record" in capsys.readouterr().out
    for command in ("tables", "status"):
        assert run([command, "-C", str(folder)]) == 0
        said = capsys.readouterr().out
        assert ["most", "view"] in [line.split() for line in said.splitlines()]
        assert "NULL" not in said
    assert run(["ledger", "-C", str(folder)]) == 0
    assert "stream events: 1 record read" in capsys.readouterr().out


@pytest.mark.parametrize(("profile", "fix"), [([], "run"), (["--profile", "apart"], "run --profile apart")])
def test_where_nothing_has_run_the_command_that_runs_it_is_told_with_its_profile(
    folder: Path, capsys: pytest.CaptureFixture[str], profile: list[str], fix: str
) -> None:
    assert run(["status", "-C", str(folder), *profile]) == 1
    assert capsys.readouterr().err.endswith(f"  fix: run it: headrace {fix}\n")
    if profile:
        duckdb.connect(folder / "apart.duckdb").close()
        assert run(["status", "-C", str(folder), *profile]) == 1
        assert capsys.readouterr().err.endswith(f"  fix: run it: headrace {fix}\n")


_LAKE = "[profiles.local]\nreplicas.lake = { kind = 'files', path = '${env:HEADRACE_NO_LAKE}/here' }\n"


def test_what_a_replica_needs_and_is_not_set_keeps_no_command_back_that_opens_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("-C", str(folder))
    (folder / "one.ndjson").write_text('{"id": "a"}\n')
    assert run(["run", "--until-caught-up", *here]) == 0
    (folder / "headrace.toml").write_text(_LAKE)
    capsys.readouterr()
    for command in (
        ["produce", "events", str(folder / "one.ndjson")],
        ["log", "peek", "events"],
        ["status"],
        ["tables"],
        ["sql", "FROM totals"],
        ["ledger"],
        ["dead-letters", "list"],
        ["replicas", "status"],
        ["replicas", "pause", "lake"],
        ["explain", "totals"],
        ["check"],
    ):
        assert run([*command, *here]) == 0, command
    assert "'HEADRACE_NO_LAKE' is not set" in capsys.readouterr().out  # `check` warns of it
    assert run(["run", "--until-caught-up", *here]) == 2
    assert "'HEADRACE_NO_LAKE' is not set" in capsys.readouterr().err
    (folder / "headrace.toml").write_text(_LAKE + "store.path = '${env:HEADRACE_NO_STORE}/store'\n")
    assert run(["status", *here]) == 2
    said = capsys.readouterr().err
    assert "'HEADRACE_NO_STORE' is not set" in said
    assert "'HEADRACE_NO_LAKE' is not set" not in said
