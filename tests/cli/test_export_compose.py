"""`headrace export compose`: everything in it is held against what the profile and the schema say."""

from __future__ import annotations

import json
import re
import stat
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from composed import PROFILES, environment_file, exported, project
from jsonschema.validators import validator_for

from command_lines import parsed
from headrace.blueprints import project_files, write_project
from headrace.cli.app import run
from headrace.errors import ProfileError
from headrace.operate.export_facts import deployment_of
from headrace.operate.export_services import IMAGES
from headrace.operate.project import load_project
from servers.prometheus import promtool

pytestmark = pytest.mark.slow

MEMORY_MAX = 7 * 1024
BLUEPRINTS = ("commerce", "customers", "signups")
"""Beside operations, whose project the other profiles are written into; signups has Airflow as its clock."""


@pytest.fixture(scope="module", params=[*PROFILES, *BLUEPRINTS])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    """A project and what was exported for its profile; tests look at it and leave it as it is."""
    folder = tmp_path_factory.mktemp("made") / "company"
    if request.param in BLUEPRINTS:
        write_project(request.param, folder)
        return folder, exported(folder), "compose"
    project(folder, request.param)
    return folder, exported(folder, request.param), request.param


Made = tuple[Path, dict[str, Any], str]


@cache
def specification() -> Any:
    """What the Compose Specification's own schema says; check-jsonschema carries it."""
    place = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(place.read_text(encoding="utf-8"))
    return validator_for(schema)(schema)


def refused(document: Any) -> list[str]:
    return [f"{each.json_path}: {each.message}" for each in specification().iter_errors(document)]


def test_the_file_is_one_by_the_schema_of_the_specification(made: Made) -> None:
    _, document, _ = made
    assert refused(document) == []
    # Stricter than the schema, which takes a shell's line for a command and a number for a text.
    for name, service in document["services"].items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert isinstance(service.get("command", []), list), name
        assert all(isinstance(value, str) for value in service.get("environment", {}).values()), name
        assert service.get("healthcheck", {}).get("test", ["CMD"])[0] == "CMD", name


def test_the_schema_refuses_what_is_no_compose_file(tmp_path: Path) -> None:
    document = exported(project(tmp_path / "company"))
    document["services"]["kafka"]["healtcheck"] = document["services"]["kafka"].pop("healthcheck")
    document["services"]["headrace"]["ports"] = "8600:8600"
    places = {each.split(":")[0] for each in refused(document)}
    assert places == {"$.services.headrace", "$.services.headrace.ports", "$.services.kafka"}


def test_what_a_profile_names_runs_beside_it_and_nothing_else(tmp_path: Path) -> None:
    expected = {
        "compose": {"kafka", "postgresql", "headrace", "generator", "prometheus", "grafana"},
        "stores": {"kafka", "registry", "elasticsearch", "kibana", "kibana-objects", "cassandra", "headrace",
                   "generator"},
        "cluster_of_containers": {"kafka", "postgresql", "spark-master", "spark-worker", "headrace",
                                  "generator", "prometheus", "grafana"},
        "embedded": {"headrace", "generator"},
    }  # fmt: skip
    for profile, services in expected.items():
        document = exported(project(tmp_path / profile, profile), profile)
        assert set(document["services"]) == services, profile


def test_every_command_that_is_given_to_headrace_is_one(made: Made) -> None:
    _, document, profile = made
    commands = []
    for service in document["services"].values():
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])[1:]):
            if words and words[0] == "headrace":
                commands.append(parsed(words[1:]))
    assert len(commands) >= 3
    assert {found["profile"] for found in commands if "profile" in found} == {profile}


def test_every_mount_exists_and_every_volume_is_declared_and_used(made: Made) -> None:
    folder, document, _ = made
    used = set()
    for service in document["services"].values():
        for mount in service.get("volumes", []):
            source, target, *mode = mount.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (folder / "deploy" / source).exists(), mount
                assert mode == ["ro"], "a file of the project is never written by a server"
            else:
                used.add(source)
        build = service.get("build")
        if build:
            context = (folder / "deploy" / build["context"]).resolve()
            assert context == folder.resolve()
            assert (context / build["dockerfile"]).is_file()
    assert used == set(document["volumes"])


def test_ports_are_published_on_the_loopback_only_and_never_twice(made: Made) -> None:
    _, document, _ = made
    published = [port for service in document["services"].values() for port in service.get("ports", [])]
    found = [re.fullmatch(r"127\.0\.0\.1:\$\{([A-Z_]+):-(\d+)\}:(\d+)", port) for port in published]
    assert all(found), published
    assert (
        len({match[1] for match in found if match})
        == len({match[2] for match in found if match})
        == len(found)
    )


