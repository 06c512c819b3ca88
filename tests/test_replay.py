"""D7, D21, D3: with a replay function a reader gets every commit at its own pace, however far behind it is."""

import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health, State, apply, event, kinds, ready, until_live
from conflated import EVERY
from interruptions import Stepwise
from logged import EPOCH, Logged, after, caught_up, filled, indexes, logged, until
from scenes import Heavy, quiet, settled
from unions import BOTH, both, fold, rows_at, shown

from trio_stream import (
    ALL,
    ClosedResourceError,
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

A = SubscribeRequest(HEALTH, "a")


async def test_a_resume_below_the_floor_is_replayed_from_the_log() -> None:
    """D7, D3: no marker, every commit once, and then what is live."""
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3))
        got = await until(subscription, 20)
        assert kinds(got) == [f"{index}:{'abc'[index % 3]}={index}" for index in range(4, 21)]
        assert subscription.state is SubscriptionState.LIVE
        assert subscription.cursor == publisher.cursor
        store.commit(("a", "21"))
        assert kinds(ready(subscription)) == ["21:a=21"]
        assert store.asked == [3, 6, 9, 12, 15, 18]
        assert store.runs == 0


async def test_a_resume_that_the_history_reaches_asks_nobody() -> None:
    async with logged(filled(3), history=10) as (store, publisher):
        store.fill(5)
        for index in (3, 5, 8):
            assert indexes(await settled_events(publisher.subscribe(after(store, index)))) == [
                *range(index + 1, 9)
            ]
        assert store.pages == []


async def settled_events(subscription: Subscription[Health]) -> list[Event[Health]]:
    """All that comes as long as nothing else happens."""
    got: list[Event[Health]] = []
    idle = 0
    while idle < 2:  # the first call that finds nothing may have asked for more
        await quiet()
        more = ready(subscription)
        idle = 0 if more else idle + 1
        got += more
    return got


async def test_what_the_publisher_has_published_itself_is_replayed_when_it_has_forgotten_it() -> None:
    """D7: the history is only a cache of the log; what it still has is not asked for."""
    async with logged() as (store, publisher):
        store.fill(20)
        got = await until(publisher.subscribe(after(store, 7)), 20)
        assert indexes(got) == [*range(8, 21)]
        assert store.pages[-1].cursor.index < 16
        assert len(store.pages) == 3


async def test_what_the_history_has_is_not_read_from_the_log() -> None:
    """Pages end where the history begins."""
    async with logged(Logged(size=9)) as (store, publisher):
        store.fill(20)
        assert indexes(await until(publisher.subscribe(after(store, 7)), 20)) == [*range(8, 21)]
        assert store.asked == [7]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_the_size_of_a_page_is_the_affair_of_the_function(size: int) -> None:
    async with logged(filled(20, size=size)) as (store, publisher):
        got = await until(publisher.subscribe(after(store, 2)), 20)
        assert indexes(got) == [*range(3, 21)]
        assert len(store.pages) == -(-18 // size)


async def test_a_full_page_says_that_no_more_is_wanted() -> None:
    """The appender takes about 1,024 deliveries, and its answer is False for the last of them."""
    async with logged(filled(3_000, size=10_000)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 1))
        assert indexes(await until(subscription, 3_000)) == [*range(2, 3_001)]
        assert [len(page.appended) for page in store.pages] == [1_024, 1_024, 951]


async def test_a_page_is_full_by_its_events_and_not_by_its_commits() -> None:
    """D11: however large the commits are."""
    keys = [f"{number}" for number in range(300)]
    async with logged(history=1) as (store, publisher):
        store.size = 100
        store.fill(1)
        for index in range(2, 12):
            store.commit(*((key, f"{index}") for key in keys))
        every = SubscribeRequest(HEALTH).after(store.cursor(1))
        assert indexes(await until(publisher.subscribe(every), 11)) == [*range(2, 12)]
        assert [len(page.appended) for page in store.pages] == [4, 4, 2]


async def test_what_is_appended_to_a_full_page_is_asked_for_again() -> None:
    """D3: a function that does not look at the answer has said that it came further than the page."""

    async def heedless(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        for commit in store.log[cursor.index :]:
            await appender.append(commit)
        return store.index

    async with logged(filled(3_000), replay=heedless) as (store, publisher):
        subscription = publisher.subscribe(after(store, 1))
        assert indexes(await until(subscription, 3_000)) == [*range(2, 3_001)]


async def test_a_page_may_have_nothing_for_the_reader() -> None:
    """D7: what is not asked for counts as read; its index is how far the function came."""
    async with logged(filled(20, size=1)) as (store, publisher):
        other = SubscribeRequest(HEALTH, "nobody")
        subscription = publisher.subscribe(after(store, 2, other))
        await subscription.wait_ready()
        assert await settled(subscription) == []
        assert subscription.state is SubscriptionState.LIVE
        assert subscription.horizon == 20
        assert store.runs == 0


async def test_what_the_request_does_not_cover_is_dropped() -> None:
    """Not an error: a log is read as it is."""

    async def everything(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        for commit in store.log[cursor.index :][:5]:
            await appender.append(commit)
        return min(cursor.index + 5, store.index)

    async with logged(filled(20), replay=everything) as (store, publisher):
        got = await until(publisher.subscribe(after(store, 3, A)), 18)
        assert kinds(got) == [f"{index}:a={index}" for index in (6, 9, 12, 15, 18)]


async def test_the_events_of_one_commit_come_together() -> None:
    """D4: appended by one call."""
    store = Logged()
    for number in range(10):
        store.commit(("a", f"{number}"), ("b", f"{number}"), ("a", "x"))
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 1)), 10)
        assert kinds(got) == [f"{n + 1}:a={n}+b={n}+a=x" for n in range(1, 10)]
        got = await until(publisher.subscribe(after(store, 1, A)), 10)
        assert kinds(got) == [f"{n + 1}:a={n}+a=x" for n in range(1, 10)]
        assert not any(each.is_conflated for each in got)


