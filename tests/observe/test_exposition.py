"""What a scraper gets: Prometheus's text format, under Headrace's names and those of older dashboards."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.errors import ProfileError, RefusedError
from headrace.observe.exposition import Exposition, MetricsServer
from headrace.observe.observer import Observer
from headrace.testing import PipelineTest
from observe.observed import START, observer_of, shop, step


def scraped(text: str) -> dict[str, float]:
    return {
        sample.name + str(dict(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy(test: PipelineTest) -> Observer:
    for number in range(5):
        test.send("events", {"id": f"{number}", "happened": START})
    test.send_bytes("events", b"nonsense")
    observer = observer_of(test)
    step(test, observer)
    observer.tick()
    return observer


def test_a_scrape_gives_the_ledger_and_whole_histograms() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = busy(test)
        body, kind = observer.expose()
        assert kind.startswith("text/plain")
        found = scraped(body.decode())
        accepted = {"lane": "main", "outcome": "accepted", "stream": "events"}
        assert found[f"headrace_records_total{accepted}"] == 5
        assert found["headrace_epoch_records_bucket{'le': '10.0'}"] == 1
        assert found["headrace_epoch_records_bucket{'le': '+Inf'}"] == found["headrace_epoch_records_count{}"]
        assert not [name for name in found if name.startswith("events_processed")]
        observer.close()


def test_metrics_go_by_other_names_too_where_that_is_wanted() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = busy(test)
        alias = {"shop_epochs_total": "headrace_epochs_total"}
        exposition = Exposition(observer.samples, observer.epochs.families.values, known=True, alias=alias)
        found = scraped(exposition.text()[0].decode())
        assert found["events_processed_total{'amount': 'other', 'stream': 'events'}"] == 6
        assert found["batch_size_events_sum{}"] == 6
        assert found["stream_processing_delay_seconds{'stream': 'events'}"] == 0
        assert found["shop_epochs_total{}"] == found["headrace_epochs_total{}"] == 1
        observer.close()


@pytest.mark.parametrize(
    ("name", "of", "said"),
    [
        ("mine_total", "headrace_epoch_total", "is no metric; did you mean 'headrace_epochs_total'"),
        ("mine", "headrace_epochs_total", "ends with _total"),
        ("mine_total", "headrace_up", "does not end with _total"),
        ("5_total", "headrace_epochs_total", "cannot be a metric's name"),
        ("headrace_up", "headrace_waiting", "cannot be a metric's name"),
    ],
)
def test_an_alias_that_cannot_be_says_why(name: str, of: str, said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        Exposition(list, list, alias={name: of})


def test_the_server_answers_until_it_is_closed_and_says_when_its_port_is_taken() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = busy(test)
        server = MetricsServer(observer.exposition, "127.0.0.1", 0)
        answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics")
        assert "headrace_up 1.0" in answer.text
        with pytest.raises(RefusedError, match="metrics cannot be served on 127"):
            MetricsServer(observer.exposition, "127.0.0.1", server.port)
        server.close()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{server.port}/metrics")
        observer.close()
