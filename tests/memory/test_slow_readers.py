"""What rights, conflation, replays, ends and revocations cost in bytes, and that it goes with whoever it was for."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from backends import LEAN
from catalogue import HEALTH, Health, event
from conflated import by_row, by_subject, live, taken
from evidence import note
from logged import Logged, after, filled, logged, until
from memory.test_bytes import measured
from proof import amount
from replaced import change
from scenes import opened, quiet
from traced import traced

from trio_stream import Event, EventPublisher, Source, SubscribeRequest, WouldBlock, open_publisher

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.parametrize("anyio_backend", LEAN)]

SUBSCRIPTIONS = amount(1_000, 10_000)
COMMITS = amount(500, 5_000)
TOKENS = 65_536  # that are remembered


def is_good(payload: Health) -> bool:
    return payload.value != "bad"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("filtered", {"where": is_good}),
        ("with rights", {"authorizer": frozenset({"web"}), "where": is_good, "label": "a reader"}),
        ("conflating", {"on_lag": "conflate"}),
        ("conflating with rights", {"on_lag": "conflate", "where": is_good}),
    ],
)
async def test_an_idle_subscription_costs_at_most_600_bytes_whatever_it_asked_for(
    name: str, options: dict[str, Any]
) -> None:
    """D11."""
    async with by_row(index=1) as (_, publisher):
        request = SubscribeRequest(HEALTH, "web", token="x", index=1)
        first = publisher.subscribe(request, **options)
        with measured() as held:
            idle = [publisher.subscribe(request, **options) for _ in range(SUBSCRIPTIONS)]
        note("bytes", f"idle subscription, {name}", round(held.size / SUBSCRIPTIONS, 2))
        assert held.size / SUBSCRIPTIONS <= 600
        assert publisher.statistics().subscriptions == len(idle) + 1
        assert first.statistics().lag == 0


async def again(work: Callable[[int], Any]) -> int:
    """Does it three times, and says what more is held after the last time: before, what is bounded is filled."""
    gc.collect()
    tracemalloc.start()
    try:
        await work(0)
        await work(1)
        before = traced()
        await work(2)
        return traced() - before
    finally:
        tracemalloc.stop()


async def test_what_events_replace_is_kept_as_long_as_they_are_and_no_longer() -> None:
    """D11: it is bounded by the history."""
    async with opened(index=1, history=10) as (_, publisher):

        async def replace(_: int) -> None:
            for _number in range(COMMITS):
                index = publisher.next_index
                publisher.publish([change(index, f"old {index}", f"new {index}")])

        held = await again(replace)
        note("bytes", "commit of the past that said what it replaced", round(held / COMMITS, 2))
        assert held / COMMITS <= 2
        publisher.refresh(HEALTH)
        await quiet()


async def test_after_a_refresh_nothing_is_left_of_what_was_replaced() -> None:
    """D11, D13."""
    async with opened(index=1) as (_, publisher):

        async def replace_and_refresh(_: int) -> None:
            for _number in range(COMMITS):
                index = publisher.next_index
                publisher.publish([change(index, f"old {index}", f"new {index}")])
            publisher.refresh(HEALTH)
            await quiet()

        assert await again(replace_and_refresh) / COMMITS <= 2


@pytest.mark.parametrize("options", [{}, {"where": is_good}], ids=["map", "folded"])
async def test_of_what_was_conflated_nothing_is_left_when_the_last_reader_has_gone(
    options: dict[str, Any],
) -> None:
    """D13: neither the map of the rows nor what was folded."""
    async with by_row(index=1, history=10) as (_, publisher):

        async def conflate(turn: int) -> None:
            readers = [live(publisher, **options) for _ in range(3)]
            for number in range(COMMITS):
                publisher.publish([event(publisher.next_index, f"{turn}-{number}")])
            if options:
                with pytest.raises(WouldBlock):  # it has fallen off, and waits for a snapshot
                    readers[0].receive_nowait()
            else:
                assert len(taken(readers[0])[0].events) == COMMITS
            for each in readers:
                each.unsubscribe()
            await quiet()

        assert await again(conflate) / COMMITS <= 2


async def test_of_pages_nothing_is_left_when_their_readers_have_gone() -> None:
    """D13: also of those that were left while they were filled."""
    store = filled(200)
    store.size = 1_024
    async with logged(store, history=2, snapshot_cache_ttl=0) as (_, publisher):

        async def replay(_: int) -> None:
            for begin in range(1, 40):
                done = publisher.subscribe(after(store, begin))
                left = publisher.subscribe(after(store, begin + 50))
                await until(done, 100)
                await anyio.lowlevel.checkpoint()
                left.unsubscribe()
                done.unsubscribe()
            await quiet()
            store.pages.clear()

        assert await again(replay) <= 2_000


async def test_subjects_that_are_finished_are_forgotten_with_their_history() -> None:
    """D13: however many there were."""
    async with open_publisher({HEALTH: Source(Logged().snapshot, row=by_subject)}, history=10) as publisher:

        async def finish(turn: int) -> None:
            for number in range(COMMITS):
                key = f"{turn}-{number}"
                index = publisher.next_index
                async with publisher.subscribe(
                    SubscribeRequest(HEALTH, key).after(publisher.cursor if index > 1 else None)
                ) as subscription:
                    publisher.publish([event(index, key)], finish=[(HEALTH, key)])
                    if index > 1:
                        assert [each.index async for each in subscription] == [index]

        held = await again(finish)
        note("bytes", "subject that is finished and forgotten", round(held / COMMITS, 2))
        assert held / COMMITS <= 2
        assert publisher.statistics().topics["health"].feeds == 10 + 1
        publisher.publish([Event(HEALTH, publisher.next_index, Health("0-0"))])  # it may begin anew


async def test_tokens_that_were_revoked_are_remembered_in_a_bounded_way() -> None:
    """D20: the newest 65,536, whatever they were called."""

    async def revoke(publisher: EventPublisher, turn: int) -> None:
        for part in range(8):
            publisher.close_subscriptions(
                [f"{turn}-{part}-{number}-{'x' * 50}" for number in range(TOKENS // 8)]
            )

    async with opened(index=1) as (_, publisher):
        publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        with measured() as held:
            await revoke(publisher, 0)
        note("bytes", "token that was revoked", round(held.size / TOKENS, 2))
        assert held.size / TOKENS <= 150
        assert await again(lambda turn: revoke(publisher, turn + 1)) / TOKENS <= 2
