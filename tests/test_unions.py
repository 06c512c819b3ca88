"""One subscription to several things has one order, one end of its snapshot and one cursor."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, ready, until_live
from hypothesis import given, strategies as st
from interruptions import soon
from scenes import Held, opened, quiet
from unions import BOTH, SERVICES, WORK, both, fold, rows_at, shown

from trio_stream import (
    ALL,
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    Interest,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    Topic,
    UnknownTopicError,
    close_subscription_event,
    open_publisher,
)
from trio_stream.testing import cancel_at_every_checkpoint

pytestmark = pytest.mark.anyio

WEB_AND_JOB = SubscribeRequest(HEALTH, "web") | SubscribeRequest(JOBS, "a")
PREFIXES = SubscribeRequest(HEALTH, "w", prefix=True) | SubscribeRequest(HEALTH, "d", prefix=True)
OnLag = Literal["close", "reset"]


async def test_a_snapshot_of_several_things_has_one_end() -> None:
    """D5, D22: at its index all of them are right together."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        store.commit(("b", "2"), topic=JOBS)
        subscription = publisher.subscribe(BOTH)
        events = await until_live(subscription)
        assert shown(events)[-1] == "eos@2"
        assert sum(each.is_framing for each in events) == 1
        assert fold({}, events) == rows_at(store, 2, BOTH)
        assert len(rows_at(store, 2, BOTH)) == 3
        assert subscription.index == 2


async def test_changes_of_all_topics_come_in_one_order() -> None:
    """D2, D3, D22: that of the commits."""
    async with opened() as (store, publisher):
        subscription = publisher.subscribe(WEB_AND_JOB)
        await until_live(subscription)
        store.commit(("web", "1"))
        store.commit(("a", "2"), topic=JOBS)
        store.commit(("db", "3"))
        store.commit(("web", "4"))
        store.commit(("b", "5"), topic=JOBS)
        store.commit(("a", "6"), topic=JOBS)
        assert shown(ready(subscription)) == ["1:health/web=1", "2:jobs/a=2", "4:health/web=4", "6:jobs/a=6"]
        assert subscription.horizon == 6


async def test_a_commit_over_several_topics_is_one_event() -> None:
    """D4, D22: in the order in which it was published, without what was not asked for."""
    async with opened() as (store, publisher):
        subscription = publisher.subscribe(WEB_AND_JOB)
        await until_live(subscription)
        both(store, (JOBS, "a", "1"), (HEALTH, "web", "2"), (HEALTH, "db", "3"), (JOBS, "a", "4"))
        both(store, (JOBS, "b", "1"), (HEALTH, "web", "2"))
        batch, single = ready(subscription)
        assert shown([batch]) == ["1:jobs/a=1+health/web=2+jobs/a=4"]
        assert isinstance(batch.payload, PayloadEvents)
        assert batch.topic == JOBS
        assert shown([single]) == ["2:health/web=2"]
        assert isinstance(single.payload, Health)


async def test_what_is_asked_for_twice_comes_once() -> None:
    """D3, Nomad: an event that matches two of the keys that are asked for."""
    overlapping = SubscribeRequest(HEALTH, "w", prefix=True) | SubscribeRequest(
        HEALTH, "web", namespace="team"
    )
    request: SubscribeRequest[Health] = SubscribeRequest(
        interests=[Interest(HEALTH, "web"), Interest(HEALTH), *overlapping.interests, Interest(JOBS)]
    )
    async with opened() as (store, publisher):
        subscription = publisher.subscribe(request)
        await until_live(subscription)
        store.commit(("web", "1"), ("we", "1"))
        store.commit(("web", "2"), namespace="team")
        store.commit(("db", "3"), namespace="team")
        assert shown(ready(subscription)) == ["1:health/web=1+health/we=1", "2:health/web=2"]


NAMES = ["m", "n"]
KEYS = ["a", "ab", "b"]
asked = st.lists(
    st.builds(
        Interest,
        st.sampled_from([HEALTH, JOBS]),
        st.sampled_from(["", *KEYS]),
        st.booleans(),
        st.sampled_from([*NAMES, ALL]),
        st.sampled_from(["default", ALL]),
    ),
    min_size=1,
    max_size=4,
).map(lambda interests: SubscribeRequest[Any](interests=interests))
commits = st.lists(
    st.lists(
        st.tuples(st.sampled_from([HEALTH, JOBS]), st.sampled_from(KEYS), st.sampled_from(NAMES)), max_size=4
    ),
    max_size=12,
)


