"""A pipeline as manifests for Kubernetes: one process with a volume, told where its secrets are.

One replica, and `Recreate`: the store is one file that one process holds, so a second pod must not begin
before the first has ended. Brokers and databases are somebody else's here; the profile says where they are.
"""

from __future__ import annotations

from typing import Any

from headrace.operate.export_facts import Deployment
from headrace.operate.export_yaml import to_yaml
from headrace.operate.profiles import PROFILE_FILE

__all__ = ["kubernetes_objects", "kubernetes_text"]

_USER = 10_001  # as in the container file


def kubernetes_text(deployment: Deployment, *, image: str, storage: str = "10Gi") -> str:
    """Return the manifests as one file."""
    objects = kubernetes_objects(deployment, image=image, storage=storage)
    variables = ", ".join(deployment.variables)
    secret = (
        f"# Make the secret first: kubectl create secret generic headrace-{deployment.name} "
        f"--from-env-file=FILE  (with {variables})\n"
        if variables
        else ""
    )
    head = "# Made by `headrace export kubernetes`.\n"
    return head + secret + "".join(f"---\n{to_yaml(each)}" for each in objects)


def kubernetes_objects(deployment: Deployment, *, image: str, storage: str = "10Gi") -> list[dict[str, Any]]:
    """Return every object: settings, volume, pipeline and, if it is served, its addresses for others."""
    settings = (deployment.project.folder / PROFILE_FILE).read_text(encoding="utf-8")
    objects = [
        _object(deployment, "v1", "ConfigMap", data={PROFILE_FILE: settings}),
        _object(
            deployment,
            "v1",
            "PersistentVolumeClaim",
            spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
        ),
        _object(deployment, "apps/v1", "Deployment", spec=_pods(deployment, image)),
    ]
    ports = [{"name": name, "port": port, "targetPort": name} for name, port in _ports(deployment).items()]
    if ports:
        spec = {"selector": _labels(deployment), "ports": ports}
        objects.append(_object(deployment, "v1", "Service", spec=spec))
    if deployment.metrics_port is not None:
        endpoints = [{"port": "metrics", "interval": "15s"}]
        spec = {"selector": {"matchLabels": _labels(deployment)}, "endpoints": endpoints}
        objects.append(_object(deployment, "monitoring.coreos.com/v1", "ServiceMonitor", spec=spec))
    return objects


def _name(deployment: Deployment) -> str:
    return f"headrace-{deployment.name}"


def _labels(deployment: Deployment) -> dict[str, str]:
    return {"app.kubernetes.io/name": "headrace", "app.kubernetes.io/instance": deployment.name}


def _object(deployment: Deployment, version: str, kind: str, **body: Any) -> dict[str, Any]:
    metadata = {"name": _name(deployment), "labels": _labels(deployment)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _ports(deployment: Deployment) -> dict[str, int]:
    known = {"page": deployment.page_port, "metrics": deployment.metrics_port}
    return {name: port for name, port in known.items() if port}


def _pods(deployment: Deployment, image: str) -> dict[str, Any]:
    name = _name(deployment)
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(deployment, image), *_pollers(deployment, image)],
        "volumes": [
            {"name": "settings", "configMap": {"name": name}},
            {"name": "data", "persistentVolumeClaim": {"claimName": name}},
            {"name": "temporary", "emptyDir": {}},
        ],
    }
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": _labels(deployment)},
        "template": {"metadata": {"labels": _labels(deployment)}, "spec": pod},
    }


def _pollers(deployment: Deployment, image: str) -> list[dict[str, Any]]:
    """Return a container for each poller that is a process of its own, beside the pipeline in its pod."""
    found = []
    for stream in deployment.polled:
        container = _container(deployment, image)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe", "ports"):
            del container[probe]
        container["name"] = f"poller-{stream.replace('_', '-').lower()}"
        container["command"] = ["headrace", "poll", stream, "--profile", deployment.profile.name]
        container["resources"] = {
            "requests": {"cpu": "50m", "memory": "256Mi"},
            "limits": {"memory": "256Mi"},
        }
        found.append(container)
    return found


def _container(deployment: Deployment, image: str) -> dict[str, Any]:
    words = ["headrace", "status", "--json", "--profile", deployment.profile.name]
    # It answers once the store is open. A pipeline that waits for its brokers answers too: to start it again
    # would not bring them back, so nothing asks for more than that.
    probe = {"exec": {"command": words}, "periodSeconds": 30, "timeoutSeconds": 10}
    memory = "3Gi" if deployment.on_spark else "1Gi"
    return {
        "name": "headrace",
        "image": image,
        "command": ["headrace", "run", "--profile", deployment.profile.name],
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": _name(deployment), "key": name}}}
            for name in deployment.variables
        ],
        "ports": [{"name": name, "containerPort": port} for name, port in _ports(deployment).items()],
        "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "failureThreshold": 5},
        "resources": {"requests": {"cpu": "500m", "memory": memory}, "limits": {"memory": memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "settings", "mountPath": f"/project/{PROFILE_FILE}", "subPath": PROFILE_FILE},
            {"name": "data", "mountPath": "/project/.headrace", "subPath": "headrace"},
            {"name": "data", "mountPath": "/project/warehouse", "subPath": "warehouse"},
            {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108 - the pod's own, not ours
        ],
    }
