"""A store on a file of its own, as in the tests of stores; a server; and a place of each engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.kinds import in_pair
from faults.places import LossyPair, Pair, Place, PostgreSQLPlace, SQLitePlace
from stores.conftest import path, server, store
from stores.postgresql.conftest import own_server
from stores.postgresql.server import Server

__all__ = ["lossy_pair", "own_server", "pair", "path", "place", "server", "store"]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return SQLitePlace(tmp_path)
    server = request.getfixturevalue("server")
    assert isinstance(server, Server)
    return PostgreSQLPlace(server)


@pytest.fixture
def pair(server: Server) -> Iterator[Pair]:
    with in_pair(server.directory) as pair:
        yield pair


@pytest.fixture
def lossy_pair(server: Server) -> Iterator[Pair]:
    with in_pair(server.directory, LossyPair) as pair:
        yield pair