async def test_the_function_is_not_told_who_asks() -> None:
    """D14: the request has the interests alone; how far they are is the cursor."""
    async with logged(filled(20)) as (store, publisher):
        await until(publisher.subscribe(after(store, 3, A, token="secret")), 18)
        page = store.pages[0]
        assert page.request == A
        assert (page.request.token, page.request.index, page.request.epoch) == ("", 0, None)
        assert page.cursor == Cursor(3, EPOCH)


async def test_a_function_may_return_an_index_or_a_cursor() -> None:
    async def as_number(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        return (await store.replay(request, cursor, appender)).index

    async with logged(filled(20), replay=as_number) as (store, publisher):
        assert indexes(await until(publisher.subscribe(after(store, 3)), 20)) == [*range(4, 21)]
        assert [page.cursor for page in store.pages] == [Cursor(at, EPOCH) for at in range(3, 20, 3)]


async def test_indexes_may_have_gaps() -> None:
    store = Logged()
    for _ in range(10):
        store.index += 2
        store.states[store.index] = store.states[max(store.states)]
        store.commit(("a", f"{store.index}"))
    async with logged(store) as (_, publisher):
        got = await until(publisher.subscribe(after(store, 4)), 30)
        assert indexes(got) == [*range(6, 31, 3)]


async def test_a_wrong_epoch_is_stale_and_the_log_is_not_asked() -> None:
    """D7: it is of another timeline."""
    async with logged(filled(20)) as (store, publisher):
        request = EVERY.after(Cursor(3, "another"))
        assert (await publisher.subscribe(request).receive()).is_new_snapshot_to_follow
        assert store.pages == []


async def test_a_mark_that_memory_does_not_know_is_judged_by_the_log() -> None:
    """D7, D24: below what the timeline keeps."""
    async with logged(filled(20, copy="a")) as (store, publisher):
        good = publisher.subscribe(after(store, 5))
        assert indexes(await until(good, 20)) == [*range(6, 21)]
        assert store.pages[0].cursor == Cursor(5, EPOCH, "a5")
        assert good.cursor == Cursor(20, EPOCH, "a20")
        bad = publisher.subscribe(EVERY.after(Cursor(5, EPOCH, "b5")))
        assert (await bad.receive()).is_new_snapshot_to_follow
        assert (await until_live(bad))[-1].index == 20


async def test_a_mark_that_memory_knows_is_judged_at_once() -> None:
    """D7: right or wrong."""
    async with logged(Logged(copy="a"), history=10) as (store, publisher):
        store.fill(8)
        assert indexes(ready(publisher.subscribe(after(store, 6)))) == [7, 8]
        bad = publisher.subscribe(EVERY.after(Cursor(6, EPOCH, "b6")))
        assert (await bad.receive()).is_new_snapshot_to_follow
        assert store.pages == []


async def test_a_cursor_without_a_mark_is_stale_where_there_are_marks() -> None:
    """D7."""
    async with logged(filled(20, copy="a")) as (_, publisher):
        subscription = publisher.subscribe(EVERY.after(Cursor(5, EPOCH)))
        assert (await subscription.receive()).is_new_snapshot_to_follow


async def test_a_cursor_ahead_of_the_publisher_is_judged_by_the_log() -> None:
    """D7: another process of the same store has published it already."""
    store = filled(20, copy="a")
    async with logged(store, index=15, mark="a15") as (_, publisher):
        good = publisher.subscribe(after(store, 18))
        bad = publisher.subscribe(EVERY.after(Cursor(18, EPOCH, "b18")))
        await good.wait_ready()
        assert good.state is SubscriptionState.LIVE
        assert (await bad.receive()).is_new_snapshot_to_follow
        for commit in store.log[15:]:
            publisher.publish(commit)
        store.commit(("a", "21"))
        assert indexes(await until(good, 21)) == [19, 20, 21]
        state: State = {}
        for received in await until(bad, 21):
            apply(state, received)
        assert state == store.state_at(21, EVERY)


@pytest.mark.parametrize("copy", ["", "a"], ids=["", "marks"])
@pytest.mark.parametrize(("size", "reached"), [(3, 15), (7, 17), (100, 20)])
async def test_what_the_log_knows_before_it_is_published_comes_once(
    size: int, reached: int, copy: str
) -> None:
    """D2: the publisher publishes it later, and then it is late."""
    store = filled(20, copy=copy, size=size)
    async with logged(store, index=15, mark=store.mark(15), history=10) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        got = indexes(await until(subscription, 15))
        got += indexes(await settled_events(subscription))
        assert got[-1] == reached
        for commit in store.log[15:18]:
            publisher.publish(commit)
        got += indexes(await settled_events(subscription))
        assert got[-1] == max(18, reached)
        for commit in store.log[18:]:
            publisher.publish(commit)
        store.commit(("a", "21"))
        got += indexes(await settled_events(subscription))
        assert got == [*range(4, 22)]
        assert subscription.cursor == publisher.cursor


async def test_another_commit_than_the_log_knew_is_told() -> None:
    """D24: what was replayed ahead of the publisher is judged when its index is published."""
    store = filled(20, copy="a", size=100)
    async with logged(store, index=15, mark="a15") as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        assert indexes(await until(subscription, 20)) == [*range(4, 21)]
        for index in range(16, 22):
            publisher.publish([event(index, "a", "other")], mark=f"b{index}")
        assert (await subscription.receive()).is_new_snapshot_to_follow


Read = Callable[[Subscription[Health]], Awaitable[Sequence[Event[Health]]]]


async def one(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return [await subscription.receive()]


async def next_one(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return [await anext(subscription)]


async def two(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return await subscription.receive_batch(2)


async def some(subscription: Subscription[Health]) -> Sequence[Event[Health]]:
    return await subscription.receive_batch()


@pytest.mark.parametrize("read", [one, next_one, two, some], ids=lambda read: read.__name__)
@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_reader_ten_times_slower_than_the_writer_gets_every_commit(on_lag: Any, read: Read) -> None:
    """D21, D3: without a marker and without an end, whatever the history is."""
    async with logged() as (store, publisher):
        store.commit(("a", "0"))
        subscription = publisher.subscribe(EVERY, on_lag=on_lag)
        got = [*await until_live(subscription)]
        for _ in range(15):
            for number in range(10):
                store.commit(("abc"[number % 3], f"{store.index}"))
            got += await read(subscription)
        while subscription.index < store.index:
            got += await read(subscription)
        assert [each.is_framing for each in got].count(True) == 1
        assert indexes(got) == [1, 1, *range(2, store.index + 1)]
        state: State = {}
        for received in got:
            apply(state, received)
            if received.index > 1:
                assert state == store.state_at(received.index, EVERY)
        assert store.runs == 1
        statistics = subscription.statistics()
        assert statistics.delivered == len(got)


async def test_the_history_is_passed_again_and_again() -> None:
    """R1: the reader comes live, falls off, is replayed, comes live."""
    async with logged(filled(1)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 1))
        got: list[Event[Health]] = []
        for turn in range(12):
            store.fill((1, 9, 3, 5, 30)[turn % 5])
            got += await until(subscription, store.index - turn % 3)
        got += await until(subscription, store.index)
        assert indexes(got) == [*range(2, store.index + 1)]


async def test_what_is_published_while_a_page_is_read_is_neither_lost_nor_repeated() -> None:
    """D3: the splice, wherever the function stands."""
    for held in (0, 4, 6, 7, 19, 20):
        async with logged(filled(20)) as (store, publisher):
            gate = store.hold(held)
            subscription = publisher.subscribe(after(store, 3))
            got = await settled_events(subscription)
            store.fill(2)
            await quiet()
            store.fill(7)
            gate.set()
            got += await until(subscription, 29)
            assert indexes(got) == [*range(4, 30)]


@pytest.mark.parametrize("seed", range(30))
async def test_in_any_course_of_commits_and_pages_every_commit_comes_once(seed: int) -> None:
    """D3, R1: commits come before and after each append, between pages and between calls."""
    random = Random(seed)
    async with logged(filled(12, size=random.choice([1, 2, 3, 5])), history=random.choice([1, 2, 5, 9])) as (
        store,
        publisher,
    ):
        store.meanwhile = lambda: store.fill(random.choice([0, 0, 1]) if store.index < 90 else 0)
        readers: list[tuple[Subscription[Health], list[Event[Health]], int]] = []
        for _ in range(4):
            begin = random.randrange(1, 12)
            on_lag = random.choice(["close", "reset"])
            readers.append((publisher.subscribe(after(store, begin), on_lag=on_lag), [], begin))  # type: ignore[arg-type]
        for _ in range(60):
            if store.index < 90:
                store.fill(random.choice([0, 1, 2]))
            subscription, got, _ = random.choice(readers)
            if subscription.index < store.index:
                got += await random.choice([one, two, next_one])(subscription)
        for subscription, got, begin in readers:
            while subscription.index < store.index:  # which goes on
                got.append(await subscription.receive())
            assert indexes(got) == [*range(begin + 1, store.index + 1)]
            subscription.close()


async def test_readers_of_one_cursor_share_the_pages() -> None:
    """D14: one run of the function for all of them."""
    async with logged(filled(20)) as (store, publisher):
        readers = [publisher.subscribe(after(store, 3)) for _ in range(5)]
        for _ in range(17):
            same = [await each.receive() for each in readers]
            assert len(set(map(id, same))) == 1
        assert store.asked == [3, 6, 9, 12, 15, 18]


async def test_who_comes_while_a_page_is_read_joins_it() -> None:
    """R1: from a cursor inside it; nothing before that is for the newcomer."""
    async with logged(filled(20)) as (store, publisher):
        gate = store.hold(6)
        first = publisher.subscribe(after(store, 3))
        await quiet()
        second = publisher.subscribe(after(store, 4))
        assert await settled(second) == ["5:c=5"]
        assert store.asked == [3]
        gate.set()
        assert indexes(await until(second, 20)) == [*range(6, 21)]
        assert indexes(await until(first, 20)) == [*range(4, 21)]


async def test_who_is_not_judged_yet_joins_no_page_of_another_cursor() -> None:
    """D7, D24: that the function knows the one mark says nothing of the other."""
    async with logged(filled(20, copy="a")) as (store, publisher):
        gate = store.hold(6)
        first = publisher.subscribe(after(store, 3))
        await quiet()
        wrong = publisher.subscribe(EVERY.after(Cursor(4, EPOCH, "b4")))
        right = publisher.subscribe(after(store, 4))
        gate.set()
        assert (await wrong.receive()).is_new_snapshot_to_follow
        assert indexes(await until(right, 20)) == [*range(5, 21)]
        assert indexes(await until(first, 20)) == [*range(4, 21)]


async def test_readers_of_different_cursors_have_pages_of_their_own() -> None:
    """R1: nobody waits for another, and each gets all of it."""
    async with logged(filled(40)) as (store, publisher):
        gate = store.hold(4)
        early, late = publisher.subscribe(after(store, 3)), publisher.subscribe(after(store, 25))
        assert indexes(await until(late, 40)) == [*range(26, 41)]
        assert ready(early) == []
        gate.set()
        assert indexes(await until(early, 40)) == [*range(4, 41)]
        assert {*store.asked[:2]} == {3, 25}


async def test_readers_of_different_interests_have_pages_of_their_own() -> None:
    async with logged(filled(20)) as (store, publisher):
        readers = [publisher.subscribe(after(store, 3, each)) for each in (EVERY, A)]
        assert indexes(await until(readers[0], 20)) == [*range(4, 21)]
        assert indexes(await until(readers[1], 18)) == [6, 9, 12, 15, 18]
        assert {page.request for page in store.pages} == {EVERY, A}


async def test_a_reader_that_stalls_in_a_page_holds_up_nobody() -> None:
    """R1, D10: and still gets everything when it goes on."""
    async with logged(filled(60)) as (store, publisher):
        quick, slow = (publisher.subscribe(after(store, 3)) for _ in range(2))
        got = [await slow.receive()]
        assert indexes(await until(quick, 60)) == [*range(4, 61)]
        store.fill(9)
        got += await until(slow, 69)
        assert indexes(got) == [*range(4, 70)]


async def test_of_the_log_only_some_pages_are_in_memory() -> None:
    """D11, R1: pages are dropped behind the fastest reader, also where another one stalls."""
    payloads: list[weakref.ref[Heavy]] = []

    async def replay(request: SubscribeRequest[Any], cursor: Cursor, appender: SnapshotAppender[Any]) -> int:
        end = min(cursor.index + 20, 1_000)
        for index in range(cursor.index + 1, end + 1):
            payload = Heavy()
            payloads.append(weakref.ref(payload))
            await appender.append([Event(HEALTH, index, payload)])
            del payload
        return end

    async with open_publisher(
        {HEALTH: Source(Logged().snapshot, replay=replay)}, index=1_000, epoch=EPOCH, history=4
    ) as publisher:
        quick, slow = (publisher.subscribe(SubscribeRequest(HEALTH, index=1, epoch=EPOCH)) for _ in range(2))
        await slow.receive()
        most = 0
        while quick.index < 980:
            await quick.receive()
            if quick.index % 200 == 0:
                await quiet()
                gc.collect()
                most = max(most, sum(each() is not None for each in payloads))
        assert most <= 100
        slow.close()
        quick.close()
        await quiet()
        gc.collect()
        assert not any(each() is not None for each in payloads)


async def test_when_everybody_leaves_the_function_is_cancelled() -> None:
    """D13, D14: not before; and the next one who comes starts it anew."""
    async with logged(filled(20)) as (store, publisher):
        gate = store.hold(6)
        readers = [publisher.subscribe(after(store, 3)) for _ in range(2)]
        await quiet()
        readers[0].close()
        await quiet()
        assert [page.is_cancelled for page in store.pages] == [False]
        readers[1].close()
        await quiet()
        assert [page.is_cancelled for page in store.pages] == [True]
        gate.set()
        assert indexes(await until(publisher.subscribe(after(store, 3)), 20)) == [*range(4, 21)]


async def test_who_leaves_before_the_function_has_begun_asks_nobody() -> None:
    async with logged(filled(20)) as (store, publisher):
        publisher.subscribe(after(store, 3)).close()
        await quiet()
        assert store.pages == []
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)


async def test_between_pages_nothing_is_read_that_nobody_takes() -> None:
    """D10: the log is read at the pace of the reader."""
    async with logged(filled(3_000)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await subscription.receive()
        await quiet()
        assert len(store.pages) <= 2
        await until(subscription, 30)
        await quiet()
        assert len(store.pages) <= 11


async def test_until_the_cursor_is_judged_the_reader_is_resuming() -> None:
    """D7: horizon 0, and its cursor is that of its request."""
    async with logged(filled(20, copy="a")) as (store, publisher):
        gate = store.hold()
        request = after(store, 3)
        subscription = publisher.subscribe(request)
        for _ in range(2):
            assert subscription.state is SubscriptionState.RESUMING
            assert subscription.horizon == 0
            assert subscription.cursor == Cursor(3, EPOCH, "a3")
            assert subscription.resume_request() == request
            assert subscription.statistics().lag == 0
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()
            await quiet()
        gate.set()
        assert (await subscription.receive()).index == 4
        assert subscription.state is SubscriptionState.LIVE
        assert (subscription.index, subscription.horizon) == (4, 4)
        assert subscription.cursor == Cursor(4, EPOCH, "a4")
        assert subscription.resume_request() == after(store, 4)


async def test_wait_ready_returns_when_the_cursor_is_accepted() -> None:
    """D7: with the first event of the log, or when the function has come to its end."""
    for held, request in ((0, EVERY), (4, EVERY), (0, SubscribeRequest(HEALTH, "nobody"))):
        async with logged(filled(20)) as (store, publisher):
            gate = store.hold(held)
            subscription = publisher.subscribe(after(store, 3, request))
            is_ready = anyio.Event()

            async def wait(subscription: Subscription[Health], is_ready: anyio.Event) -> None:
                await subscription.wait_ready()
                is_ready.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, subscription, is_ready)
                await quiet()
                assert not is_ready.is_set()
                gate.set()
                await is_ready.wait()
            assert subscription.state is SubscriptionState.LIVE


async def test_the_cursor_of_who_was_accepted_has_no_mark_where_there_are_none() -> None:
    """D7: nothing was received yet, and the history has nothing of that commit."""
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 5))
        await subscription.wait_ready()
        assert subscription.cursor == Cursor(5, EPOCH)


