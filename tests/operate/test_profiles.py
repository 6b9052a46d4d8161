from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.engine.local import EngineSettings
from headrace.errors import ProfileError
from headrace.operate.bindings import EmbeddedBinding
from headrace.operate.options import describe_options, parse_size
from headrace.operate.profiles import (
    EngineOptions,
    Profile,
    check_secrets,
    check_streams,
    read_profile,
    read_profile_names,
)
from headrace.operate.secrets import Secret


def write(folder: Path, text: str) -> Path:
    (folder / "headrace.toml").write_text(text)
    return folder


def test_without_a_file_everything_is_embedded_with_defaults(tmp_path: Path) -> None:
    assert read_profile(tmp_path, None) == Profile()
    assert read_profile(tmp_path, "local") == Profile()
    assert Profile().stream("events") == EmbeddedBinding()


def test_a_profile_is_read_with_its_durations_and_sizes(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        [profiles.local]
        engine = "local"
        streams.events = { log = "embedded", partitions = 3, retention = "24 hours" }
        streams.clicks = { retention_bytes = "2 GB" }
        store.path = "data/store.duckdb"
        engine_settings.linger = "50 ms"
        engine_settings.memory_limit = "256 MiB"
        engine_settings.on_data_loss = "continue"
        engine_settings.side_values_max = 7
        """,
    )
    profile = read_profile(tmp_path, None)
    assert profile.stream("events") == EmbeddedBinding(partitions=3, retention=timedelta(days=1))
    assert profile.stream("clicks").retention_bytes == 2_000_000_000
    assert profile.store.path == str(tmp_path / "data" / "store.duckdb")
    assert profile.engine_settings == EngineOptions(
        linger=timedelta(milliseconds=50),
        memory_limit=256 * 1024**2,
        on_data_loss="continue",
        side_values_max=7,
    )


def test_every_problem_is_reported_at_once_with_its_line_and_the_nearest_word(tmp_path: Path) -> None:
    write(
        tmp_path,
        """[profiles.local]
engin = "local"
streams.events = { log = "embeded", partition = 3, retention = "a while" }
[profiles.local.engine_settings]
threads = 0
linger = 5
""",
    )
    with pytest.raises(ProfileError) as raised:
        read_profile(tmp_path, None)
    lines = raised.value.message.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"headrace.toml:{n}" for n in (2, 3, 3, 3, 5, 6)]
    assert "unknown key; did you mean 'engine'?" in lines[0]
    assert "did you mean 'embedded'?" in lines[1]
    assert "did you mean 'partitions'?" in lines[2]
    assert "not a duration" in lines[3]
    assert "at least 1" in lines[4]
    assert "takes a duration" in lines[5]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('engine = "flink"', "is not known"),
        ("spark = 3", "takes a table"),
        ('spark.trigger = "soon"', "not a duration"),
        ("spark.streaming.backpressure.enabled = true", "belongs to DStreams"),
        ('"spark.streaming.backpressure.enabled" = "true"', "belongs to DStreams"),
        ("spark.executor.memory = [1]", "takes a text, a number"),
        ('streams.events = { log = "kafka" }', "does not say where the brokers are"),
        ('replicas.warehouse = { kind = "delat" }', "no replica is called"),
        ("replicas.warehouse = 3", "does not say which system"),
        ('replicas.warehouse = { kind = "postgresql" }', "needs 'dsn'"),
        ('replicas.warehouse = { kind = "files", path = "t", tables = "all" }', "takes a list of names"),
        ('replicas.lake = { kind = "delta", path = "s3://bucket/lake" }', "named by `uri`"),
        ('store.path = "s3://bucket/store.duckdb"', "a file or folder of this machine, not an address"),
        ('store.path = "hdfs://namenode/store.duckdb"', "write a path"),
        ("streams = 3", "takes a table"),
        ("streams.events = 3", "takes a table"),
        ("streams.events = { partitions = true }", "takes a whole number"),
        ('streams.events = { bytes_max = "many" }', "not a size"),
        ("store.path = 3", "takes a path"),
    ],
)
def test_what_cannot_be_used_says_what_to_write(tmp_path: Path, line: str, words: str) -> None:
    write(tmp_path, f"[profiles.local]\n{line}\n")
    with pytest.raises(ProfileError, match=words) as raised:
        read_profile(tmp_path, None)
    assert "headrace.toml:2: profile 'local'" in str(raised.value)


def test_an_unknown_profile_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, "[profiles.production]\n[profiles.local]\n")
    assert read_profile_names(tmp_path) == ("production", "local")
    with pytest.raises(ProfileError, match="did you mean 'production'"):
        read_profile(tmp_path, "prodution")
    with pytest.raises(ProfileError, match="no profile 'kafka'"):
        read_profile(tmp_path / "..", "kafka")


def test_what_is_not_toml_or_not_a_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"headrace.toml:2: the file: it is not TOML"):
        read_profile(write(tmp_path, "\n[profiles.local\n"), None)
    with pytest.raises(
        ProfileError, match=r"headrace.toml:1: section 'profile': it is not known; did you mean 'profiles'"
    ):
        read_profile(write(tmp_path, "[profile.local]\n"), None)
    with pytest.raises(ProfileError, match="not a section"):
        read_profile(write(tmp_path, "profiles = 3\n"), None)
    with pytest.raises(ProfileError, match="not a section"):
        read_profile(write(tmp_path, "profiles.local = 3\n"), None)
    (tmp_path / "headrace.toml").write_bytes(b"\xff")
    with pytest.raises(ProfileError, match="UTF-8"):
        read_profile(tmp_path, None)


def test_a_binding_of_a_stream_that_does_not_exist_is_found(tmp_path: Path) -> None:
    write(tmp_path, "[profiles.local]\nstreams.evnts = { partitions = 3 }\n")
    profile = read_profile(tmp_path, None)
    with pytest.raises(ProfileError, match=r"headrace.toml:2: .*no stream 'evnts'; did you mean 'events'"):
        check_streams(profile, tmp_path, ("events",))


def test_references_are_resolved_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DATA", "/data")
    monkeypatch.setenv("SHOP_PARTITIONS", "4")
    (tmp_path / "name.txt").write_text("shop\n")
    write(
        tmp_path,
        '[profiles.local]\nstore.path = "${env:SHOP_DATA}/${file:name.txt}.duckdb"\n'
        'streams.events = { partitions = "${env:SHOP_PARTITIONS}" }\n',
    )
    profile = read_profile(tmp_path, None)
    assert profile.store.path == "/data/shop.duckdb"
    assert profile.stream("events").partitions == 4


def test_a_reference_that_leads_nowhere_is_a_problem_with_a_fix(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[profiles.local]\nstore.path = "${env:HEADRACE_NOT_SET}"\n'
        'engine_settings = { linger = "${file:missing.txt}", threads = "${threads}" }\n',
    )
    with pytest.raises(ProfileError) as raised:
        read_profile(tmp_path, None)
    text = str(raised.value)
    assert "'HEADRACE_NOT_SET' is not set" in text
    assert "'missing.txt' cannot be read" in text
    assert "'${threads}' is not a reference" in text


def test_a_secret_is_never_shown_and_read_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret("postgresql://shop:${env:SHOP_PASSWORD}@db", tmp_path)
    assert "SHOP" not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(ProfileError, match="SHOP_PASSWORD"):
        secret.reveal()
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    assert secret.reveal() == "postgresql://shop:hunter2@db"
    assert secret == Secret("postgresql://shop:${env:SHOP_PASSWORD}@db", tmp_path)
    assert len({secret, Secret("other")}) == 2


def test_a_run_names_at_once_every_secret_of_its_receivers_that_it_cannot_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[profiles.local]\npage.token = "${env:HEADRACE_NO_TOKEN}"\n'
        'telemetry.traces = "http://localhost:4318"\ntelemetry.lineage = "http://localhost:5000"\n'
        'telemetry.traces_headers = "${env:HEADRACE_NO_HEADERS}"\ntelemetry.lineage_key = "${file:no-key}"\n'
        '[profiles.quiet]\ntelemetry = { traces_headers = "${env:HEADRACE_NO_HEADERS}" }\n',
    )
    with pytest.raises(ProfileError) as raised:
        check_secrets(read_profile(tmp_path, "local"), tmp_path)
    text = str(raised.value)
    assert "page.token" in text and "'HEADRACE_NO_TOKEN' is not set" in text
    assert "telemetry.traces_headers" in text and "'HEADRACE_NO_HEADERS' is not set" in text
    assert "telemetry.lineage_key" in text and "'no-key' cannot be read" in text
    check_secrets(read_profile(tmp_path, "quiet"), tmp_path)  # nobody is told anything: nothing reads it


def test_a_secret_file_that_is_large_or_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="too large"):
        Secret("${file:large}", tmp_path).reveal()
    with pytest.raises(ProfileError, match="UTF-8"):
        Secret("${file:binary}", tmp_path).reveal()


def test_options_describe_themselves() -> None:
    lines = {line.name: line for line in describe_options(EmbeddedBinding)}
    assert lines["log"].takes == "embedded | kafka"
    assert lines["log"].default == "embedded"
    assert lines["retention"].takes == "duration"
    assert all(line.help for line in lines.values())


def test_what_the_options_of_an_engine_say_they_are_when_left_out_they_are(tmp_path: Path) -> None:
    left_out = {line.name: line.help for line in describe_options(EngineOptions) if line.default == "none"}
    named = {name: re.search(r"\(([^()]+)\)$", words) for name, words in left_out.items()}
    assert [name for name, found in named.items() if found is None] == []
    written = [
        f'{name} = "{found[1].replace(",", "")}"' for name, found in named.items() if found is not None
    ]
    write(tmp_path, "\n".join(["[profiles.local.engine_settings]", *written]))
    read, defaults = read_profile(tmp_path, "local").engine_settings, EngineSettings()
    assert read.memory_limit == parse_size(defaults.memory_limit)
    others = {*left_out} - {"memory_limit"}
    assert {name: getattr(read, name) for name in others} == {
        name: getattr(defaults, name) for name in others
    }
    assert EngineOptions().on_data_loss == defaults.on_data_loss
