"""`demo`: a blueprint at work, from made-up history to live tables."""

import hashlib
import shutil
import sys
import threading
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.arguments import examples
from headrace.cli.generate_commands import seed_or_random
from headrace.errors import RefusedError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from headrace.cli.view import RunFigures
    from headrace.operate import Project, Runtime
    from headrace.produce.generator import Rate

__all__ = ["register"]

DEMO_FOLDER = ".headrace-demo"
_MARK = ".made-by-headrace-demo"
_NOT_WRITTEN = {".headrace", ".pytest_cache", ".venv", "__pycache__", _MARK}
"""What lies in the folder and is nobody's work."""
_TABLES_EVERY_S = 1.0
_LAST_ROWS = 3


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog=examples("headrace demo", "headrace demo commerce --seconds 30"))(demo)


def demo(
    blueprint: Annotated[str, typer.Argument(help="Which example.")] = "commerce",
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, help="End after so long; default: at Ctrl-C.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Live events a second.")] = 50.0,
    hours: Annotated[
        float, typer.Option("--history", min=0, max=48, help="Hours of history made first.")
    ] = 2.0,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where its files go.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="The same seed makes the same events.")
    ] = None,
) -> None:
    """Watch an example: two hours of history, then live events."""
    from headrace.cli.examples import generator_of
    from headrace.cli.view import RunFigures, RunView
    from headrace.operate import Runtime, load_project, open_log
    from headrace.operate.producing import serve_rate
    from headrace.operate.supervise import StopSignals, supervise
    from headrace.produce.generator import Rate
    from headrace.web.page.serve import served_page

    generator: Any = generator_of(blueprint, seed_or_random(seed))
    place = _make_folder(blueprint, folder or Path(DEMO_FOLDER) / blueprint)
    project = load_project(place)
    stop, figures = threading.Event(), RunFigures()
    tables = _Tables()
    view = RunView(f"{project.pipeline.name} demo", figures, extra=tables.picture)
    with StopSignals(stop, view.tell), ExitStack() as files:
        log = open_log(project, generator.stream)
        files.callback(log.close)
        if hours:
            _load(generator, log, hours, stop)
        if stop.is_set():
            return
        runtime = Runtime.open(project)
        files.callback(runtime.close)
        tables.runtime = runtime
        pace = Rate(rate)
        files.enter_context(serve_rate(project.data, generator.stream, pace))
        producer = _Producer(generator, log, pace, stop)
        figures.started, figures.unread = time.monotonic(), runtime.unread.count
        producer.start()
        try:
            with served_page(runtime, view.tell) as page, runtime.unread, view:
                view.at(page.address)
                supervise(
                    runtime,
                    stop,
                    on_epoch=page.epochs_too(figures.take),
                    on_waiting=page.waiting_too(view.waiting),
                    draw=view.draw,
                    draw_every_s=view.draw_every_s,
                    seconds=seconds,
                )
        finally:
            stop.set()
            producer.join()
        _summary(project, runtime, figures, place)
    if producer.failure is not None:
        raise producer.failure


def _make_folder(blueprint: str, folder: Path) -> Path:
    """Write the blueprint into a folder of the demo's own; one that an earlier demo made begins anew.

    One in which somebody has changed a file since, or made one, is kept beside it under another name.
    """
    from headrace.cli.examples import write_blueprint
    from headrace.operate import find_home
    from headrace.operate.client import is_running

    if folder.exists() and not folder.is_dir():
        raise RefusedError(f"{folder} is not a folder", fix="name another one: --folder")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise RefusedError(f"{folder} was not made by a demo", fix="name another folder: --folder")
        if is_running(find_home(folder)):
            raise RefusedError(
                f"a demo runs in {folder} already", fix="stop it, or name another folder: --folder"
            )
        made = (folder / _MARK).read_text().splitlines()[1:]
        if changed := sorted(path for path, line in _files_in(folder).items() if line not in made):
            kept = next(
                path for n in count(1) if not (path := folder.with_name(f"{folder.name}-{n}")).exists()
            )
            folder.rename(kept)
            typer.echo(f"kept as {kept}, with its records, because you changed {', '.join(changed)}")
        else:
            shutil.rmtree(folder)
    write_blueprint(blueprint, folder)
    lines = [
        "Made by `headrace demo`, which makes it anew; with a file changed, it keeps this one beside it."
    ]
    (folder / _MARK).write_text("\n".join([*lines, *_files_in(folder).values()]) + "\n")
    return folder


def _files_in(folder: Path) -> dict[str, str]:
    """Return the project's files by their paths, each with a line that tells path and content."""
    found = {}
    for file in folder.rglob("*"):
        path = file.relative_to(folder)
        if file.is_file() and not _NOT_WRITTEN & set(path.parts):
            found[str(path)] = f"{hashlib.sha256(file.read_bytes()).hexdigest()} {path}"
    return found