async def test_behind_a_page_the_history_goes_on_although_it_has_forgotten_the_mark() -> None:
    """D7: the log has given that mark, so nobody has to judge it again."""
    asked: list[int] = []

    async def replay(request: SubscribeRequest[Health], cursor: Cursor, appender: Any) -> Cursor:
        asked.append(cursor.index)
        for commit in store.log[cursor.index : 4]:
            await appender.append(commit)
        return store.cursor(4)

    store = filled(3, copy="a")
    async with logged(store, replay=replay) as (_, publisher):
        store.fill(1)
        for _ in range(10):
            store.commit(("a", "x"), topic=JOBS)
        subscription = publisher.subscribe(after(store, 1, SubscribeRequest(HEALTH)))
        assert indexes(await until(subscription, 4)) == [2, 3, 4]
        store.fill(1)
        assert indexes(await until(subscription, 15)) == [15]
    assert asked == [1]


async def test_a_live_reader_that_is_replayed_stays_what_it_is() -> None:
    """D21: its state is right, it is only behind."""
    async with logged(filled(1)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 1))
        await subscription.wait_ready()
        store.fill(20)
        gate = store.hold()
        assert ready(subscription) == []
        await quiet()
        assert ready(subscription) == []
        assert subscription.state is SubscriptionState.LIVE
        assert (subscription.index, subscription.horizon) == (1, 1)
        assert subscription.resume_request() == after(store, 1)
        await subscription.wait_ready()
        gate.set()
        assert indexes(await until(subscription, 21)) == [*range(2, 22)]


