"""A log that reaches further back than the history in memory: who was away, or is slow, still gets every commit."""

from dataclasses import dataclass

import trio

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    StaleCursorError,
    SubscribeRequest,
    Subscription,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Price:
    subject: str
    cents: int


PRICES = Topic[Price]("prices")


class Log:
    """The newest commits, each of one price; commit n is the n-th. It forgets those up to `floor`."""

    def __init__(self) -> None:
        self.commits: list[Price] = []
        self.floor = 0

    @property
    def index(self) -> int:
        return len(self.commits)

    def event(self, index: int) -> Event[Price]:
        return Event(PRICES, index, self.commits[index - 1])

    async def snapshot(self, request: SubscribeRequest[Price], snapshot: SnapshotAppender[Price]) -> int:
        newest = {price.subject: index for index, price in enumerate(self.commits, 1)}
        at = self.index
        for key, index in newest.items():
            if request.covers(PRICES, key):
                await snapshot.append([self.event(index)])
        return at

    async def replay(
        self, request: SubscribeRequest[Price], cursor: Cursor, page: SnapshotAppender[Price]
    ) -> int:
        if cursor.index < self.floor:
            raise StaleCursorError(f"the log begins after {self.floor}")
        index = cursor.index
        while index < self.index:
            index += 1
            event = self.event(index)
            if request.covers(PRICES, event.payloads[0].subject) and not await page.append([event]):
                break  # the page is full, with this commit
        return index


def commit(log: Log, publisher: EventPublisher, key: str, *prices: int) -> None:
    for cents in prices:
        log.commits.append(Price(key, cents))
        publisher.publish([log.event(log.index)])


async def show(what: str, subscription: Subscription[Price]) -> None:
    events = await subscription.receive_until_current()
    print(f"{what}:", *(event.framing or f"{event.index}={event.payloads[0].cents}" for event in events))


async def main() -> None:
    log = Log()
    source = Source(log.snapshot, replay=log.replay)
    async with open_publisher({PRICES: source}, history=3, epoch="blue") as publisher:
        commit(log, publisher, "tea", *range(100, 108))
        commit(log, publisher, "milk", *range(50, 58))
        print("the history begins after", publisher.statistics().topics["prices"].floor)

        tea = SubscribeRequest(PRICES, "tea", index=4, epoch="blue")
        async with publisher.subscribe(tea) as subscription:
            print("5 of tea was long ago:", subscription.state.value)
            await show("away since 4", subscription)
            commit(log, publisher, "tea", *range(200, 206))
            await show("too slow for a history of 3", subscription)

        log.floor = 8  # the log forgets, too
        async with publisher.subscribe(tea) as subscription:
            await show("away since 4, and the log begins after 8", subscription)


trio.run(main)
