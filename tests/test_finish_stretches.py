"""D15: however many read what is finished, and however many there are to look at, the event loop has its turn."""

import anyio
import pytest
from catalogue import HEALTH, Health, event
from finishes import LIVE
from scenes import WEB, opened, quiet
from stretches import stretches

from trio_stream import EndOfSubject, SubscribeRequest, Subscription

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])]

MANY = 2_000
FEW = 9_500  # calls in one stretch, of which ending the many in one go would take many more


@pytest.mark.parametrize("request_", [WEB, WEB | SubscribeRequest(HEALTH, "db")])
async def test_thousands_that_wait_are_told_of_the_end_in_portions(
    request_: SubscribeRequest[Health],
) -> None:
    """D15: those of one key, and those of a union."""
    told = 0

    async def wait(subscription: Subscription[Health]) -> None:
        nonlocal told
        with pytest.raises(EndOfSubject):
            await subscription.receive()
        told += 1

    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        publisher.publish((), index=2, finish=[(HEALTH, "db")])
        for _ in range(MANY):
            tasks.start_soon(wait, publisher.subscribe(request_.after(publisher.cursor)))
        await quiet()
        with stretches() as seen:
            publisher.publish((), index=3, finish=[(HEALTH, "web")])
            seen.cut()
            await quiet()
        assert told == MANY
        assert seen.longest < FEW
        assert publisher.statistics().subscriptions == 0


async def test_what_thousands_of_readers_cost_who_finishes_is_little() -> None:
    """D10."""
    async with opened(index=1) as (_, publisher):
        readers = [publisher.subscribe(LIVE) for _ in range(MANY)]
        with stretches() as seen:
            publisher.publish([event(2, "web")], finish=[(HEALTH, "web")])
        assert seen.calls < MANY // 10
        assert len(readers) == MANY


async def test_one_of_thousands_of_subscriptions_is_shown_without_making_the_others() -> None:
    """D15."""
    async with opened(index=1) as (_, publisher):
        readers = [publisher.subscribe(LIVE) for _ in range(MANY)]
        with stretches() as seen:
            assert next(publisher.subscriptions()).index == 1
        assert seen.calls < MANY // 10
        assert len(readers) == MANY


async def test_what_a_union_of_thousands_of_finished_keys_remembers_is_forgotten_in_portions() -> None:
    """D15: to leave it takes no more than 6 calls for each key on the spot, and as many later."""
    keys = [f"k{number}" for number in range(MANY)]
    request = SubscribeRequest[Health](
        interests=[SubscribeRequest(HEALTH, key).interests[0] for key in keys], index=1
    )
    async with opened(index=1, history=2) as (_, publisher):
        reader = publisher.subscribe(request)
        publisher.publish((), index=2, finish=[(HEALTH, key) for key in keys[1:]])
        for index in range(3, 8):
            publisher.publish([event(index, "other")])
        assert publisher.statistics().topics["health"].feeds > MANY - 1
        with stretches() as seen:
            reader.unsubscribe()
            seen.cut()
            await quiet()
        assert publisher.statistics().topics["health"].feeds <= 3
        assert seen.longest < 6 * MANY < 8 * MANY < seen.calls