async def test_a_snapshot_that_was_passed_while_it_was_made_is_followed_from_the_log() -> None:
    """D21: no marker, no end: the function was slower than the history."""

    async def slow(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
        index = await store.snapshot(request, snapshot)
        store.fill(20)
        return index

    store = filled(3)
    sources = {HEALTH: Source(slow, replay=store.replay)}
    async with open_publisher(sources, index=3, history=4, epoch=EPOCH) as publisher:
        store.publisher = publisher
        for on_lag in ("close", "reset"):
            subscription = publisher.subscribe(EVERY, on_lag=on_lag)
            got = await until_live(subscription)
            begin = got[-1].index
            assert not any(each.is_new_snapshot_to_follow for each in got)
            assert indexes(await until(subscription, store.index)) == [*range(begin + 1, store.index + 1)]


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_reader_that_stalls_inside_a_snapshot_gets_on(on_lag: Any) -> None:
    """D1, D21: it ends with the state of the newest index, and with every commit after its last end-of-snapshot."""
    async with logged(filled(3), snapshot_cache_ttl=0) as (store, publisher):
        subscription = publisher.subscribe(EVERY, on_lag=on_lag)
        got = [await subscription.receive()]
        store.fill(20)
        got += await settled_events(subscription)
        state: State = {}
        for received in got:
            apply(state, received)
        assert state == store.state_at(store.index, EVERY)
        behind = got[[each.is_end_of_snapshot for each in got].index(True) :]
        assert indexes(behind) == [*range(behind[0].index, store.index + 1)]


async def test_a_union_of_topics_with_one_function_is_replayed() -> None:
    """D22: the function gets the request for all of them."""
    store = Logged()
    for number in range(20):
        both(store, (JOBS, "a", f"{number}"), (HEALTH, "b", f"{number}"))
    async with logged(store) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3, BOTH))
        got = await until(subscription, 20)
        assert shown(got) == [f"{n + 1}:jobs/a={n}+health/b={n}" for n in range(3, 20)]
        assert {page.request for page in store.pages} == {BOTH}
        both(store, (HEALTH, "c", "1"))
        assert shown(ready(subscription)) == ["21:health/c=1"]


