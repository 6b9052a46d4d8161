"""`headrace check`: what it finds in headrace.toml and pipeline.py, in one round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headrace.cli.app import run

pytestmark = pytest.mark.slow

PIPELINE = """import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("totals", "SELECT id, count(*) AS n FROM events GROUP BY id")
"""


class Checked:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = run(["check", "-C", str(folder), *words])
        said = capsys.readouterr()
        self.out, self.err = said.out, said.err
        self.warnings = [line for line in self.out.splitlines() if line.startswith("warning: ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "HEADRACE_TEST_BROKERS",
        "HEADRACE_TEST_PASSWORD",
        "HEADRACE_TEST_TOKEN",
        "HEADRACE_TEST_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    return tmp_path


def profiles(folder: Path, text: str) -> None:
    (folder / "headrace.toml").write_text(text)


def test_what_is_wrong_in_the_profile_and_in_the_pipeline_is_told_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pipeline.py").write_text(PIPELINE.replace("count(*)", "cuont(*)"))
    profiles(
        folder,
        "[profiles.local]\n"
        'streams.events = { partition = 3, format = "avro" }\n'
        "streams.evnts = { partitions = 3 }\n"
        'replicas.copy = { kind = "files", path = "out", tables = ["totls"] }\n',
    )
    checked = Checked(folder, capsys)
    assert checked.code == 2
    for words in (
        "headrace.toml:2: profile 'local': 'streams.events.partition': unknown option; "
        "did you mean 'partitions'?",
        "headrace.toml:2: profile 'local': 'streams.events.format': avro needs a schema registry",
        "headrace.toml:3: profile 'local': 'streams.evnts': the pipeline has no stream 'evnts'; "
        "did you mean 'events'?",
        "headrace.toml:4: profile 'local': 'replicas.copy.tables': the pipeline has no table 'totls'; "
        "did you mean 'totals'?",
        "pipeline.py:5: table 'totals'",
        "cuont",
    ):
        assert words in checked.err


def test_a_pipeline_that_cannot_be_run_does_not_hide_what_is_wrong_in_the_profile(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pipeline.py").write_text("1 / 0\n")
    profiles(folder, "[profiles.local]\nstor.path = 'here'\n")
    checked = Checked(folder, capsys)
    assert checked.code == 2
    assert "headrace.toml:2: profile 'local': 'stor': unknown key; did you mean 'store'?" in checked.err
    assert "pipeline.py:1: pipeline.py: it cannot be run: ZeroDivisionError" in checked.err


def test_a_file_that_is_not_toml_does_not_hide_what_is_wrong_in_the_pipeline(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pipeline.py").write_text("1 / 0\n")
    profiles(folder, "[profiles.local]\nengine = local\n")
    checked = Checked(folder, capsys, "--profile", "local")
    assert checked.code == 2
    assert "headrace.toml:2: the file: it is not TOML" in checked.err
    assert "ZeroDivisionError" in checked.err
    assert "no profile" not in checked.err


def test_all_profiles_are_checked_unless_one_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles(
        folder,
        "[profiles.local]\n"
        'streams.events = { log = "embedded" }\n'
        "[profiles.cluster]\n"
        'engine = "spark"\n'
        'streams.events = { log = "embedded" }\n'
        "[profiles.third]\n"
        'page = { host = "0.0.0.0" }\n',
    )
    checked = Checked(folder, capsys)
    assert checked.code == 2
    assert "headrace.toml:4: profile 'cluster': 'engine': stream 'events'" in checked.err
    assert "headrace.toml:7: profile 'third': 'page': listening on 0.0.0.0 without a token" in checked.err
    assert Checked(folder, capsys, "--profile", "cluster").code == 2
    good = Checked(folder, capsys, "--profile", "local")
    assert good.code == 0
    assert "1 stream, 1 table, 0 panels, 0 alerts; profile 'local'; no problems" in good.out
    missing = Checked(folder, capsys, "--profile", "thrid")
    assert missing.code == 2
    assert missing.err == (
        "error: there is no profile 'thrid' in headrace.toml; did you mean 'third'?\n"
        "  fix: take one of headrace.toml: 'local' (line 1), 'cluster' (line 3), 'third' (line 6); "
        "or write a section [profiles.thrid]\n"
    )


def test_a_profile_that_is_not_there_is_told_beside_what_is_wrong_in_the_pipeline_and_of_no_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pipeline.py").write_text("1 / 0\n")
    checked = Checked(folder, capsys, "--profile", "nope")
    assert checked.code == 2
    assert "ZeroDivisionError" in checked.err
    assert "--profile nope: there is no profile 'nope' in headrace.toml - write a section" in checked.err
    assert "leave --profile out" in checked.err and "headrace.toml:" not in checked.err


@pytest.mark.parametrize(("panels", "code"), [("PAGE", 2), ("GRAFANA", 0)])
def test_one_token_for_the_page_and_for_its_panels_is_a_problem(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, panels: str, code: int
) -> None:
    monkeypatch.setenv("HEADRACE_TEST_PAGE", "a token of the page")
    monkeypatch.setenv("HEADRACE_TEST_GRAFANA", "a token of Grafana")
    profiles(
        folder,
        "[profiles.local]\n"
        'page.token = "${env:HEADRACE_TEST_PAGE}"\n'
        f'page.panels_token = "${{env:HEADRACE_TEST_{panels}}}"\n',
    )
    checked = Checked(folder, capsys)
    assert checked.code == code
    assert ("page.panels_token is page.token, which lets everything be done" in checked.err) == bool(code)


def test_what_this_machine_lacks_is_a_warning_and_hides_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = (
        '{ log = "kafka", brokers = "${env:HEADRACE_TEST_BROKERS}", sasl = "PLAIN", user = "shop", '
        'password = "${env:HEADRACE_TEST_PASSWORD}" }'
    )
    profiles(
        folder,
        "[profiles.local]\n"
        "[profiles.kafka]\n"
        f"streams.events = {kafka}\n"
        'page.token = "${file:token.txt}"\n'
        'page.host = "${env:HEADRACE_TEST_HOST}"\n'
        'telemetry.traces = "http://${env:HEADRACE_TEST_BROKERS}"\n'
        'alerts.notify.me = { kind = "webhook", url = "${env:HEADRACE_TEST_TOKEN}" }\n',
    )
    checked = Checked(folder, capsys)
    assert checked.code == 0, checked.err
    assert [line.partition(" - ")[0] for line in checked.warnings] == [
        "warning: headrace.toml:3: profile 'kafka': 'streams.events.brokers': the environment variable "
        "'HEADRACE_TEST_BROKERS' is not set",
        "warning: headrace.toml:3: profile 'kafka': 'streams.events.password': the environment variable "
        "'HEADRACE_TEST_PASSWORD' is not set",
        "warning: headrace.toml:4: profile 'kafka': 'page.token': the file 'token.txt' cannot be read: "
        "No such file or directory",
        "warning: headrace.toml:5: profile 'kafka': 'page.host': the environment variable "
        "'HEADRACE_TEST_HOST' is not set",
        "warning: headrace.toml:7: profile 'kafka': 'alerts.notify.me.url': the environment variable "
        "'HEADRACE_TEST_TOKEN' is not set",
    ]
    assert "profiles 'local', 'kafka'; no problems, 5 warnings" in checked.out
    assert run(["run", "--until-caught-up", "-C", str(folder), "--profile", "kafka"]) == 2
    assert "'HEADRACE_TEST_BROKERS' is not set" in capsys.readouterr().err


_UNSET = """[profiles.local]
streams.events.log = "kafka"
streams.events.topic = "events"
streams.events.brokers = "${env:HEADRACE_TEST_BROKERS}"
streams.events.password = "${env:HEADRACE_TEST_PASSWORD}"
replicas.copy = { kind = "postgresql", dsn = "${env:HEADRACE_TEST_DSN}" }
page.token = "${env:HEADRACE_TEST_PAGE}"
ingest.token = "${env:HEADRACE_TEST_INGEST}"
alerts.notify.me = { kind = "webhook", url = "${env:HEADRACE_TEST_URL}" }
"""


@pytest.mark.parametrize("brokers", [None, "localhost:1"])
def test_a_run_names_every_variable_that_it_needs_and_does_not_have_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, brokers: str | None
) -> None:
    names = ["PASSWORD", "DSN", "PAGE", "URL"]
    for name in ("BROKERS", *names, "INGEST"):
        monkeypatch.delenv(f"HEADRACE_TEST_{name}", raising=False)
    if brokers is None:
        names.insert(0, "BROKERS")
    else:
        monkeypatch.setenv("HEADRACE_TEST_BROKERS", brokers)
    profiles(folder, _UNSET)
    assert run(["run", "-C", str(folder)]) == 2
    said = capsys.readouterr().err
    found = [line.partition("variable '")[2].partition("'")[0] for line in said.splitlines()]
    assert found == [f"HEADRACE_TEST_{name}" for name in names]
    assert "headrace.toml:6: profile 'local': 'replicas.copy.dsn': " in said


def test_a_secret_that_is_written_wrongly_is_a_problem(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles(folder, '[profiles.local]\ningest.token = "${HEADRACE_TEST_TOKEN}"\npage.token = "short"\n')
    checked = Checked(folder, capsys)
    assert checked.code == 2
    assert (
        "headrace.toml:2: profile 'local': 'ingest.token': '${HEADRACE_TEST_TOKEN}' is not a" in checked.err
    )
    assert "headrace.toml:3: profile 'local': 'page': page.token has less than 16 characters" in checked.err
    assert "short" not in checked.err


def test_functions_of_pollers_and_files_of_schemas_are_looked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "items.py").write_text("def flatten(item):\n    return item\n")
    polling = 'polling.events = {{ url = "http://localhost/api", flatten = "items:{}" }}\n'
    registry = 'format = "avro", registry = "http://localhost:8081", registry_schema = "events.avsc"'
    profiles(
        folder,
        "[profiles.local]\n"
        + polling.format("flaten")
        + f"streams.events = {{ {registry} }}\n"
        + "[profiles.second]\n"
        + polling.format("flatten"),
    )
    checked = Checked(folder, capsys)
    assert checked.code == 2
    assert "headrace.toml:2: profile 'local': 'polling.events.flatten': there is no function" in checked.err
    assert "headrace.toml:3: profile 'local': 'streams.events.registry_schema': there is no" in checked.err
    assert "second" not in checked.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("engine_settings.threads = 999999999", "'engine_settings.threads': must be at most 1024"),
        ("engine_settings.memory_limit = '99999999999 TB'", "is more than any machine has"),
        (f"engine_settings.memory_limit = '{'9' * 400} B'", "is more than any machine has"),
        (f"engine_settings.epoch_rows_max = {'9' * 40}", "must be at most 1000000000000000000"),
        ("engine_settings.linger = '99999999999 weeks'", "is too long"),
        ("streams.events = { partitions = 100000000 }", "'streams.events.partitions': must be at most 10000"),
        ("page.port = 65536", "'page.port': must be at most 65535"),
        ("metrics.port = 65536", "'metrics.port': must be at most 65535"),
    ],
)
def test_a_number_that_nothing_can_have_is_refused_before_a_run_tries(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    profiles(folder, f"[profiles.local]\n{line}\n")
    checked = Checked(folder, capsys)
    assert checked.code == 2
    assert checked.err.startswith("error: headrace.toml:2: profile 'local': ")
    assert said in checked.err


def test_the_driver_of_a_replica_that_this_machine_lacks_is_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    profiles(
        folder,
        "[profiles.local]\n"
        'replicas.copy = { kind = "postgresql", dsn = "postgresql://localhost/shop" }\n'
        'replicas.files = { kind = "parquet", path = "out/" }\n',
    )
    checked = Checked(folder, capsys)
    assert checked.code == 0, checked.err
    assert checked.warnings == [
        "warning: headrace.toml:2: profile 'local': 'replicas.copy.kind': a replica of kind 'postgresql' "
        "needs 'psycopg', which is not installed - install it: pip install 'headrace[postgresql]'"
    ]


@pytest.mark.parametrize("kind", ["parquet", "delta"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('path = "out/", uri = "s3://lake/out"', "path or uri"),
        ('mode = "update"', "path or uri"),
        ('uri = "s3://lake/out", access_key = "${env:HEADRACE_TEST_TOKEN}"', "one of access_key"),
        ('uri = "s3://"', "names no bucket"),
        ('uri = "s3:///out"', "names no bucket"),
    ],
)
def test_a_place_that_files_cannot_have_is_told(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    options: str,
    said: str,
) -> None:
    monkeypatch.setenv("HEADRACE_TEST_TOKEN", "a")
    profiles(folder, f'[profiles.local]\nreplicas.copy = {{ kind = "{kind}", {options} }}\n')
    checked = Checked(folder, capsys)
    assert checked.code == 2
    assert "headrace.toml:2: profile 'local': 'replicas.copy'" in checked.err
    assert said in checked.err


@pytest.mark.parametrize("blueprint", ["commerce", "customers", "operations", "signups"])
def test_every_profile_of_a_blueprint_is_right_where_nothing_is_set(
    blueprint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "SPARK_MASTER",
        "BROKERS",
        "HEADRACE_TOKEN",
        "ELASTICSEARCH_URL",
        "PG_DSN",
        "CASSANDRA_HOSTS",
    ):
        monkeypatch.delenv(name, raising=False)
    assert run(["new", "--blueprint", blueprint, str(tmp_path / "shop")]) == 0
    checked = Checked(tmp_path / "shop", capsys)
    assert checked.code == 0, checked.err
    assert "'compose'; no problems" in checked.out
    assert any("'SPARK_MASTER' is not set" in line for line in checked.warnings)
