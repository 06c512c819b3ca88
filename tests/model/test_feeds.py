"""What feeds have, and what they forget: the invariants of the core that no public call can show by itself."""

# ruff: noqa: SLF001 - of the loop-free part of the core

import random
from collections.abc import Sequence

import pytest
from catalogue import HEALTH, JOBS, Health, event
from model.interests import Wish
from proof import amount

from trio_stream import Event, Subject, SubscribeRequest
from trio_stream._buffer import Feed
from trio_stream._commit import split
from trio_stream._feeds import Feeds, WideFeed
from trio_stream._timeline import Timeline
from trio_stream._topic import History
from trio_stream._wait import Parking

WEB = SubscribeRequest(HEALTH, "web")
W = SubscribeRequest(HEALTH, "w", prefix=True)
EU = SubscribeRequest(HEALTH, namespace="eu")
BOTH = SubscribeRequest(HEALTH) | SubscribeRequest(JOBS)


class Published:
    """Feeds without a publisher: what is left to be done in slices is done at once."""

    def __init__(self, history: int = 4, history_events: int = 65_536) -> None:
        self.timeline = Timeline(0, "here", "", history)
        self.feeds = Feeds(self.timeline, Parking(), history=history, history_events=history_events)
        for topic in (HEALTH, JOBS):
            self.feeds.add(topic)

    def publish(self, *events: Event[Health]) -> None:
        index = events[0].index
        self.timeline.advance(index, "")
        if len(events) == 1:
            (single,) = events
            assert isinstance(single.payload, Health)
            self.feeds.append_single(self.feeds.histories[single.topic], single, single.payload.subject)
        else:
            self.feeds.append(index, *split(events))

    def enter(self, request: SubscribeRequest[Health]) -> Feed:
        return self.feeds.enter(request.interests)

    def fill(self, feed: Feed) -> None:
        self.feeds.reach(feed)
        assert self.feeds.filled(feed).end


def indexes(feed: Feed) -> list[int]:
    return [item.index for item in items(feed)]


def items(feed: Feed) -> list[Event[Health]]:
    return feed.items[feed.start - feed.base :]


def test_a_feed_does_not_grow_with_what_was_published() -> None:
    """D11: a place of 8 bytes for each commit there ever was would be a leak."""
    history = History(HEALTH, 8, 65_536, 0)
    feed = history.enter(Subject("web"))
    for index in range(1, 2_000):
        pairs, parts = split([event(index, "web")])
        history.append(index, pairs, parts[HEALTH])
        while history.is_full:
            history.drop_oldest()
    assert len(feed.items) <= 2 * 64


def test_a_wide_feed_does_not_grow_with_what_was_published() -> None:
    """D11."""
    world = Published(8)
    feed = world.enter(BOTH)
    for index in range(1, 2_000):
        world.publish(event(index, "web"), event(index, "x", topic=JOBS))
    assert len(feed.items) <= 2 * 64
    assert feed.dropped == 1_991


def test_a_batch_is_shared_only_by_feeds_that_got_the_same_events() -> None:
    """F3, F4, D4: two that begin with the same event and are equally long are not the same."""
    world = Published()
    asked = [
        SubscribeRequest(HEALTH),
        SubscribeRequest(HEALTH, "w", prefix=True),
        SubscribeRequest(HEALTH, "we", prefix=True),
        WEB | EU,
        WEB | SubscribeRequest(JOBS),
    ]
    feeds = [world.enter(request) for request in asked]
    web, we = event(1, "web"), event(1, "we")
    eu, job = event(1, "web", namespace="eu"), event(1, "web", topic=JOBS)
    world.publish(web, eu, we, job)
    got = [items(feed)[0] for feed in feeds]
    assert [each.events for each in got] == [(web, we), (web, we), (web, we), (web, eu), (web, job)]
    assert got[1] is got[2]
    assert len({id(each) for each in got[1:]}) == 3


def test_an_event_that_several_interests_cover_is_in_the_feed_once() -> None:
    """F3, D22."""
    world = Published()
    crossing = SubscribeRequest(HEALTH, "web") | SubscribeRequest(HEALTH, "w", prefix=True) | EU
    feed = world.enter(crossing)
    world.publish(event(1, "web"), event(1, "web", namespace="eu"), event(1, "wx"))
    assert [each.events for each in items(feed)] == [
        (event(1, "web"), event(1, "web", namespace="eu"), event(1, "wx"))
    ]


def test_what_one_topic_has_dropped_a_union_has_dropped_up_to_there() -> None:
    """F1, F5: also what the other topic still has."""
    world = Published(2)
    feed = world.enter(BOTH)
    for index in (1, 2, 3):
        world.publish(event(index, "x", topic=JOBS if index == 2 else HEALTH))
    assert indexes(feed) == [1, 2, 3]
    world.publish(event(4, "x"))
    assert (indexes(feed), feed.dropped) == ([2, 3, 4], 1)
    world.publish(event(5, "x"))
    assert (indexes(feed), feed.dropped) == ([4, 5], 3)


