from __future__ import annotations

import json
import resource
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import RefusedError, TransientError
from headrace.operate.control import CONNECTIONS_MAX, ControlServer, ask, socket_path


def fail(request: Mapping[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError("secretly")


def refuse(request: Mapping[str, Any]) -> dict[str, Any]:
    raise RefusedError("no such table", fix="look again")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    handlers: Any = {
        "echo": dict,
        "table": lambda request: pa.table({"n": list(range(request["rows"]))}),
        "fail": fail,
        "refuse": refuse,
    }
    opened = ControlServer(socket_path(tmp_path), handlers)
    yield opened
    opened.close()


def say(server: ControlServer, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(server.path))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.read()


def test_a_question_is_answered_in_json_or_in_arrow(server: ControlServer) -> None:
    assert ask(server.path, "echo", timeout_s=5, word="ü") == {"ask": "echo", "word": "ü"}
    assert ask(server.path, "table", timeout_s=5, rows=100_000).num_rows == 100_000
    assert ask(server.path, "table", timeout_s=5, rows=0).num_rows == 0


def test_a_moment_without_a_file_to_open_does_not_end_the_answers(server: ControlServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            connection.connect(str(server.path))
            server._thread.join(0.5)  # it would end here
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ask(server.path, "echo", timeout_s=10) == {"ask": "echo"}


def test_an_error_of_the_server_arrives_with_its_kind_and_fix(server: ControlServer) -> None:
    with pytest.raises(RefusedError, match="no such table") as raised:
        ask(server.path, "refuse", timeout_s=5)
    assert raised.value.fix == "look again"
    with pytest.raises(RefusedError, match="ZeroDivisionError"):
        ask(server.path, "fail", timeout_s=5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"hello\n",
        b"[]\n",
        b'{"ask": 3}\n',
        b'{"ask": "nothing"}\n',
        b"\xff\xfe\n",
        b"x" * 2_000_000,
    ],
)
def test_a_strangers_bad_request_gets_an_error_and_harms_nothing(server: ControlServer, data: bytes) -> None:
    try:
        answer = say(server, data)
    except OSError:
        pass  # too long: the server hung up while it was still being written
    else:
        assert json.loads(answer)["ok"] is False
    assert ask(server.path, "echo", timeout_s=5) == {"ask": "echo"}


def test_more_questions_than_threads_wait_for_their_turn(tmp_path: Path) -> None:
    release, entered = threading.Event(), threading.Semaphore(0)

    def wait(request: Mapping[str, Any]) -> dict[str, Any]:
        entered.release()
        release.wait(30)
        return {}

    server = ControlServer(socket_path(tmp_path), {"wait": wait})
    waiting = [
        threading.Thread(target=ask, args=(server.path, "wait"), kwargs={"timeout_s": 30})
        for _ in range(CONNECTIONS_MAX)
    ]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert entered.acquire(timeout=10)
    with pytest.raises(TransientError, match="did not answer within"):
        ask(server.path, "wait", timeout_s=0.1)
    release.set()
    for thread in waiting:
        thread.join(10)
    assert ask(server.path, "wait", timeout_s=10) == {}
    server.close()


def test_the_socket_belongs_to_its_owner_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Path, "chmod")  # from its first moment on, not a moment later
    server = ControlServer(socket_path(tmp_path), {})
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    server.close()
    assert not server.path.exists()
    with pytest.raises(OSError, match="No such file"):
        ask(server.path, "echo", timeout_s=1)


def test_a_path_that_is_too_long_for_a_socket_moves_to_the_temporary_folder(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    path = socket_path(long)
    assert len(bytes(path)) <= 100
    assert path != socket_path(tmp_path / ("y" * 120))
    server = ControlServer(path, {"echo": lambda request: {}})
    assert ask(path, "echo", timeout_s=5) == {}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    server.close()


def test_a_socket_does_not_move_to_a_folder_that_others_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = socket_path(tmp_path / ("x" * 120)).parent
    folder.chmod(0o755)
    with pytest.raises(RefusedError, match="not a folder of this user alone"):
        socket_path(tmp_path / ("x" * 120))
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(RefusedError, match="not a folder of this user alone"):
        socket_path(tmp_path / ("x" * 120))
