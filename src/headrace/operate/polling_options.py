"""The options of a poller: an HTTP API whose answers are appended to a stream."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from headrace.operate.options import Kind, Report, option, read_options

__all__ = ["PollingOptions", "read_polling"]

_YES_NO = {"no": "", "yes": ""}


@dataclass(frozen=True)
class PollingOptions:
    """One poller; it belongs to the stream that it is named after."""

    url: str = option(
        Kind.TEXT, "", "what is asked; {page} is the number of the page, which is kept in the log"
    )
    items: str = option(Kind.TEXT, "results", "where the list of items is in an answer: names with dots")
    flatten: str | None = option(
        Kind.TEXT,
        None,
        "what makes a record of an item: `file:function` beside pipeline.py; none: the item is the record",
    )
    every: timedelta = option(Kind.DURATION, timedelta(seconds=5), "from one request to the next, at least")
    timeout: timedelta = option(Kind.DURATION, timedelta(seconds=10), "how long a request may take")
    body_bytes_max: int = option(Kind.SIZE, 10_000_000, "a larger answer is refused")
    page_first: int = option(Kind.WHOLE, 1, "the page to begin with", at_least=0)
    page_items: int | None = option(
        Kind.WHOLE,
        None,
        "the items of a full page: one with fewer is asked for again until it is full, and what is new in it "
        "is taken; none: a page with items is passed on",
        at_least=1,
    )
    hosts: tuple[str, ...] = option(
        Kind.LIST, (), "hosts beside the url's own to which a redirect may lead; no other host is asked"
    )
    private_addresses: str = option(
        Kind.CHOICE, "no", "whether hosts may have addresses that are not public", choices=_YES_NO
    )
    with_run: str = option(
        Kind.CHOICE,
        "yes",
        "whether `headrace run` polls; no: only `headrace poll` does, for example from a scheduler",
        choices=_YES_NO,
    )


def read_polling(raw: object, path: str, folder: Path, report: Report) -> dict[str, PollingOptions]:
    """Return the poller of each stream that has one. Problems go to `report`."""
    if not isinstance(raw, Mapping):
        report(path, "takes a table", 'write polling.STREAM = { url = "https://…" }')
        return {}
    found = {}
    for stream, binding in raw.items():
        place = f"{path}.{stream}"
        options = read_options(PollingOptions, binding, path=place, folder=folder, report=report)
        if not options.url:
            report(place, "does not say what is asked", 'add url = "https://…"')
        if options.flatten is not None and not all(options.flatten.partition(":")):
            report(f"{place}.flatten", "is no file and function", 'write flatten = "users:flatten"')
        found[stream] = options
    return found
