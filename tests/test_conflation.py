"""D21: a reader with `on_lag="conflate"` that is behind gets the newest event of each row, in one delivery."""

import gc
import weakref
from collections.abc import Hashable

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, State, apply, event, kinds, ready, until_live
from conflated import EVERY, by_row, live, taken
from scenes import Heavy, Held, quiet, settled
from unions import BOTH, both, fold, rows_at, shown

from trio_stream import (
    ALL,
    Cursor,
    Event,
    EventPublisher,
    PayloadEvents,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

WEB = SubscribeRequest(HEALTH, "web")


async def test_a_reader_that_is_behind_gets_the_newest_of_each_row_in_one_delivery() -> None:
    """D21, C1: at the newest index, by index."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        for text in ["a1", "b2", "a3", "c4", "b5"]:
            store.commit((text[0], text[1]))
        received = await subscription.receive()
        assert received.is_conflated
        assert not received.is_framing
        assert kinds([received]) == ["6:a=3+c=4+b=5"]
        assert kinds(received.events) == ["4:a=3", "5:c=4", "6:b=5"]
        assert (subscription.index, subscription.horizon) == (6, 6)
        assert ready(subscription) == []


async def test_the_payload_of_a_conflated_delivery_is_a_batch_that_says_so() -> None:
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "1"))
        store.commit(("a", "2"))
        received = await subscription.receive()
        payload = received.payload
        assert isinstance(payload, PayloadEvents)
        assert payload.is_conflated
        assert len(payload) == 1
        assert [each.is_conflated for each in received.events] == [False]
        assert received.payloads == (Health("a", "2"),)
        assert received.topic == HEALTH


async def test_what_is_ready_alone_comes_as_it_is() -> None:
    """D4: one event, or one commit of several; nothing is conflated."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        beside = publisher.subscribe(EVERY.after(publisher.cursor))
        store.commit(("a", "1"))
        one = await subscription.receive()
        assert not one.is_conflated
        assert one is await beside.receive()
        store.commit(("a", "2"), ("b", "2"), ("a", "3"))
        batch = await subscription.receive()
        assert not batch.is_conflated
        assert kinds([batch]) == ["3:a=2+b=2+a=3"]
        assert batch is await beside.receive()


async def test_commits_of_several_events_are_conflated_row_by_row() -> None:
    """In one commit the last event of a row counts; rows of the same commit keep the order in which it has them."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "1"), ("b", "1"), ("c", "1"))
        store.commit(("d", "2"), ("b", "x"), ("b", "2"))
        received = await subscription.receive()
        assert kinds(received.events) == ["2:a=1", "2:c=1", "3:d=2", "3:b=2"]


async def test_a_delete_is_the_newest_of_its_row() -> None:
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "1"), ("b", "1"))
        store.commit(("a", None))
        received = await subscription.receive()
        assert kinds([received]) == ["3:b=1+a=None"]


async def test_what_follows_a_conflated_delivery_is_newer() -> None:
    """D2, D3: no event comes twice, and none is left out."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "1"))
        store.commit(("b", "2"))
        assert kinds([await subscription.receive()]) == ["3:a=1+b=2"]
        store.commit(("b", "3"))
        assert kinds([await subscription.receive()]) == ["4:b=3"]
        store.commit(("c", "4"))
        store.commit(("a", "5"))
        assert kinds([await subscription.receive()]) == ["6:c=4+a=5"]


async def test_each_reader_gets_what_is_newer_than_what_it_has() -> None:
    """C1: the rows are kept once for all of them."""
    async with by_row(index=1) as (store, publisher):
        early = live(publisher)
        store.commit(("a", "1"))
        store.commit(("b", "2"))
        late = live(publisher)
        store.commit(("c", "3"))
        store.commit(("b", "4"))
        assert kinds(taken(late)) == ["5:c=3+b=4"]
        store.commit(("d", "5"))
        assert kinds(taken(early)) == ["6:a=1+c=3+b=4+d=5"]
        assert kinds(taken(late)) == ["6:d=5"]


async def test_every_delivery_brings_the_reader_to_the_newest_index() -> None:
    """D21, D1: however fast the writer is, and however short the history; and there is no marker."""
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)
        state: State = {}
        for turn in range(20):
            for number in range(10):
                store.commit((f"k{number % 3 + turn % 2}", f"{store.index}"))
            received = await subscription.receive()
            assert received.is_conflated
            apply(state, received)
            assert received.index == subscription.index == publisher.index
            assert state == store.state_at(received.index, EVERY)


