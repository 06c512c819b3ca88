"""Many who read at once: how many files that takes, of which a process may have only so many open."""

from collections.abc import Iterable

import anyio
import pytest
from stores.connections import Connections
from stores.storehouse import JOBS, Sink, put
from typing_extensions import override

from trio_stream import Event, SubscribeRequest
from trio_stream.stores import Put, Record, Store

pytestmark = pytest.mark.anyio

MANY = 200  # more than there may be connections


def of_namespace(number: int) -> SubscribeRequest[Record]:
    return SubscribeRequest(JOBS, namespace=f"{number:03}")


class Stalled(Sink):
    """Says when it has been given something, and never returns."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = anyio.Event()

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        self.reached.set()
        await anyio.sleep_forever()
        return False


async def test_a_snapshot_of_a_key_opens_no_connection(store: Store, connections: Connections) -> None:
    await store.commit([put(f"{number:03}", number) for number in range(MANY)])
    connections.made = 0
    sinks = [Sink() for _ in range(MANY)]
    async with anyio.create_task_group() as tasks:
        for number, sink in enumerate(sinks):
            tasks.start_soon(store.snapshot, SubscribeRequest(JOBS, f"{number:03}"), sink)
    assert [sink.records for sink in sinks] == [[(1, Record(f"{n:03}", n))] for n in range(MANY)]
    assert connections.made == 0


async def test_a_snapshot_of_a_key_that_does_not_exist_has_the_index_and_no_events(store: Store) -> None:
    await store.commit([put("a")])
    sink = Sink()
    assert await store.snapshot(SubscribeRequest(JOBS, "b"), sink) == 1
    assert sink.groups == []


async def test_a_herd_over_many_namespaces_opens_only_so_many_connections(
    store: Store, connections: Connections
) -> None:
    await store.commit([Put("jobs", "a", number, f"{number:03}") for number in range(MANY)])
    sinks = [Sink() for _ in range(MANY)]
    async with anyio.create_task_group() as tasks:
        for number, sink in enumerate(sinks):
            tasks.start_soon(store.snapshot, of_namespace(number), sink)
    assert [len(sink.events) for sink in sinks] == [1] * MANY
    assert connections.peak < 100


async def test_who_waits_for_a_connection_and_is_cancelled_takes_none_along(store: Store) -> None:
    await store.commit([Put("jobs", "a", number, f"{number:03}") for number in range(MANY)])
    stalled = Stalled()
    async with anyio.create_task_group() as tasks:
        for number in range(MANY):
            tasks.start_soon(store.snapshot, of_namespace(number), stalled)
        await stalled.reached.wait()
        tasks.cancel_scope.cancel()
    sinks = [Sink() for _ in range(MANY)]
    async with anyio.create_task_group() as tasks:
        for number, sink in enumerate(sinks):
            tasks.start_soon(store.snapshot, of_namespace(number), sink)
    assert [len(sink.events) for sink in sinks] == [1] * MANY
