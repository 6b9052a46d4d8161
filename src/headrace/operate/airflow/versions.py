"""Airflow's base classes, from where Airflow 3 has them or from where Airflow 2.11 does."""

from __future__ import annotations

from headrace.operate.extras import missing_extra

try:
    from airflow.sdk import DAG, BaseHook, BaseOperator, BaseSensorOperator
except ImportError as error:
    if error.name == "airflow":
        raise missing_extra(error, "a DAG of Headrace's") or error from error
    from airflow import DAG
    from airflow.hooks.base import BaseHook
    from airflow.models.baseoperator import BaseOperator
    from airflow.sensors.base import BaseSensorOperator

__all__ = ["DAG", "BaseHook", "BaseOperator", "BaseSensorOperator"]