@pytest.mark.parametrize("lag", [2, 3, 4, 5, 6, 20])
async def test_the_delivery_is_the_same_wherever_the_history_begins(lag: int) -> None:
    """C1: before the history has passed the reader, at that point, and after it."""
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)
        for number in range(lag):
            store.commit((f"k{number % 2}", f"{number}"))
        newest = [f"k{number % 2}={number}" for number in (lag - 2, lag - 1)]
        assert kinds([await subscription.receive()]) == [f"{store.index}:" + "+".join(newest)]


@pytest.mark.parametrize(
    "style", ["receive", "receive_batch", "async for", "receive_nowait", "until current"]
)
async def test_every_way_to_receive_conflates(style: str) -> None:
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)
        for _ in range(3):
            for number in range(9):
                store.commit((f"k{number % 3}", f"{number}"))
            match style:
                case "receive":
                    got = [await subscription.receive()]
                case "receive_batch":
                    got = [*await subscription.receive_batch()]
                case "receive_nowait":
                    got = [subscription.receive_nowait()]
                case "until current":
                    got = [*await subscription.receive_until_current()]
                case _:
                    got = [await anext(subscription)]
            assert kinds(got) == [f"{store.index}:k0=6+k1=7+k2=8"]
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()


async def test_a_reader_that_waits_gets_what_comes_as_it_is_or_conflated() -> None:
    """It is woken once; by then there may be more than one."""
    got: list[Event[Health]] = []

    async def read() -> None:
        while True:
            got.append(await subscription.receive())

    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            store.commit(("a", "1"))
            await quiet()
            assert kinds(got) == ["2:a=1"]
            store.commit(("a", "2"))
            store.commit(("a", "3"))
            await quiet()
            tasks.cancel_scope.cancel()
        state: State = {}
        for each in got:
            apply(state, each)
        assert got[-1].index == 4
        assert state == store.state_at(4, EVERY)


async def test_async_for_conflates_what_came_during_its_body() -> None:
    """Also in the midst of a burst, where it looks no further than the feed."""
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "0"))
        seen: list[Event[Health]] = []
        async for received in subscription:
            seen.append(received)
            if len(seen) == 5:
                break
            for key in "ab" * len(seen):
                store.commit((key, f"{store.index}"))
        assert kinds(seen) == ["2:a=0", "4:a=2+b=3", "8:a=6+b=7", "14:a=12+b=13", "22:a=20+b=21"]


async def test_a_snapshot_is_read_as_always_and_what_follows_is_conflated() -> None:
    """D5, D8: also one from the cache, that is older."""
    async with by_row() as (store, publisher):
        for key in "abc":
            store.commit((key, "0"))
        first = publisher.subscribe(EVERY, on_lag="conflate")
        assert kinds(await until_live(first)) == ["1:a=0", "2:b=0", "3:c=0", "eos@3"]
        for key in "abab":
            store.commit((key, f"{store.index}"))
        second = publisher.subscribe(EVERY, on_lag="conflate")
        assert kinds(await second.receive_until_current()) == [
            "1:a=0",
            "2:b=0",
            "3:c=0",
            "eos@3",
            "7:a=5+b=6",
        ]
        assert store.runs == 1
        assert kinds(taken(first)) == ["7:a=5+b=6"]


async def test_a_batch_ends_with_the_conflated_delivery_or_goes_up_to_it() -> None:
    """`max_events` is as always: the conflated delivery counts as one."""
    async with by_row() as (store, publisher):
        store.commit(("a", "0"))
        first = publisher.subscribe(EVERY, on_lag="conflate")
        await until_live(first)
        for _ in range(5):
            store.commit(("a", f"{store.index}"))
        second = publisher.subscribe(EVERY, on_lag="conflate")
        got = [await second.receive_batch(1) for _ in range(3)]
        assert [kinds(each) for each in got] == [["1:a=0"], ["eos@1"], ["6:a=5"]]
        assert got[-1][0].is_conflated


