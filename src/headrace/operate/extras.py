"""The extras of the package: what each of them brings, and what to type where that is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from headrace.errors import ProfileError

__all__ = ["EXTRAS", "extra_of", "install_extra", "installed", "missing_extra", "require_extra"]

EXTRAS = {
    "airflow": ("airflow",),
    "cassandra": ("cassandra",),
    "delta": ("deltalake",),
    "onnx": ("onnxruntime",),
    "postgresql": ("psycopg",),
    "s3": ("boto3",),
    "spark": ("pyspark",),
    "telemetry": ("openlineage", "opentelemetry"),
    "tui": ("textual",),
}
"""What is imported of each extra, by the name under which it is imported."""


def extra_of(module: str | None) -> str | None:
    """Return the extra that brings `module`, or the package that it is in; None for any other."""
    package = (module or "").partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def install_extra(extra: str) -> str:
    """Return what to type to have an extra."""
    return f"install it: pip install 'headrace[{extra}]'"


def missing_extra(error: BaseException, who: str = "this") -> ProfileError | None:
    """Return what to say of an import that failed because an extra is missing; None for any other failure.

    `who` needs what is missing. A module that somebody's library lacks is no extra's, and stays a bug.
    """
    extra = extra_of(error.name) if isinstance(error, ModuleNotFoundError) else None
    if extra is None or not isinstance(error, ModuleNotFoundError):
        return None
    what = f"{who} needs '{error.name}', which is not installed"
    return ProfileError(what, fix=install_extra(extra))


def installed(package: str) -> bool:
    """Return whether a package, or a module in one, can be imported; nothing of it is."""
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # the package that it is in is not, or a module that is none
        return False


def require_extra(extra: str, who: str) -> None:
    """Raise ProfileError unless everything of an extra is installed, which `who` needs."""
    for package in EXTRAS[extra]:
        if not installed(package):
            what = f"{who} needs '{package}', which is not installed"
            raise ProfileError(what, fix=install_extra(extra))
