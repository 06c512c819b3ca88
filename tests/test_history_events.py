"""A history is bounded by its events as well as by its commits, and the newest commit is always whole."""

import gc
import math
import weakref
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from hypothesis import given, strategies as st
from scenes import Heavy, opened, quiet
from unions import BOTH

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SubscribeRequest,
    SubscriptionLagged,
    open_publisher,
)

pytestmark = pytest.mark.anyio

EVERY = SubscribeRequest(HEALTH)


def commit(index: int, *counts: tuple[Any, int]) -> list[Event[Health]]:
    """So many events of each topic, with keys of their own."""
    return [
        event(index, f"{topic}{number}", topic=topic) for topic, count in counts for number in range(count)
    ]


@given(st.lists(st.integers(0, 6), max_size=20), st.integers(1, 8), st.integers(1, 12))
def test_a_history_is_as_long_as_both_bounds_allow(
    sizes: list[int], history: int, history_events: int
) -> None:
    """D7, D11: and one can resume from its floor, and not from below."""
    publisher = EventPublisher(
        {HEALTH: Catalogue().snapshot}, history=history, history_events=history_events, index=1, epoch="e"
    )
    for index, size in enumerate(sizes, 2):
        publisher.publish(commit(index, (HEALTH, size)), index=index)
    kept: list[tuple[int, int]] = [(index, size) for index, size in enumerate(sizes, 2) if size]
    floor = 1
    while len(kept) > history or (sum(size for _, size in kept) > history_events and len(kept) > 1):
        floor, _ = kept.pop(0)
    statistics = publisher.statistics().topics["health"]
    assert (statistics.commits, statistics.floor) == (len(kept), floor)
    again = publisher.subscribe(EVERY.after(Cursor(floor, "e")))
    assert [(each.index, len(each.events)) for each in ready(again)] == kept


async def test_events_are_counted_for_each_topic() -> None:
    """D11: a commit over two topics counts with each by its events there."""
    async with opened(history_events=4) as (_, publisher):
        publisher.publish(commit(1, (HEALTH, 1), (JOBS, 3)))
        publisher.publish(commit(2, (HEALTH, 1), (JOBS, 1)))
        topics = publisher.statistics().topics
        assert (topics["health"].commits, topics["jobs"].commits) == (2, 2)
        publisher.publish(commit(3, (HEALTH, 2), (JOBS, 1)))
        topics = publisher.statistics().topics
        assert (topics["health"].commits, topics["health"].floor) == (3, 0)
        assert (topics["jobs"].commits, topics["jobs"].floor) == (2, 1)


async def test_what_another_topic_has_dropped_is_not_kept_by_this_one() -> None:
    """D11: although both had it in the same commit."""
    kept: list[weakref.ref[Heavy]] = []

    def heavy(index: int) -> Event[Heavy]:
        payload = Heavy()
        kept.append(weakref.ref(payload))
        return Event(JOBS, index, payload)

    async with opened(history_events=4) as (_, publisher):
        for index in (1, 2, 3):
            publisher.publish([event(index, "a"), *(heavy(index) for _ in range(4))])
        gc.collect()
        assert [each() is not None for each in kept] == [False] * 8 + [True] * 4
        topics = publisher.statistics().topics
        assert (topics["health"].commits, topics["jobs"].commits) == (3, 1)


async def test_an_event_counts_once_however_many_feeds_have_it() -> None:
    """D11: that of its key, of the blank key, of a prefix, of a union."""
    async with opened(history_events=3) as (_, publisher):
        for request in (EVERY, SubscribeRequest(HEALTH, "h", prefix=True), BOTH):
            await until_live(publisher.subscribe(request))
        for index in (1, 2, 3):
            publisher.publish([event(index, "h" * index)])
        assert publisher.statistics().topics["health"].commits == 3
        publisher.publish([event(4, "")])
        assert publisher.statistics().topics["health"].commits == 3


async def test_what_a_refresh_has_dropped_counts_no_more() -> None:
    """D7, D11: otherwise the history would be shorter ever after."""
    async with opened(history_events=4) as (_, publisher):
        publisher.publish(commit(1, (HEALTH, 4)))
        publisher.refresh(HEALTH)
        for index in (2, 3, 4):
            publisher.publish(commit(index, (HEALTH, 1)))
        assert publisher.statistics().topics["health"].commits == 3


@pytest.mark.parametrize(
    "request_", [EVERY, SubscribeRequest(HEALTH, "h", prefix=True), BOTH], ids=["key", "prefix", "union"]
)
async def test_the_newest_commit_is_kept_whole_however_large(request_: SubscribeRequest[Health]) -> None:
    """D4, D11: who keeps up gets it, and nothing else is kept."""
    async with opened(history_events=10) as (_, publisher):
        subscription = publisher.subscribe(request_)
        await until_live(subscription)
        publisher.publish(commit(1, (HEALTH, 5)))
        assert [len(each.events) for each in ready(subscription)] == [5]
        publisher.publish(commit(2, (HEALTH, 5000)))
        statistics = publisher.statistics().topics["health"]
        assert (statistics.commits, statistics.floor) == (1, 1)
        again = publisher.subscribe(request_.after(Cursor(1, publisher.epoch)))
        await quiet()
        for each in (subscription, again):
            assert [len(received.events) for received in ready(each)] == [5000]
        publisher.publish(commit(3, (HEALTH, 1)))
        statistics = publisher.statistics().topics["health"]
        assert (statistics.commits, statistics.floor) == (1, 2)