@pytest.mark.parametrize(
    "request_",
    [
        SubscribeRequest(HEALTH, "a") | SubscribeRequest(HEALTH, "c"),
        SubscribeRequest(HEALTH, "", namespace=ALL),
        SubscribeRequest(HEALTH, "a", prefix=True) | SubscribeRequest(JOBS),
    ],
    ids=["keys", "ALL", "prefix and topic"],
)
async def test_a_wide_reader_that_is_slow_is_replayed(request_: SubscribeRequest[Health]) -> None:
    """D21, D22, F2: what it came from lives only while it is read."""
    async with logged(filled(2)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 2, request_))
        rows = rows_at(store, 2, request_)
        got: list[Event[Health]] = []
        for turn in range(12):
            for number in range(6):
                topic = (HEALTH, JOBS)[number % 2]
                store.commit(("ab"[turn % 2], f"{store.index}"), topic=topic)
            store.commit(("a", f"{store.index}"), ("c", f"{turn}"))
            received = await subscription.receive()
            fold(rows, [received])
            assert rows == rows_at(store, received.index, request_)
            got.append(received)
        while subscription.index < store.index:
            received = await subscription.receive()
            fold(rows, [received])
            assert rows == rows_at(store, received.index, request_)
            got.append(received)
        assert not any(each.is_framing for each in got)
        touched = [
            commit[0].index
            for commit in store.log[2:]
            if any(request_.covers(each.topic, each.payloads[0].subject) for each in commit)
        ]
        assert indexes(got) == touched