async def test_events_that_the_snapshot_was_ahead_of_are_left_out() -> None:
    """D2: they are late, for what is kept by row as well."""
    async with by_row() as (store, publisher):
        store.publisher = None
        for key in "abc":
            store.commit((key, "0"))
        subscription = publisher.subscribe(EVERY, on_lag="conflate")
        await until_live(subscription)
        for index, key in enumerate("abcab", start=1):
            publisher.publish([event(index, key, f"{index}")])
        assert kinds(taken(subscription)) == ["5:a=4+b=5"]


async def test_late_events_alone_are_no_delivery() -> None:
    async with by_row() as (store, publisher):
        store.publisher = None
        for key in "abc":
            store.commit((key, "0"))
        subscription = publisher.subscribe(EVERY, on_lag="conflate")
        await until_live(subscription)
        publisher.publish([event(1, "a")])
        publisher.publish([event(2, "b")])
        assert taken(subscription) == []
        publisher.publish([event(3, "c")])
        publisher.publish([event(4, "c", "4")])
        assert kinds(taken(subscription)) == ["4:c=4"]


async def test_a_resume_into_a_backlog_is_one_delivery() -> None:
    """D7: of the history as it is, although nobody conflated when it came."""
    async with by_row(index=1) as (store, publisher):
        for key in "abab":
            store.commit((key, f"{store.index}"))
        resumed = publisher.subscribe(EVERY.after(publisher.cursor), on_lag="conflate")
        older = publisher.subscribe(SubscribeRequest(HEALTH, index=2), on_lag="conflate")
        assert kinds(taken(older)) == ["5:a=3+b=4"]
        assert taken(resumed) == []


async def test_a_resume_below_what_is_kept_by_row_finds_it_in_the_history() -> None:
    """D7: the first who conflates comes at the newest index, the next one with an older cursor."""
    async with by_row(index=1) as (store, publisher):
        store.commit(("a", "1"))
        store.commit(("b", "2"))
        first = live(publisher)
        store.commit(("c", "3"))
        store.commit(("c", "4"))
        older = publisher.subscribe(SubscribeRequest(HEALTH, index=1), on_lag="conflate")
        state: State = {}
        for received in taken(older):
            apply(state, received)
        assert not older.index < 5
        assert state == store.state_at(5, EVERY)
        assert kinds(taken(first)) == ["5:c=4"]


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_resume_of_several_things_into_a_backlog_is_one_delivery(is_first: bool) -> None:
    """D7, D22: their feed is filled from the history first."""
    async with by_row(index=1) as (store, publisher):
        others = [] if is_first else [live(publisher, BOTH)]
        for number in range(6):
            both(store, (JOBS, "a", f"{number}"), (HEALTH, f"b{number % 2}", f"{number}"))
        subscription = publisher.subscribe(BOTH.after(Cursor(2, publisher.epoch)), on_lag="conflate")
        got = await subscription.receive_until_current()
        assert shown(got) == ["7:health/b0=4+jobs/a=5+health/b1=5"]
        for each in others:
            assert shown(taken(each)) == shown(got)


