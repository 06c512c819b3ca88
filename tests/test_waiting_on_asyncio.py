"""What waits on asyncio is to its tasks, and to anyio, what a future is."""

import asyncio
from contextlib import suppress
from contextvars import ContextVar

import anyio
import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready
from interruptions import Stepwise, on_asyncio
from scenes import quiet

from trio_stream import Event, EventPublisher, SubscribeRequest, Subscription, open_publisher

COUNTS = [1, 40, 300]  # woken one by one, and in one and in two slices
NAME = ContextVar("NAME", default="")


def subscribed(publisher: EventPublisher) -> Subscription[Health]:
    return publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))


@on_asyncio
@pytest.mark.anyio
@pytest.mark.parametrize("count", COUNTS)
async def test_each_reader_goes_on_in_its_own_context(count: int) -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        names: set[str] = set()

        async def read(name: str) -> None:
            NAME.set(name)
            await subscribed(publisher).receive()
            names.add(f"{NAME.get()} in {name}")
            NAME.set("changed")

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(read, str(number))
            await quiet()
            publisher.publish([event(2, "web")])
        assert names == {f"{number} in {number}" for number in range(count)}
        assert NAME.get() == ""


@on_asyncio
@pytest.mark.anyio
@pytest.mark.parametrize("count", COUNTS)
async def test_a_reader_may_cancel_those_that_are_woken_with_it(count: int) -> None:
    """D12, D13: whoever is woken first cancels all others; they have lost nothing."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        subscriptions = [subscribed(publisher) for _ in range(count)]
        got: list[tuple[Subscription[Health], Event[Health]]] = []

        async def read(subscription: Subscription[Health]) -> None:
            received = await subscription.receive()
            if not got:
                for task in tasks:
                    if task is not asyncio.current_task():
                        assert task.cancel("not you")
            got.append((subscription, received))

        tasks = [asyncio.create_task(read(subscription)) for subscription in subscriptions]
        await quiet()
        publisher.publish([event(2, "web")])
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[1:]] == [asyncio.CancelledError] * (count - 1)
        assert [subscription for subscription, _ in got] == subscriptions[:1]
        assert [kinds(ready(subscription)) for subscription in subscriptions[1:]] == [["2:web=ok"]] * (
            count - 1
        )
        assert publisher.statistics().waiting == 0


@on_asyncio
@pytest.mark.anyio
async def test_the_message_of_a_cancellation_is_handed_on() -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        task = asyncio.create_task(subscribed(publisher).receive())
        await quiet()
        assert "wait_for=<" in repr(task)
        task.cancel("closing time")
        with pytest.raises(asyncio.CancelledError, match="closing time"):
            await task
        assert task.cancelled()


@pytest.mark.anyio
@pytest.mark.parametrize("count", COUNTS)
async def test_a_publish_in_the_middle_of_parking_is_not_missed(count: int) -> None:
    """D3: whoever drives a coroutine by hand may do anything between its suspension and the event loop."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        subscription = subscribed(publisher)
        got: list[str] = []

        async def read() -> None:
            publish = Stepwise(subscription.receive, lambda _: publisher.publish([event(2, "web")]))
            got.extend(kinds([await publish]))

        async with anyio.create_task_group() as tasks:
            for _ in range(count - 1):
                tasks.start_soon(subscribed(publisher).receive)
            await quiet()
            tasks.start_soon(read)
        assert got == ["2:web=ok"]


@pytest.mark.parametrize("count", COUNTS)
def test_the_others_are_woken_when_one_ends_the_program(count: int) -> None:
    """D3: what a reader raises to end the program leaves the event loop at once, in the middle of a slice."""
    woken = 0

    async def read(subscription: Subscription[Health], number: int) -> None:
        nonlocal woken
        await subscription.receive()
        if number == 0:
            raise SystemExit(3)
        woken += 1

    async def main(publisher: EventPublisher) -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(publisher.run)
            readers = [asyncio.create_task(read(subscribed(publisher), n)) for n in range(count)]
            await quiet()
            publisher.publish([event(2, "web")])
            with suppress(SystemExit):
                await asyncio.gather(*readers)
            await quiet()
            tasks.cancel_scope.cancel()

    loop = asyncio.new_event_loop()
    try:
        publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
        task = loop.create_task(main(publisher))
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
    finally:
        loop.close()
    assert woken == count - 1


def test_a_publisher_that_does_not_run_serves_one_event_loop_after_the_other() -> None:
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    subscription = subscribed(publisher)

    async def main(index: int) -> list[str]:
        task = asyncio.create_task(subscription.receive())
        await quiet()
        publisher.publish([event(index, "web")])
        return kinds([await task])

    assert [asyncio.run(main(index)) for index in (2, 3)] == [["2:web=ok"], ["3:web=ok"]]
