"""A hot standby is read as every store is, and takes over when its primary is gone."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
from stores.postgresql.proxy import Proxy
from stores.postgresql.server import Server
from stores.readers import until_index
from stores.storehouse import (
    ALL_JOBS,
    PATIENCE,
    Sink,
    commit_each,
    kinds,
    put,
    state,
    take,
    until_live,
)

from trio_stream import SubscribeRequest
from trio_stream.stores import (
    BehindError,
    HistoryLostError,
    StoreError,
    open_store,
    open_store_publisher,
    topic,
)

T = TypeVar("T")

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def standby(own_server: Server) -> Iterator[Server]:
    standby = Server()
    try:
        standby.follow(own_server)
        standby.start()
        yield standby
    finally:
        standby.remove()


def url_of_both(own_server: Server, standby: Server, which: str = "read-write") -> str:
    """Of whichever takes commits, unless another one will do."""
    both = (own_server, standby)
    hosts, ports = ",".join(str(each.directory) for each in both), ",".join(str(each.port) for each in both)
    return f"postgresql://postgres@/postgres?host={hosts}&port={ports}&target_session_attrs={which}"


async def test_a_standby_is_followed(own_server: Server, standby: Server) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(own_server.url()) as store:
            await commit_each(store, "a")
            await until_it_has(own_server, standby)
            async with open_store(standby.url(), poll_interval=0.01) as reader, reader.changes(0) as commits:
                assert await take(commits, 1) == [1]
                assert (await reader.head()).epoch == (await store.head()).epoch
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(commit_each, store, "b", "c")
                    assert await take(commits, 2) == [2, 3]
                assert await state(reader) == {"a": "a", "b": "b", "c": "c"}
                sink = Sink()
                assert await reader.snapshot(SubscribeRequest(topic("jobs")), sink) == 3
                assert len(sink.events) == 3
                for call in (reader.commit([put("d")]), reader.compact(1)):
                    with pytest.raises(StoreError, match="read-only"):
                        await call


async def test_a_cursor_that_a_standby_has_yet_to_reach_is_waited_for(
    own_server: Server, standby: Server
) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(own_server.url()) as store:
            await commit_each(store, "a")
            await until_it_has(own_server, standby)
            standby.sql("SELECT pg_wal_replay_pause()")
            await commit_each(store, "b")
            cursor = (await store.head()).cursor
            await commit_each(store, "c")
            async with open_store(standby.url(), poll_interval=0.01) as reader:
                assert (await reader.head()).index == 1
                async with reader.changes(cursor) as commits, anyio.create_task_group() as tasks:

                    async def go_on() -> None:
                        await anyio.wait_all_tasks_blocked()
                        standby.sql("SELECT pg_wal_replay_resume()")

                    tasks.start_soon(go_on)
                    assert await take(commits, 1) == [3]


async def test_what_is_acknowledged_survives_a_promotion(own_server: Server, standby: Server) -> None:
    """With synchronous replication: the commits go on, in the same epoch, and nobody has to start again."""
    own_server.sql(
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "ALTER SYSTEM SET synchronous_commit = 'remote_apply'",
        "SELECT pg_reload_conf()",
    )
    with anyio.fail_after(3 * PATIENCE):
        async with open_store(url_of_both(own_server, standby)) as store:
            await commit_each(store, "a", "b")
            before = await store.head()
            async with store.changes(0) as commits:
                assert await take(commits, 2) == [1, 2]
                own_server.kill()
                standby.sql("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
                standby.promote()
                assert await until_it_works(store.head) == before
                assert await store.commit([put("c")]) == 3
                assert await take(commits, 1) == [3]


async def test_commits_that_a_promotion_has_lost_are_told(own_server: Server, standby: Server) -> None:
    """Without it the standby may lack the newest: their cursors are good no more."""
    with anyio.fail_after(3 * PATIENCE):
        async with open_store(url_of_both(own_server, standby)) as store:
            await commit_each(store, "a")
            await until_it_has(own_server, standby)
            standby.sql("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
            while standby.sql("SELECT count(*) FROM pg_stat_wal_receiver") != [(0,)]:
                await anyio.lowlevel.checkpoint()
            await commit_each(store, "b")
            lost = (await store.head()).cursor
            own_server.kill()
            standby.promote()
            after = await until_it_works(store.head)
            assert (after.index, after.epoch == lost.epoch) == (1, False)
            with pytest.raises(HistoryLostError):
                async with store.changes(lost) as commits:
                    await anext(commits)
            assert await store.commit([put("c")]) == 2


async def test_a_primary_that_goes_on_beside_its_successor_is_left(
    own_server: Server, standby: Server
) -> None:
    """What reads may have old connections, and what writes new ones: then the two do not agree on what went back."""
    with anyio.fail_after(3 * PATIENCE), Proxy(own_server.port) as network:
        async with open_store(own_server.tcp_url(port=network.port)) as store:
            await commit_each(store, "a")
            await until_it_has(own_server, standby)
            standby.promote()
            network.cut()
            assert await until_it_works(lambda: state(store)) == {"a": "a"}  # connected to the old one
            assert (await store.head()).index == 1
            network.lead_to(standby.port)
            await commit_each(store, "b")
            assert (await store.head()).index == 2
            assert await state(store) == {"a": "a", "b": "b"}


async def test_a_snapshot_waits_for_a_standby_that_is_behind_what_was_published(
    own_server: Server, standby: Server
) -> None:
    """Until it has what was read of the primary, which is gone."""
    with anyio.fail_after(3 * PATIENCE):
        async with open_store(url_of_both(own_server, standby, "any")) as store:
            await commit_each(store, "a")
            await until_it_has(own_server, standby)
            standby.sql("SELECT pg_wal_replay_pause()")
            async with open_store_publisher(store, ["jobs"]) as publisher, anyio.create_task_group() as tasks:
                await commit_each(store, "b")
                await until_index(publisher, 2)
                await until_it_has(own_server, standby, "pg_last_wal_receive_lsn")
                own_server.kill()
                with pytest.raises(BehindError, match="behind"):
                    await until_it_works(store.head, unless=BehindError)

                async def go_on() -> None:
                    await anyio.wait_all_tasks_blocked()
                    standby.sql("SELECT pg_wal_replay_resume()")

                async with publisher.subscribe(ALL_JOBS) as subscription:
                    tasks.start_soon(go_on)
                    assert kinds(await until_live(subscription)) == ["1:a=a", "2:b=b", "eos@2"]


async def until_it_has(own_server: Server, standby: Server, what: str = "pg_last_wal_replay_lsn") -> None:
    """All that the primary has."""
    ((upto,),) = own_server.sql("SELECT pg_current_wal_lsn()::text")
    while standby.sql(f"SELECT {what}() >= '{upto}'") != [(True,)]:
        await anyio.lowlevel.checkpoint()


async def until_it_works(call: Callable[[], Awaitable[T]], *, unless: type[StoreError] | tuple[()] = ()) -> T:
    while True:
        try:
            return await call()
        except unless:
            raise
        except StoreError:
            await anyio.sleep(0.05)