async def test_a_resume_from_the_end_of_a_conflated_delivery_goes_on_there() -> None:
    """D7: with its cursor, and it does not matter how the reader reads then."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        store.commit(("a", "1"))
        store.commit(("b", "2"))
        await subscription.receive()
        request = subscription.resume_request()
        assert request.index == 3
        subscription.close()
        store.commit(("c", "3"))
        assert kinds(taken(publisher.subscribe(request))) == ["4:c=3"]
        assert kinds(taken(publisher.subscribe(request, on_lag="conflate"))) == ["4:c=3"]


async def test_a_resume_of_which_the_history_has_nothing_is_stale_as_with_reset() -> None:
    """D5, D21: the marker waits for the whole snapshot."""
    handler = Held()
    async with by_row(handler=handler, history=4, index=1) as (store, publisher):
        handler.store = store
        for number in range(9):
            store.commit(("a", f"{number}"))
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=2), on_lag="conflate")
        assert await settled(subscription) == []
        handler.go.set()
        assert await settled(subscription) == ["marker", "10:a=8", "eos@10"]


async def test_who_falls_off_inside_a_snapshot_gets_the_marker_and_a_whole_one() -> None:
    """D6, D11, D21."""
    async with by_row(history=4, snapshot_cache_ttl=0) as (store, publisher):
        for key in "abc":
            store.commit((key, "0"))
        subscription = publisher.subscribe(EVERY, on_lag="conflate")
        await subscription.receive()
        for number in range(9):
            store.commit(("a", f"{number}"))
        assert await settled(subscription) == []
        assert await settled(subscription) == ["marker", "12:a=8", "2:b=0", "3:c=0", "eos@12"]


async def test_behind_a_snapshot_that_was_kept_the_rows_follow() -> None:
    """D21: the history has passed it, what is kept by row has not: no second marker."""
    async with by_row(history=4, snapshot_cache_ttl=0) as (store, publisher):
        for key in "abc":
            store.commit((key, "0"))
        subscription = publisher.subscribe(EVERY, on_lag="conflate")
        await subscription.receive()
        for number in range(9):
            store.commit(("a", f"{number}"))
        assert await settled(subscription) == []
        await quiet()
        assert (await subscription.receive()).is_new_snapshot_to_follow
        state: State = {}
        for number in range(9):
            store.commit((f"{number % 2}", f"{number}"))
        while subscription.index < publisher.index:
            received = await subscription.receive()
            assert not received.is_new_snapshot_to_follow
            apply(state, received)
        assert state == store.state_at(publisher.index, EVERY)


async def test_more_rows_than_are_kept_are_a_marker_and_a_snapshot() -> None:
    """D11, C1: at most `history_events` rows; who is below what was dropped starts again, and loses nothing."""
    async with by_row(history=4, history_events=6, index=1) as (store, publisher):
        subscription = live(publisher)
        for number in range(12):
            store.commit((f"k{number}", "1"))
        got = [*taken(subscription)]
        await quiet()
        got += taken(subscription)
        assert [each.is_new_snapshot_to_follow for each in got] == [True, *[False] * 13]
        state: State = {}
        for received in got:
            apply(state, received)
        assert state == store.state_at(store.index, EVERY)
        for _ in range(5):
            for number in range(6):
                store.commit((f"k{number}", f"{store.index}"))
        assert kinds(taken(subscription)) == [
            f"{store.index}:" + "+".join(f"k{number}={store.index - 6 + number}" for number in range(6))
        ]


async def test_who_has_taken_what_was_dropped_is_not_concerned() -> None:
    """C1: it is not below what is kept."""
    async with by_row(history=4, history_events=6, index=1) as (store, publisher):
        slow, quick = live(publisher), live(publisher)
        for number in range(12):
            store.commit((f"k{number}", "1"))
            if number % 3 == 2:
                assert len(taken(quick)[0].events) == 3
        assert taken(slow) == []
        assert (await slow.receive()).is_new_snapshot_to_follow
        store.commit(("k0", "2"))
        store.commit(("k1", "2"))
        assert kinds(taken(quick)) == ["15:k0=2+k1=2"]


async def test_a_row_may_be_less_than_a_subject() -> None:
    """A payload of one subject says which row of it this is."""

    def first_letter(payload: Health) -> Hashable:
        return (payload.value or "?")[0]

    async with by_row(first_letter, history=4, index=1) as (store, publisher):
        subscription = live(publisher, WEB)
        for value in ["a1", "b2", "a3", "c4", "b5", "a6", "a7"]:
            store.commit(("web", value))
            store.commit(("db", value))
        assert kinds(taken(subscription)) == ["14:web=c4+web=b5+web=a7"]


async def test_a_row_may_be_more_than_a_subject() -> None:
    async with by_row(lambda _: None, index=1) as (store, publisher):
        subscription = live(publisher)
        for key in "abc":
            store.commit((key, "1"))
        assert kinds(taken(subscription)) == ["4:c=1"]


async def test_a_row_belongs_to_its_topic() -> None:
    """D22: the same row of two topics is two rows."""
    async with by_row(lambda payload: payload.key, of_jobs=lambda payload: payload.key, index=1) as (
        store,
        publisher,
    ):
        subscription = live(publisher, BOTH)
        both(store, (HEALTH, "a", "1"), (JOBS, "a", "1"))
        both(store, (JOBS, "a", "2"), (JOBS, "b", "2"))
        both(store, (HEALTH, "a", "3"))
        assert shown(taken(subscription)) == ["4:jobs/a=2+jobs/b=2+health/a=3"]


async def test_each_topic_of_a_union_says_what_its_row_is() -> None:
    """D22: and the events of one commit stay in its order."""
    async with by_row(lambda payload: payload.key, of_jobs=lambda _: 0, history=4, index=1) as (
        store,
        publisher,
    ):
        subscription = live(publisher, BOTH)
        for number in range(8):
            both(store, (JOBS, f"j{number}", "1"), (HEALTH, f"h{number % 2}", f"{number}"))
        assert shown(taken(subscription)) == ["9:health/h0=6+jobs/j7=1+health/h1=7"]


@pytest.mark.parametrize(
    "request_",
    [
        SubscribeRequest(HEALTH, "a", prefix=True),
        SubscribeRequest(HEALTH, namespace=ALL),
        SubscribeRequest(HEALTH, "aa") | SubscribeRequest(HEALTH, "b"),
        BOTH,
        SubscribeRequest(HEALTH, "a", prefix=True) | SubscribeRequest(JOBS, namespace=ALL),
    ],
    ids=["prefix", "ALL", "two keys", "two topics", "prefix and ALL"],
)
async def test_what_is_asked_for_together_is_conflated_together(request_: SubscribeRequest[Health]) -> None:
    """D21, D22, D1: at every delivery the state is that of its index, with a history that is much too short."""
    async with by_row(history=4) as (store, publisher):
        for key in ["aa", "ab", "b"]:
            both(store, (HEALTH, key, "0"), (JOBS, key, "0"))
        subscription = publisher.subscribe(request_, on_lag="conflate")
        rows = fold({}, await subscription.receive_until_current())
        assert rows == rows_at(store, store.index, request_)
        for turn in range(6):
            for number in range(7):
                topic = (HEALTH, JOBS)[number % 2]
                key = ("aa", "ab", "b", "c")[(turn + number) % 4]
                namespace = ("default", "other")[turn % 2]
                value = None if number == 5 else f"{turn}.{number}"
                store.commit_events([event(store.index + 1, key, value, namespace=namespace, topic=topic)])
                store.commit_events([event(store.index + 1, "aa", f"{turn}.{number}", topic=HEALTH)])
            got = await subscription.receive_until_current()
            assert not any(each.is_new_snapshot_to_follow for each in got)
            assert len(got) == 1
            fold(rows, got)
            assert rows == rows_at(store, store.index, request_)


async def test_a_row_of_another_namespace_is_left_to_others() -> None:
    """D4: by what the feed has, not by what its events are of."""
    async with by_row(index=1) as (store, publisher):
        subscription, other = live(publisher), live(publisher, SubscribeRequest(HEALTH, namespace="other"))
        for number in range(3):
            index = store.index + 1
            store.commit_events([event(index, "a", f"{number}"), event(index, "a", "x", namespace="other")])
        assert taken(subscription)[0].payloads == (Health("a", "2"),)
        assert taken(other)[0].payloads == (Health("a", "x", "other"),)


async def test_those_beside_it_get_every_event() -> None:
    """D10: `close` and `reset` are what they were."""
    async with by_row(history=4, index=1) as (store, publisher):
        request = EVERY.after(publisher.cursor)
        alone = [publisher.subscribe(request), publisher.subscribe(request, on_lag="reset")]
        subscription = live(publisher)
        for key in "abab":
            store.commit((key, f"{store.index}"))
        for each in alone:
            assert kinds(taken(each)) == ["2:a=1", "3:b=2", "4:a=3", "5:b=4"]
        assert kinds(taken(subscription)) == ["5:a=3+b=4"]


async def test_one_delivery_counts_as_one() -> None:
    """D11: the lag is in deliveries as they were published."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher)
        for key in "abab":
            store.commit((key, "1"))
        assert subscription.statistics().lag == 4
        await subscription.receive()
        figures = subscription.statistics()
        assert (figures.lag, figures.peak_lag, figures.delivered, figures.conflated) == (0, 4, 1, 1)
        assert figures.state is SubscriptionState.LIVE
        store.commit(("a", "2"))
        await subscription.receive()
        figures = subscription.statistics()
        assert (figures.delivered, figures.conflated) == (2, 1)
        totals = publisher.statistics()
        assert (totals.commits, totals.events, totals.deliveries, totals.conflated) == (5, 5, 2, 1)


