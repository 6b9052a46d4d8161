"""A real Prometheus scrapes a real run on exported files; counters are the ledger's, also after kill -9."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from headrace.blueprints import make_generator, write_project
from headrace.blueprints.commerce.pipeline import KNOWN_TYPES
from headrace.observe.export_grafana import INTERVAL, charts
from headrace.observe.grafana_alerts import alert_groups
from headrace.operate import connect, find_home, load_project, open_log
from headrace.operate.alerting import rules_of
from headrace.operate.export_monitoring import write_prometheus
from headrace.produce.generator import load_history
from servers.alertmanager import AlertmanagerServer, alertmanager_server
from servers.exporters import node_exporter, postgres_exporter
from servers.guard import GuardedProcess, free_ports, wait_until
from servers.prometheus import PrometheusServer, prometheus_server

ROUTE = "route: { receiver: nobody, group_wait: 1s }\nreceivers: [{ name: nobody }]\n"
# Of a run on this machine there are none: tests/web/test_page_spark.py asks for them.
ABSENT = "headrace_spark_"


def headrace(folder: Path, *words: str) -> GuardedProcess:
    command = [sys.executable, "-m", "headrace", *words, "-C", str(folder)]
    return GuardedProcess(command, output=folder / f"{words[0]}.out")


@contextmanager
def observed(
    tmp_path: Path, database: str
) -> Iterator[tuple[Path, GuardedProcess, GuardedProcess, PrometheusServer, AlertmanagerServer, ExitStack]]:
    """A shop that runs, its generator that spoils records, a host, a database, and those who watch them."""
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    metrics, generating, away = free_ports(3)
    with ExitStack() as files:
        beside = {
            "node": files.enter_context(node_exporter()),
            "postgresql": files.enter_context(postgres_exporter(database)),
        }
        targets = ", ".join(f'{name} = "{address}"' for name, address in beside.items())
        profile = f'metrics = {{ port = {metrics}, names = "both", targets = {{ {targets} }} }}\n'
        profile += 'page.serve = "off"\nreplicas.copy = { kind = "files", path = "changes/" }\n'
        profile += f'telemetry.traces = "http://127.0.0.1:{away}"\n'
        (folder / "headrace.toml").write_text(f"[profiles.local]\n{profile}")
        # Windows of the last minutes: those that are older than the allowed lateness close at once.
        log = open_log(load_project(folder), "events")
        made = make_generator("commerce", seed=7)
        load_history(made, log, hours=0.2, until=log.now(), stop=threading.Event())
        log.close()
        (tmp_path / "alertmanager.yml").write_text(ROUTE)
        alertmanager = files.enter_context(alertmanager_server(tmp_path))
        written = write_prometheus(
            load_project(folder),
            tmp_path,
            generator=f"127.0.0.1:{generating}",
            spark=None,
            others=(),
            alertmanager=alertmanager.address,
        )
        written[0].write_text(written[0].read_text().replace("15s", "1s"))
        written[1].write_text(written[1].read_text().replace('for: "60s"', 'for: "1s"'))
        run = headrace(folder, "run")
        files.callback(run.stop)
        spoiled = ("--rate", "50", "--set", "malformed_share=0.3", "--metrics-port", str(generating))
        producer = headrace(folder, "generate", "commerce", *spoiled)
        files.callback(producer.stop)
        prometheus = files.enter_context(prometheus_server(written[0].parent))
        yield folder, run, producer, prometheus, alertmanager, files


def ledger(folder: Path) -> dict[str, int]:
    outcomes: dict[str, int] = connect(find_home(folder)).ledger()["streams"]["events"]["outcomes"]
    return outcomes


def appended(folder: Path) -> int:
    """How many records the log holds; call it when nobody appends."""
    log = open_log(load_project(folder), "events")
    try:
        return sum(each.end - each.start for each in log.partitions())
    finally:
        log.close()


def scraped(prometheus: PrometheusServer) -> dict[str, int]:
    found = prometheus.ask("query", query="sum by (outcome) (headrace_records_total)")["result"]
    return {each["metric"]["outcome"]: int(float(each["value"][1])) for each in found}


@pytest.mark.slow
def test_targets_are_up_counters_survive_a_kill_panels_have_data_and_alerts_fire_and_end(
    tmp_path: Path, prometheus_here: None, alertmanager_here: None, exporters_here: None, postgres_server: str
) -> None:
    observing = observed(tmp_path, postgres_server)
    with observing as (folder, run, producer, prometheus, alertmanager, files):
        names = ("headrace", "generator", "node", "postgresql")
        wait_until(
            lambda: prometheus.targets() == dict.fromkeys(names, "up"),
            what="all targets are up",
            seconds=90,
            process=run,
        )
        for query in ("pg_up == 1", "node_load1", "node_filesystem_avail_bytes > 0"):
            wait_until(partial(rows, prometheus, query), what=f"rows of {query}", seconds=60)
        wait_until(lambda: (prometheus.value("events_produced_total") or 0) > 100, what="events", seconds=60)
        wait_until(
            lambda: (prometheus.value("sum(events_processed_total)") or 0) > 100, what="reading", seconds=60
        )
        run.kill()
        gone = "an alert that the run is gone"
        wait_until(lambda: prometheus.alerts().get("down") == "firing", what=gone, seconds=60)
        wait_until(lambda: "down" in alerts_of(alertmanager), what=f"{gone}, at Alertmanager", seconds=60)
        again = headrace(folder, "run")
        files.callback(again.stop)
        wait_until(lambda: "down" not in prometheus.alerts(), what="its end", seconds=90, process=again)
        wait_until(lambda: "down" not in alerts_of(alertmanager), what="its end told", seconds=60)
        wait_until(lambda: alerts_of(alertmanager) >= {"bad_share"}, what="the alert arrives", seconds=120)
        assert prometheus.alerts()["bad_share"] == "firing"
        assert prometheus.value("events_failed_total") == 0
        for chart in charts():
            for query, _ in chart.queries:
                if ABSENT not in query:
                    wait_until(partial(rows, prometheus, query), what=f"rows of {query}", seconds=60)
                else:
                    assert not rows(prometheus, query)
        for rule in alert_groups(rules_of(load_project(folder)), "shop", "prometheus")["groups"][0]["rules"]:
            query = rule["data"][0]["model"]["expr"]
            found = prometheus.ask("query", query=query)["result"]
            assert all(each["value"][1] == "1" for each in found), query
            assert bool(found) or rule["title"] != "shop: bad_share"
        produced = int(prometheus.value("headrace_produced_records_total") or 0)
        producer.stop()
        all_of_them = appended(folder)
        assert all_of_them > produced > 0, "and the history"
        wait_until(lambda: sum(ledger(folder).values()) == all_of_them, what="all is read", seconds=60)
        wait_until(
            lambda: scraped(prometheus) == {**dict.fromkeys(scraped(prometheus), 0), **ledger(folder)},
            what="the counters are the ledger's",
            seconds=30,
        )
        assert scraped(prometheus)["malformed"] > 0
        types = prometheus.ask("query", query="sum by (event_type) (events_processed_total)")["result"]
        by_type = {each["metric"]["event_type"]: int(each["value"][1]) for each in types}
        known = {part.strip(" '") for part in KNOWN_TYPES.split(",")}
        assert known | {"other"} >= by_type.keys() >= {"page_view", "other"}
        assert sum(by_type.values()) == all_of_them


def rows(prometheus: PrometheusServer, query: str) -> bool:
    """Return whether a panel's query has any; one that cannot be read is a failure."""
    return bool(prometheus.ask("query", query=query.replace(INTERVAL, "1m"))["result"])


def alerts_of(alertmanager: AlertmanagerServer) -> set[str]:
    return {each["alertname"] for each in alertmanager.alerts()}
