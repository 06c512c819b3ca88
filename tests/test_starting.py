"""A snapshot function is started by the publisher, wherever it was asked for and in whatever context."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context

import anyio
import anyio.lowlevel
import pytest
from callbacks import Place, called, in_callbacks
from catalogue import HEALTH, Catalogue, Health, kinds, ready, until_live
from interruptions import on_asyncio
from scenes import WEB, Held, opened, quiet

from trio_stream import (
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

PATIENCE = 10  # seconds after which what should have come will not come any more
TENANT = ContextVar("TENANT", default="nobody")

Request = SubscribeRequest[Health]
Appender = SnapshotAppender[Health]


@asynccontextmanager
async def one_service() -> AsyncIterator[tuple[Catalogue, EventPublisher]]:
    """A publisher of a store with one commit, which has to serve everybody in time and to end well."""
    with anyio.fail_after(PATIENCE):
        async with opened(history=4) as (store, publisher):
            store.commit(("web", "a"))
            yield store, publisher


async def served(publisher: EventPublisher, request: Request = WEB) -> list[str]:
    """What a new subscriber gets, from its snapshot on."""
    async with publisher.subscribe(request) as subscription:
        return kinds(await until_live(subscription))


# U1: asked for in a callback, where there is no current task.


@in_callbacks
async def test_a_subscriber_in_a_callback_gets_its_snapshot_and_the_next_one_shares_it(place: Place) -> None:
    """U1, D14, D17."""
    async with one_service() as (store, publisher):
        subscription = await called(place, lambda: publisher.subscribe(WEB))
        assert await served(publisher) == ["1:web=a", "eos@1"]
        assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
        assert store.runs == 1
        store.commit(("web", "b"))
        assert kinds([await subscription.receive()]) == ["2:web=b"]


@in_callbacks
async def test_many_subscribers_in_callbacks_are_all_served(place: Place) -> None:
    """U1, D14: of the same subject, and of another one each."""
    async with one_service() as (store, publisher):
        requests = [WEB, WEB, *(SubscribeRequest(HEALTH, f"{n}") for n in range(5)), WEB]
        subscriptions = [
            await called(place, lambda request=request: publisher.subscribe(request))  # type: ignore[misc]
            for request in requests
        ]
        got = [kinds(await until_live(subscription)) for subscription in subscriptions]
        web = ["1:web=a", "eos@1"]
        assert got == [web, web, *([["eos@1"]] * 5), web]
        assert store.runs == 6


@in_callbacks
async def test_a_callback_may_subscribe_before_the_publisher_runs(place: Place) -> None:
    """U1, D14."""
    store = Catalogue()
    publisher = store.publisher = EventPublisher({HEALTH: store.snapshot})
    store.commit(("web", "a"))
    subscription = await called(place, lambda: publisher.subscribe(WEB))
    assert (ready(subscription), store.runs) == ([], 0)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            await tasks.start(publisher.run)
            assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
            assert await served(publisher) == ["1:web=a", "eos@1"]
            tasks.cancel_scope.cancel()


@in_callbacks
async def test_a_reader_in_a_callback_that_has_fallen_behind_starts_again(place: Place) -> None:
    """U1, D11: `receive_nowait` asks for the new snapshot there."""

    def take(subscription: Subscription[Health]) -> list[str]:
        try:
            return kinds([subscription.receive_nowait()])
        except WouldBlock:
            return []

    async with one_service() as (store, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), on_lag="reset")
        for number in range(9):  # more than the history holds
            store.commit(("web", f"{number}"))
        got = await called(place, lambda: take(subscription))
        got += kinds(await until_live(subscription))
        assert got == ["marker", "10:web=8", "eos@10"]
        assert await served(publisher) == ["10:web=8", "eos@10"]


@in_callbacks
async def test_the_last_reader_may_leave_in_a_callback_and_the_next_one_is_served(place: Place) -> None:
    """U1, D14, D13: the snapshot function is cancelled, and runs again for who comes then."""
    store = Catalogue()
    store.commit(("web", "a"))
    held = Held(store)
    with anyio.fail_after(PATIENCE):
        async with opened(held) as (_, publisher):
            subscription = await called(place, lambda: publisher.subscribe(WEB))
            await quiet()
            assert len(held.requests) == 1
            await called(place, subscription.unsubscribe)
            await quiet()
            assert held.cancelled == 1
            held.go.set()
            assert await served(publisher) == ["1:web=a", "eos@1"]


@in_callbacks
async def test_a_subscriber_that_leaves_in_the_callback_it_came_in_leaves_nothing(place: Place) -> None:
    """U1, D13."""
    async with one_service() as (_, publisher):
        await called(place, lambda: publisher.subscribe(WEB).unsubscribe())
        await quiet()
        figures = publisher.statistics()
        assert (figures.subscriptions, figures.waiting, figures.topics["health"].snapshots) == (0, 0, 0)
        assert await served(publisher) == ["1:web=a", "eos@1"]


@in_callbacks
async def test_a_callback_may_publish_and_receive(place: Place) -> None:
    """D17, D5: a waiting reader is woken, and what is ready is there."""
    async with one_service() as (store, publisher):
        async with publisher.subscribe(WEB) as waiting, publisher.subscribe(WEB) as taking:
            await until_live(waiting)
            await until_live(taking)
            got: list[str] = []

            async def read() -> None:
                got.extend(kinds([await waiting.receive()]))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await quiet()
                await called(place, lambda: store.commit(("web", "b")))
            received = await called(place, taking.receive_nowait)
            assert (got, kinds([received])) == (["2:web=b"], ["2:web=b"])


@in_callbacks
async def test_a_subscribe_that_raises_in_a_callback_changes_nothing(place: Place) -> None:
    """D18."""
    async with one_service() as (_, publisher):
        with pytest.raises(TypeError):
            await called(place, lambda: publisher.subscribe("web"))  # type: ignore[arg-type]
        assert publisher.statistics().subscriptions == 0
        assert await served(publisher) == ["1:web=a", "eos@1"]


# U2: asked for in a context of its own.


class Curious(Catalogue):
    """Remembers for whom its snapshot function believes to run, and until when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, float]] = []

    async def look(self, request: Request, snapshot: Appender) -> int:
        self.seen.append((TENANT.get(), anyio.current_effective_deadline()))
        await anyio.lowlevel.checkpoint()
        self.seen.append((TENANT.get(), anyio.current_effective_deadline()))
        return await self.snapshot(request, snapshot)


