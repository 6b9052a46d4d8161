"""Fetches the jars of every server and Airflow's environment, or those that are named."""

import sys

from servers.airflow import fetched_airflow
from servers.jars import POMS, ServerMissing, fetched

for name in sys.argv[1:] or ["airflow", *sorted(folder.name for folder in POMS.iterdir())]:
    try:
        print(f"{name}: {fetched_airflow() if name == 'airflow' else fetched(name)}")
    except ServerMissing as missing:
        sys.exit(str(missing))
