"""Random courses: subjects that are finished and reopened, against a model of who ends where, and who goes on."""

import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import anyio
import pytest
from catalogue import HEALTH, Catalogue, Health, apply, event
from conflated import by_subject
from scenes import quiet

from trio_stream import (
    ALL,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)
from trio_stream.testing import Model, check_trace

pytestmark = pytest.mark.anyio

KEYS = ["a", "b", "c"]
A, B, C = (SubscribeRequest(HEALTH, key) for key in KEYS)
REQUESTS = [
    A,
    A,
    B,
    C,
    A | B,
    A | B,
    B | C,
    A | B | C,
    SubscribeRequest(HEALTH),
    SubscribeRequest(HEALTH, "a", prefix=True),
    SubscribeRequest(HEALTH, "a", namespace=ALL),
    A | SubscribeRequest(HEALTH, "b", prefix=True),
]


@dataclass
class Follower:
    """One reader, and what it was returned."""

    subscription: Subscription[Health]
    request: SubscribeRequest[Health]
    # The newest index when it came.
    since: int
    trace: list[Event[Health]] = field(default_factory=list)
    ended: EndOfSubject | SubscriptionForceClosed | None = None

    @property
    def keys(self) -> set[str] | None:
        """Of which it is told when all are finished; None if it is never."""
        if any(each.prefix or not each.key or each.namespace is ALL for each in self.request.interests):
            return None
        return {each.key for each in self.request.interests}

    @property
    def begun_at(self) -> int:
        """The index of its newest snapshot, or of its cursor."""
        return max([self.request.index, *[each.index for each in self.trace if each.is_end_of_snapshot]])

    async def drain(self, most: int) -> None:
        """Reads so many events, or what there is; after the end nothing."""
        try:
            for _ in range(most):
                if self.ended is not None:
                    return
                self.trace.append(self.subscription.receive_nowait())
        except WouldBlock:
            await quiet()
        except (EndOfSubject, SubscriptionForceClosed) as end:
            self.ended = end


