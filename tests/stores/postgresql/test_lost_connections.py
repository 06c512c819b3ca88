"""The network fails in the middle of each call: a typed error, or what the call says, and never a second commit."""

from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest
from stores.postgresql.proxy import Proxy
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, Sink, put, state

from trio_stream import SubscribeRequest
from trio_stream.stores import CommitUnknownError, Revoke, Store, StoreError, open_store, topic

pytestmark = pytest.mark.anyio


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def distant_url(server: Server, network: Proxy, distance: None) -> str:
    """Of a store behind that network."""
    return f"{server.tcp_url(port=network.port)}?sslmode=disable&schema={server.new_schema()}"


async def _first_change(store: Store) -> object:
    async with store.changes(0) as commits:
        return await anext(commits)


CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "head": lambda store: store.head(),
    "get": lambda store: store.get("jobs", "a"),
    "list": state,
    "topics": lambda store: store.topics(),
    "revocations": lambda store: store.revocations(),
    "snapshot": lambda store: store.snapshot(SubscribeRequest(topic("jobs")), Sink()),
    "changes": _first_change,
    "compact": lambda store: store.compact(1),
}


@pytest.mark.parametrize("loses_answer", [False, True], ids=["request lost", "answer lost"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_fails_by_its_type_and_works_again(
    name: str, loses_answer: bool, network: Proxy, distant_url: str
) -> None:
    call = CALLS[name]
    with anyio.fail_after(PATIENCE):
        async with open_store(distant_url) as store:
            await store.commit([put("a"), put("b")])
            for requests in range(100):
                network.fail_after(requests, loses_answer=loses_answer)
                try:
                    await call(store)
                except StoreError as error:
                    assert "127.0.0.1" in str(error)
                if not network.has_failed:
                    break
                network.heal()
                await call(store)
            else:
                pytest.fail("it never came through")
            assert requests > 0
            network.heal()


@pytest.mark.parametrize("loses_answer", [False, True], ids=["request lost", "answer lost"])
async def test_a_commit_is_made_once_or_not_as_it_says(
    loses_answer: bool, network: Proxy, distant_url: str
) -> None:
    with anyio.fail_after(PATIENCE):
        async with open_store(distant_url) as store:
            for requests in range(100):
                before = (await store.head()).index
                network.fail_after(requests, loses_answer=loses_answer)
                try:
                    made = int(await store.commit([put("a", requests), Revoke(f"{requests}")]))
                except StoreError as error:
                    assert not isinstance(error, CommitUnknownError)
                    made = before
                else:
                    assert made == before + 1
                has_failed = network.has_failed
                network.heal()
                assert (await store.head()).index == made
                if not has_failed:
                    break
            assert requests > 0


async def test_a_commit_whose_outcome_nobody_can_tell_says_so(
    network: Proxy, distant_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uuid import uuid4

    monkeypatch.setattr("trio_stream.stores._postgresql_database._SETTLING", 0.2)
    network.refuses_when_failing = True
    is_unknown = False
    with anyio.fail_after(PATIENCE):
        while not is_unknown:  # what is sent in one go, and how much is lost with it, differs from run to run
            network.heal()
            async with open_store(distant_url) as store:
                for requests in range(100):
                    before = (await store.head()).index
                    commit_id = uuid4()
                    network.fail_after(requests, loses_answer=True)
                    try:
                        await store.commit([put("a", requests)], id=commit_id)
                    except CommitUnknownError as error:
                        is_unknown = True
                        assert "not known" in str(error)
                    except StoreError:
                        pass
                    if not network.has_failed:
                        break
                    network.heal()
                    again = await store.commit([put("a", requests)], id=commit_id)
                    assert again == before + 1
                    assert (await store.head()).index == again


async def test_a_commit_after_a_restart_of_the_server_works(own_server: Server) -> None:
    async with open_store(own_server.url()) as store:
        await store.commit([put("a", 1)])
        own_server.kill()
        own_server.start()
        assert await store.commit([put("a", 2)]) == 2
        assert (await store.get("jobs", "a")).value == 2  # type: ignore[union-attr]
