"""Waking on asyncio, where a slice of readers goes on in one handle of the loop: the same as one by one."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

import anyio
import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready
from interruptions import Stepwise, on_asyncio
from scenes import Heavy, quiet
from typing_extensions import override

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
async def test_a_timeout_of_asyncio_is_not_mixed_up_with_a_scope_that_ends_in_the_same_tick() -> None:
    """D13: a task that is cancelled already is not cancelled again."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        scope = anyio.CancelScope()
        timeouts: list[asyncio.Timeout] = []

        async def read() -> str:
            with scope:
                try:
                    async with asyncio.timeout(None) as timeout:
                        timeouts.append(timeout)
                        await subscribed(publisher).receive()
                except TimeoutError:
                    return "timed out"
            return "left the scope"

        task = asyncio.create_task(read())
        await quiet()
        loop = asyncio.get_running_loop()
        timeouts[0].reschedule(loop.time())
        loop.call_soon(scope.cancel)
        assert await task == "timed out"


@on_asyncio
@pytest.mark.anyio
@pytest.mark.parametrize("natively", [False, True])
async def test_a_cancelled_reader_leaves_no_cycle(natively: bool) -> None:
    """What it held is free at once, not when the garbage collector comes."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        subscription = subscribed(publisher)
        held: list[weakref.ref[Heavy]] = []
        scope = anyio.CancelScope()

        async def read() -> None:
            heavy = Heavy()
            held.append(weakref.ref(heavy))
            with scope:
                await subscription.receive()

        task = asyncio.create_task(read())
        await quiet()
        gc.collect()
        gc.disable()
        try:
            (task if natively else scope).cancel()
            await asyncio.wait([task])
            del task
            assert held[0]() is None
        finally:
            gc.enable()


class Interrupting(asyncio.Future[None]):
    """Is cancelled while its callback is taken from it, as by a signal handler."""

    @override
    def remove_done_callback(self, fn: Callable[[Self], object], /) -> int:
        removed = super().remove_done_callback(fn)
        self.cancel()
        return removed


class Opaque(asyncio.Future[None]):
    """Does not show what asyncio's own futures show."""

    _callbacks: Any = None


class Loop(asyncio.SelectorEventLoop):
    """Has futures of another kind."""

    kind: type[asyncio.Future[None]]

    @override
    def create_future(self) -> asyncio.Future[Any]:
        return self.kind(loop=self)


@pytest.mark.parametrize(
    ("kind", "expected"), [(Interrupting, ["CancelledError"] * 40), (Opaque, ["2:web=ok"] * 40)]
)
def test_futures_that_behave_otherwise_leave_nobody_asleep(
    kind: type[asyncio.Future[None]], expected: list[str]
) -> None:
    """D3, D12."""

    async def main() -> None:
        async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
            subscriptions = [subscribed(publisher) for _ in expected]
            tasks = [asyncio.create_task(subscription.receive()) for subscription in subscriptions]
            await quiet()
            publisher.publish([event(2, "web")])
            await asyncio.wait(tasks)
            outcomes = ["CancelledError" if task.cancelled() else kinds([task.result()])[0] for task in tasks]
            assert outcomes == expected
            left = [kinds(ready(subscription)) for subscription in subscriptions]
            assert left == [["2:web=ok"] if task.cancelled() else [] for task in tasks]

    Loop.kind = kind
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


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


def test_the_others_go_on_when_one_runs_the_event_loop_itself() -> None:
    """D3: as notebooks do it, from inside a task; what the reader waits for there is the rest of its own slice."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
            got: list[int] = []

            async def read(number: int) -> None:
                await subscribed(publisher).receive()
                got.append(number)
                if number == 0:
                    me: Any = asyncio.current_task()
                    asyncio._leave_task(loop, me)  # noqa: SLF001 - documented for those who extend asyncio
                    loop._run_once()  # noqa: SLF001 - what is ready now, and no more
                    asyncio._enter_task(loop, me)  # noqa: SLF001 - as above
                    assert len(got) == 40

            tasks = [asyncio.create_task(read(number)) for number in range(40)]
            await quiet()
            publisher.publish([event(2, "web")])
            await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


def test_a_publisher_that_does_not_run_serves_one_event_loop_after_the_other() -> None:
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    subscription = subscribed(publisher)

    async def main(index: int) -> list[str]:
        task = asyncio.create_task(subscription.receive())
        await quiet()
        publisher.publish([event(index, "web")])
        return kinds([await task])

    assert [asyncio.run(main(index)) for index in (2, 3)] == [["2:web=ok"], ["3:web=ok"]]
