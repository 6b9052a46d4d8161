"""The command line: typer and rich, one file per group of commands.

Modules that declare commands do not import `annotations` from `__future__`: typer would compile them, of all
commands, on each start, a quarter of the time that it takes.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of `headrace`."""
    from headrace.cli.app import run

    _leave(run())


def _leave(code: int) -> NoReturn:
    """End the process.

    A replica whose target hangs is left behind in its thread. Python would unwind that thread as soon as it
    comes back from a library, and where that is C++ or Rust, the whole process is aborted: so it ends here.
    """
    if any(thread.name.startswith("headrace-replica-") for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    raise SystemExit(code)
