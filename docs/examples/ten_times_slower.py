"""What a reader gets that is ten times slower than the writer, as a table.

Ten commits are made between two calls of the reader.
It counts commits and never looks at a clock, so it prints the same on every machine.
"""

from dataclasses import dataclass
from typing import Literal

import trio
from trio.testing import wait_all_tasks_blocked

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    SubscriptionLagged,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Price:
    subject: str
    cents: int


PRICES = Topic[Price]("prices")
ROWS = 20
HISTORY = 100
TURNS = 1_000
COMMITS = 10  # in each turn; then the reader makes one call


class Market:
    """The store: each commit changes one of its prices, one after the other."""

    def __init__(self, publisher: EventPublisher) -> None:
        self.index = 0
        self._publisher = publisher
        self._prices: dict[str, Event[Price]] = {}
        publisher.register_handler(PRICES, self.snapshot)

    def change(self, times: int) -> None:
        for _ in range(times):
            self.index += 1
            name = f"tea {self.index % ROWS}"
            self._prices[name] = Event(PRICES, self.index, Price(name, self.index))
            self._publisher.publish([self._prices[name]])

    async def snapshot(self, _: SubscribeRequest[Price], snapshot: SnapshotAppender[Price]) -> int:
        index, prices = self.index, list(self._prices.values())
        for event in prices:
            await snapshot.append([event])
        return index


@dataclass
class Figures:
    """What happened in all turns of one reader."""

    turns: int = 0
    changes: int = 0
    snapshots: int = 0
    lagged: int = 0
    whole: int = 0  # turns that began with a whole state in the reader's hands
    behind: int = 0  # commits that such a state was behind, at most


async def read_slowly(on_lag: Literal["close", "reset"], most: int | None) -> Figures:
    """`most`: events that the reader takes in each turn."""
    figures = Figures()
    request = SubscribeRequest(PRICES)
    async with open_publisher(history=HISTORY) as publisher:
        market = Market(publisher)
        market.change(ROWS)
        while figures.turns < TURNS:
            async with publisher.subscribe(request, on_lag=on_lag) as subscription:
                try:
                    while figures.turns < TURNS:
                        figures.turns += 1
                        market.change(COMMITS)
                        await wait_all_tasks_blocked()  # everybody else has had a turn
                        is_whole = subscription.index > 0
                        if is_whole:
                            figures.whole += 1
                            figures.behind = max(figures.behind, market.index - subscription.index)
                        for event in await subscription.receive_batch(most):
                            figures.snapshots += event.is_end_of_snapshot
                            figures.changes += is_whole and not event.is_framing
                except SubscriptionLagged:
                    figures.lagged += 1
                request = subscription.resume_request()
    return figures


async def main() -> None:
    readers: list[tuple[str, Literal["close", "reset"], int | None]] = [
        ("one event", "close", 1),
        ("one event", "reset", 1),
        ("all that is ready", "close", None),
    ]
    print("| takes each time | `on_lag` | changes | whole snapshots | lagged | has a whole state | behind |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for takes, on_lag, most in readers:
        got = await read_slowly(on_lag, most)
        behind = f"{got.behind:,} commits" if got.whole else "-"
        print(
            f"| {takes} | `{on_lag}` | {got.changes:,} | {got.snapshots:,} | {got.lagged:,} "
            f"| {got.whole:,} of {got.turns:,} turns | {behind} |"
        )


trio.run(main)
