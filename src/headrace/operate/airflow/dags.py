"""The DAG that polls a stream in the place of a run, and waits until the run has taken it all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.declare.durations import parse_duration
from headrace.operate.airflow.operators import HeadracePollOperator
from headrace.operate.airflow.sensors import HeadraceSensor
from headrace.operate.airflow.versions import DAG

__all__ = ["polling_dag"]

_POKE_S = 5.0


def polling_dag(
    dag_id: str,
    *,
    project: str,
    stream: str,
    profile: str | None = None,
    every: str = "5 minutes",
    poll_for: str = "60 seconds",
    wait_for: str = "10 minutes",
    closed_table: str = "",
    dead_letters_max: int | None = None,
    **of_tasks: Any,
) -> DAG:
    """Return a DAG of two tasks: `poll` a stream, and wait until what it gave has `landed` in the tables.

    One run at a time, none for times that are over. `landed` waits `wait_for` at most, until no record waits
    to be read; with `closed_table`, also until the windows of that table that have begun are closed, and with
    `dead_letters_max` it fails when more than that were set aside. A task is tried three times more, 30
    seconds apart; `of_tasks` are arguments of Airflow's for both of them.
    """
    defaults: dict[str, Any] = {"retries": 3, "retry_delay": timedelta(seconds=30), **of_tasks}
    told = "ti.xcom_pull(task_ids='poll')"
    with DAG(
        dag_id,
        schedule=parse_duration(every),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=defaults,
        tags=["headrace"],
    ) as dag:
        poll = HeadracePollOperator(
            task_id="poll",
            project=project,
            profile=profile,
            stream=stream,
            seconds=parse_duration(poll_for).total_seconds(),
        )
        landed = HeadraceSensor(
            task_id="landed",
            project=project,
            profile=profile,
            stream=stream,
            closed_table=closed_table,
            until=f"{{{{ {told}['polled_until'] }}}}",
            dead_letters_max=dead_letters_max,
            since=f"{{{{ {told}['polled_from'] }}}}",
            poke_interval=_POKE_S,
            timeout=parse_duration(wait_for) / timedelta(seconds=1),
            mode="reschedule",
        )
        poll >> landed
    return dag
