"""Measure HTTP ingest: `python -m bench.ingest [--seconds 5]`; prints one line of JSON for each load.

The server is `headrace ingest` on a new project in a process of its own, the senders are threads of this one,
each with a connection that it keeps. Every answer is checked, and at the end the log must hold what was
answered. Server and senders share the machine's cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LOADS = ((1, 1, False), (1, 16, False), (1, 16, True), (100, 1, False), (100, 4, False), (1000, 4, False))


def main() -> None:
    """Run every load for so many seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "weather"
        subprocess.run(
            [sys.executable, "-m", "headrace", "new", str(project)], check=True, capture_output=True
        )
        server = subprocess.Popen(
            [sys.executable, "-m", "headrace", "ingest", "--port", "0"],
            cwd=project,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            found = re.search(r"127\.0\.0\.1:(\d+)", server.stdout.readline())
            answered = sum(load(int(found.group(1)), *each, seconds) for each in LOADS)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        from headrace.log import open_embedded_log

        log = open_embedded_log(project / ".headrace" / "log.db", "readings")
        held = log.partitions()[0].end
        log.close()
    print(json.dumps({"answered": answered, "in_the_log": held, "equal": answered == held}))


def load(port: int, batch: int, senders: int, keys: bool, seconds: float) -> int:
    """Send for so many seconds, print the rate and the times of answers, return the records answered."""
    record = '{"sensor": "roof", "measured_at": "2026-01-01T12:00:05Z", "celsius": %d.5, "note": "%s"}'
    body = ("[" + ",".join(record % (n % 40, "x" * 120) for n in range(batch)) + "]").encode()
    times: list[float] = []
    end = time.monotonic() + seconds

    def send(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": "application/json"}
        mine = []
        while (began := time.monotonic()) < end:
            if keys:
                headers["Idempotency-Key"] = f"{batch}-{number}-{len(mine)}-{end}"
            connection.request("POST", "/streams/readings/records", body, headers)
            answer = json.loads(connection.getresponse().read())
            assert answer.get("records") == batch, answer
            mine.append(time.monotonic() - began)
        times.extend(mine)
        connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    figures = {
        "records_a_request": batch,
        "senders": senders,
        "idempotency_keys": keys,
        "bytes_a_record": len(body) // batch,
        "requests_a_second": round(len(times) / seconds),
        "records_a_second": round(len(times) * batch / seconds),
        "p50_ms": round(times[len(times) // 2] * 1000, 1),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
    }
    print(json.dumps(figures), flush=True)
    return len(times) * batch


if __name__ == "__main__":
    main()
