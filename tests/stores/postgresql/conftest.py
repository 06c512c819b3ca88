"""A PostgreSQL server for all tests of a process, and in it a schema for each."""

from collections.abc import AsyncIterator, Iterator

import pytest
from stores.postgresql.server import Server, missing

from trio_stream.stores import Store, open_store


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One that runs; who stops it starts it again."""
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


@pytest.fixture
def own_server(server: Server) -> Iterator[Server]:
    """One for a single test, which may do to it what it likes."""
    own = Server()
    try:
        own.create()
        own.start()
        yield own
    finally:
        own.remove()


@pytest.fixture
def url(server: Server) -> str:
    """Of a store that nobody has opened yet."""
    return server.url(schema=server.new_schema())


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with open_store(url) as store:
        yield store


@pytest.fixture
async def other(url: str, store: Store) -> AsyncIterator[Store]:
    """The same store, opened once more, as another process would have it."""
    async with open_store(url) as other:
        yield other


@pytest.fixture(params=["near", pytest.param("far", marks=pytest.mark.slow)])
def distance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine, and one for which it is taken to be elsewhere: statements are sent together."""
    if request.param == "far":
        monkeypatch.setattr("trio_stream.stores._postgresql_server.is_near", lambda _: False)
