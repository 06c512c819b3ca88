"""A publisher says how long ago it last knew that it had everything that its store had.

Only the tests move the clock, and next to nothing is between two questions.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest
from stores.clocks import LONG, Clock, age, until
from stores.engines import Stepping, Unreliable
from stores.readers import until_index
from stores.storehouse import ALL_JOBS, commit_each, kinds, put, receive, until_live
from typing_extensions import override

from trio_stream import NoOpEventPublisher, open_publisher
from trio_stream.stores import Commit, Head, Store, StoreError, open_store_publisher

pytestmark = pytest.mark.anyio


class Questioned(Stepping):
    """Which is asked for its head, and can be made not to answer, to fail, or to hold its commits."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = 0
        self.answers = 0
        self.is_failing = False
        self.behind = 0
        self.may_answer = anyio.Event()
        self.may_answer.set()
        self.may_step = anyio.Event()
        self.may_step.set()

    @override
    async def head(self) -> Head:
        self.asked += 1
        await self.may_answer.wait()
        if self.is_failing:
            raise StoreError("jobs.db: on fire")
        head = await self.store.head()
        self.answers += 1
        return replace(head, index=head.index - self.behind)

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        commit = await anext(commits)
        await self.may_step.wait()
        return commit

    async def until_asked(self, times: int) -> None:
        """So many times more."""
        asked = self.asked + times
        await until(lambda: self.asked >= asked)

    async def hold(self) -> None:
        """It does not answer any more."""
        self.may_answer = anyio.Event()
        await self.until_asked(1)


