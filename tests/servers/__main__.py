"""Fetches the jars of the servers of `make test` and Airflow's environment, or those that are named."""

import sys

from servers.airflow import fetched_airflow
from servers.jars import FOR_LONG_TESTS, POMS, ServerMissing, fetched

always = {folder.name for folder in POMS.iterdir()} - FOR_LONG_TESTS
for name in sys.argv[1:] or ["airflow", *sorted(always)]:
    try:
        print(f"{name}: {fetched_airflow() if name == 'airflow' else fetched(name)}")
    except ServerMissing as missing:
        sys.exit(str(missing))
