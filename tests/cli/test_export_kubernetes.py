"""`headrace export kubernetes`: objects that fit each other, the profile and our own command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from command_lines import parsed
from headrace.blueprints import write_project
from headrace.cli.app import run
from headrace.operate.export_files import CONTAINER_FILE


def manifests(folder: Path, capsys: Any, profile: str = "compose") -> dict[str, dict[str, Any]]:
    words = ["--project", str(folder), "--profile", profile, "--image", "operations:1.2", "--storage", "20Gi"]
    assert run(["export", "kubernetes", *words]) == 0
    return {each["kind"]: each for each in yaml.safe_load_all(capsys.readouterr().out)}


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write_project(getattr(request, "param", "operations"), tmp_path)
    return tmp_path


def pod_of(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("folder", ["commerce", "customers", "operations", "signups"], indirect=True)
@pytest.mark.parametrize("version", [all_versions()[0], all_versions()[-1]])
def test_every_object_is_one_by_the_schema_of_kubernetes(folder: Path, capsys: Any, version: str) -> None:
    objects = manifests(folder, capsys)
    # Prometheus's operator defines this one, and its schema is in no package: its test is below.
    del objects["ServiceMonitor"]
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)
    objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(objects["Deployment"], version, strict=True)


def test_there_is_one_pod_that_never_runs_twice_with_a_volume_of_its_own(folder: Path, capsys: Any) -> None:
    objects = manifests(folder, capsys)
    assert set(objects) == {"ConfigMap", "PersistentVolumeClaim", "Deployment", "Service", "ServiceMonitor"}
    versions = {kind: each["apiVersion"] for kind, each in objects.items()}
    assert versions == {
        "ConfigMap": "v1", "PersistentVolumeClaim": "v1", "Service": "v1", "Deployment": "apps/v1",
        "ServiceMonitor": "monitoring.coreos.com/v1",
    }  # fmt: skip
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = objects["PersistentVolumeClaim"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    volumes = {each["name"]: each for each in pod_of(objects)["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volumes["settings"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    mounted = {mount["name"] for mount in pod_of(objects)["containers"][0]["volumeMounts"]}
    assert mounted == set(volumes)


def test_selectors_ports_and_labels_fit_each_other_and_the_profile(folder: Path, capsys: Any) -> None:
    objects = manifests(folder, capsys)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    service, monitor = objects["Service"], objects["ServiceMonitor"]
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    inside = {each["name"]: each["containerPort"] for each in pod_of(objects)["containers"][0]["ports"]}
    assert inside == {"page": 8600, "metrics": 9464}
    outside = {each["name"]: (each["port"], each["targetPort"]) for each in service["spec"]["ports"]}
    assert outside == {"page": (8600, "page"), "metrics": (9464, "metrics")}
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == ["metrics"]


def test_every_command_is_one_and_every_secret_is_named_not_written(folder: Path, capsys: Any) -> None:
    (container,) = pod_of(manifests(folder, capsys))["containers"]
    words = [container["command"]]
    words += [container[f"{probe}Probe"]["exec"]["command"] for probe in ("startup", "readiness", "liveness")]
    for each in words:
        assert each[0] == "headrace"
        assert parsed(each[1:])["profile"] == "compose"
    held = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"]}
    assert held == {
        name: {"name": "headrace-operations", "key": name} for name in ("PG_DSN", "HEADRACE_TOKEN")
    }
    assert container["image"] == "operations:1.2"


def test_the_settings_are_the_projects_own_file(folder: Path, capsys: Any) -> None:
    objects = manifests(folder, capsys)
    assert objects["ConfigMap"]["data"] == {"headrace.toml": (folder / "headrace.toml").read_text()}


def test_the_pod_is_nobody_in_particular_and_may_do_little(folder: Path, capsys: Any) -> None:
    pod = pod_of(manifests(folder, capsys))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"--uid {pod['securityContext']['runAsUser']} " in CONTAINER_FILE
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    writable = {mount["mountPath"] for mount in container["volumeMounts"]} - {"/project/headrace.toml"}
    assert writable == {"/project/.headrace", "/project/warehouse", "/tmp"}


def test_without_a_page_and_metrics_nothing_is_served(folder: Path, capsys: Any) -> None:
    with (folder / "headrace.toml").open("a") as file:
        file.write('\n[profiles.quiet]\npage = { serve = "off" }\n')
    objects = manifests(folder, capsys, "quiet")
    assert set(objects) == {"ConfigMap", "PersistentVolumeClaim", "Deployment"}


def test_the_container_file_has_two_stages_and_no_root() -> None:
    stages = [line for line in CONTAINER_FILE.splitlines() if line.startswith("FROM")]
    assert len(stages) == 2
    assert all(":3.12-slim" in stage for stage in stages)
    users = [line for line in CONTAINER_FILE.splitlines() if line.startswith("USER")]
    assert users == ["USER 10001:10001"]
