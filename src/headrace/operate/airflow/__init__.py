"""Airflow's way to a pipeline: a provider package with a hook, an operator, a sensor, and a DAG of them.

Airflow 2.11 and 3. It finds this package by its entry point `apache_airflow_provider`; nothing else here
imports Airflow, and nothing of Headrace needs it. A DAG names a project's folder, which has to be where the
task runs, and asks the run there by its socket, or the store of a run that has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.operate.airflow.dags import polling_dag
    from headrace.operate.airflow.hook import HeadraceHook
    from headrace.operate.airflow.operators import HeadracePollOperator
    from headrace.operate.airflow.sensors import HeadraceSensor

__all__ = ["HeadraceHook", "HeadracePollOperator", "HeadraceSensor", "get_provider_info", "polling_dag"]

_PLACES = {
    "HeadraceHook": "hook",
    "HeadracePollOperator": "operators",
    "HeadraceSensor": "sensors",
    "polling_dag": "dags",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: Airflow's manager of providers reads this module, and nothing of it then."""
    if name not in _PLACES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow shows of this provider; called by it, by the entry point."""
    of_headrace = {"integration-name": "Headrace"}
    return {
        "package-name": "headrace",
        "name": "Headrace",
        "description": "Pipelines of Headrace: polls their producers, and waits for their results.",
        "operators": [{**of_headrace, "python-modules": [f"{__name__}.operators"]}],
        "sensors": [{**of_headrace, "python-modules": [f"{__name__}.sensors"]}],
        "hooks": [{**of_headrace, "python-modules": [f"{__name__}.hook"]}],
    }