def _load(generator: Any, log: Any, hours: float, stop: threading.Event) -> None:
    from headrace.cli.output import error_console
    from headrace.declare.words import counted
    from headrace.produce.generator import RATE_DEFAULT, load_history

    rate = getattr(generator, "history_rate", RATE_DEFAULT)
    making = f"making {hours:g} {'hour' if hours == 1 else 'hours'} of history"
    if not error_console().is_terminal:
        typer.echo(making)
        report = load_history(generator, log, hours=hours, until=log.now(), rate=rate, stop=stop)
    else:
        from rich.progress import Progress

        with Progress(console=error_console(), transient=True) as progress:
            task = progress.add_task(making, total=rate * hours * 3600)
            report = load_history(
                generator,
                log,
                hours=hours,
                until=log.now(),
                rate=rate,
                stop=stop,
                on_progress=lambda done: progress.update(task, completed=done.events),
            )
    typer.echo(f"{counted(report.events, 'events')} of history made in {report.seconds:.1f} s")


class _Producer(threading.Thread):
    """Appends live events until `stop`; what went wrong stays in `failure` and stops the demo."""

    def __init__(self, generator: Any, log: Any, rate: "Rate", stop: threading.Event) -> None:
        super().__init__(name="headrace-demo-producer", daemon=True)
        self.failure: Exception | None = None
        self._work = (generator, log, rate, stop)

    def run(self) -> None:
        from headrace.produce.generator import run_generator

        generator, log, rate, stop = self._work
        try:
            run_generator(generator, log, rate=rate, stop=stop)
        except Exception as error:  # noqa: BLE001 - raised again where the demo ends
            self.failure = error
            stop.set()


class _Tables:
    """The lower half of the picture: every table with its rows, and the last rows of one after the other.

    The store is asked at most once a second, by the thread that draws.
    """

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self._due = 0.0
        self._turn = 0
        self._shown: RenderableType | None = None

    def picture(self) -> "RenderableType | None":
        if self.runtime is not None and time.monotonic() >= self._due:
            self._shown = self._ask(self.runtime)
            self._due = time.monotonic() + _TABLES_EVERY_S
        return self._shown

    def _ask(self, runtime: "Runtime") -> "RenderableType":
        from rich.columns import Columns

        from headrace.cli.output import rows_table

        listed = runtime.answers.status()["tables"]
        counts = rows_table(
            ("table", "rows"), [(one["table"], one["rows"]) for one in listed if one["rows"] is not None]
        )
        windowed = [table for table in runtime.plan.tables if table.window is not None]
        if not windowed:
            return counts
        table = windowed[self._turn // 4 % len(windowed)]
        self._turn += 1
        names = [column.name for column in table.columns][:6]
        order = "window_start" if "window_start" in names else names[0]
        chosen = ", ".join(f'"{name}"' for name in names)
        rows = runtime.store.query(
            f'SELECT {chosen} FROM "{table.name}" ORDER BY "{order}" DESC LIMIT {_LAST_ROWS}',
            rows_max=_LAST_ROWS,
        ).to_pylist()
        last = rows_table(names, [list(row.values()) for row in rows], title=f"the last rows of {table.name}")
        return Columns([counts, last], padding=(0, 6))


def _summary(project: "Project", runtime: "Runtime", figures: "RunFigures", place: Path) -> None:
    from headrace.cli.output import print_facts, spell_rate

    ledger = runtime.answers.ledger()
    listed = runtime.answers.status()["tables"]
    read = sum(stream["read"] for stream in ledger["streams"].values())
    rate = spell_rate(read / figures.seconds, figures.seconds)
    rows = ", ".join(f"{line['table']} {line['rows']:,}" for line in listed if line["rows"] is not None)
    typer.echo()
    print_facts(
        [
            (
                "records",
                f"{read:,} read in {figures.seconds:.1f} s{rate and f', {rate}'}",
            ),
            ("outcomes", figures.outcome_words()),
            (
                "ledger",
                "balances: every record has exactly one outcome"
                if ledger["balanced"]
                else "DOES NOT BALANCE",
            ),
            ("rows", rows),
            ("files", f"{place} (pipeline.py, .headrace/log.db, .headrace/store.duckdb)"),
        ]
    )
    windowed = next((line["table"] for line in listed if line["kind"] == "windowed"), None)
    query = f"{windowed} ORDER BY window_start DESC" if windowed else listed[0]["table"]
    typer.echo("\ntry next:")
    if shutil.which("headrace") is None:  # started by its path, as `make demo` does
        typer.echo(f"  . {Path(sys.executable).parent / 'activate'}")
    typer.echo(f"  cd {place}")
    typer.echo(f'  headrace sql "SELECT * FROM {query} LIMIT 5"')
    typer.echo("  headrace dead-letters list")
    typer.echo("  headrace run, and in a second terminal: headrace generate " + project.pipeline.name)