async def test_a_union_of_topics_with_different_functions_is_stale() -> None:
    """D22: nobody knows the order of both."""
    store = filled(20)

    async def another(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        return await store.replay(request, cursor, appender)

    for replay in (another, None):
        sources = {
            HEALTH: Source(store.snapshot, replay=store.replay),
            JOBS: Source(store.snapshot, replay=replay),
        }
        async with open_publisher(sources, index=20, epoch=EPOCH, history=4) as publisher:
            subscription = publisher.subscribe(after(store, 3, BOTH))
            assert (await subscription.receive()).is_new_snapshot_to_follow
            assert store.pages == []
            store.pages.clear()
            alone = publisher.subscribe(after(store, 3))
            assert indexes(await until(alone, 20)) == [*range(4, 21)]
            store.pages.clear()


async def test_without_a_function_all_is_as_it_was() -> None:
    store = filled(20)
    async with open_publisher({HEALTH: store.snapshot}, index=20, epoch=EPOCH, history=4) as publisher:
        subscription = publisher.subscribe(after(store, 3))
        assert (await subscription.receive()).is_new_snapshot_to_follow


async def test_until_current_reads_the_log_to_the_newest_index() -> None:
    """D7: a cancelled one has received nothing, see the cancellations."""
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3))
        assert indexes(await subscription.receive_until_current()) == [*range(4, 21)]
        assert await subscription.receive_until_current() == []
        store.fill(20)
        assert indexes(await subscription.receive_until_current()) == [*range(21, 41)]
        assert subscription.horizon == 40


async def test_nowait_starts_what_it_does_not_wait_for() -> None:
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3))
        got: list[Event[Health]] = []
        while subscription.index < 20:
            try:
                got.append(subscription.receive_nowait())
            except WouldBlock:
                await quiet()
        assert indexes(got) == [*range(4, 21)]


VARIABLE = ContextVar("VARIABLE", default="of the publisher")


async def test_the_function_runs_in_the_context_of_the_publisher() -> None:
    """D14."""
    seen: list[str] = []

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        seen.append(VARIABLE.get())
        return await store.replay(request, cursor, appender)

    async with logged(filled(20), replay=replay) as (store, publisher):
        VARIABLE.set("of the reader")
        await until(publisher.subscribe(after(store, 3)), 20)
        assert set(seen) == {"of the publisher"}


async def test_a_function_may_publish_subscribe_and_close() -> None:
    """As a snapshot function may."""
    others: list[Subscription[Health]] = []

    def meanwhile() -> None:
        if store.index < 30:
            store.fill(1)
            others.append(publisher.subscribe(after(store, 3)))
            if len(others) > 3:
                others.pop(0).close()

    async with logged(filled(20)) as (store, publisher):
        store.meanwhile = meanwhile
        assert indexes(await until(publisher.subscribe(after(store, 3)), 30)) == [*range(4, 31)]
        for each in others:
            assert indexes(await until(each, 30)) == [*range(4, 31)]


async def test_before_the_publisher_runs_a_resume_waits() -> None:
    """D7: it is replayed when the publisher runs."""
    store = filled(20)
    publisher = EventPublisher({HEALTH: Source(store.snapshot, replay=store.replay)}, index=20, epoch=EPOCH)
    subscription = publisher.subscribe(after(store, 3))
    assert ready(subscription) == []
    assert subscription.state is SubscriptionState.RESUMING
    async with anyio.create_task_group() as tasks:
        await tasks.start(publisher.run)
        assert indexes(await until(subscription, 20)) == [*range(4, 21)]
        tasks.cancel_scope.cancel()