async def test_looking_at_a_reader_that_is_behind_changes_nothing() -> None:
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher)
        for key in "ababab":
            store.commit((key, "1"))
        assert (subscription.index, subscription.horizon, subscription.cursor.index) == (1, 1, 1)
        assert subscription.resume_request().index == 1
        assert subscription.state is SubscriptionState.LIVE
        assert kinds(taken(subscription)) == ["7:a=1+b=1"]
        assert subscription.horizon == 7


async def test_the_horizon_goes_on_with_commits_of_others() -> None:
    """D7: a quiet subject does not grow stale, and what others do is nothing to conflate."""
    async with by_row(history=4, index=1) as (store, publisher):
        subscription = live(publisher, WEB)
        for _ in range(9):
            store.commit(("db", "1"))
        assert taken(subscription) == []
        assert subscription.horizon == 10
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        assert kinds(taken(subscription)) == ["12:web=2"]


async def test_a_delivery_has_the_mark_of_its_newest_commit() -> None:
    """D7: so that the cursor of the reader is good."""
    async with by_row(index=1, mark="m1") as (_, publisher):
        subscription = live(publisher)
        for index in (2, 3, 4):
            publisher.publish([event(index, "a", f"{index}")], mark=f"m{index}")
        received = await subscription.receive()
        assert (received.mark, subscription.cursor.mark) == ("m4", "m4")
        publisher.publish([event(5, "a", "5")], mark="m5")
        assert kinds(taken(publisher.subscribe(subscription.resume_request()))) == ["5:a=5"]


