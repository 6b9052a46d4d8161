"""What runs say about themselves: JSON lines in `.headrace/logs/headrace.log`, kept to a bounded size."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError

__all__ = ["Journal"]

_BYTES_MAX = 5 * 1024 * 1024
_FILES_KEPT = 3


class Journal:
    """Writes facts as JSON lines. Never a payload, never a secret; an error with its trace.

    A journal that cannot be written (a full disk) must not stop a pipeline: such a line is lost.
    """

    def __init__(self, path: Path) -> None:
        import structlog  # takes longer to import than most commands take to run

        self.path = path
        self.lines = {"warning": 0, "error": 0}
        """How many lines of these levels were written since the process began."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = logging.handlers.RotatingFileHandler(
            path, maxBytes=_BYTES_MAX, backupCount=_FILES_KEPT, encoding="utf-8", delay=True
        )
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._file.setLevel(logging.INFO)
        self._file.handleError = lambda record: None  # type: ignore[method-assign]
        # Not registered by name: two projects in one process (tests) must not write into each other's file.
        logger = logging.Logger("headrace.run", logging.INFO)
        logger.addHandler(self._file)
        self._lines: Any = structlog.wrap_logger(
            logger,
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.add_log_level,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    @property
    def level(self) -> str:
        """The least level that is written: info, warning or error."""
        return logging.getLevelName(self._file.level).lower()

    @level.setter
    def level(self, level: str) -> None:
        self._file.setLevel(level.upper())

    def info(self, event: str, **facts: Any) -> None:
        """Write a line."""
        self._lines.info(event, **facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Write a line that somebody should look at."""
        self.lines["warning"] += 1
        self._lines.warning(event, **facts)

    def failed(self, event: str, error: BaseException) -> None:
        """Write an error; one that Headrace did not raise on purpose with its trace."""
        self.lines["error"] += 1
        expected = isinstance(error, HeadraceError)
        self._lines.error(
            event, error=type(error).__name__, message=str(error), exc_info=None if expected else error
        )

    def close(self) -> None:
        """Give back the file."""
        self._file.close()
