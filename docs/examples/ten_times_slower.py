"""What a reader gets that is ten times slower than the writer, as a table.

Ten commits are made between two calls of the reader.
It counts commits and never looks at a clock, so it prints the same on every machine.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import trio
from trio.testing import wait_all_tasks_blocked

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    SubscriptionLagged,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Price:
    subject: str
    cents: int


OnLag: TypeAlias = Literal["close", "reset", "conflate"]

PRICES = Topic[Price]("prices")
ROWS = 20
HISTORY = 100
TURNS = 1_000
COMMITS = 10  # in each turn; then the reader makes one call


class Market:
    """The store: each commit changes one of its prices, one after the other. It keeps a log of them."""

    def __init__(self, publisher: EventPublisher, *, has_log: bool) -> None:
        self.index = 0
        self._publisher = publisher
        self._prices: dict[str, Event[Price]] = {}
        self._log: list[Event[Price]] = []
        replay = self.replay if has_log else None
        publisher.register_handler(
            PRICES, Source(self.snapshot, replay=replay, row=lambda price: price.subject)
        )

    def change(self, times: int) -> None:
        for _ in range(times):
            self.index += 1
            name = f"tea {self.index % ROWS}"
            self._prices[name] = event = Event(PRICES, self.index, Price(name, self.index))
            self._log.append(event)
            self._publisher.publish([event])

    async def snapshot(self, _: SubscribeRequest[Price], snapshot: SnapshotAppender[Price]) -> int:
        index, prices = self.index, list(self._prices.values())
        for event in prices:
            await snapshot.append([event])
        return index

    async def replay(self, _: SubscribeRequest[Price], cursor: Cursor, page: SnapshotAppender[Price]) -> int:
        for event in self._log[cursor.index :]:
            if not await page.append([event]):
                return event.index
        return self.index


class Reader(NamedTuple):
    """What it takes in each turn, and what it gets when it is slow."""

    takes: str
    most: int | None  # events
    gets: str
    on_lag: OnLag
    has_log: bool = False


READERS = [
    Reader("one event", 1, "`close`", "close"),
    Reader("one event", 1, "`reset`", "reset"),
    Reader("one event", 1, "`conflate`", "conflate"),
    Reader("one event", 1, "`close` and a replay", "close", has_log=True),
    Reader("all that is ready", None, "`close`", "close"),
]


@dataclass
class Figures:
    """What happened in all turns of one reader."""

    turns: int = 0
    changes: int = 0
    snapshots: int = 0
    lagged: int = 0
    whole: int = 0  # turns that began with a whole state in the reader's hands
    behind: int = 0  # commits that such a state was behind, at most


async def read_slowly(reader: Reader) -> Figures:
    figures = Figures()
    request = SubscribeRequest(PRICES)
    async with open_publisher(history=HISTORY) as publisher:
        market = Market(publisher, has_log=reader.has_log)
        market.change(ROWS)
        while figures.turns < TURNS:
            async with publisher.subscribe(request, on_lag=reader.on_lag) as subscription:
                try:
                    while figures.turns < TURNS:
                        figures.turns += 1
                        market.change(COMMITS)
                        await wait_all_tasks_blocked()  # everybody else has had a turn
                        is_whole = subscription.index > 0
                        if is_whole:
                            figures.whole += 1
                            figures.behind = max(figures.behind, market.index - subscription.index)
                        for event in await subscription.receive_batch(reader.most):
                            figures.snapshots += event.is_end_of_snapshot
                            figures.changes += len(event.events) if is_whole else 0
                except SubscriptionLagged:
                    figures.lagged += 1
                request = subscription.resume_request()
    return figures


async def main() -> None:
    print("| takes each time | gets | changes | whole snapshots | lagged | has a whole state | behind |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for reader in READERS:
        got = await read_slowly(reader)
        behind = f"{got.behind:,} commits" if got.whole else "-"
        print(
            f"| {reader.takes} | {reader.gets} | {got.changes:,} | {got.snapshots:,} | {got.lagged:,} "
            f"| {got.whole:,} of {got.turns:,} turns | {behind} |"
        )


trio.run(main)
