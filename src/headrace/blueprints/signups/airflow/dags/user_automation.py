"""Made by `headrace export airflow`: it polls 'users_created' of the pipeline 'signups'.

Airflow reads it from this folder, or from another one where HEADRACE_PROJECT says where the project is.
The profile's poller has with_run = "no", so that the run leaves polling to Airflow.
"""

import os
from pathlib import Path

from headrace.operate.airflow import polling_dag

dag = polling_dag(
    "user_automation",
    project=os.environ.get("HEADRACE_PROJECT") or str(Path(__file__).resolve().parents[2]),
    profile="compose",
    stream="users_created",
    every="5 minutes",
    poll_for="60 seconds",
    retries=3,
)