@contextmanager
def tenant(name: str) -> Iterator[None]:
    token = TENANT.set(name)
    try:
        yield
    finally:
        TENANT.reset(token)


@asynccontextmanager
async def curious() -> AsyncIterator[tuple[Curious, EventPublisher]]:
    """A publisher that the application runs on behalf of itself."""
    store = Curious()
    with tenant("the application"):
        async with open_publisher({HEALTH: store.look}, history=4, snapshot_cache_ttl=60) as publisher:
            store.publisher = publisher
            store.commit(("web", "a"))
            with anyio.fail_after(PATIENCE):  # which is not the snapshot function's either
                yield store, publisher


THE_APPLICATIONS = [("the application", math.inf)] * 2


async def test_a_snapshot_function_runs_in_the_context_of_the_publisher() -> None:
    """U2, D14: not in that of the subscriber who happens to be first."""
    async with curious() as (store, publisher):
        for name in ("red", "blue"):
            with tenant(name):
                assert await served(publisher) == ["1:web=a", "eos@1"]
        assert store.seen == THE_APPLICATIONS


async def test_so_it_does_for_a_subscriber_who_was_there_before_the_publisher_ran() -> None:
    """U2, D14."""
    store = Curious()
    publisher = store.publisher = EventPublisher({HEALTH: store.look})
    store.commit(("web", "a"))
    with tenant("red"):
        subscription = publisher.subscribe(WEB)
    async with anyio.create_task_group() as tasks:
        with tenant("the application"):
            await tasks.start(publisher.run)
        assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
        assert store.seen == THE_APPLICATIONS
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["receive", "receive_nowait", "receive_batch", "async for"])
async def test_so_it_does_for_a_reader_that_has_fallen_behind(way: str) -> None:
    """U2, D11: whichever call finds that it needs a new snapshot."""
    async with curious() as (store, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), on_lag="reset")
        for number in range(9):
            store.commit(("web", f"{number}"))
        with tenant("red"):
            match way:
                case "receive":
                    await subscription.receive()
                case "receive_nowait":
                    with suppress(WouldBlock):
                        subscription.receive_nowait()
                case "receive_batch":
                    await subscription.receive_batch()
                case _:
                    await anext(subscription)
            await quiet()
        assert store.seen == THE_APPLICATIONS


@on_asyncio
async def test_so_it_does_for_a_callback_with_a_context_of_its_own() -> None:
    """U1, U2."""
    async with curious() as (store, publisher):
        with tenant("red"):
            context = copy_context()

        async def call_soon(call: object) -> None:
            asyncio.get_running_loop().call_soon(call, context=context)  # type: ignore[arg-type]

        subscription = await called(call_soon, lambda: publisher.subscribe(WEB))
        assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
        assert store.seen == THE_APPLICATIONS


