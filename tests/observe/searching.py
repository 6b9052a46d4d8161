"""What Kibana and Grafana make of a panel: the search that they would send, written as they write it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

__all__ = ["Searched", "grafana_search", "kibana_search"]


def _range(field: str, hours: int = 2) -> list[dict[str, Any]]:
    if not field:
        return []
    now = datetime.now(UTC)
    bounds = {
        "gte": (now - timedelta(hours=hours)).isoformat(),
        "lte": (now + timedelta(hours=1)).isoformat(),
    }
    return [{"range": {field: {**bounds, "format": "strict_date_optional_time"}}}]


def _body(lucene: str, times: list[dict[str, Any]], nested: list[tuple[str, dict[str, Any]]],
          measures: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    words = {"query_string": {"query": lucene, "analyze_wildcard": True}} if lucene else {"match_all": {}}
    aggregations = measures
    for name, bucket in reversed(nested):
        inner = {**bucket.get("aggs", {}), **aggregations}
        aggregations = {name: {**bucket, "aggs": inner} if inner else bucket}
    body: dict[str, Any] = {
        "size": 0,
        "track_total_hits": True,
        "query": {"bool": {"filter": [words, *times]}},
    }
    return {**body, "aggs": aggregations} if aggregations else body


def _minutes(field: str, documents_min: int) -> dict[str, Any]:
    """What both programs make of the interval `auto` for a range of two hours."""
    return {"date_histogram": {"field": field, "fixed_interval": "1m", "min_doc_count": documents_min}}


def kibana_search(chart: dict[str, Any], view: dict[str, Any]) -> dict[str, Any]:
    """The search of a visualisation (its attributes) over a data view."""
    state = json.loads(chart["visState"])
    source = json.loads(chart["kibanaSavedObjectMeta"]["searchSourceJSON"])
    nested, measures = [], {}
    for each in state["aggs"]:
        field = each["params"].get("field")
        if each["type"] == "date_histogram":
            nested.append((each["id"], _minutes(field, each["params"]["min_doc_count"])))
        elif each["type"] == "terms":
            order = {each["params"]["orderBy"]: each["params"]["order"]}
            terms: dict[str, Any] = {"field": field, "size": each["params"]["size"], "order": order}
            if each["params"]["missingBucket"]:
                terms["missing"] = "__missing__"
            nested.append((each["id"], {"terms": terms}))
        elif each["type"] != "count":
            measures[each["id"]] = {each["type"]: {"field": field}}
    assert source["query"]["language"] == "lucene"
    return _body(
        source["query"]["query"], _range(view.get("timeFieldName", "")), _ordered(nested, measures), measures
    )


def grafana_search(target: dict[str, Any], time: str) -> dict[str, Any]:
    """The search of a panel's target; `time` is the time field of its data source."""
    nested, measures = [], {}
    for each in target["bucketAggs"]:
        settings = each["settings"]
        if each["type"] == "date_histogram":
            assert settings["interval"] == "auto"
            nested.append((each["id"], _minutes(each["field"], int(settings["min_doc_count"]))))
        else:
            order = {settings["orderBy"]: settings["order"]}
            terms: dict[str, Any] = {"field": each["field"], "size": int(settings["size"]), "order": order}
            if "missing" in settings:
                terms["missing"] = settings["missing"]
            nested.append((each["id"], {"terms": terms}))
    for each in target["metrics"]:
        if each["type"] != "count":
            measures[each["id"]] = {each["type"]: {"field": each["field"]}}
    return _body(target["query"], _range(time), _ordered(nested, measures), measures)


def _ordered(
    nested: list[tuple[str, dict[str, Any]]], measures: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Put the measure by which values are ordered beside each of them, as both programs do."""
    found = []
    for name, bucket in nested:
        by = next(iter(bucket.get("terms", {}).get("order", {"_key": ""})))
        beside = {} if by.startswith("_") else {by: measures[by]}
        found.append((name, {**bucket, "aggs": beside} if beside else bucket))
    return found


class Searched:
    """A server, as the tests ask it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def mapping(self, index: str) -> dict[str, str]:
        """The type of each field."""
        answer = httpx.get(f"{self.url}/{index}/_mapping", timeout=30).raise_for_status().json()
        fields = next(iter(answer.values()))["mappings"]["properties"]
        return {name: field.get("type", "object") for name, field in fields.items()}

    def rows(self, index: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The buckets that have documents, each with the value of every measure in it."""
        httpx.post(f"{self.url}/{index}/_refresh", timeout=60).raise_for_status()
        answer = httpx.post(f"{self.url}/{index}/_search", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["_shards"]["failed"] == 0, told["_shards"]
        if not told["hits"]["total"]["value"]:
            return []
        return list(_leaves(told.get("aggregations", {}), {}))


def _leaves(found: dict[str, Any], above: dict[str, Any]) -> Iterator[dict[str, Any]]:
    buckets = {
        name: one["buckets"] for name, one in found.items() if isinstance(one, dict) and "buckets" in one
    }
    if not buckets:
        values = {
            name: one["value"] for name, one in found.items() if isinstance(one, dict) and "value" in one
        }
        yield {**above, **values}
    for name, several in buckets.items():
        for one in several:
            yield from _leaves(one, {**above, name: one["key"]})
