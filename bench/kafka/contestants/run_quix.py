"""Quix Streams: tumbling windows in its RocksDB state, every update given out.

By user the key of the topic is the group already. By event type the records are grouped anew, which Quix
does through a topic of its own. No changelog topics: state is kept on the local disk only.
"""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path

from marks import MINUTE_MS, TASK, begin, cents, counts_at, end, event_ms, write
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Sum

KEY = TASK["key"]


def row_of(value: dict, record_time: int) -> dict:
    at = event_ms(value["timestamp"])
    return {
        KEY: value[KEY],
        "at": at,
        "cents": cents(value.get("total_amount")),
        "counts": counts_at(at, record_time),
    }


def run(stream: dict, accepted: int) -> dict:
    """Run until every record that counts is in a window, or none came for 10 s."""
    app = Application(
        broker_address=TASK["brokers"],
        consumer_group=f"quix-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        state_dir=Path(TASK["out"]) / f"state-{stream['topic']}",
        use_changelog_topics=False,
        loglevel=logging.ERROR,
        commit_interval=5.0,
        consumer_extra_config={"fetch.queue.backoff.ms": 5, "queued.min.messages": 200_000},
        auto_create_topics=True,
    )
    topic = app.topic(stream["topic"], value_deserializer="json")
    groups: dict = {}
    seen, ended = [0], [time.perf_counter()]

    def take(value: dict, key: object, timestamp: int, headers: object) -> None:
        name = key.decode() if isinstance(key, bytes) else key
        groups[value["start"], name] = (value["events"], value["cents"])
        seen[0] += 1
        ended[0] = time.perf_counter()
        if seen[0] == accepted:
            app.stop()

    frame = app.dataframe(topic)
    frame = frame.apply(lambda value, key, timestamp, headers: row_of(value, timestamp), metadata=True)
    frame = frame[frame["counts"]]
    if KEY != "user_id":
        frame = frame.group_by(KEY)
    frame = frame.set_timestamp(lambda value, key, timestamp, headers: value["at"])
    window = frame.tumbling_window(MINUTE_MS, grace_ms=120 * MINUTE_MS)
    window.agg(events=Count(), cents=Sum("cents")).current().update(take, metadata=True)
    app.run(timeout=10.0)
    groups["ended"] = ended[0]
    return groups


run(TASK["warm"], TASK["warm_accepted"])
begin()
result = run(TASK["stream"], TASK["accepted"])
late = time.perf_counter() - result.pop("ended")
end(seconds_after_the_last=round(late, 2))
write((window, key, count, total) for (window, key), (count, total) in result.items())