def test_every_service_is_pinned_limited_and_waits_for_what_it_needs(made: Made) -> None:
    _, document, _ = made
    services = document["services"]
    megabytes = {"m": 1, "g": 1024}
    limits = [int(s["mem_limit"][:-1]) * megabytes[s["mem_limit"][-1]] for s in services.values()]
    assert sum(limits) <= MEMORY_MAX
    for name, service in services.items():
        assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), f"{name} is not pinned"
        assert "build" in service or service["image"] in IMAGES.values()
        for other, condition in service.get("depends_on", {}).items():
            ends = services[other]["restart"] == "on-failure"
            waited = ("service_completed_successfully",) if ends else ("service_healthy", "service_started")
            assert condition["condition"] in waited
            assert condition["condition"] != "service_healthy" or "healthcheck" in services[other]
        once = name in ("kibana-objects", "airflow-init")
        assert "healthcheck" in service or once or name == "generator", f"{name} does not say how it is"
        assert service["restart"] == ("on-failure" if once else "unless-stopped")


def test_no_password_has_a_default_and_those_that_are_made_are_by_chance(tmp_path: Path) -> None:
    documents, files = [], []
    for name in ("one", "two"):
        folder = project(tmp_path / name)
        documents.append(exported(folder))
        files.append(environment_file(folder))
        mode = stat.S_IMODE((folder / "deploy" / ".env").stat().st_mode)
        assert mode == 0o600
        assert ".env" in (folder / "deploy" / ".gitignore").read_text().splitlines()
        assert "deploy/.env" in (folder / "deploy" / "Containerfile.dockerignore").read_text().splitlines()
    assert documents[0] == documents[1]
    assert all(len(value) >= 24 for value in files[0].values())
    assert not set(files[0].values()) & set(files[1].values())
    for service in documents[0]["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|DSN|SECRET", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", str(documents[0])))
    assert asked == set(files[0]), "what compose asks for is what .env holds"
    shown = " ".join(path.read_text() for path in (tmp_path / "one" / "deploy").rglob("*") if path.is_file()
                     and path.name != ".env")  # fmt: skip
    assert not any(value in shown for value in files[0].values())


def test_the_generator_of_the_shop_makes_fourteen_events_a_second(tmp_path: Path) -> None:
    write_project("commerce", tmp_path / "shop")
    generator = exported(tmp_path / "shop")["services"]["generator"]
    assert generator["environment"]["EVENTS_PER_SECOND"] == "${EVENTS_PER_SECOND:-14}"


def test_users_are_polled_by_a_container_of_its_own_from_an_api_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "signups"
    write_project("signups", folder)
    (folder / "airflow" / "dags" / "user_automation.py").unlink()
    services = exported(folder)["services"]
    assert set(services) == {
        "kafka", "registry", "cassandra", "users", "headrace", "poller-users-created", "prometheus",
        "grafana",
    }  # fmt: skip
    assert parsed(services["poller-users-created"]["command"][1:])["stream"] == "users_created"
    assert parsed(services["users"]["command"][1:])["port"] == 8610
    assert services["cassandra"]["environment"]["MAX_HEAP_SIZE"] == "512M"
    told = load_project(folder, profile="compose").profile.polling["users_created"]
    assert urlsplit(told.url).netloc == "users:8610"
    assert told.with_run == "no", "who polls twice asks the API twice"


def test_a_public_api_is_polled_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "signups"
    write_project("signups", folder)
    (folder / "airflow" / "dags" / "user_automation.py").unlink()
    path = folder / "headrace.toml"
    path.write_text(path.read_text().replace("http://users:8610/", "https://randomuser.me/"))
    services = exported(folder)["services"]
    assert "users" not in services
    assert "poller-users-created" in services


def test_kibana_is_given_its_objects_once_and_again_at_the_next_export(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_project("customers", folder)
    for _ in range(2):
        services = exported(folder)["services"]
    words = services["kibana-objects"]["command"]
    assert words[:2] == ["curl", "-fsS"]
    assert urlsplit(words[4]).netloc == "kibana:5601"
    assert words[-1] == "file=@/objects/customers.ndjson"
    lines = (folder / "deploy" / "kibana" / "customers.ndjson").read_text().splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds[-1] == "dashboard"
    assert {"index-pattern", "visualization"} < set(kinds)


def test_the_driver_of_spark_is_called_back_by_the_name_of_its_service(tmp_path: Path) -> None:
    services = exported(project(tmp_path / "company", "cluster_of_containers"), "cluster_of_containers")[
        "services"
    ]
    assert services["headrace"]["environment"]["SPARK_LOCAL_HOSTNAME"] == "headrace"
    worker = services["spark-worker"]["command"]
    assert worker[worker.index("--cores") + 1] == "2"
    assert worker[worker.index("--memory") + 1] == "1g"


def test_a_second_export_leaves_the_passwords_and_a_strangers_file_alone(tmp_path: Path, capsys: Any) -> None:
    folder = project(tmp_path / "company")
    exported(folder)
    before = (folder / "deploy" / ".env").read_text()
    exported(folder)
    assert (folder / "deploy" / ".env").read_text() == before
    (folder / "deploy" / ".env").write_text(before.replace("WRITER_PASSWORD=", "# WRITER_PASSWORD="))
    exported(folder)
    assert "before it is started: WRITER_PASSWORD" in capsys.readouterr().out
    (folder / "deploy" / "prometheus" / "prometheus.yml").write_text("mine: true\n")
    (folder / "deploy" / "compose.yaml").unlink()
    assert run(["export", "compose", "--project", str(folder), "--profile", "compose"]) != 0
    assert "prometheus.yml is there already" in capsys.readouterr().err
    assert not (folder / "deploy" / "compose.yaml").exists(), "nothing is written before all of it may be"


def test_addresses_agree_with_what_the_profile_says(tmp_path: Path) -> None:
    folder = project(tmp_path / "company")
    document = exported(folder)
    services, values = document["services"], environment_file(folder)
    dsn = urlsplit(values["PG_DSN"])
    assert (dsn.hostname, dsn.port, dsn.path) == ("postgresql", 5432, "/operations")
    assert dsn.password == values["WRITER_PASSWORD"]
    assert services["postgresql"]["environment"]["POSTGRES_DB"] == "operations"
    assert services["headrace"]["ports"] == ["127.0.0.1:${PAGE_PORT:-8600}:8600"]
    kafka = services["kafka"]["environment"]
    assert kafka["KAFKA_ADVERTISED_LISTENERS"].startswith("INSIDE://kafka:9092,")
    assert services["generator"]["environment"]["EVENTS_PER_SECOND"] == "${EVENTS_PER_SECOND:-20}"
    deploy = folder / "deploy"
    scraped = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == ["headrace:9464"]
    sources = yaml.safe_load((deploy / "grafana/provisioning/datasources/headrace.yaml").read_text())
    provided = yaml.safe_load((deploy / "grafana/provisioning/dashboards/headrace.yaml").read_text())
    mounts = [mount.split(":") for mount in services["grafana"]["volumes"]]
    found = [provider["options"]["path"] for provider in provided["providers"]]
    assert [["./grafana/dashboards", found[0], "ro"], ["../grafana", found[1], "ro"]] == mounts[-2:]
    assert (deploy / "grafana" / "dashboards" / "operations.json").is_file()
    hosts = {source["url"].split("//")[-1].split(":")[0] for source in sources["datasources"]}
    assert hosts == {"prometheus", "postgresql"} <= set(services)


def test_prometheus_asks_all_that_tell_of_themselves_where_they_do(tmp_path: Path) -> None:
    folder = project(tmp_path / "company", "cluster_of_containers")
    with (folder / "headrace.toml").open("a") as file:
        file.write("spark.ui.enabled = true\nspark.ui.port = 4044\n")
    path = folder / "headrace.toml"
    named = 'port = 9464, targets = { node = "host:9100" } }'
    path.write_text(path.read_text().replace("port = 9464 }", named))
    services = exported(folder, "cluster_of_containers")["services"]
    scraped = yaml.safe_load((folder / "deploy" / "prometheus" / "prometheus.yml").read_text())
    asked = {each["job_name"]: each["static_configs"][0]["targets"] for each in scraped["scrape_configs"]}
    assert asked == {
        "headrace": ["headrace:9464"],
        "generator": ["generator:9465"],
        "spark_driver": ["headrace:4044"],
        "spark_executors": ["headrace:4044"],
        "node": ["host:9100"],
    }
    assert parsed(services["generator"]["command"][1:])["metrics_port"] == 9465
    promtool("check", "config", "prometheus.yml", folder=folder / "deploy" / "prometheus")
    path.write_text(path.read_text().replace("spark://spark-master:7077", "local[2]"))
    exported(folder, "cluster_of_containers")
    scraped = yaml.safe_load((folder / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert {each["job_name"] for each in scraped["scrape_configs"]} == {"headrace", "generator", "node"}


@pytest.mark.parametrize("blueprint", ["commerce", "customers", "operations", "signups"])
def test_a_blueprint_ships_the_file_that_is_exported(tmp_path: Path, blueprint: str) -> None:
    folder = tmp_path / "company"
    write_project(blueprint, folder)
    exported(folder)
    shipped = project_files(blueprint)["deploy/compose.yaml"]
    assert (folder / "deploy" / "compose.yaml").read_bytes() == shipped


@pytest.mark.parametrize(
    ("lines", "says", "fix"),
    [
        (
            'streams.events = { log = "kafka", brokers = "localhost:9092" }',
            "kafka is at 'localhost'",
            "kafka:9092",
        ),
        (
            'streams.events = { log = "kafka", brokers = "a:9092,b:9092" }',
            "several servers of kind kafka",
            "one",
        ),
        (
            'streams.events = { log = "kafka", brokers = "Broker_1:9092" }',
            "cannot be the name",
            "small letters",
        ),
        ("", "the page listens on 127.0.0.1", 'serve = "off"'),
        ('page = { serve = "off" }\nmetrics = { port = 9464 }', "metrics are served on 127.0.0.1", "0.0.0.0"),
    ],
)
def test_an_address_that_means_something_else_in_a_container_is_refused(
    tmp_path: Path, lines: str, says: str, fix: str
) -> None:
    folder = project(tmp_path / "company")
    with (folder / "headrace.toml").open("a") as file:
        file.write(f"\n[profiles.wrong]\n{lines}\n")
    with pytest.raises(ProfileError, match=says) as refused:
        deployment_of(load_project(folder, profile="wrong"))
    assert fix in refused.value.fix
