"""A load that ends while somebody reads: its last records count as not read yet."""

from pathlib import Path

import pytest
from conformance import NO_WAIT, NOON, after_noon, column, records

from headrace.log import EmbeddedLog, open_embedded_log
from headrace.log import embedded as embedded_module


def test_a_load_that_ends_behind_the_snapshot_of_a_read_is_still_open_to_that_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_embedded_log(tmp_path / "log.db", "events", clock=lambda: NOON)
    loader = open_embedded_log(tmp_path / "log.db", "events", clock=lambda: NOON)
    load = loader.load()
    load.__enter__()
    reader.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT)
    asked = embedded_module.load_in_progress

    def load_ends_first(*given: object) -> bool:
        # The snapshot is taken; now the load appends its last record and ends, and only then is it asked for.
        loader.append(records(b"last", record_time=after_noon(-86_400)))
        load.__exit__(None, None, None)
        return asked(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(embedded_module, "load_in_progress", load_ends_first)
    first = reader.read({}, rows_max=10, bytes_max=1 << 20, wait=NO_WAIT)
    assert first.records.num_rows == 0
    assert first.idle_since == {}
    monkeypatch.setattr(embedded_module, "load_in_progress", asked)
    second = reader.read(first.next, rows_max=10, bytes_max=1 << 20, wait=NO_WAIT)
    assert column(second.records, "value") == [b"last"]
    assert second.idle_since == {0: NOON}
    for log in (reader, loader):
        log.close()


def test_a_load_whose_process_died_stops_no_idle_clock(
    tmp_path: Path,
) -> None:
    log: EmbeddedLog = open_embedded_log(tmp_path / "log.db", "events", clock=lambda: NOON)
    with log._writer.writing() as sqlite:  # the mark that a killed process leaves: a row without a lock
        sqlite.execute("INSERT INTO loads VALUES ('gone', ?)", (log._stream,))
    assert log.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT).idle_since == {0: NOON}
    log.close()
