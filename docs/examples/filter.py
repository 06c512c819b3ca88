"""A board of the orders that are open: a filter, and what happens when an order is no longer open."""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
class Order:
    subject: str
    status: str | None  # None: the order was deleted
    euros: int = 0

    def withdrawn(self) -> "Order":
        return Order(self.subject, None)


ORDERS = Topic[Order]("orders")


class Store:
    """A dict is the store. It has no index of its own: the publisher counts its commits."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher
        self._orders: dict[str, Order] = {}
        publisher.register_handler(ORDERS, self.snapshot)

    def put(self, order: Order) -> None:
        previous = self._orders.get(order.subject)
        self._orders[order.subject] = order
        self._publish(order, previous)

    def delete(self, key: str) -> None:
        previous = self._orders.pop(key)
        self._publish(previous.withdrawn(), previous)

    def get(self, key: str) -> Order:
        return self._orders[key]

    def _publish(self, order: Order, previous: Order | None) -> None:
        self._publisher.publish([Event(ORDERS, self._publisher.next_index, order, previous=previous)])

    async def snapshot(self, request: SubscribeRequest[Order], snapshot: SnapshotAppender[Order]) -> int:
        index, orders = self._publisher.index, list(self._orders.values())  # no await in between
        for order in orders:
            if request.covers(ORDERS, order.subject):
                await snapshot.append([Event(ORDERS, index, order)])
        return index


def apply(board: dict[str, Order], event: Event[Order]) -> None:
    for order in event.payloads:
        if order.status is None:
            board.pop(order.subject, None)
        else:
            board[order.subject] = order


def is_open(order: Order) -> bool:
    return order.status == "open"


def is_large(least: int) -> Callable[[Order], bool]:
    return lambda order: order.euros >= least


async def show(what: str, subscription: Subscription[Order], board: dict[str, Order]) -> None:
    for event in await subscription.receive_until_current():
        apply(board, event)
    print(f"{what}:", {order.subject: order.euros for order in board.values()})


async def main() -> None:
    async with open_publisher() as publisher:
        store = Store(publisher)
        store.put(Order("first", "open", 20))
        store.put(Order("second", "paid", 500))
        board: dict[str, Order] = {}
        async with publisher.subscribe(SubscribeRequest(ORDERS), where=is_open) as subscription:
            await show("open", subscription, board)
            store.put(Order("third", "open", 300))
            store.put(Order("fourth", "open", 40))
            await show("two more", subscription, board)
            store.put(replace(store.get("first"), status="paid"))
            await show("one was paid", subscription, board)
            store.delete("second")  # which this board has never shown
            store.delete("fourth")
            await show("two were deleted", subscription, board)
            figures = subscription.statistics()
            print(f"{figures.hidden} events hidden, {figures.withdrawn} withdrawn")

        # Another filter is another subscription.
        async with publisher.subscribe(SubscribeRequest(ORDERS), where=is_large(100)) as subscription:
            await show("at least 100 euros", subscription, {})


trio.run(main)
