"""`collect`: all that is there, the snapshot waited for, and never an event that may not come."""

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds
from scenes import ALL, WEB, Held, opened, quiet
from typing_extensions import override

from trio_stream import (
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionState,
    running,
)
from trio_stream.testing import cancel_at_every_checkpoint, collect

pytestmark = pytest.mark.anyio


async def test_it_waits_for_the_snapshot_and_takes_what_is_ready_behind_it() -> None:
    held = Held(Catalogue())
    async with opened(held) as (store, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(WEB)

        async def take() -> None:
            assert kinds(await collect(subscription)) == ["eos@0", "1:web=a", "2:web=b"]

        tasks.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        store.commit(("web", "a"))
        store.commit(("web", "b"))
        held.go.set()


async def test_it_waits_for_nothing_else() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "a"))
        subscription = publisher.subscribe(WEB)
        assert kinds(await collect(subscription)) == ["1:web=a", "eos@1"]
        assert kinds(await collect(subscription)) == []


async def test_upto_an_index_it_waits_until_that_is_published_whether_or_not_it_brings_something() -> None:
    async with opened() as (store, publisher):
        subscription = publisher.subscribe(WEB)
        collected: list[str] = []

        async def take() -> None:
            collected.extend(kinds(await collect(subscription, upto=3)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            for key, topic in (("web", HEALTH), ("db", HEALTH), ("web", JOBS), ("web", HEALTH)):
                await anyio.wait_all_tasks_blocked()
                store.commit((key, "a"), topic=topic)
        assert collected[:2] == ["eos@0", "1:web=a"]


async def test_a_reset_is_collected_with_its_new_snapshot() -> None:
    async with opened(history=2, snapshot_cache_ttl=0) as (store, publisher):
        subscription = publisher.subscribe(WEB, on_lag="reset")
        await collect(subscription)
        for value in "abcd":
            store.commit(("web", value))
        assert kinds(await collect(subscription)) == ["marker", "4:web=d", "eos@4"]


async def test_what_was_received_before_the_end_is_kept() -> None:
    async with opened(history=2) as (store, publisher):
        subscription = publisher.subscribe(WEB)
        received: list[Event[Health]] = []
        await collect(subscription, into=received)
        store.commit(("web", "a"))
        assert await collect(subscription, into=received) is received
        publisher.close_subscriptions([""])
        with pytest.raises(SubscriptionForceClosed):
            await collect(subscription, into=received)
        assert kinds(received) == ["eos@0", "1:web=a"]


async def test_a_cancelled_collect_has_lost_nothing() -> None:
    """D12."""
    async with opened() as (store, publisher):
        store.commit(("web", "a"))
        subscription = publisher.subscribe(SubscribeRequest(HEALTH))
        received: list[Event[Health]] = []

        async def again(_: bool) -> None:
            publisher.publish([event(publisher.index + 1, "web", "b")])

        await cancel_at_every_checkpoint(lambda: collect(subscription, into=received), after_each=again)
        await collect(subscription, upto=publisher.index, into=received)
        assert [each.index for each in received] == [1, 1, *range(2, publisher.index + 1)]
        assert subscription.request == ALL


async def test_upto_an_index_it_waits_until_a_cursor_that_is_ahead_is_known_to_be_right_or_not() -> None:
    """Both ways, and without looking again and again."""

    async def snapshot(*_: object) -> Cursor:
        return Cursor(publisher.index, "e", f"m{publisher.index}")

    for mark, expected in (("m3", ["4:web=d"]), ("another", ["marker", "eos@4"])):
        publisher = EventPublisher({HEALTH: snapshot}, index=2, epoch="e", mark="m2")
        async with running(publisher.run), anyio.create_task_group() as tasks:
            subscription = publisher.subscribe(ALL.after(Cursor(3, "e", mark)))
            assert await collect(subscription) == []
            assert await collect(subscription, upto=2) == []
            collected: list[str] = []

            async def take() -> None:
                collected.extend(kinds(await collect(subscription, upto=4)))  # noqa: B023

            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            for index, value in ((3, "c"), (4, "d")):
                publisher.publish([event(index, "web", value)], mark=f"m{index}")
            await anyio.wait_all_tasks_blocked()
            subscription.unsubscribe()
        assert collected == expected


async def test_what_is_finished_is_collected_to_its_end() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "a"))
        subscription = publisher.subscribe(WEB)
        store.commit(("web", "b"), finish=["web"])
        assert kinds(await collect(subscription)) == ["2:web=b", "eos@2"]
        assert subscription.state is SubscriptionState.FINISHED
        with anyio.fail_after(30):
            assert await collect(subscription, upto=1000) == []


async def test_a_wait_for_an_index_that_is_overtaken_by_the_end_returns_what_there_is() -> None:
    async with opened() as (store, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(WEB)
        collected: list[str] = []

        async def take() -> None:
            collected.extend(kinds(await collect(subscription, upto=1000)))

        tasks.start_soon(take)
        await quiet()
        store.commit(("web", "a"))
        await quiet()
        store.commit(finish=["web"])
        await quiet()
        assert collected == ["eos@0", "1:web=a"]


async def test_an_end_that_a_payload_raises_is_not_that_of_the_subject() -> None:
    class Broken(Health):
        @override
        def has_read_permission(self, authorizer: object, /) -> bool:
            raise EndOfSubject(1, "e")

    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer=1)
        publisher.publish([Event(HEALTH, 2, Broken("web"))])
        with pytest.raises(EndOfSubject):
            await collect(subscription)
