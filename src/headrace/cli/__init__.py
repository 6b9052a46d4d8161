"""The command line: typer and rich, one file per group of commands."""

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of `headrace`."""
    from headrace.cli.app import run

    raise SystemExit(run())
