"""Trio as the guest of an asyncio loop: the publisher runs in the guest, and callbacks of the host use it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
import trio
from backends import needs_uvloop
from callbacks import Place, awaited_by_host, called_by_host, host, of_asyncio
from catalogue import Catalogue, event, kinds, ready, until_live
from scenes import WEB, opened, quiet
from view.wires import is_gone, values

from trio_stream import CloseReason, EventPublisher, SubscribeRequest, SubscriptionForceClosed
from trio_stream.view import open_view

PATIENCE = 10  # seconds after which what should have come will not come any more

Story = Callable[[Catalogue, EventPublisher], Awaitable[None]]


def in_asyncio(story: Story) -> None:
    asyncio.run(host(partial(main, story)))


def in_uvloop(story: Story) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(host(partial(main, story)))


def in_anyio(story: Story) -> None:
    anyio.run(host, partial(main, story), backend="asyncio")


async def main(story: Story) -> None:
    """With a publisher that has to serve everybody in time and to end well."""
    with trio.fail_after(PATIENCE):
        async with opened(history=4) as (store, publisher):
            store.commit(("web", "a"))
            await story(store, publisher)


@pytest.fixture(params=[in_asyncio, pytest.param(in_uvloop, marks=needs_uvloop), in_anyio])
def guest(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story in the guest."""
    run: Callable[[Story], None] = request.param
    return run


@of_asyncio
def test_a_subscriber_in_a_callback_of_the_host_gets_its_snapshot(
    guest: Callable[[Story], None], place: Place
) -> None:
    """U1, D14, D17: and the next one, who is a task of the guest, shares it."""

    async def story(store: Catalogue, publisher: EventPublisher) -> None:
        subscription = await called_by_host(place, lambda: publisher.subscribe(WEB))
        async with publisher.subscribe(WEB) as other:
            assert kinds(await until_live(other)) == ["1:web=a", "eos@1"]
        assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
        assert store.runs == 1

    guest(story)


@of_asyncio
def test_a_publish_in_a_callback_of_the_host_wakes_a_reader_in_the_guest(
    guest: Callable[[Story], None], place: Place
) -> None:
    """D10, D17: one, and so many that the publisher's own task wakes them."""

    async def story(store: Catalogue, publisher: EventPublisher) -> None:
        got: list[str] = []

        async def read() -> None:
            async with publisher.subscribe(SubscribeRequest(WEB.topic, "web", index=index)) as subscription:
                got.extend(kinds([await subscription.receive()]))

        for number in (1, 40):
            index = store.index
            got.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(number):
                    nursery.start_soon(read)
                await quiet()
                await called_by_host(place, lambda: store.commit(("web", "b")))
            assert got == [f"{store.index}:web=b"] * number

    guest(story)


def test_the_host_reads_what_is_ready_in_its_own_callbacks(guest: Callable[[Story], None]) -> None:
    """U1, D17: from the snapshot on, also after it has fallen behind."""

    async def story(store: Catalogue, publisher: EventPublisher) -> None:
        call_soon = partial(called_by_host, in_host)
        subscription = await call_soon(lambda: publisher.subscribe(WEB, on_lag="reset"))
        await quiet()
        assert kinds(await call_soon(lambda: ready(subscription))) == ["1:web=a", "eos@1"]
        for number in range(9):  # more than the history holds
            await call_soon(partial(store.commit, ("web", f"{number}")))
        got = kinds(await call_soon(lambda: ready(subscription)))
        await quiet()
        got += kinds(await call_soon(lambda: ready(subscription)))
        assert got == ["marker", "10:web=8", "eos@10"]

    guest(story)


def test_the_host_ends_a_reader_of_the_guest(guest: Callable[[Story], None]) -> None:
    """D9, D17."""

    async def story(store: Catalogue, publisher: EventPublisher) -> None:
        subscription = publisher.subscribe(SubscribeRequest(WEB.topic, "web", token="t"))
        await until_live(subscription)
        ends: list[CloseReason] = []

        async def read() -> None:
            try:
                await subscription.receive()
            except SubscriptionForceClosed as end:
                ends.append(end.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await quiet()
            assert await called_by_host(in_host, lambda: publisher.close_subscriptions(["t"])) == 1
        assert ends == [CloseReason.TOKEN]

    guest(story)


def test_threads_of_the_host_publish_into_the_guest(guest: Callable[[Story], None]) -> None:
    """D17: a thread waits until it is done."""

    async def story(store: Catalogue, publisher: EventPublisher) -> None:
        async with publisher.subscribe(WEB) as subscription:
            await until_live(subscription)
            in_thread = partial(publisher.publish_from_thread, [event(2, "web", "b")])
            await awaited_by_host(asyncio.to_thread(in_thread))
            assert kinds([await subscription.receive()]) == ["2:web=b"]

    guest(story)


def test_a_view_in_the_guest_follows_what_the_host_commits(guest: Callable[[Story], None]) -> None:
    """D17."""

    async def story(store: Catalogue, publisher: EventPublisher) -> None:
        async with open_view(publisher.subscribe, WEB, is_delete=is_gone) as view:
            await view.wait_current()
            index = await called_by_host(in_host, lambda: store.commit(("web", "b")))
            assert values(await view.wait_index(index)) == {"web": "b"}

    guest(story)


async def in_host(call: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(call)
