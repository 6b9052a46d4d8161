"""The page beside a real run on Spark: numbers, executors, micro-batches; and a real Prometheus of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from page_support import browser_context

from headrace.blueprints import write_project
from headrace.observe.export_grafana import charts
from headrace.operate import connect, find_home
from servers.guard import GuardedProcess, free_ports, wait_until
from servers.prometheus import prometheus_server

COUNT = 600
AT_LAST_MS = 60_000
PROFILE = """
[profiles.cluster]
engine = "spark"
spark.master = "local[2]"
spark.trigger = "1 s"
spark.checkpoint = ".headrace/checkpoint"
"spark.sql.shuffle.partitions" = 2
"spark.ui.enabled" = true
"spark.ui.port" = {ui}
page.port = {page}
streams.events = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}", partitions = 3 }}
"""
SCRAPED = """
global: {{ scrape_interval: 1s }}
scrape_configs: [{{ job_name: headrace, static_configs: [{{ targets: ["127.0.0.1:{page}"] }}] }}]
"""


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.timeout(900)
def test_a_run_on_spark_is_shown_with_its_executors_and_a_link_to_its_own_page(
    tmp_path: Path, kafka_broker: str, prometheus_here: None
) -> None:
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    port, ui = free_ports(2)
    names = {"brokers": kafka_broker, "topic": f"shop-{uuid.uuid4().hex[:10]}"}
    (folder / "headrace.toml").write_text(PROFILE.format(page=port, ui=ui, **names))
    place = ["--profile", "cluster", "-C", str(folder)]
    run = GuardedProcess([sys.executable, "-m", "headrace", "run", *place], output=tmp_path / "run.out")
    try:
        made = ["generate", "commerce", "--rate", "unlimited", "--count", str(COUNT)]
        subprocess.run([sys.executable, "-m", "headrace", *made, *place], check=True, timeout=300)

        def read() -> int:
            if not (folder / ".headrace" / "run.json").exists():
                return 0
            with closing(connect(find_home(folder, profile="cluster"))) as client:
                return int(client.ledger()["streams"]["events"]["read"])

        wait_until(lambda: read() == COUNT, what="Spark has read it all", seconds=500, process=run)
        with browser_context(f"http://127.0.0.1:{port}") as context:
            context.set_default_timeout(AT_LAST_MS)
            tab = context.new_page()
            tab.goto("/pipeline")
            tab.locator("[data-test=read-events]", has_text=str(COUNT)).wait_for()
            shown = tab.get_by_test_id("spark")
            shown.filter(has_text=re.compile(r"local\[2\], application \S+")).wait_for()
            shown.filter(has_text=re.compile(r"[1-9]\d* executor")).wait_for()
            shown.filter(has_text=re.compile(r"micro-batch \d+")).wait_for()
            link = shown.get_by_role("link").get_attribute("href")
            assert link is not None and re.fullmatch(rf"http://\S+:{ui}", link)
            answer = context.request.get("/api/status")
            facts = json.loads(answer.text())["spark"]
            assert facts["application"] in shown.inner_text()
            metrics = context.request.get("/metrics").text()
            assert re.search(r'^headrace_watermark_timestamp_seconds\{stream="events"\} \d', metrics, re.M)
        (tmp_path / "prometheus.yml").write_text(SCRAPED.format(page=port))
        about_spark = [query for chart in charts() for query, _ in chart.queries if "spark" in query]
        assert about_spark
        with prometheus_server(tmp_path) as prometheus:
            for query in about_spark:
                asked = partial(prometheus.ask, "query", query=query)
                wait_until(lambda ask=asked: bool(ask()["result"]), what=f"rows of {query}", seconds=60)
    finally:
        run.stop()
