"""How tests read a subject to its end: by every way to receive."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Health, kinds

from trio_stream import EndOfSubject, Event, SubscribeRequest, Subscription, SubscriptionState

LIVE = SubscribeRequest(HEALTH, "web", token="t", index=1)  # of a publisher that starts at 1

Receive = Callable[[Subscription[Health]], Awaitable[list[Event[Health]]]]


async def by_receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def by_batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch())


async def by_twos(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch(2))


async def by_iteration(subscription: Subscription[Health]) -> list[Event[Health]]:
    """The loop just stops; then there is nothing left but the end."""
    got = [each async for each in subscription]
    return got or [await subscription.receive()]


async def without_waiting(subscription: Subscription[Health]) -> list[Event[Health]]:
    await anyio.lowlevel.checkpoint()
    return [subscription.receive_nowait()]


async def until_current(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_until_current())


RECEIVES: tuple[Receive, ...] = (
    by_receive,
    by_batch,
    by_twos,
    by_iteration,
    without_waiting,
    until_current,
)
receives = pytest.mark.parametrize("receive", RECEIVES)


async def to_the_end(
    subscription: Subscription[Health], receive: Receive = by_receive
) -> tuple[list[str], int]:
    """What it still gives before its subject ends, and the index of that."""
    got: list[Event[Health]] = []
    with anyio.fail_after(30), pytest.raises(EndOfSubject) as ended:
        while True:
            got += await receive(subscription)
    assert (ended.value.index, ended.value.epoch) == (subscription.index, subscription.epoch)
    assert subscription.state is SubscriptionState.FINISHED
    assert subscription.cursor.index == subscription.horizon == subscription.index
    for again in RECEIVES:
        with pytest.raises(EndOfSubject) as repeated:
            await again(subscription)
        assert repeated.value.args == ended.value.args
    return kinds(got), ended.value.index
