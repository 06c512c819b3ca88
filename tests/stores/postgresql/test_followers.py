"""How commits of others come: by notices, and where those get lost all the same."""

from collections.abc import Iterator

import anyio
import pytest
from stores.postgresql.proxy import Proxy
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, commit_each, put, take

from trio_stream.stores import HistoryLostError, Store, open_store
from trio_stream.stores.postgresql import record

pytestmark = pytest.mark.anyio


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def by_notice_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the head for nothing."""
    monkeypatch.setattr("trio_stream.stores._postgresql_tail._NET", 100 * PATIENCE)


async def follow(store: Store, after: int, count: int, found: list[int]) -> None:
    async with store.changes(after) as commits:
        found += await take(commits, count)


@pytest.mark.usefixtures("by_notice_only")
async def test_the_server_tells_of_commits_of_others(
    server: Server, url: str, store: Store, other: Store
) -> None:
    found: list[int] = []
    schema = url.partition("schema=")[2]
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(follow, store, 0, 5, found)
        await anyio.wait_all_tasks_blocked()
        for n in range(4):
            await commit_each(other, f"{n}")
            await anyio.wait_all_tasks_blocked()
        with server.connect() as connection:
            record(connection, [put("recorded")], schema=schema)
    assert sorted(found) == sorted(3 * [1, 2, 3, 4, 5])


@pytest.mark.usefixtures("by_notice_only")
async def test_a_listener_that_is_ended_listens_again(server: Server, store: Store, other: Store) -> None:
    found: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow, store, 0, 3, found)
        for n in range(3):
            await anyio.wait_all_tasks_blocked()
            server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
            await anyio.wait_all_tasks_blocked()
            await commit_each(other, f"{n}")
    assert found == [1, 2, 3]


async def test_where_notices_get_lost_the_head_is_looked_at(
    server: Server, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And perhaps a new listener hears more."""
    monkeypatch.setattr("trio_stream.stores._postgresql_tail._NET", 0.05)
    network.is_deaf = True
    schema = server.new_schema()
    found: list[int] = []
    distant = f"{server.tcp_url(port=network.port)}?sslmode=disable&schema={schema}"
    async with (
        open_store(distant, poll_interval=0.01) as store,
        open_store(server.url(schema=schema)) as other,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, store, 0, 5, found)
            for n in range(5):
                await anyio.wait_all_tasks_blocked()
                await commit_each(other, f"{n}")
    assert found == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("by_notice_only")
async def test_behind_a_pooler_nobody_listens_and_the_head_is_looked_at(
    server: Server, network: Proxy
) -> None:
    """One that lends a connection for each transaction: who hears what was listened to there is a matter of luck."""
    network.is_deaf = network.is_pooler = True
    schema = server.new_schema()
    found: list[int] = []
    distant = f"{server.tcp_url(port=network.port)}?sslmode=disable&schema={schema}"
    async with (
        open_store(distant, poll_interval=0.01) as store,
        open_store(server.url(schema=schema)) as other,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, store, 0, 3, found)
            for n in range(3):
                await anyio.wait_all_tasks_blocked()
                await commit_each(other, f"{n}")
        assert found == [1, 2, 3]
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
        assert server.sql(listening) == [(0,)]


async def test_a_reader_that_is_far_behind_is_told_of_a_compaction(store: Store, other: Store) -> None:
    async with anyio.create_task_group() as tasks:
        for n in range(700):
            tasks.start_soon(commit_each, other, f"{n}")
    async with store.changes(0) as commits:
        assert await take(commits, 10) == list(range(1, 11))
        await other.compact(650)
        with anyio.fail_after(PATIENCE), pytest.raises(HistoryLostError) as raised:
            while True:
                await anext(commits)
    assert (raised.value.floor, raised.value.epoch) == (650, (await store.head()).epoch)


async def test_pages_of_the_log_are_bounded_in_bytes(store: Store) -> None:
    large = "x" * (700 << 10)
    for n in range(6):
        await store.commit([put(f"{n}", large)])
    await commit_each(store, *"abc")
    async with store.changes(0) as commits:
        assert await take(commits, 9) == list(range(1, 10))


async def test_who_waits_is_told_when_the_store_is_closed(url: str) -> None:
    from trio_stream import ClosedResourceError

    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            async with store.changes(0) as commits:
                with pytest.raises(ClosedResourceError):
                    await anext(commits)

        async with open_store(url) as store:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(ClosedResourceError):
            await store.head()
