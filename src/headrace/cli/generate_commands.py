"""`generate`: made-up events for a pipeline, from a process of its own."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.arguments import ProfileOption, ProjectOption, duration_of, examples, hint_other_run

if TYPE_CHECKING:
    from headrace.observe.producing import ProducerFigures
    from headrace.operate import Project
    from headrace.produce.generator import GeneratorProgress, GeneratorReport, Rate

__all__ = ["register", "seed_or_random"]

_LINE_CHARACTERS = 160


MetricsPortOption = Annotated[
    int | None,
    typer.Option("--metrics-port", min=1, max=65535, help="Serve metrics for Prometheus there."),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Append also what the stream cannot take, or another example's.")
]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        epilog=examples(
            "headrace generate commerce",
            'headrace generate commerce --rate 500 --for "1 minute"',
            "headrace generate commerce --rate unlimited --count 1000000 --seed 7",
            'headrace generate commerce --set late_share=0.05 --set "disorder=30 s"',
            'headrace generate operations --incident latency --for "3 minutes"',
        )
    )(generate)


def generate(  # noqa: PLR0913, PLR0917 - every argument is an option of the command
    blueprint: Annotated[str, typer.Argument(help="Whose generator, such as commerce.")],
    project: ProjectOption = Path(),
    profile: ProfileOption = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            envvar="EVENTS_PER_SECOND",
            help="Events a second, or: unlimited. Default: the example's own.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many events.")] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="End after so long: '30 s', '5 minutes'.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="The same seed makes the same events.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the generator, NAME=VALUE; may be given several times."),
    ] = None,
    incident: Annotated[
        str | None,
        typer.Option("--incident", help="What goes wrong while this runs, if the example has such."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line per event, with its id.")] = False,
    metrics_port: MetricsPortOption = None,
    force: ForceOption = False,
) -> None:
    """Append made-up events to the log until Ctrl-C.

    It is a process of its own, beside `headrace run` or without one.
    """
    from headrace.cli.examples import generator_of, require_stream
    from headrace.operate import load_project
    from headrace.operate.formats import open_producer_log
    from headrace.operate.producing import rate_from, serve_rate
    from headrace.operate.supervise import StopSignals
    from headrace.produce.generator import Rate, run_generator

    length = duration_of("--for", duration)
    seed = seed_or_random(seed)
    generator = generator_of(blueprint, seed, settings or (), incident)
    pace = Rate(generator.rate_default if rate is None else rate_from(rate))
    loaded = load_project(project, profile=profile, replicas=False)
    require_stream(loaded.pipeline, blueprint, forced=force)
    hint_other_run(loaded, profile, [generator.stream])
    stop = threading.Event()
    figures = _serve_figures(generator.stream, metrics_port, loaded) if metrics_port is not None else None
    # A generator spoils some records on purpose, and those have to arrive as they are.
    log = open_producer_log(loaded, generator.stream, unfit="keep")
    typer.echo(f"appending to '{generator.stream}', {_shown(pace)}, seed {seed}; Ctrl-C stops")
    try:
        with StopSignals(stop, lambda note: None), serve_rate(loaded.data, generator.stream, pace):
            report = run_generator(
                generator,
                log,
                rate=pace,
                count=count,
                duration=length,
                stop=stop,
                on_progress=_tell_progress,
                on_batch=_tell_events if verbose else None,
                on_append=None if figures is None else figures.appended,
            )
    finally:
        log.close()
    _tell_report(report, generator.facts)


def _serve_figures(stream: str, port: int, project: "Project") -> "ProducerFigures":
    """Serve the figures of this process; the server ends with it."""
    from headrace.observe.exposition import MetricsServer
    from headrace.observe.producing import ProducerFigures

    figures = ProducerFigures(stream)
    MetricsServer(figures.exposition, project.profile.metrics.host, port)
    return figures


def _shown(rate: "Rate") -> str:
    from headrace.cli.output import spell_number

    first = rate.events_per_second
    return "as fast as the log takes them" if first is None else f"{spell_number(first)} events/s"


def seed_or_random(seed: int | None) -> int:
    """Return the seed, or one by chance: two runs make the same events only if somebody wants it."""
    if seed is not None:
        return seed
    from secrets import randbits

    return randbits(31)


def _tell_progress(done: "GeneratorProgress") -> None:
    from headrace.cli.output import spell_number
    from headrace.declare.words import counted

    typer.echo(
        f"{counted(done.events, 'events')}, {spell_number(done.rate)}/s"
        + (f", {done.failed} failed" if done.failed else "")
    )


def _tell_events(batch: Any) -> None:
    for value in batch.column("value").to_pylist():
        typer.echo(value[:_LINE_CHARACTERS].decode("utf-8", "backslashreplace"))


def _tell_report(report: "GeneratorReport", facts: Sequence[tuple[str, str]]) -> None:
    from headrace.cli.output import spell_rate
    from headrace.declare.words import counted

    rate = spell_rate(report.rate, report.seconds)
    typer.echo(
        f"{counted(report.events, 'events')} in {report.seconds:.1f} s{rate and f', {rate}'}; "
        f"an append took {report.append_p50_s * 1000:.1f} ms (p99 {report.append_p99_s * 1000:.1f} ms)"
        + (f"; {report.failed} failed" if report.failed else "")
    )
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        typer.echo(f"{name:<{width}}  {value}")
