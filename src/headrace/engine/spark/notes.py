"""What a run of Spark writes down beside the store: its checkpoint, its pace, its own words.

Nothing rests on it. The store's positions alone say what was read, so all of it may be lost.
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.engine.spark.driver_log import log_file
from headrace.engine.spark.session import delete_matching
from headrace.engine.spark.settings import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["RunNotes"]


class RunNotes:
    """The places of what a run over the store at `store` writes down."""

    def __init__(self, store: Path, settings: SparkSettings) -> None:
        self._beside = store.with_name(store.name + ".spark").absolute()
        self._settings = settings

    @property
    def folder(self) -> Path:
        """The folder beside the store, made when it is absent."""
        self._beside.mkdir(parents=True, exist_ok=True)
        return self._beside

    @property
    def pace(self) -> str:
        """The file in which the driver says how large the next micro-batch may be; see `pace`."""
        return str(self.folder / "pace")

    @property
    def log_folder(self) -> Path:
        """The folder of `log_file`."""
        return Path(self._settings.log_folder) if self._settings.log_folder else self.folder

    @property
    def spark_log(self) -> str:
        """Where the words of a session are that was opened for this run, for people."""
        file = log_file(self.log_folder)
        return str(file) if file.exists() else "Spark's own log"

    def fresh_checkpoint(self, store_id: str, session: SparkSession | None) -> str:
        """Return a checkpoint location that nothing has been written to; those of before are taken away.

        One at a URI is taken away by `session`; None: it stays.
        """
        run, mine = f"run-{uuid.uuid4().hex}", f"headrace-{store_id}"
        asked = self._settings.checkpoint
        if "://" in asked:
            place = f"{asked.rstrip('/')}/{mine}"
            if session is not None:
                with suppress(Exception):  # who may not delete leaves notes there that nobody reads
                    delete_matching(session, f"{place}/run-*")
            return f"{place}/{run}"
        # Below a place that others may use as well, only what is ours is taken away.
        folder = Path(asked).absolute() / mine if asked else self.folder
        for old in folder.glob("run-*"):
            shutil.rmtree(old, ignore_errors=True)
        return f"file://{folder}/{run}"
