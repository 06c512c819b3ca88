"""Random courses: whatever comes before and after a finish, each reader has the right state, and ends if it should."""

import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from catalogue import HEALTH, Catalogue, Health, apply, event
from scenes import quiet

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SubscribeRequest,
    Subscription,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)
from trio_stream.testing import Model, check_trace, collect

pytestmark = pytest.mark.anyio

KEYS = ["a", "b", "c"]
A, B, C = (SubscribeRequest(HEALTH, key) for key in KEYS)
REQUESTS = [
    A,
    B,
    C,
    A | B,
    B | C,
    A | B | C,
    SubscribeRequest(HEALTH),
    A | SubscribeRequest(HEALTH, "b", prefix=True),
]


@dataclass
class Follower:
    """One reader, and what it was returned."""

    subscription: Subscription[Health]
    request: SubscribeRequest[Health]
    # Whether all of its keys were still to be finished when it came.
    was_there: bool
    trace: list[Event[Health]] = field(default_factory=list)

    def is_finished_by(self, finished: set[str]) -> bool:
        return all(interest.key in finished and not interest.prefix for interest in self.request.interests)


class Course:
    """A publisher, a store and readers to which things happen at random."""

    def __init__(self, seed: int, store: Catalogue, publisher: EventPublisher) -> None:
        self.rng = random.Random(seed)
        self.publisher = publisher
        self.store = store
        self.commits: list[list[Event[Health]]] = []
        self.finished: set[str] = set()
        self.followers: list[Follower] = []

    def commit(self) -> None:
        """Changes some keys, and perhaps finishes some."""
        index = self.store.index + 1
        open_ = [key for key in KEYS if key not in self.finished]
        events = [
            event(index, self.rng.choice([*open_, "x"]), self.rng.choice(["1", "2", None]))
            for _ in range(self.rng.randrange(3))
        ]
        ends = [key for key in KEYS if self.rng.random() < 0.06]
        self.finished.update(ends)
        self.record(index, events)
        self.publisher.publish(events, index=index, finish=[(HEALTH, key) for key in ends])

    def record(self, index: int, events: list[Event[Health]]) -> None:
        state = dict(self.store.states[self.store.index].get(HEALTH, {}))
        self.store.index = index
        for each in events:
            apply(state, each)
            assert isinstance(each.payload, Health)
            self.store.modified[HEALTH, each.payload.subject] = index
        self.store.states[index] = {HEALTH: state}
        if events:
            self.commits.append(events)

    def subscribe(self) -> None:
        request = self.rng.choice(REQUESTS)
        begin = request
        if self.rng.random() < 0.5 and self.store.index:
            begin = request.after(Cursor(self.rng.randint(1, self.store.index), self.publisher.epoch))
        subscription = self.publisher.subscribe(begin, on_lag="reset")
        was_there = not any(interest.key in self.finished for interest in request.interests)
        self.followers.append(Follower(subscription, begin, was_there))

    async def read(self) -> None:
        for follower in self.rng.sample(self.followers, min(3, len(self.followers))):
            if follower.subscription.state is SubscriptionState.FINISHED:
                continue
            match self.rng.randrange(4):
                case 0:
                    await collect(follower.subscription, into=follower.trace)
                case 1:
                    await quiet()
                case 2 if follower.subscription.statistics().lag:
                    with suppress(WouldBlock):
                        follower.trace.append(follower.subscription.receive_nowait())
                case _ if follower.subscription.statistics().lag:
                    follower.trace += await follower.subscription.receive_batch(2)
                case _:
                    pass

    async def run(self) -> None:
        for _ in range(60):
            match self.rng.randrange(6):
                case 0 | 1 | 2:
                    self.commit()
                case 3:
                    self.subscribe()
                case 4 if self.followers and self.rng.random() < 0.3:
                    self.followers.pop(self.rng.randrange(len(self.followers))).subscription.unsubscribe()
                case _:
                    await self.read()

    async def check(self, *, remembers: bool) -> None:
        for follower in self.followers:
            await collect(follower.subscription, upto=self.store.index, into=follower.trace)
            model = Model(request=follower.request, commits=self.commits, apply=apply, resets=True)
            check_trace(follower.trace, model, upto=self.store.index)
            is_over = follower.is_finished_by(self.finished)
            if remembers or follower.was_there or not is_over:
                expected = SubscriptionState.FINISHED if is_over else SubscriptionState.LIVE
                assert follower.subscription.state is expected


@pytest.mark.parametrize("history", [1000, 4])
@pytest.mark.parametrize("seed", range(40))
async def test_every_reader_has_the_right_state_and_ends_if_it_should(seed: int, history: int) -> None:
    """D1 to D7, D22: with a history that keeps everything, and with one that forgets who was finished."""
    store = Catalogue()
    ttl = 10 * (seed % 2)
    async with open_publisher({HEALTH: store.snapshot}, history=history, snapshot_cache_ttl=ttl) as publisher:
        course = Course(seed, store, publisher)
        await course.run()
        await course.check(remembers=history == 1000)
