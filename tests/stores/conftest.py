"""A store on a file of its own."""

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import USUAL
from stores.clocks import Clock
from stores.connections import Connections
from stores.houses import HOUSES, House
from stores.postgresql.server import Server, missing
from stores.storehouse import open_at

from trio_stream.stores import Store


@pytest.fixture(params=USUAL)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """A name and the options, as anyio's pytest plugin wants them."""
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is, or will be."""
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with open_at(path) as store:
        yield store


@pytest.fixture
async def other(path: Path, store: Store) -> AsyncIterator[Store]:
    """The same store, opened once more, as another process would have it."""
    async with open_at(path) as other:
        yield other


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server that runs, for all tests of a process; who stops it starts it again."""
    lacking = missing()
    if lacking is not None:
        pytest.skip(f"a PostgreSQL server of one's own needs {lacking}")
    server = Server()
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=[*HOUSES, "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    """A store of every engine."""
    if request.param != "postgresql":
        return HOUSES[request.param](tmp_path)
    server: Server = request.getfixturevalue("server")
    from stores.postgresql.house import PostgreSQLHouse  # which needs psycopg

    return PostgreSQLHouse(server)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """By which a feed grows old; and next to nothing is between two questions to the store.

    A loop that never waits leaves no time to the threads of the store.
    """
    clock, monotonic = Clock(), time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: monotonic() + clock.ahead)
    monkeypatch.setattr("random.random", lambda: 0.001)
    return clock


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Those that are made from now on."""
    counting = Connections()
    monkeypatch.setattr(sqlite3, "connect", counting.connect)
    return counting