@pytest.mark.parametrize("request_", [EVERY, BOTH, SubscribeRequest(JOBS)])
async def test_a_topic_that_does_not_say_what_a_row_is_cannot_be_conflated(
    request_: SubscribeRequest[Health],
) -> None:
    """D18: refused at the call, and nothing remains."""
    async with by_row(None, of_jobs=None) as (_, publisher):
        with pytest.raises(ValueError, match="row"):
            publisher.subscribe(request_, on_lag="conflate")
        assert publisher.statistics().subscriptions == 0


async def test_one_topic_of_a_union_without_a_row_is_enough() -> None:
    """D18."""
    async with by_row(of_jobs=None) as (_, publisher):
        with pytest.raises(ValueError, match="jobs"):
            publisher.subscribe(BOTH, on_lag="conflate")
        publisher.subscribe(EVERY, on_lag="conflate").close()


async def test_a_plain_snapshot_function_says_nothing_of_rows() -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
        with pytest.raises(ValueError, match="row"):
            publisher.subscribe(EVERY, on_lag="conflate")


async def test_what_is_no_function_is_no_row() -> None:
    """D18."""
    for wrong in ("key", 1, True):
        with pytest.raises(TypeError, match="row"):
            EventPublisher({HEALTH: Source(Catalogue().snapshot, row=wrong)})  # type: ignore[arg-type]


async def test_an_unknown_way_to_lag_is_refused_as_before() -> None:
    async with by_row() as (_, publisher):
        with pytest.raises(ValueError, match="conflate"):
            publisher.subscribe(EVERY, on_lag="drop")  # type: ignore[arg-type]


async def test_what_is_kept_by_row_goes_with_the_last_who_conflates() -> None:
    """D11, D13: the history has forgotten the event long ago."""

    class Row(Heavy):
        def __init__(self, key: str) -> None:
            self.key = key

    async with open_publisher(
        {HEALTH: Source(Catalogue().snapshot, row=lambda payload: payload.key)}, history=2, index=1
    ) as publisher:
        first: Subscription[Health] = live(publisher)
        second = live(publisher)
        payload = Row("a")
        gone = weakref.ref(payload)
        publisher.publish([Event(HEALTH, 2, payload)])
        del payload
        for index in range(3, 9):
            publisher.publish([Event(HEALTH, index, Row("b"))])
        assert gone() is not None
        second.close()
        await quiet()
        gc.collect()
        assert gone() is not None
        first.close()
        await quiet()
        gc.collect()
        assert gone() is None


async def test_as_many_events_as_there_are_rows_are_kept() -> None:
    """D11: a reader that sleeps does not keep what other events have replaced."""

    class Row(Heavy):
        pass

    async with open_publisher(
        {HEALTH: Source(Catalogue().snapshot, row=lambda _: 0)}, history=2, index=1
    ) as publisher:
        subscription: Subscription[Health] = live(publisher)
        payloads = []
        for index in range(2, 52):
            payload = Row()
            payloads.append(weakref.ref(payload))
            publisher.publish([Event(HEALTH, index, payload)])
            del payload
        gc.collect()
        assert sum(each() is not None for each in payloads) <= 3
        assert len(taken(subscription)[0].events) == 1
