"""A day of signups in a process of its own: `python day_of_signups.py URL PAGES FOLDER`.

Poller, log, engine and store are those of a run, in virtual time: a page every six seconds, and after each of
them what a run does with it. Prints as JSON what became of the users, and the most memory that was in use.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import timedelta
from pathlib import Path

from headrace.blueprints.signups.pipeline import pipeline
from headrace.blueprints.signups.users import flatten
from headrace.produce.polling import PAGE, Poller, PollSettings
from headrace.testing import PipelineTest

PAGE_USERS = 100
EVERY_S = 6.0
"""1,000 users a minute."""


def main(url: str, pages: int, folder: Path) -> None:
    """Poll so many pages, and tell of them."""
    settings = PollSettings(
        url=f"{url}/api/?results={PAGE_USERS}&seed=headrace&page={PAGE}", flatten=flatten, key="id",
        every_s=EVERY_S, page_items=PAGE_USERS, private_addresses=True,
    )  # fmt: skip
    with PipelineTest(pipeline, partitions=3, folder=folder, start="2026-11-01T00:00:00") as test:
        began = test.clock.time

        def wait(seconds: float) -> bool:
            test.advance(timedelta(seconds=EVERY_S))  # the rest of `seconds` is what the answer has taken
            return False

        report = Poller(settings, test.log("users_created"), threading.Event(), wait=wait).run(pages=pages)
        test.run()
        found = {
            "pages": report.pages,
            "outcomes": test.outcomes("users_created"),
            "users": test.query("SELECT users FROM users_total")[0]["users"],
            "epochs": test.store.status().epoch,
            "balanced": test.ledger().balanced,
            "seconds": (test.clock.time - began).total_seconds(),
            "memory_mb": peak_memory_mb(),
        }
    print(json.dumps(found))


def peak_memory_mb() -> float:
    """Return the most that this program held; what `getrusage` tells begins with who started it."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