def test_a_feed_forgets_nothing_with_a_commit_that_does_not_touch_it() -> None:
    """F5: it is its own history that counts."""
    world = Published(2)
    feed = world.enter(WEB | SubscribeRequest(JOBS))
    world.publish(event(1, "web"))
    world.publish(event(2, "db"))
    world.publish(event(3, "db"))
    assert (indexes(feed), feed.dropped) == ([], 1)
    world.publish(event(4, "web"))
    for index in range(5, 9):
        world.publish(event(index, "db"))
    assert (indexes(feed), feed.dropped) == ([], 4)


def test_a_feed_is_filled_with_what_is_still_there_and_says_what_is_gone() -> None:
    """F1: also of what was dropped after it was born."""
    world = Published(4)
    for index in range(1, 5):
        world.publish(event(index, "web"))
    feed = world.enter(W)
    world.publish(event(5, "web"), event(5, "x", topic=JOBS))
    world.publish(event(6, "db"))
    assert indexes(feed) == [5]
    world.fill(feed)
    assert (indexes(feed), feed.dropped, feed.born) == ([3, 4, 5], 2, 0)
    world.publish(event(7, "db"))
    assert (indexes(feed), feed.dropped) == ([4, 5], 3)


def test_of_whatever_is_published_a_feed_has_what_its_interests_ask_for() -> None:
    """F1, F3, F4, F5: in random courses of commits, feeds that come, are filled and go, and small histories."""
    for seed in range(amount(40, 2_000)):
        rng = random.Random(seed)
        world = Published(rng.choice([1, 2, 4]), rng.choice([65_536, 5]))
        commits: list[Sequence[Event[Health]]] = []
        read: dict[Feed, tuple[SubscribeRequest[Health], list[Wish]]] = {}
        for index in range(1, 60):
            if rng.random() < 0.3:
                wishes = [_wish(rng) for _ in range(rng.randint(1, 3))]
                request = wishes[0].request()
                for wish in wishes[1:]:
                    request |= wish.request()
                read[world.enter(request)] = request, wishes
            wide = [feed for feed in read if isinstance(feed, WideFeed)]
            if wide and rng.random() < 0.2:
                world.fill(rng.choice(wide))
            if read and rng.random() < 0.2:
                feed = rng.choice(list(read))
                while feed.readers:
                    world.feeds.leave(feed)
                del read[feed]
            commits.append([_event(rng, index) for _ in range(rng.choice([1, 1, 2, 4]))])
            world.publish(*commits[-1])
            for feed, (_, wishes) in read.items():
                _check(world, feed, wishes, commits)


def _wish(rng: random.Random) -> Wish:
    key = rng.choice(["", "web", "we", "w", "db"])
    return Wish(
        rng.choice([HEALTH, JOBS]), key, bool(key) and rng.random() < 0.5, rng.choice(["default", "eu", None])
    )


def _event(rng: random.Random, index: int) -> Event[Health]:
    key, namespace = rng.choice(["web", "we", "db", ""]), rng.choice(["default", "eu"])
    return event(index, key, str(rng.random()), namespace=namespace, topic=rng.choice([HEALTH, JOBS]))


def _check(
    world: Published, feed: Feed, wishes: Sequence[Wish], commits: Sequence[Sequence[Event[Health]]]
) -> None:
    dropped = {topic: history.dropped for topic, history in world.feeds.histories.items()}
    parts = [[each for each in commit if any(wish.asks_for(each) for wish in wishes)] for commit in commits]
    since = max(feed.dropped, feed.born)  # when it is filled it is as if it had always been there
    if not isinstance(feed, WideFeed):  # it has what its history has
        since = dropped[wishes[0].topic]
    kept = [part for part in parts if part and part[0].index > since]
    assert [list(map(id, item.events)) for item in items(feed)] == [list(map(id, part)) for part in kept]
    for part in kept:
        assert all(each.index > dropped[each.topic] for each in part), (
            "F5: it is not told that something is gone"
        )


@pytest.mark.parametrize("request_", [W, BOTH], ids=["a prefix", "a union"])
def test_nothing_is_left_of_a_feed_that_nobody_reads(request_: SubscribeRequest[Health]) -> None:
    """D13."""
    world = Published()
    feeds = [world.enter(request_) for _ in range(3)]
    assert len(set(map(id, feeds))) == 1
    world.publish(event(1, "web"))
    for feed in feeds:
        world.feeds.leave(feed)
    assert not world.feeds._wide
    assert not any(history.routes.shapes for history in world.feeds.histories.values())
