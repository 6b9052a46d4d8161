"""confluent-kafka and a dictionary: what somebody writes who wants no engine. Nothing survives a crash."""

from __future__ import annotations

import orjson
from marks import MINUTE_MS, TASK, batches, begin, cents, counts_at, end, event_ms, write

KEY = TASK["key"]


def run(stream: dict) -> dict:
    """Count and add up a topic from start to end."""
    groups: dict = {}
    for messages in batches(stream, "plain"):
        for message in messages:
            row = orjson.loads(message.value())
            at = event_ms(row["timestamp"])
            if counts_at(at, message.timestamp()[1]):
                place = (at // MINUTE_MS * MINUTE_MS, row[KEY])
                group = groups.get(place)
                if group is None:
                    group = groups[place] = [0, 0]
                group[0] += 1
                group[1] += cents(row.get("total_amount"))
    return groups


run(TASK["warm"])
begin()
result = run(TASK["stream"])
end()
write((window, key, count, total) for (window, key), (count, total) in result.items())