async def test_how_subscriptions_began_is_counted() -> None:
    async with logged(filled(20)) as (store, publisher):
        for index in (3, 20):
            await publisher.subscribe(after(store, index)).wait_ready()
        await until_live(publisher.subscribe(EVERY))
        (await publisher.subscribe(EVERY.after(Cursor(3, "x"))).receive())
        assert publisher.statistics().opened == {"fresh": 1, "resumed": 1, "replayed": 1, "stale": 1}


@pytest.mark.parametrize("floor", [0, 10], ids=["replayed", "stale"])
async def test_a_call_that_is_cancelled_counts_nothing(floor: int) -> None:
    """D12: the same subscription is counted once, however often a call reads ahead."""
    async with logged(filled(20, floor=floor)) as (store, publisher):
        gate = store.hold(6)
        subscription = publisher.subscribe(after(store, 3))
        for _ in range(3):
            with anyio.move_on_after(0):
                await subscription.receive_until_current()
            await quiet()
            with anyio.CancelScope() as scope:
                await Stepwise(
                    subscription.receive_until_current, lambda number: scope.cancel() if number else None
                )
        gate.set()
        await subscription.receive_until_current()
        opened = publisher.statistics().opened
        assert (opened["replayed"], opened["stale"]) == ((1, 0) if not floor else (0, 1))


async def test_a_reader_that_conflates_is_not_replayed_when_it_falls_off() -> None:
    """D21: it wants the newest, not all of it."""
    async with logged(filled(2), history_events=4) as (store, publisher):
        subscription = publisher.subscribe(after(store, 2), on_lag="conflate")
        await subscription.wait_ready()
        store.fill(20, "abcdefghi")
        assert ready(subscription) == []
        assert (await subscription.receive()).is_new_snapshot_to_follow
        assert store.pages == []


def is_low(payload: Health) -> bool:
    return payload.value is None or int(payload.value) < 5


async def test_the_log_knows_what_a_reader_may_no_longer_see() -> None:
    """D19: what it says an event replaces, as in a publish."""
    store = Logged()
    for value in range(12):
        store.change("a", f"{value}")
        store.change("b", f"{11 - value}")
    async with logged(store) as (_, publisher):
        subscription = publisher.subscribe(after(store, 2), where=is_low)
        got = await until(subscription, 24)
        assert [each.previous for each in got] == [None] * len(got)
        assert kinds(got) == [
            *[f"{2 * n + 1}:a={n}" for n in range(1, 5)],
            "11:a=None",
            *[f"{2 * n + 2}:b={11 - n}" for n in range(7, 12)],
        ]
        for authorizer in (frozenset("a"), frozenset({"a=3", "b=2"})):
            old = publisher.subscribe(after(store, 2), authorizer=authorizer)
            state: State = {}
            for received in await caught_up(old, 24):
                apply(state, received)
            assert state == {
                subject: value
                for subject, value in store.state_at(24, EVERY).items()
                if Health(subject.key, value).has_read_permission(authorizer)
            }


async def test_a_page_of_which_a_reader_may_see_nothing_is_passed() -> None:
    """D19: it learns that indexes have passed."""
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3), authorizer=frozenset("x"))
        with anyio.move_on_after(0):
            await subscription.receive()
        store_end = publisher.index
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.receive)
            await quiet()
            assert subscription.horizon == store_end
            store.commit(("x", "1"))
        assert subscription.index == 21


async def test_events_of_another_topic_or_of_no_state_are_refused() -> None:
    """D18: at the append; what becomes of it is the affair of a function that fails."""
    refused: list[str] = []

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        end = Event[Any](HEALTH, 4, (await _framing(publisher)).payload)
        for wrong in ([end], [event(4, "a"), event(5, "a")], [1], 1, "text"):
            try:
                await appender.append(wrong)  # type: ignore[arg-type]
            except (ValueError, TypeError, AttributeError) as error:
                refused.append(type(error).__name__)
        return (await store.replay(request, cursor, appender)).index

    async with logged(filled(20), replay=replay) as (store, publisher):
        subscription = publisher.subscribe(after(store, 17))
        assert indexes(await until(subscription, 20)) == [18, 19, 20]
        assert len(refused) == 5


async def _framing(publisher: EventPublisher) -> Event[Health]:
    async with publisher.subscribe(SubscribeRequest(HEALTH, "none")) as subscription:
        return await subscription.receive()


async def test_a_function_that_appends_what_the_reader_has_loses_and_repeats_nothing() -> None:
    """D2: at or below its cursor."""

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        reached = cursor.index
        for commit in store.log[max(0, cursor.index - 2) :][:5]:
            await appender.append(commit)
            reached = commit[0].index
        return reached

    async with logged(filled(20), replay=replay) as (store, publisher):
        subscription = publisher.subscribe(after(store, 5))
        got: list[Event[Health]] = []
        while subscription.index < 20 and not (got and got[-1].is_new_snapshot_to_follow):
            got.append(await subscription.receive())
        came = [each for each in indexes(got) if each]
        assert came == [*range(6, 6 + len(came))]


async def one_of_it(subscription: Subscription[Health]) -> int:
    return (await subscription.receive()).index


async def one_at_once(subscription: Subscription[Health]) -> int:
    return subscription.receive_nowait().index


async def one_of_a_batch(subscription: Subscription[Health]) -> int:
    return (await subscription.receive_batch(1))[-1].index