@given(
    commits,
    st.lists(st.tuples(asked, st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5),
    st.integers(1, 12),
)
def test_every_reader_gets_just_what_it_asked_for(
    commits: list[list[tuple[Topic[Health], str, str]]],
    readers: list[tuple[SubscribeRequest[Health], int, int]],
    history: int,
) -> None:
    """D3, D4, D6, D9, D22: whoever else reads what, whenever one comes, from whatever index one goes on.

    Another's namespace was once handed out: a batch was shared by two that had the same first event and length.
    """
    source = Source(Catalogue().snapshot, wide=True)
    publisher = EventPublisher({HEALTH: source, JOBS: source}, index=1, epoch="e", history=history)
    published: list[list[Event[Health]]] = []
    # Who came after how many commits, to go on after which one.
    came: list[tuple[Subscription[Health], SubscribeRequest[Health], int]] = []

    def come(when: int) -> None:
        for request, at, since in readers:
            index = 1 + min(since, when)
            topics = {interest.topic.name for interest in request.interests}
            floor = max(publisher.statistics().topics[name].floor for name in topics)
            if at == when and index >= floor:
                came.append((publisher.subscribe(request.after(Cursor(index, "e"))), request, index))

    come(0)
    for number, changes in enumerate(commits, 1):
        commit = [
            Event(topic, number + 1, Health(key, str(at), name))
            for at, (topic, key, name) in enumerate(changes)
        ]
        published.append(commit)
        publisher.publish(commit, index=number + 1)
        come(number)
    for subscription, request, index in came:
        expected = [
            covered
            for commit in published
            if (
                covered := [each for each in commit if request.covers(each.topic, each.payload.subject)]  # type: ignore[union-attr]
            )
            and covered[0].index > index
        ]
        try:
            received = ready(subscription)
        except SubscriptionLagged as lagged:  # nothing came before it, and it did miss something
            assert lagged.index == index
            dropped = max(publisher.statistics().topics[each.topic.name].floor for each in request.interests)
            assert any(
                commit[0].index <= dropped for commit in published if commit and commit[0].index > index
            )
        else:
            assert [list(each.events) for each in received] == expected
        subscription.unsubscribe()
    statistics = publisher.statistics()
    assert statistics.subscriptions == 0
    for topic in (HEALTH, JOBS):  # D13: the feeds of what was asked for are gone
        subjects = {
            subject
            for commit in published
            for each in commit
            if each.topic == topic and each.index > statistics.topics[topic.name].floor
            for subject in [(each.payload.key, each.payload.namespace), ("", each.payload.namespace)]  # type: ignore[union-attr]
        }
        if statistics.topics[topic.name].floor > 1:
            assert statistics.topics[topic.name].feeds == len(subjects)


async def test_rights_are_asked_for_each_event_of_a_batch() -> None:
    """D4, C16: whatever the topic; what is hidden moves the index."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        subscription = publisher.subscribe(BOTH, authorizer=frozenset({"a", "web=3"}))
        assert shown(await until_live(subscription)) == ["1:jobs/a=1", "eos@1"]
        both(store, (HEALTH, "web", "2"), (JOBS, "a", "2"), (JOBS, "b", "2"))
        both(store, (HEALTH, "web", "3"), (JOBS, "a", "3"))
        both(store, (HEALTH, "web", "4"), (JOBS, "b", "4"))
        assert shown(ready(subscription)) == ["2:jobs/a=2", "3:health/web=3+jobs/a=3"]
        assert subscription.horizon == 4
        assert subscription.index == 4


@pytest.mark.parametrize("topic", [HEALTH, JOBS], ids=str)
async def test_the_history_of_any_topic_can_pass_a_reader(topic: Topic[Health]) -> None:
    """D6, D11: what several topics have together reaches back as far as the one that reaches least."""
    async with opened(history=2) as (store, publisher):
        subscription = publisher.subscribe(BOTH)
        await until_live(subscription)
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        for value in "234":
            store.commit(("x", value), topic=topic)
        with pytest.raises(SubscriptionLagged) as caught:
            subscription.receive_nowait()
        assert (caught.value.index, caught.value.missed) == (0, 2)
        stale = publisher.subscribe(
            subscription.resume_request() if subscription.index else BOTH.after(Cursor(1, publisher.epoch))
        )
        events = await until_live(stale)
        assert shown(events)[0] == "marker"
        assert fold({}, events) == rows_at(store, 4, BOTH)


async def test_a_reader_that_is_reset_gets_a_snapshot_of_all() -> None:
    """D21, D22: in the same subscription, and whole before the marker comes."""
    async with opened(history=2) as (store, publisher):
        subscription = publisher.subscribe(BOTH, on_lag="reset")
        events = await until_live(subscription)
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        for value in "2345":
            store.commit(("b", value), topic=JOBS)
        received = await until_live(subscription)
        assert shown(received)[0] == "marker"
        assert shown(received)[-1] == "eos@5"
        assert fold({}, [*events, *received]) == rows_at(store, 5, BOTH)
        store.commit(("web", "6"))
        assert shown(ready(subscription)) == ["6:health/web=6"]


@pytest.mark.parametrize("request_", [BOTH, WEB_AND_JOB, BOTH | PREFIXES], ids=["topics", "keys", "all"])
async def test_a_union_resumes_from_every_index_that_all_of_its_topics_keep(
    request_: SubscribeRequest[Health],
) -> None:
    """D7: below the highest floor of them it is stale."""
    async with opened(history=5) as (store, publisher):
        for index in range(1, 7):
            both(store, (HEALTH, "web", str(index)), (JOBS, "a", str(index)))
        store.commit(("a", "7"), topic=JOBS)
        floors = [publisher.statistics().topics[name].floor for name in ("health", "jobs")]
        assert floors == [1, 2]
        for index in range(1, 8):
            again = publisher.subscribe(request_.after(Cursor(index, publisher.epoch)))
            await quiet()
            received = shown(ready(again))
            if index < 2:
                assert received[0] == "marker"
                assert received[-1] == "eos@7"
            else:
                expected = [f"{i}:health/web={i}+jobs/a={i}" for i in range(index + 1, 7)]
                assert received == expected + ["7:jobs/a=7"] * (index < 7)


async def test_one_run_of_each_part_serves_a_herd() -> None:
    """D14: with the very same events, also for those who ask for it in other words."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        both(store, (HEALTH, "web", "2"), (HEALTH, "db", "2"), (JOBS, "b", "2"))
        herd = [
            publisher.subscribe(BOTH if number % 2 else WORK | SERVICES | SERVICES) for number in range(100)
        ]
        received = [await until_live(subscription) for subscription in herd]
        assert store.runs == 2
        assert len({tuple(map(id, events)) for events in received}) == 1
        both(store, (HEALTH, "web", "3"), (JOBS, "a", "3"))
        assert len({id(each) for subscription in herd for each in ready(subscription)}) == 1


async def test_a_union_shares_its_parts_with_those_who_read_only_one() -> None:
    """D14: before it and after it."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        await until_live(publisher.subscribe(SERVICES))
        store.commit(("db", "2"))
        assert fold({}, await until_live(publisher.subscribe(BOTH))) == rows_at(store, 2, BOTH)
        assert store.runs == 2
        await until_live(publisher.subscribe(WORK))
        assert fold({}, await until_live(publisher.subscribe(BOTH))) == rows_at(store, 2, BOTH)
        assert store.runs == 2


async def test_nothing_of_a_union_is_cached_but_its_parts() -> None:
    """D13, D14."""
    async with opened() as (_, publisher):
        await until_live(subscription := publisher.subscribe(BOTH))
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.tokens) == (1, 1)
        assert [each.snapshots for each in statistics.topics.values()] == [1, 1]
        assert [each.feeds for each in statistics.topics.values()] == [1, 1]  # that of the union, for both
        subscription.unsubscribe()
        await quiet()
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        assert [each.snapshots for each in statistics.topics.values()] == [1, 1]
        assert [each.feeds for each in statistics.topics.values()] == [0, 0]


async def test_who_reads_a_union_is_one_subscription_in_the_figures() -> None:
    """D14: also while it is composed by readers of its parts."""
    held = Held()
    async with opened(held) as (store, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(replace(BOTH, token="t"))
        tasks.start_soon(until_live, subscription)
        await quiet()
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (1, 1, 1)
        assert statistics.topics["health"].snapshots == 2  # of the part, and of the whole
        assert subscription.statistics().lag == 0
        held.go.set()
        await quiet()
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        store.commit(("web", "2"))
        assert (subscription.statistics().lag, subscription.statistics().delivered) == (2, 1)
        assert "topic='health'" in repr(subscription)
        assert "topic='jobs'" in repr(subscription)
        subscription.unsubscribe()


@pytest.mark.parametrize("inside", [True, False], ids=["inside the snapshot", "live"])
@pytest.mark.parametrize("how", ["call", "event", "unsubscribe"])
async def test_a_union_can_be_closed_like_any_other(how: str, inside: bool) -> None:
    """D9, D13: and takes the runs of its parts along, if nobody else wants them."""
    held = Held()
    async with opened(held) as (store, publisher):
        subscription = publisher.subscribe(replace(BOTH, token="t"))
        await quiet()
        if not inside:
            held.go.set()
            await until_live(subscription)
            both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        if how == "unsubscribe":
            subscription.unsubscribe()
        elif how == "call":
            assert publisher.close_subscriptions(["t"]) == 1
        else:
            publisher.publish([close_subscription_event(["t"])])
        await quiet()
        with pytest.raises((SubscriptionForceClosed, anyio.ClosedResourceError)):
            subscription.receive_nowait()
        assert held.cancelled == inside
        assert publisher.statistics().subscriptions == 0
        assert publisher.statistics().topics["health"].snapshots == (not inside)


async def test_a_part_that_others_read_goes_on_when_the_union_has_left() -> None:
    """D14."""
    held = Held()
    async with opened(held) as (_, publisher):
        union = publisher.subscribe(BOTH)
        plain = publisher.subscribe(SERVICES)
        await quiet()
        union.unsubscribe()
        await quiet()
        assert held.cancelled == 0
        held.go.set()
        assert shown(await until_live(plain)) == ["eos@0"]
        assert len(held.requests) == 1


@pytest.mark.parametrize("topic", [HEALTH, JOBS, None], ids=str)
@pytest.mark.parametrize("inside", [True, False], ids=["inside the snapshot", "live"])
async def test_a_refresh_of_any_of_its_topics_ends_a_union(topic: Topic[Health] | None, inside: bool) -> None:
    """D5: what it holds together is no longer right. It begins anew, and readers of other topics go on."""
    held = Held()
    async with opened(held) as (store, publisher):
        held.store = store
        union, work = publisher.subscribe(BOTH), publisher.subscribe(WORK)
        await quiet()
        if not inside:
            held.go.set()
            await until_live(union)
            both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        publisher.refresh(topic, index=None if topic else store.index)
        await quiet()
        with pytest.raises(SubscriptionForceClosed) as caught:
            union.receive_nowait()
        assert caught.value.reason is CloseReason.REFRESH
        assert union.resume_request() == BOTH
        assert (work.state is SubscriptionState.FORCE_CLOSED) == (topic in (None, JOBS))
        held.go.set()
        again = publisher.subscribe(BOTH)
        assert shown(await until_live(again))[-1].startswith("eos@")


async def test_a_client_from_before_a_refresh_of_one_topic_cannot_resume_its_union() -> None:
    """D6, D7: and one that reads only the other topic can."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        cursor = publisher.cursor
        publisher.refresh(JOBS)
        assert publisher.subscribe(SERVICES.after(cursor)).state is SubscriptionState.LIVE
        events = await until_live(publisher.subscribe(BOTH.after(cursor)))
        assert shown(events)[0] == "marker"
        assert fold({}, events) == rows_at(store, 1, BOTH)


async def test_stop_comes_after_what_was_published_for_any_of_the_topics() -> None:
    """D5."""
    async with opened() as (store, publisher):
        subscription = publisher.subscribe(BOTH)
        await until_live(subscription)
        store.commit(("web", "1"))
        both(store, (HEALTH, "web", "2"), (JOBS, "a", "2"))
    assert shown([await subscription.receive(), await subscription.receive()]) == [
        "1:health/web=1",
        "2:health/web=2+jobs/a=2",
    ]
    with pytest.raises(SubscriptionForceClosed) as caught:
        await subscription.receive()
    assert caught.value.reason is CloseReason.STOPPED
    assert subscription.resume_request().index == 2


@pytest.mark.parametrize("waiting", [True, False])
async def test_stop_ends_a_union_at_once_whose_snapshot_is_not_whole(waiting: bool) -> None:
    """D5: although one of its parts was whole."""
    held = Held()
    reasons: list[CloseReason] = []

    async def read(subscription: Subscription[Health]) -> None:
        with pytest.raises(SubscriptionForceClosed) as caught:
            await until_live(subscription)
        reasons.append(caught.value.reason)

    async with anyio.create_task_group() as tasks:
        async with opened(held) as (store, publisher):
            store.commit(("a", "1"), topic=JOBS)
            subscription = publisher.subscribe(BOTH)
            if waiting:
                tasks.start_soon(read, subscription)
            await quiet()
        if not waiting:
            await read(subscription)
    assert reasons == [CloseReason.STOPPED]
    assert held.cancelled == 1


async def test_a_union_that_is_whole_is_read_to_its_end_after_stop() -> None:
    """D5: the stopped publisher needs not do anything for it."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        subscription = publisher.subscribe(BOTH)
        await quiet()
        store.commit(("db", "2"))
    events = await until_live(subscription)
    assert fold({}, events) == rows_at(store, 1, BOTH)
    assert shown([await subscription.receive()]) == ["2:health/db=2"]
    with pytest.raises(SubscriptionForceClosed):
        await subscription.receive()


@pytest.mark.parametrize("when", ["at once", "behind rows", "after the other part"])
async def test_a_part_that_fails_fails_the_whole_with_its_cause(when: str) -> None:
    """D16: and nobody who reads only the other part; the next run may work."""
    is_broken = True

    async def fragile(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        if when == "behind rows":
            await snapshot.append([event(0, "web")])
        if when == "after the other part":
            await quiet()
        if is_broken:
            raise LookupError("not ready")
        return 0

    async with opened(fragile) as (_, publisher):
        union, work, services = (publisher.subscribe(each) for each in (BOTH, WORK, SERVICES))
        causes = []
        for failing in (union, services):
            with pytest.raises(SnapshotFailed) as caught:
                await until_live(failing)
            causes.append(caught.value.__cause__)
            assert failing.resume_request().index == 0
        assert list(map(type, causes)) == [LookupError, LookupError]
        assert shown(await until_live(work)) == ["eos@0"]
        is_broken = False
        assert shown(await until_live(publisher.subscribe(BOTH)))[-1] == "eos@0"


async def test_both_parts_may_fail() -> None:
    """D16: one of the two is the cause."""
    errors = {HEALTH: LookupError("health"), JOBS: LookupError("jobs")}

    async def failing(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await anyio.lowlevel.checkpoint()
        raise errors[request.topic]

    async with open_publisher({HEALTH: failing, JOBS: failing}) as publisher:
        with pytest.raises(SnapshotFailed) as caught:
            await until_live(publisher.subscribe(BOTH))
        assert caught.value.__cause__ in errors.values()
        assert shown(ready_or_empty(publisher)) == []


def ready_or_empty(publisher: EventPublisher) -> list[Event[Health]]:
    """What a reader has at once who goes on from here: the publisher still works."""
    publisher.publish([event(1, "web")])
    return ready(publisher.subscribe(BOTH.after(Cursor(1, publisher.epoch))))


async def test_parts_do_not_wait_for_each_other() -> None:
    """D22: one goes on with its changes while another is slow, and the whole is right at the index of the last."""
    held = Held()
    async with opened(held) as (store, publisher):
        held.store = store
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        subscription = publisher.subscribe(BOTH)
        await quiet()
        for value in "23456":
            store.commit(("a", value), topic=JOBS)
        await quiet()
        assert shown(ready(subscription))[0] == "1:jobs/a=1"
        assert subscription.state is SubscriptionState.SNAPSHOT
        both(store, (HEALTH, "web", "7"), (JOBS, "a", "7"))
        held.go.set()
        events = await until_live(subscription)
        index = events[-1].index
        assert 6 <= index <= 7
        rows = fold({}, [Event(JOBS, 1, Health("a", "1")), *events])
        assert rows == rows_at(store, index, BOTH)
        assert fold(rows, ready(subscription)) == rows_at(store, 7, BOTH)


async def test_a_large_part_and_a_slow_one_and_many_changes_become_one_state() -> None:
    """D1, D22: a part has more rows than a handler may run ahead by, and commits go on meanwhile."""
    store = Catalogue()

    async def large(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        index, rows = store.index, [*store.state_at(store.index, request).items()]
        for number in range(3000):
            await snapshot.append([event(0, f"row{number}")])
        for subject, value in rows:
            await snapshot.append([event(0, subject.key, value)])
        return index

    async with open_publisher({HEALTH: large, JOBS: store.snapshot}) as publisher:
        store.publisher = publisher
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        subscription = publisher.subscribe(BOTH)
        events: list[Event[Health]] = []
        while not (events and events[-1].is_end_of_snapshot):
            events += await subscription.receive_batch(100)
            if store.index < 20:
                both(store, (HEALTH, "web", str(store.index)), (JOBS, "a", str(store.index)))
        rows = fold({}, events)
        expected = rows_at(store, events[-1].index, BOTH)
        assert {each: rows[each] for each in expected} == expected
        assert len(rows) == len(expected) + 3000
        fold(rows, ready(subscription))
        expected = rows_at(store, store.index, BOTH)
        assert {each: rows[each] for each in expected} == expected


@pytest.mark.parametrize("when", ["before", "soon"])
@pytest.mark.parametrize("touched", [JOBS, HEALTH, None], ids=["the other part", "the last part", "both"])
async def test_a_commit_in_the_moment_in_which_the_last_part_is_whole_comes_once(
    when: str, touched: Topic[Health] | None
) -> None:
    """D1, D3, D22: in the snapshot or after it. On trio the order of the tasks is by chance, so it is tried often."""
    store = Catalogue()
    go = anyio.Event()

    def commit() -> None:
        both(
            store,
            *((topic, key, "2") for topic, key in ((HEALTH, "web"), (JOBS, "a")) if touched in (None, topic)),
        )

    async def last(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await store.snapshot(request, snapshot)
        await go.wait()
        if when == "soon":
            soon(commit)
        else:
            commit()
        return 1

    for _ in range(20):
        store = Catalogue()
        go = anyio.Event()
        async with open_publisher({HEALTH: last, JOBS: store.snapshot}) as publisher:
            store.publisher = publisher
            both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
            subscription = publisher.subscribe(BOTH)
            await quiet()
            go.set()
            events = await until_live(subscription)
            assert fold({}, events) == rows_at(store, events[-1].index, BOTH)
            await quiet()
            after = ready(subscription)
            assert [each.index for each in after] == [2] * (events[-1].index < 2)
            assert fold({}, [*events, *after]) == rows_at(store, 2, BOTH)


async def test_a_part_that_is_ahead_makes_the_whole_wait_for_its_commit() -> None:
    """D2, D22: the store has committed, and the publish comes later, perhaps about nothing of it."""
    async with opened() as (store, publisher):
        store.publisher = None
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        ahead = publisher.subscribe(BOTH)
        store.publisher = publisher
        await quiet()
        received = ready(ahead)
        assert not any(each.is_framing for each in received)
        assert ahead.state is SubscriptionState.SNAPSHOT
        publisher.publish((), index=1)
        await quiet()
        received += ready(ahead)
        assert shown(received)[-1] == "eos@1"
        assert fold({}, received) == rows_at(store, 1, BOTH)
        store.commit(("web", "2"))
        assert shown(ready(ahead)) == ["2:health/web=2"]


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_union_that_the_history_passes_while_it_is_made(on_lag: OnLag) -> None:
    """D6, D11, D21: who did not ask for a reset is told; another snapshot is made for who did."""
    held = Held()
    async with opened(held, history=2) as (store, publisher):
        held.store = store
        both(store, (HEALTH, "web", "0"), (JOBS, "a", "0"))
        subscription = publisher.subscribe(BOTH, on_lag=on_lag)
        await quiet()
        for value in "12345":
            store.commit(("web", value))
            store.commit(("a", value), topic=JOBS)
        held.go.set()
        await quiet()
        if on_lag == "close":
            with pytest.raises(SubscriptionLagged):
                await until_live(subscription)
        else:
            events = await until_live(subscription)
            assert fold({}, events) == rows_at(store, events[-1].index, BOTH)
            assert events[-1].index == store.index


async def test_a_union_is_as_current_as_its_cached_parts_with_what_came_since() -> None:
    """D8, U17: it contains every commit that was published before it was asked for."""
    async with opened() as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        await until_live(publisher.subscribe(SERVICES))
        await until_live(publisher.subscribe(WORK))
        for value in "234":
            both(store, (HEALTH, "web", value), (JOBS, "a", value))
            once = publisher.subscribe(BOTH)
            events = await once.receive_until_current()
            assert fold({}, events) == rows_at(store, store.index, BOTH)
            once.unsubscribe()
        assert store.runs == 2


@pytest.mark.parametrize(
    "request_", [BOTH, PREFIXES, BOTH | PREFIXES, WEB_AND_JOB], ids=["topics", "prefixes", "all", "keys"]
)
async def test_reading_a_union_can_be_cancelled_anywhere(request_: SubscribeRequest[Health]) -> None:
    """D12, D13: and nothing is lost, nothing comes twice, and nothing stays behind."""
    received: list[Event[Health]] = []

    async def read() -> None:
        for _ in range(3):
            received.extend(await subscription.receive_until_current())
            both(store, (HEALTH, "web", str(store.index)), (JOBS, "a", str(store.index)))
            received.append(await subscription.receive())

    async with opened(snapshot_cache_ttl=0) as (store, publisher):
        both(store, (HEALTH, "web", "x"), (HEALTH, "db", "x"), (JOBS, "a", "x"))
        subscription = publisher.subscribe(request_)
        await cancel_at_every_checkpoint(read)
        received += await subscription.receive_until_current()
        assert fold({}, received) == rows_at(store, store.index, request_)
        live = [each.index for each in received[[e.is_end_of_snapshot for e in received].index(True) + 1 :]]
        assert live == sorted(set(live))
        assert sum(each.is_end_of_snapshot for each in received) == 1
        subscription.unsubscribe()
        await quiet()
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting) == (0, 0)
        assert [each.snapshots for each in statistics.topics.values()] == [0, 0]


class Meddling:
    """An authorizer that does something when it is asked for the first time, and may see everything."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self.meddle: Callable[[], object] | None = meddle

    def __contains__(self, _: object) -> bool:
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()
        return True


class Scene:
    """A union, and what a payload may do to it and to others."""

    def __init__(self, store: Catalogue, publisher: EventPublisher) -> None:
        self.store = store
        self.publisher = publisher
        self.others: list[Subscription[Health]] = []
        self.authorizer: Any = Meddling(lambda: None)
        self.union = publisher.subscribe(replace(BOTH, token="t"), authorizer=self.authorizer)

    def publish(self, times: int = 1) -> None:
        for _ in range(times):
            both(self.store, (HEALTH, "web", str(self.store.index)), (JOBS, "b", str(self.store.index)))

    def subscribe(self) -> None:
        self.others.append(self.publisher.subscribe(BOTH))

    async def read(self, events: list[Event[Health]]) -> None:
        """Up to the newest commit, and at least to the end of the snapshot."""
        with anyio.fail_after(10):
            while not (any(map(ends, events)) and self.union.horizon == self.store.index):
                events.append(await self.union.receive())


def ends(received: Event[Health]) -> bool:
    return received.is_end_of_snapshot


MEDDLES: dict[str, tuple[Callable[[Scene], object], type[Exception] | None]] = {
    "publishes": (Scene.publish, None),
    "subscribes": (Scene.subscribe, None),
    "leaves": (lambda scene: scene.union.unsubscribe(), anyio.ClosedResourceError),
    "closes": (lambda scene: scene.publisher.close_subscriptions(["t"]), SubscriptionForceClosed),
    "refreshes": (lambda scene: scene.publisher.refresh(HEALTH), SubscriptionForceClosed),
    "makes it lag": (lambda scene: scene.publish(10), SubscriptionLagged),
}


@pytest.mark.parametrize("during", ["the snapshot", "changes"])
@pytest.mark.parametrize(("meddle", "end"), MEDDLES.values(), ids=MEDDLES)
async def test_a_payload_may_do_anything_while_it_is_asked(
    meddle: Callable[[Scene], object], end: type[Exception] | None, during: str
) -> None:
    """D9, D12, D18: everything is as if it had been done just before or just after."""
    async with opened(history=4) as (store, publisher):
        both(store, (HEALTH, "web", "1"), (JOBS, "a", "1"))
        scene = Scene(store, publisher)
        events: list[Event[Health]] = []
        if during == "changes":
            await scene.read(events)
            scene.publish(2)
        scene.authorizer.meddle = lambda: meddle(scene)
        if end is None:
            await scene.read(events)
            assert fold({}, events) == rows_at(store, store.index, BOTH)
        else:
            with pytest.raises(end):
                await scene.read(events)
            with pytest.raises(end):
                scene.union.receive_nowait()
        assert scene.authorizer.meddle is None
        for other in scene.others:
            assert fold({}, await other.receive_until_current()) == rows_at(store, store.index, BOTH)


def bad(publisher: EventPublisher) -> dict[str, tuple[Callable[[], object], type[Exception]]]:
    unknown = SubscribeRequest(Topic[Health]("unknown"))
    return {
        "an unknown topic": (lambda: publisher.subscribe(BOTH | unknown), UnknownTopicError),
        "only unknown topics": (lambda: publisher.subscribe(unknown), UnknownTopicError),
        "interests": (lambda: publisher.subscribe(BOTH.interests), TypeError),  # type: ignore[arg-type]
        "two requests": (lambda: publisher.subscribe((SERVICES, WORK)), TypeError),  # type: ignore[arg-type]
        "on_lag": (lambda: publisher.subscribe(BOTH, on_lag="wait"), ValueError),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("what", bad(EventPublisher()))
async def test_a_union_that_cannot_be_had_is_refused_and_nothing_has_changed(what: str) -> None:
    """D18: at the call; not for a part of it."""
    async with opened() as (store, publisher):
        before = publisher.statistics()
        call, kind = bad(publisher)[what]
        with pytest.raises(kind):
            call()
        await quiet()
        assert publisher.statistics() == before
        assert store.runs == 0


async def test_after_stop_no_union_is_had() -> None:
    """D18."""
    async with opened() as (_, publisher):
        pass
    with pytest.raises(anyio.ClosedResourceError):
        publisher.subscribe(BOTH)


async def test_one_receiver_at_a_time() -> None:
    """D18."""
    async with opened() as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(BOTH)
        await until_live(subscription)
        tasks.start_soon(subscription.receive)
        await quiet()
        with pytest.raises(anyio.BusyResourceError):
            await subscription.receive_batch()
        publisher.publish([event(1, "web")])


async def test_very_many_topics_are_one_subscription() -> None:
    """D14, D22."""
    topics = [Topic[Health](f"topic{number}") for number in range(100)]
    store = Catalogue()
    async with open_publisher(dict.fromkeys(topics, store.snapshot)) as publisher:
        store.publisher = publisher
        for topic in topics:
            store.commit(("a", topic.name), topic=topic)
        request: SubscribeRequest[Health] = SubscribeRequest(interests=map(Interest, topics))
        subscription = publisher.subscribe(request)
        events = await until_live(subscription)
        assert shown(events)[-1] == "eos@100"
        assert fold({}, events) == rows_at(store, 100, request)
        both(store, *((topic, "a", "1") for topic in topics))
        (received,) = ready(subscription)
        assert len(received.events) == 100