@pytest.fixture
def engine(store: Store) -> Questioned:
    return Questioned(store)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the age."""
    return [text for text in caplog.messages if text.startswith("the feed ")]


async def until_said(caplog: pytest.LogCaptureFixture, count: int) -> None:
    await until(lambda: len(said(caplog)) >= count)


async def test_only_a_publisher_that_a_store_feeds_has_an_age(store: Store) -> None:
    async with open_publisher() as publisher:
        assert publisher.feed_age is publisher.statistics().feed_age is None
    disabled = NoOpEventPublisher()
    assert disabled.feed_age is disabled.statistics().feed_age is None
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert 0 <= age(publisher) <= (publisher.statistics().feed_age or -1)


async def test_a_quiet_feed_stays_young(engine: Questioned, clock: Clock) -> None:
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        for _ in range(3):
            clock.jump()
            await until(lambda: age(publisher) < LONG)


async def test_a_feed_whose_store_fails_grows_older_and_is_young_again_after_that(
    engine: Questioned, clock: Clock
) -> None:
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        engine.is_failing = True
        await engine.until_asked(3)
        clock.jump()
        await engine.until_asked(3)
        assert age(publisher) >= LONG
        engine.is_failing = False
        await until(lambda: age(publisher) < LONG)


async def test_an_answer_is_as_old_as_its_question(engine: Questioned, clock: Clock) -> None:
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        await engine.hold()
        clock.jump()
        assert age(publisher) >= LONG
        held, engine.may_answer = engine.may_answer, anyio.Event()
        answers, asked = engine.answers, engine.asked
        held.set()
        await until(lambda: engine.answers > answers and engine.asked > asked)
        assert age(publisher) >= LONG
        engine.may_answer.set()
        await until(lambda: age(publisher) < LONG)


async def test_a_feed_that_is_behind_is_young_when_it_comes_to_what_was_there_when_it_was_asked(
    engine: Questioned, clock: Clock
) -> None:
    """Without another question, of which the store answers none any more."""
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        engine.may_step = anyio.Event()
        await engine.store.commit([put("a")])
        await engine.until_asked(3)
        clock.jump()
        await engine.until_asked(3)
        assert age(publisher) >= LONG
        await engine.hold()
        engine.may_step.set()
        await until_index(publisher, 1)
        assert age(publisher) >= LONG  # the first of the answers that were ahead is from before


async def test_an_answer_that_is_behind_what_was_published_tells_nothing(
    engine: Questioned, clock: Clock
) -> None:
    """A replica that is behind does not know what the store has."""
    await commit_each(engine, "a", "b")
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        engine.behind = 1
        await engine.until_asked(3)
        clock.jump()
        await engine.until_asked(3)
        assert age(publisher) >= LONG
        engine.behind = 0
        await until(lambda: age(publisher) < LONG)


async def test_the_figure_is_made_when_it_is_read_in_any_thread(engine: Questioned, clock: Clock) -> None:
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        await engine.hold()
        for times in range(1, 4):
            clock.jump()
            figure = (await anyio.to_thread.run_sync(publisher.statistics)).feed_age
            assert figure is not None
            assert times * LONG <= figure <= age(publisher)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_feed_that_is_old_is_said_to_be_once_and_again_when_it_is_not_any_more(
    engine: Questioned, clock: Clock, caplog: pytest.LogCaptureFixture, answers: bool
) -> None:
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        for turn in (0, 1):
            if answers:
                engine.is_failing = True
                await engine.until_asked(3)
                cause = "jobs.db: on fire"
            else:
                await engine.hold()
                cause = f"the store has not said that commit {publisher.index} is its newest"
            assert len(said(caplog)) == 2 * turn
            clock.jump()
            await until_said(caplog, 2 * turn + 1)
            clock.jump()
            if answers:
                await engine.until_asked(3)
            engine.is_failing = False
            engine.may_answer.set()
            await until_said(caplog, 2 * turn + 2)
            begins, ends = (re.split(r"(\d+)", text, maxsplit=1) for text in said(caplog)[2 * turn :])
            assert (begins[0], begins[2]) == ("the feed is ", f" s old: {cause}")
            assert (ends[0], ends[2]) == ("the feed has everything again, for the first time in ", " s")
            assert int(begins[1]) >= LONG
            assert int(ends[1]) >= 2 * LONG
            await commit_each(engine.store, "a")
            await until_index(publisher, turn + 1)


async def test_what_else_is_logged_does_not_keep_the_age_from_it(
    engine: Questioned, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    async with open_store_publisher(engine, ["jobs"]):
        engine.is_failing = True
        engine.step = fail  # type: ignore[method-assign]
        await engine.store.commit([put("a")])
        await until(lambda: len(caplog.messages) >= 10)
        assert not said(caplog)
        clock.jump()
        await until_said(caplog, 1)


async def fail(commits: AsyncIterator[Commit], after: int) -> Commit:
    raise StoreError("jobs.db: on fire")


async def test_a_feed_does_not_sleep_out_its_wait_when_the_store_answers_again(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1000.0)
    engine = Unreliable(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            for key in ("a", "b"):
                failures, engine.failing = engine.failures, True
                await store.commit([put(key)])
                await engine.wait_failures(failures + 3)
                engine.failing = False
                assert (await receive(subscription)).index == publisher.index


class Stalls(Questioned):
    """Its changes stop without a word."""

    is_stalled = False

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked_at: list[int] = []  # how often it was asked until the changes were left, each time

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        commit = await anext(commits)
        if self.is_stalled:
            try:
                await anyio.sleep_forever()
            finally:
                self.asked_at.append(self.asked)
        return commit


async def test_changes_that_stop_without_a_word_are_entered_anew(store: Store, clock: Clock) -> None:
    engine = Stalls(store)
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await engine.until_asked(100)
            assert engine.rounds == 1  # a quiet store is none that has stopped
            engine.is_stalled = True
            await commit_each(store, "a", "b")
            await engine.wait_rounds(2)
            engine.is_stalled = False
            assert kinds([await receive(subscription), await receive(subscription)]) == ["1:a=a", "2:b=b"]


async def test_changes_that_may_just_be_slow_are_given_twice_the_time_each_time(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    engine = Stalls(store)
    async with open_store_publisher(engine, ["jobs"]):
        engine.is_stalled = True
        await commit_each(store, "a")
        await engine.wait_rounds(5)
    # What is asked while they are entered does not count, and one question may be under way.
    patience = [later - sooner for sooner, later in pairwise([0, *engine.asked_at])]
    assert all(asked > least for asked, least in zip(patience[:4], [18, 38, 78, 158], strict=True))


async def test_when_the_feed_fails_the_store_is_asked_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is known that it does not answer, and when it does again."""
    monkeypatch.setattr("random.random", lambda: 1000.0)
    monkeypatch.setattr("random.uniform", lambda low, high: 1000.0)
    engine = Unreliable(store)
    async with open_store_publisher(engine, ["jobs"]):
        await anyio.wait_all_tasks_blocked()
        engine.failing = True
        await commit_each(store, "a")
        await engine.wait_failures(2)
