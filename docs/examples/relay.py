"""A publisher that another one feeds: the same commits, indexes and cursors, at one remove from the state."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Price:
    subject: str
    value: int


PRICES = Topic[Price]("prices")


@asynccontextmanager
async def open_relay(parent: EventPublisher) -> AsyncIterator[EventPublisher]:
    """It ends with an error if its parent has stopped, or replaced its state, or is too fast: then open a new one."""

    async def snapshot(request: SubscribeRequest[Price], snapshot: SnapshotAppender[Price]) -> int:
        async with parent.subscribe(request) as upstream:
            async for event in upstream:
                if event.is_end_of_snapshot:
                    return event.index
                await snapshot.append(event.events)
        raise RuntimeError("the parent has stopped")

    async def feed(upstream: Subscription[Price]) -> None:
        async for event in upstream:
            relay.publish(event.events, index=event.index, mark=event.mark)

    start = parent.cursor
    upstream = parent.subscribe(SubscribeRequest(PRICES).after(start))
    async with (
        open_publisher({PRICES: snapshot}, index=start.index, epoch=start.epoch) as relay,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(feed, upstream)
        yield relay
        nursery.cancel_scope.cancel()


prices = {"tea": 3, "coffee": 5}
publisher = EventPublisher(index=7)


async def snapshot_of_prices(_: SubscribeRequest[Price], snapshot: SnapshotAppender[Price]) -> int:
    await snapshot.append([Event(PRICES, publisher.index, Price(*item)) for item in prices.items()])
    return publisher.index


def commit(name: str, value: int) -> None:
    prices[name] = value
    publisher.publish([Event(PRICES, publisher.next_index, Price(name, value))])


async def read(
    source: EventPublisher, request: SubscribeRequest[Price], count: int
) -> SubscribeRequest[Price]:
    async with source.subscribe(request) as subscription:
        for _ in range(count):
            event = await subscription.receive()
            print("   ", event.index, event.payload)
        return subscription.resume_request()


async def main() -> None:
    publisher.register_handler(PRICES, snapshot_of_prices)
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.run)
        async with open_relay(publisher) as relay:
            print("a client of the relay")
            cursor = await read(relay, SubscribeRequest(PRICES, "tea"), 2)
            commit("tea", 4)
            commit("coffee", 6)
            print("it goes on at the parent, from its cursor")
            cursor = await read(publisher, cursor, 1)
            commit("tea", 5)
            print("and at the relay again")
            await read(relay, cursor, 1)
        nursery.cancel_scope.cancel()


trio.run(main)
