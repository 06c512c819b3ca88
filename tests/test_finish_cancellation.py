"""D12: a call that is cancelled on its way to the end of a subject, and made again, comes to the same end."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count, islice

import anyio
import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds
from finishes import LIVE, Receive, by_batch, by_receive, by_twos, until_current
from interruptions import Interrupt, soon, ways
from scenes import WEB, opened, quiet

from trio_stream import EndOfSubject, Event, SubscribeRequest, Subscription

pytestmark = pytest.mark.anyio

DB = SubscribeRequest(HEALTH, "db")


async def by_next(subscription: Subscription[Health]) -> list[Event[Health]]:
    async for each in subscription:
        return [each]
    return [await subscription.receive()]


receives = pytest.mark.parametrize("receive", [by_receive, by_batch, by_twos, by_next, until_current])

# What is committed at the suspensions of a reader that has its snapshot; each part has something that wakes it.
LATER: list[list[Callable[[Catalogue], object]]] = [
    [lambda store: store.commit(("db", "1")), lambda store: store.commit(("web", "2"))],
    [
        lambda store: store.commit(finish=["db"]),
        lambda store: store.commit(("web", "3"), ("other", "x"), ("web", "4")),
    ],
    [lambda store: store.commit(("other", "x")), lambda store: store.commit(("web", "5"))],
    [lambda store: store.commit(finish=["web"])],
]


async def with_cancellations(
    request: SubscribeRequest[Health], receive: Receive, interrupt: Interrupt, at: int
) -> tuple[list[str], int, int]:
    """What a reader gets each of whose calls is cancelled at the same suspension first, and how often it was."""
    cancelled = 0
    got: list[Event[Health]] = []
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        async with publisher.subscribe(request) as subscription:
            later = iter(LATER)

            def go_on(_: int = 0) -> None:
                if subscription.index > 0:
                    soon(lambda: [step(store) for part in islice(later, 1) for step in part])

            async def call() -> None:
                got.extend(await receive(subscription))

            with anyio.fail_after(30), pytest.raises(EndOfSubject) as ended:
                while True:
                    if await interrupt(call, at, go_on):
                        cancelled += 1
                        go_on()
                        await interrupt(call, -1, go_on)
            assert ended.value.index == subscription.index
        await quiet()
        assert publisher.statistics().waiting == publisher.statistics().subscriptions == 0
        return kinds(got), ended.value.index, cancelled


@pytest.mark.parametrize("request_", [WEB, WEB | DB], ids=["a key", "a union"])
@receives
async def test_whatever_is_cancelled_the_same_comes_before_the_same_end(
    receive: Receive, request_: SubscribeRequest[Health]
) -> None:
    """D12, D17: in every way in which this event loop cancels."""
    expected = ["1:web=1", "eos@1", "2:db=1", "3:web=2", "5:web=3+web=4", "7:web=5"]
    if request_ == WEB:
        del expected[2]
    for interrupt in ways():
        total = 0
        for at in count():
            got, index, cancelled = await with_cancellations(request_, receive, interrupt, at)
            assert (got, index) == (expected, 8)
            total += cancelled
            if not cancelled:
                break
        assert total > 0


@receives
async def test_the_end_that_comes_in_the_tick_of_a_cancellation_comes_again(receive: Receive) -> None:
    """D12: in both orders."""
    for finishes_first in (True, False):
        async with opened(index=1) as (store, publisher):
            subscription = publisher.subscribe(LIVE)
            if receive is until_current:
                store.commit(("web", "1"))

            async def wait(waiting: Subscription[Health] = subscription) -> None:
                await receive(waiting)

            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:

                    async def cancelled(scope: anyio.CancelScope) -> None:
                        with scope, suppress(EndOfSubject):
                            await wait()

                    scope = anyio.CancelScope()
                    tasks.start_soon(cancelled, scope)
                    await quiet()
                    if finishes_first:
                        store.commit(finish=["web"])
                        scope.cancel()
                    else:
                        scope.cancel()
                        store.commit(finish=["web"])
                with pytest.raises(EndOfSubject):
                    while True:
                        await receive(subscription)
            assert publisher.statistics().waiting == 0


async def test_a_wait_for_an_index_that_is_cancelled_learns_of_the_end_when_it_is_made_again() -> None:
    """D12."""
    for interrupt in ways():
        for at in range(3):
            async with opened(index=1) as (store, publisher):
                subscription = publisher.subscribe(LIVE)

                def finish(
                    _: int = 0, store: Catalogue = store, subscription: Subscription[Health] = subscription
                ) -> None:
                    def end() -> None:
                        if store.index == 1:
                            store.commit(("web", "1"), finish=["web"])
                        for _ in range(2):
                            try:
                                subscription.receive_nowait()
                            except EndOfSubject:
                                return

                    soon(end)

                async def call(subscription: Subscription[Health] = subscription) -> None:
                    await subscription.wait_published(100)

                with anyio.fail_after(30), pytest.raises(EndOfSubject):
                    if await interrupt(call, at, finish):
                        finish()
                        await interrupt(call, -1, finish)


async def test_who_publishes_and_finishes_has_no_checkpoint() -> None:
    """D12: a cancelled task still publishes the whole commit."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        with anyio.CancelScope() as scope:  # noqa: ASYNC100 - that is what is tested
            scope.cancel()
            publisher.publish([event(2, "web")], finish=[(HEALTH, "web")])
        assert kinds([await subscription.receive()]) == ["2:web=ok"]
        with pytest.raises(EndOfSubject):
            await subscription.receive()
