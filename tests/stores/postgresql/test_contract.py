"""What every engine must pass, on a PostgreSQL server."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest
from stores.postgresql.copies import back_up, restore
from stores.postgresql.proxy import Proxy
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE

from trio_stream.stores import Store, open_store
from trio_stream.testing import STORE_CHECKS, StoreCheck

pytestmark = pytest.mark.anyio


class Handles:
    """Opens a store, and brings about what a server can come to."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.schema = server.new_schema()
        self._copies = itertools.count()
        self._networks: dict[Store, Proxy] = {}

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Store]:
        with Proxy(self.server.port) as network:
            url = f"{self.server.tcp_url(port=network.port)}?sslmode=disable&schema={self.schema}"
            async with open_store(url) as store:
                self._networks[store] = network
                yield store
                del self._networks[store]

    async def kill(self, store: Store) -> None:
        """As the server sees the death of a process: nothing more comes from there."""
        network = self._networks[store]
        network.is_refusing = True
        network.cut()
        await anyio.lowlevel.checkpoint()

    async def restart(self) -> None:
        await anyio.to_thread.run_sync(self.server.kill)
        await anyio.to_thread.run_sync(self.server.start)

    async def save(self) -> str:
        copy = f"{self.schema}_{next(self._copies)}"
        await anyio.to_thread.run_sync(back_up, self.server, self.schema, copy)
        return copy

    async def rewind(self, saved: str) -> None:
        await anyio.to_thread.run_sync(restore, self.server, self.schema, saved)


@pytest.mark.usefixtures("distance")
@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_the_engine_keeps(check: StoreCheck, server: Server) -> None:
    with anyio.fail_after(10 * PATIENCE):
        reason = await check(Handles(server))
    assert reason in {None, "trio has no native cancellation"}