@pytest.mark.parametrize("on_lag", ["close", "reset"])
@pytest.mark.parametrize(
    "request_", [EVERY, SubscribeRequest(HEALTH, "h", prefix=True), BOTH], ids=["key", "prefix", "union"]
)
async def test_a_reader_that_the_events_have_passed_is_told(
    request_: SubscribeRequest[Health], on_lag: Any
) -> None:
    """D6, D11, D21: as with commits, although these are few."""

    async def newest(*_: Any) -> int:
        return publisher.index

    async with open_publisher(dict.fromkeys((HEALTH, JOBS), newest), history_events=10) as publisher:
        subscription = publisher.subscribe(request_, on_lag=on_lag)
        await until_live(subscription)
        for index in (1, 2, 3):
            publisher.publish(commit(index, (HEALTH, 4)))
        assert publisher.statistics().topics["health"].commits == 2
        if on_lag == "close":
            with pytest.raises(SubscriptionLagged) as caught:
                subscription.receive_nowait()
            assert (caught.value.index, caught.value.missed) == (0, 1)
        else:
            assert kinds(await until_live(subscription)) == ["marker", "eos@3"]
        stale = publisher.subscribe(request_.after(Cursor(0, publisher.epoch)))
        assert kinds(await until_live(stale)) == ["eos@3"]


async def test_a_snapshot_that_the_events_have_passed_is_not_shared() -> None:
    """D6, D14: the changes behind it are no longer all there."""
    async with opened(history_events=10) as (store, publisher):
        await until_live(publisher.subscribe(EVERY))
        for _ in range(3):
            store.commit(*((f"web{number}", "1") for number in range(4)))
        assert publisher.statistics().topics["health"].snapshots == 0
        subscription = publisher.subscribe(EVERY)
        assert kinds(await until_live(subscription))[-1] == "eos@3"
        assert store.runs == 2


@pytest.mark.parametrize(("commits", "runs"), [(1, 2), (2, 3)])
async def test_a_union_is_not_composed_of_what_the_events_are_about_to_pass(commits: int, runs: int) -> None:
    """D6, D22: a cached part with more than half of the history behind it is made anew."""
    async with opened(history_events=8) as (store, publisher):
        store.commit(*((str(number), "0") for number in range(4)))
        await until_live(publisher.subscribe(EVERY))
        for value in range(commits):
            store.commit(*((str(number), str(value)) for number in range(3)))
        assert kinds(await until_live(publisher.subscribe(BOTH)))[-1] == f"eos@{1 + commits}"
        assert store.runs == runs


async def test_very_many_small_commits_are_bounded_by_their_number() -> None:
    """D11."""
    async with opened(history=3, history_events=1000) as (_, publisher):
        for index in range(1, 100):
            publisher.publish(commit(index, (HEALTH, 1)))
        assert publisher.statistics().topics["health"].commits == 3


@pytest.mark.parametrize(("history", "kept"), [(3, 2), (65_540, 65_540)])
def test_by_default_65_536_events_are_kept_or_as_many_as_commits(history: int, kept: int) -> None:
    """D11: so that `history` alone says how many commits of one event are kept."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, history=history)
    size = 22_000 if history == 3 else 1
    for index in range(1, history + 1):
        publisher.publish(commit(index, (HEALTH, size)))
    assert publisher.statistics().topics["health"].commits == kept


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "9", math.inf], ids=repr)
def test_how_many_events_are_kept_is_a_whole_number_from_1(most: Any) -> None:
    """D18."""
    kind = ValueError if type(most) is int else TypeError
    with pytest.raises(kind, match="history_events is"):
        EventPublisher(history_events=most)


async def test_the_bound_holds_from_threads_too() -> None:
    """D11."""
    async with opened(history_events=2) as (_, publisher):
        for index in (1, 2, 3):
            await anyio.to_thread.run_sync(publisher.publish_from_thread, commit(index, (HEALTH, 2)))
        assert publisher.statistics().topics["health"].commits == 1


async def test_a_subject_that_is_finished_counts_as_an_event() -> None:
    """D11: a commit may finish very many that nobody knew."""
    async with opened(history=1_000, history_events=100, index=1) as (store, publisher):
        for number in range(20):
            store.commit(finish=[f"{number}-{key}" for key in range(30)])
        statistics = publisher.statistics().topics["health"]
        assert statistics.commits == 3
        assert statistics.feeds <= 91
        for _ in range(100):
            store.commit(("db", "1"))
        statistics = publisher.statistics().topics["health"]
        assert (statistics.commits, statistics.feeds) == (100, 2)
