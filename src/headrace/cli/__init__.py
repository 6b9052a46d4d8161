"""The command line: typer and rich, one file per group of commands.

Modules that declare commands do not import `annotations` from `__future__`: typer would compile them, of all
commands, on each start, a quarter of the time that it takes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of `headrace`."""
    try:
        from headrace.cli.app import run
    except KeyboardInterrupt:  # Ctrl-C at once; `run` has its own way
        _leave(130)
    _leave(run())


def _leave(code: int) -> NoReturn:
    """End the process.

    A replica whose target hangs is left behind in its thread. Python would unwind that thread as soon as it
    comes back from a library, and where that is C++ or Rust, the whole process is aborted: so it ends here.
    Threads of Spark's bridge hold stores for ever: unwound around them, DuckDB's binding would tell a page
    about leaks behind the last words of a run.
    """
    spark = "py4j" in sys.modules
    if spark or any(thread.name.startswith("headrace-replica-") for thread in threading.enumerate()):
        if spark:
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    raise SystemExit(code)
