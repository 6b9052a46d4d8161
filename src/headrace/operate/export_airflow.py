"""Writes the DAG that polls a stream by Airflow's clock, into a folder beside the pipeline."""

from __future__ import annotations

import json
import re
from pathlib import Path

from headrace.errors import ProfileError, RefusedError
from headrace.operate.project import Project

__all__ = ["FOLDER", "polled_by_dags", "write_dag"]

FOLDER = "airflow/dags"
_MARK = "Made by `headrace export airflow`"
_DAG = '''"""{mark}: it polls '{stream}' of the pipeline '{pipeline}'.

Airflow reads it from this folder, or from another one where HEADRACE_PROJECT says where the project is.
The profile's poller has with_run = "no", so that the run leaves polling to Airflow.
"""

import os
from pathlib import Path

from headrace.operate.airflow import polling_dag

dag = polling_dag(
    {dag_id},
    project=os.environ.get("HEADRACE_PROJECT") or str(Path(__file__).resolve().parents[2]),
    profile={profile},
    stream={told},
    every="5 minutes",
    poll_for="60 seconds",
    retries=3,
)
'''


def write_dag(project: Project, *, stream: str | None, dag_id: str | None, folder: Path | None) -> Path:
    """Write the DAG of a polled stream and return its file; the stream may be left out where there is one.

    Raises ProfileError when the profile polls no such stream or the run polls it itself, and RefusedError for
    a file that somebody else wrote.
    """
    where, polled = f"profile '{project.profile.name}'", project.profile.polling
    if stream is None and len(polled) != 1:
        raise ProfileError(
            f"{where} polls {'several streams' if polled else 'nothing'}",
            fix="name one with --stream" if polled else "name a profile that polls with --profile",
        )
    stream = stream or next(iter(polled))
    if stream not in polled:
        raise ProfileError(f"{where} polls nothing for '{stream}'", fix="one of: " + ", ".join(polled))
    if polled[stream].with_run == "yes":
        raise ProfileError(
            f"{where}: the run polls for '{stream}' itself, and with Airflow both would",
            fix=f'set polling.{stream}.with_run = "no"',
        )
    dag_id = dag_id or f"poll_{stream}"
    if not re.fullmatch(r"[\w.-]{1,250}", dag_id):
        raise ProfileError(f"'{dag_id}' cannot be the name of a DAG", fix="use letters, digits, _ . and -")
    path = (folder or project.folder / FOLDER) / f"{dag_id}.py"
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise RefusedError(
            f"{path} is there already, and `headrace export airflow` did not make it",
            fix="move it away, or name the DAG otherwise with --dag",
        )
    text = _DAG.format(
        mark=_MARK,
        stream=stream,
        told=json.dumps(stream),
        pipeline=project.pipeline.name,
        dag_id=json.dumps(dag_id),
        profile=json.dumps(project.profile.name),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}", fix="name another folder with --folder"
        ) from error
    return path


def polled_by_dags(project: Project) -> tuple[str, ...]:
    """Return the streams that DAGs poll which were written into the project for its profile."""
    found: dict[str, None] = {}
    for path in sorted((project.folder / FOLDER).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        named = re.search(r"^    stream=(\".+\"),$", text, re.MULTILINE)
        if _MARK in text and f"    profile={json.dumps(project.profile.name)},\n" in text and named:
            found[json.loads(named[1])] = None
    return tuple(found)