async def two_in_a_loop(subscription: Subscription[Health]) -> int:
    async for each in subscription:
        if each.index == 22:
            return each.index
    raise AssertionError


async def two_in_a_batch(subscription: Subscription[Health]) -> int:
    return (await subscription.receive_batch(2))[-1].index


async def all_until_now(subscription: Subscription[Health]) -> int:
    await subscription.receive()  # one of another mark
    return (await subscription.receive_until_current())[-1].index


WAYS = [one_of_it, one_at_once, one_of_a_batch, two_in_a_loop, two_in_a_batch, all_until_now]


@pytest.mark.parametrize("is_checked", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_reader_that_the_history_has_passed_still_knows_the_mark_of_its_cursor(
    way: Callable[[Subscription[Health]], Awaitable[int]], is_checked: bool
) -> None:
    """D7: without it, whoever comes back is handed a snapshot, although the log has what is missing."""
    async with logged(filled(20, copy="a"), history=3) as (store, publisher):
        where = (lambda _: True) if is_checked else None
        subscription = publisher.subscribe(after(store, 20), where=where)
        store.fill(3)
        index = await way(subscription)
        store.fill(4)
        request = subscription.resume_request()
        assert request == after(store, index)
        subscription.close()
        assert subscription.cursor == store.cursor(index)
        again = publisher.subscribe(request)
        assert indexes(await until(again, 27)) == [*range(index + 1, 28)]


async def test_who_is_closed_while_it_is_asked_stands_where_it_stood_with_the_mark_of_that() -> None:
    """The events before were not returned, so they were not received."""

    def where(health: Health) -> bool:
        if health.value == "23":
            subscription.close()
        return True

    async with logged(filled(20, copy="a")) as (store, publisher):
        subscription = publisher.subscribe(after(store, 20), where=where)
        store.fill(3)
        assert await one_of_it(subscription) == 21
        with pytest.raises(ClosedResourceError):
            await subscription.receive_batch()
        store.fill(10)
        assert subscription.cursor == store.cursor(21)


async def test_a_reader_knows_no_mark_that_is_not_of_its_cursor() -> None:
    """A replay may come further than its last event, and not know which commit that is."""

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int | Cursor:
        if cursor.index >= 20:
            return await store.replay(request, cursor, appender)
        await appender.append(store.log[18])
        return 20

    async with logged(filled(20, copy="a"), replay=replay, history=1) as (store, publisher):
        store.fill(3)
        gate = store.hold()
        subscription = publisher.subscribe(after(store, 18))
        assert await one_of_it(subscription) == 19
        assert subscription.cursor == store.cursor(19)
        await quiet()
        with pytest.raises(WouldBlock):
            subscription.receive_nowait()
        assert subscription.cursor == Cursor(20, EPOCH)
        gate.set()
        assert await one_of_it(subscription) == 21


async def test_a_page_that_led_nowhere_and_that_somebody_still_reads_is_not_read_again_and_again() -> None:
    """D21: when the history has passed the cursor that it was asked for, the log is asked anew."""
    async with logged(filled(3, copy="a"), history=1) as (store, publisher):
        store.publisher = None
        store.fill(2)
        stalls = publisher.subscribe(after(store, 5))  # ahead of what is published: the log judges it
        await quiet()
        assert store.asked == [5]
        store.publisher = publisher
        for commit in store.log[3:]:
            publisher.publish(commit)
        store.fill(4)
        reader = publisher.subscribe(after(store, 5))
        got: list[Event[Health]] = []
        for _ in range(10):
            await quiet()
            got += ready(reader)
        assert indexes(got) == [*range(6, 10)]
        assert indexes(await until(stalls, 9)) == [*range(6, 10)]


async def test_a_reader_whose_calls_are_cancelled_has_begun_once() -> None:
    """What a cancelled call has found out is found out again, and is counted by the call that returns."""
    async with logged(filled(20)) as (store, publisher):
        subscription = publisher.subscribe(after(store, 3))
        gate = store.hold(7)
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(subscription.receive_until_current)
                await quiet()
                tasks.cancel_scope.cancel()
        gate.set()
        assert indexes(await subscription.receive_until_current()) == [*range(4, 21)]
        assert publisher.statistics().opened["replayed"] == 1


async def test_readers_who_stall_in_snapshots_that_the_history_has_passed_hold_two_of_them() -> None:
    """D11, D21: whole or not; a third takes the oldest from its readers, and ends its function."""
    running: list[int] = []

    async def large(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index = store.index
        running.append(index)
        try:
            for _ in range(1_100):
                await snapshot.append([event(index, "a")])
        finally:
            running.remove(index)
        return index

    store = filled(3)
    sources = {HEALTH: Source(large, replay=store.replay)}
    async with open_publisher(sources, index=3, history=1, epoch=EPOCH) as publisher:
        store.publisher = publisher
        readers = []
        for _ in range(4):
            readers.append(publisher.subscribe(EVERY))
            await quiet()
            store.fill(2)
            await quiet()
        assert len(running) == 2
        for lost in readers[:2]:
            with pytest.raises(SubscriptionLagged):
                lost.receive_nowait()
        for kept in readers[2:]:
            assert len(await until_live(kept)) == 1_101
            assert kept.index < indexes(await until(kept, store.index))[0]
        assert running == []