class Course:
    """A publisher, a store and readers to which things happen at random."""

    def __init__(self, seed: int, store: Catalogue, publisher: EventPublisher, *, replays: bool) -> None:
        self.rng = random.Random(seed)
        self.publisher = publisher
        self.store = store
        self.commits: list[list[Event[Health]]] = []
        # After each commit, by index: what is finished, and which of that it has reopened.
        self.finished: list[set[str]] = [set()]
        self.reopened: list[set[str]] = [set()]
        self.followers: list[Follower] = []
        self.replays = replays

    async def replay(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        """A page of at most three commits that are asked for."""
        newest, count = self.store.index, 0
        for commit in [each for each in self.commits if each[0].index > cursor.index]:
            covered = [each for each in commit if request.covers(HEALTH, subject_of(each))]
            if covered:
                if count == 3:
                    return commit[0].index - 1
                count += 1
                await appender.append(covered)
        return newest

    def commit(self) -> None:
        """Reopens some keys, changes some, and finishes some."""
        index, finished = self.store.index + 1, self.finished[-1]
        named = [key for key in KEYS if self.rng.random() < 0.15]
        open_ = [key for key in KEYS if key not in finished or key in named]
        events = [
            event(index, self.rng.choice([*open_, "ax"]), self.rng.choice(["1", "2", None]))
            for _ in range(self.rng.randrange(3))
        ]
        ends = [key for key in KEYS if self.rng.random() < 0.15]
        self.reopened.append(finished & set(named))
        self.finished.append(finished - set(named) | set(ends))
        self.record(index, events)
        self.publisher.publish(
            events,
            index=index,
            finish=[(HEALTH, key) for key in ends],
            reopen=[(HEALTH, key) for key in named],
        )

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
        if self.rng.random() < 0.5 and self.store.index:
            request = request.after(Cursor(self.rng.randint(1, self.store.index), self.publisher.epoch))
        elif self.followers and self.rng.random() < 0.5:
            request = self.rng.choice(self.followers).subscription.resume_request()
        on_lag: Literal["close", "reset"] = self.rng.choice(["close", "reset"])
        subscription = self.publisher.subscribe(request, on_lag=on_lag)
        self.followers.append(Follower(subscription, request, self.store.index))

    async def step(self) -> None:
        match self.rng.randrange(8):
            case 0 | 1 | 2:
                self.commit()
            case 3:
                self.subscribe()
            case 4 if self.followers and self.rng.random() < 0.2:
                self.followers.pop(self.rng.randrange(len(self.followers))).subscription.unsubscribe()
            case 5:
                await quiet()
            case _:
                for follower in self.rng.sample(self.followers, min(2, len(self.followers))):
                    if self.rng.random() < 0.3 and follower.ended is None:
                        with suppress(EndOfSubject, SubscriptionForceClosed):
                            follower.trace += await follower.subscription.receive_until_current()
                    await follower.drain(self.rng.choice([1, 2, 100]))

    def end_of(self, keys: set[str], since: int) -> int | None:
        """Where these are finished next for who came then; None if they are not."""
        if keys <= self.finished[since]:
            return max(
                index
                for index in range(1, since + 1)
                if keys <= self.finished[index]
                and (not keys <= self.finished[index - 1] or keys & self.reopened[index])
            )
        later = range(since + 1, len(self.finished))
        return next((index for index in later if keys <= self.finished[index]), None)

    async def check(self, *, remembers: bool, is_stopped: bool) -> None:
        """Reads what is left of each, and compares."""
        with anyio.fail_after(60):
            for follower in self.followers * 12:  # it may have to wait for the next part or page
                await follower.drain(10_000)
        for follower in self.followers:
            self.compare(follower, remembers=remembers, is_stopped=is_stopped)

    def compare(self, follower: Follower, *, remembers: bool, is_stopped: bool) -> None:
        end, upto = follower.ended, self.store.index
        if end is not None:
            upto = follower.subscription.cursor.index
        if isinstance(end, SubscriptionForceClosed) and (end.reason is CloseReason.LAGGED or not upto):
            assert not remembers if end.reason is CloseReason.LAGGED else is_stopped
            if not upto:  # it was inside a snapshot
                return
        model = Model(request=follower.request, commits=self.commits, apply=apply, resets=True)
        check_trace(follower.trace, model, upto=upto)
        if not (isinstance(end, SubscriptionForceClosed) and end.reason is CloseReason.LAGGED):
            self.compare_ends(follower, remembers=remembers, is_stopped=is_stopped)

    def compare_ends(self, follower: Follower, *, remembers: bool, is_stopped: bool) -> None:
        end, keys = follower.ended, follower.keys or set("?")
        at = self.end_of(keys, follower.since)
        goes_on = None if at is None else self.next_reopening(keys, at)
        if goes_on is not None and follower.begun_at >= goes_on:
            if isinstance(end, EndOfSubject):
                assert keys <= self.finished[end.index]
            elif remembers and not is_stopped:
                assert not keys <= self.finished[-1]
        elif at is None:
            assert not isinstance(end, EndOfSubject)
            expected = SubscriptionState.FORCE_CLOSED if is_stopped else SubscriptionState.LIVE
            assert follower.subscription.state is expected
        elif is_stopped and not remembers and isinstance(end, SubscriptionForceClosed):
            pass  # the history had passed it, or a page was not whole
        elif remembers or isinstance(end, EndOfSubject) or (at > follower.since and len(keys) == 1):
            assert isinstance(end, EndOfSubject)
            # It may be finished again by saying so again, if that was forgotten; a page may have passed the end by.
            if remembers or (at > follower.since and len(keys) == 1 and not self.replays):
                assert end.index == max(at, follower.begun_at)
            elif goes_on is not None and at > follower.since and len(keys) == 1:
                assert end.index < goes_on

    def next_reopening(self, keys: set[str], at: int) -> int | None:
        """Where one of these was reopened next."""
        return next(
            (index for index in range(at + 1, len(self.reopened)) if keys & self.reopened[index]), None
        )


def subject_of(single: Event[Health]) -> str:
    assert isinstance(single.payload, Health)
    return single.payload.key


@pytest.mark.parametrize(("history", "replays"), [(1000, False), (6, False), (6, True)])
@pytest.mark.parametrize("seed", range(30))
async def test_every_reader_ends_where_it_should_or_goes_on_with_the_right_state(
    seed: int, history: int, replays: bool
) -> None:
    """D1 to D7, D17, D22: with a history that keeps everything, and with one that forgets who was finished."""
    store = Catalogue()
    courses: list[Course] = []

    async def replay(
        request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> int:
        return await courses[0].replay(request, cursor, appender)

    source = Source(store.snapshot, wide=True, row=by_subject, replay=replay if replays else None)
    ttl, is_stopped = 10 * (seed % 2), seed % 3 == 0
    async with open_publisher({HEALTH: source}, history=history, snapshot_cache_ttl=ttl) as publisher:
        courses.append(course := Course(seed, store, publisher, replays=replays))
        for _ in range(80):
            await course.step()
        if is_stopped:
            await quiet()
        else:
            await course.check(remembers=history == 1000, is_stopped=False)
    if is_stopped:
        await course.check(remembers=history == 1000, is_stopped=True)
        assert publisher.statistics().subscriptions == 0
