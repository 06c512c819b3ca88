"""Readers that the history has passed: one is told, one is handed a new snapshot, one the newest of each row, and one
every commit from a log; and one that catches up.
"""

from dataclasses import dataclass

import trio

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Price:
    subject: str
    cents: int


PRICES = Topic[Price]("prices")


class Market:
    """The store of one price, which has changed `index` times."""

    index = 0

    def change(self, publisher: EventPublisher, times: int) -> None:
        for _ in range(times):
            self.index += 1
            publisher.publish([self.newest()])

    def newest(self) -> Event[Price]:
        return self.commit(self.index)

    def commit(self, index: int) -> Event[Price]:
        return Event(PRICES, index, Price("tea", 100 + index))

    async def snapshot(self, _: SubscribeRequest[Price], snapshot: SnapshotAppender[Price]) -> int:
        newest = self.newest()
        await snapshot.append([newest])
        return newest.index

    async def replay(self, _: SubscribeRequest[Price], cursor: Cursor, page: SnapshotAppender[Price]) -> int:
        for index in range(cursor.index + 1, self.index + 1):
            if not await page.append([self.commit(index)]):
                return index
        return self.index


async def read(subscription: Subscription[Price]) -> None:
    for event in await subscription.receive_until_current():
        print("   ", event.index, event.payload)


async def be_told(publisher: EventPublisher, market: Market) -> None:
    async with publisher.subscribe(SubscribeRequest(PRICES)) as subscription:
        await read(subscription)
        market.change(publisher, 150)
        try:
            await read(subscription)
        except SubscriptionLagged as lagged:
            print(f"    stood at {lagged.index}, {lagged.missed} are gone")
        request = subscription.resume_request()
    async with publisher.subscribe(request) as subscription:
        await read(subscription)


async def be_reset(publisher: EventPublisher, market: Market) -> None:
    async with publisher.subscribe(SubscribeRequest(PRICES), on_lag="reset") as subscription:
        await read(subscription)
        market.change(publisher, 150)
        await read(subscription)


async def be_conflated(publisher: EventPublisher, market: Market) -> None:
    async with publisher.subscribe(SubscribeRequest(PRICES), on_lag="conflate") as subscription:
        await read(subscription)
        market.change(publisher, 150)
        event = await subscription.receive()
        print("   ", event.index, "is conflated:", event.is_conflated, *event.payloads)


async def be_replayed(publisher: EventPublisher, market: Market) -> None:
    async with publisher.subscribe(SubscribeRequest(PRICES)) as subscription:
        await read(subscription)
        market.change(publisher, 150)
        commits = await subscription.receive_until_current()
        print(f"    {len(commits)} commits, up to", commits[-1].index)


async def catch_up(publisher: EventPublisher, market: Market) -> None:
    async with publisher.subscribe(SubscribeRequest(PRICES)) as subscription:
        await read(subscription)
        market.change(publisher, 99)
        print("    behind by", subscription.statistics().lag)
        batch = await subscription.receive_batch()
        print(f"    {len(batch)} at once, the last is", batch[-1].payload)


async def main() -> None:
    market = Market()
    rows = Source(market.snapshot, row=lambda price: price.subject)
    async with open_publisher({PRICES: rows}, history=100) as publisher:
        market.change(publisher, 1)
        for story in (be_told, be_reset, be_conflated, catch_up):
            print(story.__name__)
            await story(publisher, market)
    log = Source(market.snapshot, replay=market.replay)
    async with open_publisher({PRICES: log}, history=100, index=market.index) as publisher:
        print(be_replayed.__name__)
        await be_replayed(publisher, market)


trio.run(main)
