"""Where tests of the core begin: a publisher that runs over a catalogue, and what is there when all wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
from catalogue import HEALTH, JOBS, Catalogue, Health, kinds, ready
from typing_extensions import override

from trio_stream import (
    EventPublisher,
    Payload,
    SnapshotAppender,
    SnapshotFunc,
    SubscribeRequest,
    Subscription,
    TopicStatistics,
    open_publisher,
)

WEB = SubscribeRequest(HEALTH, "web")
ALL = SubscribeRequest(HEALTH)


@asynccontextmanager
async def opened(
    handler: SnapshotFunc[Health] | None = None, **options: Any
) -> AsyncIterator[tuple[Catalogue, EventPublisher]]:
    """A catalogue and its publisher; `handler` stands in for the catalogue's snapshot function of HEALTH."""
    store = Catalogue(index=options.get("index", 0))
    store.states[store.index] = {}
    async with open_publisher(
        {HEALTH: handler or store.snapshot, JOBS: store.snapshot}, **options
    ) as publisher:
        store.publisher = publisher
        yield store, publisher


async def quiet() -> None:
    """Returns when every other task waits."""
    for _ in range(
        20
    ):  # on asyncio the next line polls every 0.1 s, unless it finds all of them waiting at once
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()


async def settled(subscription: Subscription[Health]) -> list[str]:
    """What the subscription has to give when every other task waits."""
    await quiet()
    return kinds(ready(subscription))


def held_by(publisher: EventPublisher) -> tuple[int, int, int, dict[str, TopicStatistics]]:
    """What the publisher holds at the moment: its statistics without what it has done."""
    statistics = publisher.statistics()
    return statistics.subscriptions, statistics.waiting, statistics.tokens, statistics.topics


class Heavy(Payload):
    """A payload to which there can be weak references."""

    @property
    @override
    def subject(self) -> str:
        return "web"

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return True


class Held:
    """A snapshot function that reads its store at once and then waits to be let go."""

    def __init__(self, store: Catalogue | None = None) -> None:
        self.store = store or Catalogue()
        self.go = anyio.Event()
        self.requests: list[SubscribeRequest[Health]] = []
        self.cancelled = 0

    async def __call__(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        self.requests.append(request)
        seen = Catalogue(
            index=self.store.index, states=dict(self.store.states), modified=dict(self.store.modified)
        )
        try:
            await self.go.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return await seen.snapshot(request, snapshot)