async def test_what_a_snapshot_function_sets_stays_its_own() -> None:
    """U2: the next one does not see it, and neither does the publisher."""
    seen: list[str] = []
    store = Catalogue()

    async def handler(request: Request, snapshot: Appender) -> int:
        seen.append(TENANT.get())
        TENANT.set(request.subject.key)
        return await store.snapshot(request, snapshot)

    async with open_publisher({HEALTH: handler}) as publisher:
        for key in ("web", "db"):
            assert await served(publisher, SubscribeRequest(HEALTH, key)) == ["eos@0"]
    assert seen == ["nobody", "nobody"]


async def test_a_cancel_scope_around_subscribe_does_not_cancel_the_snapshot() -> None:
    """U2, D14: while another reader waits for it, or the same one."""
    store = Catalogue()
    store.commit(("web", "a"))
    held = Held(store)
    with anyio.fail_after(PATIENCE):
        async with opened(held) as (_, publisher):
            with anyio.CancelScope() as scope:
                subscription = publisher.subscribe(WEB)
                await quiet()
                scope.cancel()
                await anyio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            await quiet()
            assert (len(held.requests), held.cancelled) == (1, 0)
            held.go.set()
            assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]


async def test_a_snapshot_that_a_cancelled_scope_asked_for_is_begun() -> None:
    """U2, D14: the scope is cancelled before the publisher has had its turn."""
    async with one_service() as (store, publisher):
        with anyio.CancelScope() as scope:
            scope.cancel()
            subscription = publisher.subscribe(WEB)
            await anyio.lowlevel.checkpoint()
        assert kinds(await until_live(subscription)) == ["1:web=a", "eos@1"]
        assert store.runs == 1


async def test_a_snapshot_outlives_the_task_that_asked_for_it() -> None:
    """U2, D14: one that has ended, and one whose task group was cancelled."""
    store = Catalogue()
    store.commit(("web", "a"))
    held = Held(store)
    subscriptions: list[Subscription[Health]] = []
    with anyio.fail_after(PATIENCE):
        async with opened(held) as (_, publisher):

            async def ask(key: str) -> None:
                subscriptions.append(publisher.subscribe(SubscribeRequest(HEALTH, key)))

            async def ask_and_wait(key: str) -> None:
                await ask(key)
                await anyio.sleep_forever()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, "web")
                tasks.start_soon(ask_and_wait, "db")
                await quiet()
                tasks.cancel_scope.cancel()
            await quiet()
            assert (len(held.requests), held.cancelled) == (2, 0)
            held.go.set()
            got = sorted([kinds(await until_live(subscription)) for subscription in subscriptions])
            assert got == [["1:web=a", "eos@1"], ["eos@1"]]


@on_asyncio
async def test_a_task_that_is_cancelled_natively_takes_no_snapshot_along() -> None:
    """U2, D14."""
    store = Catalogue()
    store.commit(("web", "a"))
    held = Held(store)
    subscriptions: list[Subscription[Health]] = []
    async with opened(held) as (_, publisher):

        async def ask() -> None:
            subscriptions.append(publisher.subscribe(WEB))
            await asyncio.sleep(math.inf)

        task = asyncio.create_task(ask())
        await quiet()
        task.cancel()
        await asyncio.wait([task])
        await quiet()
        assert (task.cancelled(), held.cancelled) == (True, 0)
        held.go.set()
        assert kinds(await until_live(subscriptions[0])) == ["1:web=a", "eos@1"]


@on_asyncio
async def test_a_snapshot_function_may_make_another_needless_before_that_begins() -> None:
    """D13, D14: also where it runs as soon as its task is made."""

    async def handler(request: Request, snapshot: Appender) -> int:
        runs.append(request.key)
        subscriptions["db"].unsubscribe()
        return 0

    runs: list[str] = []
    async with open_publisher({HEALTH: handler}) as publisher:
        subscriptions = {
            key: publisher.subscribe(SubscribeRequest(HEALTH, key)) for key in ("web", "db", "cache")
        }
        await quiet()
        assert runs == ["web", "cache"]
        assert kinds(ready(subscriptions["web"])) == ["eos@0"]


async def test_hundreds_of_snapshots_that_are_asked_for_in_one_go_are_all_started() -> None:
    """D14, D15: in portions."""
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "a"))
        many = [publisher.subscribe(SubscribeRequest(HEALTH, f"s{number}")) for number in range(600)]
        await quiet()
        assert store.runs == len(many)
        assert [kinds(ready(each)) for each in many] == [["eos@2"]] * len(many)
