"""A command of ours as somebody starts it: a process of its own, and what it has said so far."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from servers.guard import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from headrace.operate.client import StoreClient

__all__ = ["AT_LAST_MS", "AT_LAST_S", "OwnCommand", "agreed_balance", "answer_of", "balance_of"]

HEADRACE = [sys.executable, "-m", "headrace"]
AT_LAST_S = 120
AT_LAST_MS = AT_LAST_S * 1_000

# Read in one go: the page draws all of it at once, and anew with the next epoch.
BALANCE = """() => {
    const card = document.querySelector('[data-test=balance]');
    const number = text => Number(text.replace(/\\D/g, ''));
    const found = {epoch: number(card.querySelector('header p').textContent), outcomes: {}};
    for (const each of card.querySelectorAll('[data-test]')) {
        const [kind, , outcome] = each.dataset.test.split('-');
        if (kind === 'read') found.read = number(each.textContent);
        else found.outcomes[outcome] = number(each.textContent);
    }
    return found;
}"""


class OwnCommand:
    """`headrace WORDS…`, running in `folder` until it is interrupted; killed when its block ends before."""

    def __init__(self, *words: str, folder: Path, output: Path) -> None:
        self._words, self._output = words, output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [*HEADRACE, *words], cwd=folder, stdout=file, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> OwnCommand:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(AT_LAST_S)

    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def says(self, pattern: str) -> str:
        """Wait until what it said has `pattern`, of whole lines; return what stands in its first group."""

        def told() -> bool:
            assert self._process.poll() is None, f"{self._words} ended:\n{self.said()}"
            return re.search(pattern, self.said(), re.MULTILINE) is not None

        wait_until(told, what=f"{self._words} says '{pattern}'", seconds=AT_LAST_S)
        found = re.search(pattern, self.said(), re.MULTILINE)
        assert found is not None
        return found[1]

    def interrupt(self) -> str:
        """Press Ctrl-C; return all that it has said, once it has ended in good order."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(AT_LAST_S)
        assert code == 0, self.said()
        return self.said()


def answer_of(*words: str, folder: Path) -> Any:
    """What `headrace WORDS…` answers in JSON about the project in `folder`."""
    done = subprocess.run(
        [*HEADRACE, *words], cwd=folder, capture_output=True, text=True, timeout=AT_LAST_S, check=True
    )
    return json.loads(done.stdout)


def balance_of(tab: Page) -> dict[str, Any]:
    """What an open pipeline page says became of every record of its one stream, and as of which epoch."""
    shown: dict[str, Any] = tab.evaluate(BALANCE)
    return shown


def agreed_balance(tab: Page, client: StoreClient) -> dict[str, Any]:
    """Wait until an open pipeline page shows what the ledger says, outcome by outcome; nobody may append."""

    shown: dict[str, Any] = {}

    def agree() -> bool:
        tab.wait_for_timeout(50)
        (kept,) = client.ledger()["streams"].values()
        shown.update(balance_of(tab))
        outcomes = {name: records for name, records in kept["outcomes"].items() if records}
        return (shown["read"], shown["outcomes"]) == (kept["read"], outcomes)

    wait_until(agree, what="the page shows what the ledger says", seconds=AT_LAST_S)
    return shown
