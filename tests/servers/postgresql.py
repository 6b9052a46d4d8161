"""PostgreSQL servers, from the system's packages, on free ports of the loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import ServerMissing

__all__ = ["PASSWORD", "PostgresServer", "postgres_program", "postgres_server", "shared_address"]

PASSWORD = "a secret of the tests"
_VERSION_MIN = 15


def postgres_program() -> Path:
    """Return the folder of PostgreSQL's programs. Raises ServerMissing."""
    found = sorted(
        (int(folder.parent.name), folder)
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if folder.parent.name.isdigit() and (folder / "initdb").exists()
    )
    if not found or found[-1][0] < _VERSION_MIN:
        raise ServerMissing(
            f"PostgreSQL {_VERSION_MIN} or later is not installed: apt-get install postgresql"
        )
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        raise ServerMissing(
            "PostgreSQL does not run as root, and setpriv is missing: apt-get install util-linux"
        )
    return found[-1][1]


@dataclass
class PostgresServer:
    """A server. `stop`, `kill` and `start` keep its folder and port, so it comes back as the same one."""

    port: int
    folder: Path
    command: list[str]
    process: GuardedProcess | None = field(default=None, init=False)

    def dsn(self, database: str = "postgres", *, password: str = PASSWORD) -> str:
        """The address of a database on it."""
        secret = password.replace(" ", "%20")
        return f"postgresql://postgres:{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and return when it answers."""
        self.process = GuardedProcess(self.command, output=self.folder / "server.log")
        wait_until(self._answers, what="PostgreSQL answers", seconds=60, process=self.process)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once but in good order: clients are thrown out."""
        if self.process is not None:
            if self.process.running:
                os.kill(self.process.pid, 2)  # SIGINT: the fast shutdown; SIGTERM would wait for clients
            self.process.stop()

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)


def _as_postgres(command: list[str]) -> list[str]:
    if os.getuid() != 0:
        return command
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]


@contextmanager
def postgres_server(settings: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run one; `settings` are added to its `postgresql.conf`."""
    programs = postgres_program()
    folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
    server: PostgresServer | None = None
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = folder / "data"
        made = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256"]
        done = subprocess.run(
            _as_postgres([*made, f"--pwfile={secret}", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]),
            capture_output=True, text=True, timeout=120, check=False, cwd=folder,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
        (port,) = free_ports(1)
        given = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "50",
            "shared_buffers": "64MB",
            **(settings or {}),
        }
        command = [str(programs / "postgres"), "-D", str(data)]
        for name, value in given.items():
            command += ["-c", f"{name}={value}"]
        server = PostgresServer(port, folder, _as_postgres(command))
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def shared_address() -> Iterator[str]:
    """Run the server that test processes share, and give its address (see shared.py)."""
    with postgres_server({"fsync": "off"}) as server:
        yield server.dsn()
