"""U18: a call from another thread or event loop is refused and changes nothing; figures are there for any thread."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready, until_live
from scenes import opened, quiet

from trio_stream import (
    EventPublisher,
    PublisherStatistics,
    SubscribeRequest,
    Subscription,
    SubscriptionStatistics,
    open_publisher,
)

pytestmark = pytest.mark.anyio

LIVE = SubscribeRequest(HEALTH, "web", token="t", index=1)

PLAIN: dict[str, Callable[[Subscription[Health]], object]] = {
    "receive_nowait": lambda subscription: subscription.receive_nowait(),
    "horizon": lambda subscription: subscription.horizon,
    "cursor": lambda subscription: subscription.cursor,
    "resume_request": lambda subscription: subscription.resume_request(),
    "unsubscribe": lambda subscription: subscription.unsubscribe(),
    "close": lambda subscription: subscription.close(),
}
AWAITED: dict[str, Callable[[Subscription[Health]], Awaitable[object]]] = {
    "receive": lambda subscription: subscription.receive(),
    "receive_batch": lambda subscription: subscription.receive_batch(),
    "receive_until_current": lambda subscription: subscription.receive_until_current(),
    "wait_published": lambda subscription: subscription.wait_published(9),
    "wait_published that is there": lambda subscription: subscription.wait_published(1),
    "wait_ready": lambda subscription: subscription.wait_ready(),
    "anext": anext,
    "aclose": lambda subscription: subscription.aclose(),
}


def in_another_thread(call: Callable[[], object]) -> BaseException | None:
    """What the call raised there."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for ever"
    return raised[0] if raised else None


def on_trio(call: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        with trio.fail_after(5):
            await call()

    trio.run(main)


def on_asyncio(call: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await call()

    asyncio.run(main())


@contextmanager
def unharmed(publisher: EventPublisher, subscription: Subscription[Health]) -> Iterator[None]:
    """Whatever is tried in the block, the subscription goes on as if nothing had happened."""
    before = publisher.statistics()
    yield
    assert publisher.statistics() == before
    index = publisher.next_index
    publisher.publish([event(index, "web")])
    assert [each.index for each in ready(subscription)][-1] == index


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
@pytest.mark.parametrize("is_ready", [False, True])
async def test_a_plain_call_in_another_thread_is_refused(name: str, authorizer: Any, is_ready: bool) -> None:
    """One that asked an authorizer there left the subscription busy for ever."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE, authorizer=authorizer)
        if is_ready:
            publisher.publish([event(2, "web")])
        with unharmed(publisher, subscription):
            error = in_another_thread(lambda: PLAIN[name](subscription))
            assert isinstance(error, RuntimeError)
            assert "thread" in str(error)


@pytest.mark.parametrize("name", AWAITED)
@pytest.mark.parametrize("loop", [on_trio, on_asyncio])
@pytest.mark.parametrize("is_ready", [False, True])
async def test_a_task_of_an_event_loop_in_another_thread_is_refused(
    name: str, loop: Callable[[Callable[[], Awaitable[object]]], None], is_ready: bool
) -> None:
    """One that waited there took the publisher down with the next commit."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        if is_ready:
            publisher.publish([event(2, "web")])
        with unharmed(publisher, subscription):
            error = in_another_thread(lambda: loop(lambda: AWAITED[name](subscription)))
            assert isinstance(error, RuntimeError)
            await quiet()


async def test_a_publisher_runs_in_one_event_loop() -> None:
    async with opened(index=1) as (_, publisher):
        for loop in (on_trio, on_asyncio):
            assert isinstance(in_another_thread(partial(loop, publisher.run)), RuntimeError)


async def test_a_publisher_that_somebody_waits_for_in_one_loop_does_not_run_in_another() -> None:
    """The first task that waits decides; the wrong one is told, and the right one goes on."""
    store = Catalogue()
    publisher = store.publisher = EventPublisher({HEALTH: store.snapshot}, index=1)
    subscription = publisher.subscribe(LIVE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscription.receive)
        await quiet()
        for loop in (on_trio, on_asyncio):
            assert isinstance(in_another_thread(partial(loop, publisher.run)), RuntimeError)
        await tasks.start(publisher.run)
        publisher.publish([event(2, "web")])
        await quiet()
        assert subscription.index == 2
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_a_trio_guest_is_refused_by_a_publisher_of_its_host(anyio_backend: str) -> None:
    """Both run in one thread, and asyncio's loop runs while the guest's task does."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        for name, call in AWAITED.items():
            subscription = publisher.subscribe(LIVE)
            for is_ready in (False, True):
                if is_ready:
                    publisher.publish([event(publisher.next_index, "web")])
                outcome = await guest(partial(call, subscription))
                assert isinstance(outcome, RuntimeError), name
            assert ready(subscription)
            subscription.unsubscribe()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_the_host_is_refused_by_a_publisher_of_the_guest(anyio_backend: str) -> None:
    raised: list[BaseException] = []

    async def main() -> None:
        async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
            subscription = publisher.subscribe(LIVE)
            done = trio.Event()

            async def of_host() -> None:
                for call in AWAITED.values():
                    try:
                        await call(subscription)
                    except BaseException as error:  # noqa: BLE001
                        raised.append(error)
                done.set()

            task = asyncio.get_running_loop().create_task(of_host())
            await done.wait()
            publisher.publish([event(2, "web")])
            assert kinds([await subscription.receive()]) == ["2:web=ok"]
            assert task is not None

    outcome = await guest(main)
    assert outcome is None, outcome
    assert [type(error) for error in raised] == [RuntimeError] * len(AWAITED)


async def guest(call: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Awaits it in a guest run of trio on this loop of asyncio; what it raised."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    raised: list[BaseException] = []

    async def main() -> None:
        try:
            with trio.fail_after(5):
                await call()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    trio.lowlevel.start_guest_run(
        main,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=done.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    await done
    return raised[0] if raised else None


async def test_what_an_exporter_reads_can_be_read_in_any_thread_while_everything_changes() -> None:
    """`statistics()` raised "dictionary changed size during iteration" now and then."""
    failures: list[BaseException] = []
    seen: list[PublisherStatistics | SubscriptionStatistics] = []
    is_over = threading.Event()

    def export(publisher: EventPublisher, subscription: Subscription[Health]) -> None:
        try:
            while not is_over.is_set():
                seen.append(publisher.statistics())
                seen.append(subscription.statistics())
                assert 0 < publisher.index < publisher.next_index
                assert publisher.epoch == subscription.epoch
                assert subscription.index >= 0
                assert repr(publisher)
                assert repr(subscription)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    interval = sys.getswitchinterval()
    async with opened(index=1, history=70) as (store, publisher):
        subscription = publisher.subscribe(LIVE)
        slow = publisher.subscribe(SubscribeRequest(HEALTH), on_lag="reset")
        await until_live(slow)
        threads = [threading.Thread(target=export, args=(publisher, each)) for each in (subscription, slow)]
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for index in range(2, 600):
                store.commit(("web", "ok"), (f"{index}", "ok"))
                store.states = {store.index: store.states[store.index]}
                others = [
                    publisher.subscribe(SubscribeRequest(HEALTH, f"{number}", token=f"{index}"))
                    for number in range(3)
                ]
                ready(subscription)
                if index % 100 == 0:
                    ready(slow)
                    await quiet_turn()
                for other in others:
                    other.unsubscribe()
        finally:
            is_over.set()
            for thread in threads:
                thread.join(10)
            sys.setswitchinterval(interval)
    assert failures == []
    assert seen


async def quiet_turn() -> None:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
