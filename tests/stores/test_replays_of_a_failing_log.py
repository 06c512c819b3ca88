"""Replays while the store fails, loses what they need, or has commits that cannot be read: nobody gets a silent gap."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from stores.engines import Plain, Steps
from stores.houses import House
from stores.readers import cursors, end_of, until_index, values
from stores.storehouse import ALL_JOBS, PATIENCE, commit_each, kinds, put, receive, until_live
from testing.memory_store import Disk, MemoryStore
from typing_extensions import override

from trio_stream import (
    CloseReason,
    Cursor,
    StaleCursorError,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionLagged,
    Topic,
    WouldBlock,
)
from trio_stream._tokens import Tokens
from trio_stream.stores import (
    Commit,
    Head,
    Put,
    Record,
    Revoke,
    Store,
    StoreError,
    UnreadableCommitError,
    open_store_publisher,
    topic,
)

pytestmark = pytest.mark.anyio

USERS = topic("users")
ALL_USERS = SubscribeRequest(USERS)


class Paged(Plain):
    """Its log gives pages of a few commits; `hold` and `fail` are done before each."""

    def __init__(self, store: Store, size: int = 3) -> None:
        super().__init__(store)
        self.size = size
        self.pages = 0
        self.errors: list[Exception] = []
        self.open = 0
        self.held = anyio.Event()
        self.held.set()

    async def page_of(
        self, request: SubscribeRequest[Record], after: Cursor, *, upto: int
    ) -> Sequence[Commit]:
        self.pages += 1
        await self.held.wait()
        if self.errors:
            raise self.errors.pop(0)
        page: list[Commit] = []
        async with self.store.changes(after) as commits:
            async for commit in commits:
                page.append(commit)
                if len(page) == self.size or commit.index >= upto:
                    break
        return page


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The bounds of the waits between attempts, which take no time."""
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        bounds.append(high)
        return 0.0

    monkeypatch.setattr("random.uniform", uniform)
    return bounds


async def test_it_is_read_page_by_page_as_far_as_somebody_reads(house: House) -> None:
    """And a page that is small is not the end of it."""
    async with house.open() as store:
        await commit_each(store, *"abcdefghij")
        places = await cursors(store)
        paged = Paged(store)
        async with open_store_publisher(paged, ["jobs"]) as publisher:
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                assert kinds([await receive(subscription)])[0].endswith(":b=b")
                await anyio.wait_all_tasks_blocked()
                assert paged.pages == 1
                for _ in range(8):
                    await receive(subscription)
                assert paged.pages == 3
                await commit_each(store, "k")
                assert kinds([await receive(subscription)])[0].endswith(":k=k")


@pytest.mark.parametrize(
    "error", [StoreError("on fire"), ExceptionGroup("tasks", [StoreError("on fire")])], ids=["plain", "group"]
)
async def test_a_replay_waits_while_the_store_fails(
    house: House, error: Exception, quick: list[float]
) -> None:
    async with house.open() as store:
        await commit_each(store, "a", "b")
        places = await cursors(store)
        paged = Paged(store)
        async with open_store_publisher(paged, ["jobs"]) as publisher:
            paged.errors = [error] * 3
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                assert kinds([await receive(subscription)])[0].endswith(":b=b")
        assert quick == [0.1, 0.2, 0.4]


async def test_a_replay_that_fails_for_long_is_a_new_snapshot(house: House, quick: list[float]) -> None:
    async with house.open() as store:
        await commit_each(store, "a", "b")
        places = await cursors(store)
        paged = Paged(store)
        async with open_store_publisher(paged, ["jobs"]) as publisher:
            paged.errors = [StoreError("on fire")] * 100
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                assert kinds(await until_live(subscription))[0] == "marker"
        assert len(quick) == 6


async def test_a_compaction_under_a_replay_is_told(house: House) -> None:
    """D6: the reader has had some pages of it."""
    async with house.open() as store:
        await commit_each(store, *"abcdefghij")
        places = await cursors(store)
        async with open_store_publisher(Paged(store), ["jobs"]) as publisher:
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                await receive(subscription)
                await store.compact(places[6].index)
                assert values([await receive(subscription) for _ in "cd"]) == ["c", "d"]
                with pytest.raises(SubscriptionLagged) as lagged:
                    await receive(subscription)
                assert isinstance(lagged.value.__cause__, StaleCursorError)
            async with publisher.subscribe(subscription.resume_request()) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
            async with publisher.subscribe(ALL_JOBS.after(places[1]), on_lag="reset") as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]


class Unreadable(Plain):
    """One commit of its log cannot be read, and concerns these topics."""

    def __init__(self, store: Store, index: int, topics: frozenset[str] | None) -> None:
        super().__init__(store)
        self.index = index
        self.topics_concerned = topics

    @override
    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self._changes(after)

    @asynccontextmanager
    async def _changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        async with self.store.changes(after) as commits:

            async def step() -> Commit:
                commit = await anext(commits)
                if commit.index != self.index:
                    return commit
                concerned = self.topics_concerned
                others = [
                    each
                    for each in commit.operations
                    if concerned is not None and each.topic not in concerned
                ]
                raise UnreadableCommitError("a.db", commit.index, concerned, tuple(others), mark=commit.mark)

            yield Steps(step)


async def with_one_unreadable(store: Store, topics: frozenset[str] | None) -> tuple[Plain, Sequence[Cursor]]:
    """The third of five commits, which are all about both topics."""
    for number in range(1, 6):
        await store.commit([put("a", number), Put("users", "u", number)])
    places = await cursors(store)
    return Unreadable(store, places[2].index, topics), places


async def test_a_resume_over_a_commit_that_cannot_be_read_is_a_new_snapshot(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the topics concerned, and of a union with one of them."""
    async with house.open() as store:
        engine, places = await with_one_unreadable(store, frozenset({"jobs"}))
        async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
            for request in (ALL_JOBS, ALL_JOBS | ALL_USERS):
                async with publisher.subscribe(request.after(places[1])) as subscription:
                    events = await subscription.receive_until_current()
                    assert kinds(events)[0] == "marker"
                    assert {record.value for event in events for record in event.payloads} == {5}
                async with publisher.subscribe(request.after(places[2])) as subscription:
                    assert len(await subscription.receive_until_current()) == 2
    assert "a.db: damaged" in caplog.text


async def test_who_has_had_the_commits_before_it_is_told_behind_them(house: House) -> None:
    async with house.open() as store:
        engine, places = await with_one_unreadable(store, frozenset({"jobs"}))
        async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                assert kinds([await receive(subscription)])[0].endswith(":a=2")
                with pytest.raises(SubscriptionLagged):
                    await receive(subscription)
            async with publisher.subscribe(ALL_JOBS.after(places[0]), on_lag="reset") as subscription:
                got = kinds(await until_live(subscription))
                assert [got[0].partition(":")[2], got[1]] == ["a=2", "marker"]


async def test_readers_of_other_topics_are_replayed_what_it_did_there(house: House) -> None:
    async with house.open() as store:
        engine, places = await with_one_unreadable(store, frozenset({"jobs"}))
        async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
            async with publisher.subscribe(ALL_USERS.after(places[0])) as subscription:
                assert values([await receive(subscription) for _ in range(4)]) == [2, 3, 4, 5]


async def test_one_that_may_concern_any_concerns_all(house: House) -> None:
    async with house.open() as store:
        engine, places = await with_one_unreadable(store, None)
        async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
            for request in (ALL_JOBS, ALL_USERS):
                async with publisher.subscribe(request.after(places[1])) as subscription:
                    assert kinds([await receive(subscription)]) == ["marker"]


async def test_who_has_seen_the_state_behind_it_goes_on_also_at_the_very_commit(house: House) -> None:
    """While the publisher was there."""
    async with house.open() as store:
        await commit_each(store, "first")
        engine = Unreadable(store, -1, None)
        async with open_store_publisher(engine, ["jobs"]) as publisher:
            engine.index = (await cursors(store))[-1].index + 1
            if isinstance(store, MemoryStore):
                engine.index = store.disk.next_index()
            await commit_each(store, "lost", "a")
            places = await cursors(store)
            await until_index(publisher, places[-1].index)
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
            async with publisher.subscribe(ALL_JOBS.after(places[1])) as subscription:
                assert kinds([await receive(subscription)])[0].endswith(":a=a")


async def test_a_token_that_an_unreadable_commit_revokes_is_revoked() -> None:
    """D9, D20: the store remembers it besides."""
    store = MemoryStore(Disk())
    await commit_each(store, "first")
    engine = Unreadable(store, 2, frozenset({"jobs"}))
    async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
        mine = SubscribeRequest(USERS, token="mine")
        place = publisher.cursor
        async with publisher.subscribe(mine) as subscription, publisher.subscribe(ALL_USERS) as spared:
            await until_live(subscription)
            await until_live(spared)
            await store.commit([Revoke("mine"), put("a"), Put("users", "u", 1)])
            assert (await end_of(subscription)).reason is CloseReason.TOKEN
            assert values([await receive(spared)]) == [1]
        async with publisher.subscribe(mine.after(place)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]


async def test_who_reads_what_such_a_commit_did_elsewhere_has_no_right_to_it_any_more() -> None:
    """D9: also if the store says only that the token was revoked again later."""
    store = MemoryStore(Disk())
    await commit_each(store, "first")
    engine = Unreadable(store, 2, frozenset({"jobs"}))
    async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
        async with (
            publisher.subscribe(SubscribeRequest(USERS, token="mine")) as subscription,
            publisher.subscribe(ALL_USERS) as spared,
        ):
            await until_live(subscription)
            await until_live(spared)
            # All of it is there before the feed sees anything.
            store.write(["mine"], [put("a"), Put("users", "u", 1)], None)
            store.write([], [Put("users", "u", 2)], None)
            store.write(["mine"], [Put("users", "u", 3)], None)
            with pytest.raises(SubscriptionForceClosed) as ended:
                await receive(subscription)
            assert ended.value.reason is CloseReason.TOKEN
            assert values([await receive(spared) for _ in range(3)]) == [1, 2, 3]


async def test_what_the_store_has_forgotten_of_it_may_be_any_token() -> None:
    store = MemoryStore(Disk())
    await commit_each(store, "first")
    engine = Unreadable(store, 2, frozenset({"jobs"}))
    async with open_store_publisher(engine, ["jobs", "users"]) as publisher:
        place = publisher.cursor
        async with publisher.subscribe(ALL_USERS) as subscription:
            await until_live(subscription)
            store.write(["mine"], [put("a"), Put("users", "u", 1)], None)
            store.disk.revoked, store.disk.revoked_floor = {}, 2
            assert (await end_of(subscription)).reason is CloseReason.REFRESH
            assert subscription.index == 1
        async with publisher.subscribe(ALL_USERS.after(place)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(ALL_USERS) as subscription:
            assert values(await until_live(subscription)) == [1]


async def test_one_that_concerns_all_is_told_to_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """D15: what that takes does not grow with the topics times the subscriptions."""
    names = [f"topic {number}" for number in range(20)]
    looked_at: list[int] = []
    take_of = Tokens.take_of

    def counted(self: Tokens[Any], topic: Topic[Any]) -> list[Any]:
        looked_at.append(self.count)
        return take_of(self, topic)

    monkeypatch.setattr(Tokens, "take_of", counted)
    store = MemoryStore(Disk())
    await commit_each(store, "first")
    engine = Unreadable(store, 2, None)
    async with open_store_publisher(engine, names) as publisher, AsyncExitStack() as stack:
        subscriptions = [
            await stack.enter_async_context(publisher.subscribe(SubscribeRequest(topic(name))))
            for name in names * 5
        ]
        for subscription in subscriptions:
            await until_live(subscription)
        await commit_each(store, "lost")
        for subscription in subscriptions:
            assert (await end_of(subscription)).reason is CloseReason.REFRESH
    assert sum(looked_at) == 0


class SaysNoMark(Unreadable):
    """Not even that can be read of it; nor from the head, if it `hides_mark`."""

    hides_mark = False

    @override
    async def head(self) -> Head:
        head = await self.store.head()
        return replace(head, mark="") if self.hides_mark else head

    @asynccontextmanager
    @override
    async def _changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        async with super()._changes(after) as commits:

            async def step() -> Commit:
                try:
                    return await anext(commits)
                except UnreadableCommitError as error:
                    error.mark = ""
                    raise

            yield Steps(step)


async def test_a_snapshot_of_a_commit_whose_mark_cannot_be_read_is_right(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, "a", "b")
        engine = SaysNoMark(store, (await store.head()).index, frozenset({"users"}))
        async with open_store_publisher(engine, ["jobs"]) as publisher:
            engine.index = (await cursors(store))[-1].index + 1
            if isinstance(store, MemoryStore):
                engine.index = store.disk.next_index()
            await until_index(publisher, await store.commit([Put("users", "u", 1)]))
            async with publisher.subscribe(ALL_JOBS) as subscription:
                assert values(await until_live(subscription)) == ["a", "b"]


async def test_a_cursor_of_another_copy_is_stale_behind_it(house: House) -> None:
    """D24: also where the newest commit has no mark, and the log can only be followed."""
    async with house.open() as store:
        await commit_each(store, "a", "b", "c")
        places = await cursors(store)
        engine = SaysNoMark(store, 0, frozenset({"users"}))
        async with open_store_publisher(engine, ["jobs"], history=1) as publisher:
            engine.index = places[-1].index + 1
            if isinstance(store, MemoryStore):
                engine.index = store.disk.next_index()
            engine.hides_mark = True
            await until_index(publisher, await store.commit([Put("users", "u", 1)]))
            engine.hides_mark = False
            for mark, begins in (("of another copy", "marker"), (places[1].mark, f"{places[2].index}:c=c")):
                place = Cursor(places[1].index, places[1].epoch, mark)
                async with publisher.subscribe(ALL_JOBS.after(place)) as subscription:
                    assert kinds([await receive(subscription)]) == [begins]


async def test_one_that_does_not_follow_from_the_log_either_ends_nobody_else() -> None:
    """An engine that puts what is finished."""
    store = MemoryStore(Disk())
    await commit_each(store, "first")
    engine = Unreadable(store, 3, frozenset({"jobs"}))
    async with open_store_publisher(engine, ["jobs", "users", "others"]) as publisher:
        others = SubscribeRequest(topic("others"))
        async with publisher.subscribe(ALL_USERS) as ended, publisher.subscribe(others) as spared:
            await until_live(ended)
            await until_live(spared)
            await store.commit([Put("users", "u", 1, final=True)])
            assert values([await receive(ended)]) == [1]
            store.disk.state.clear()
            await store.commit([put("a"), Put("users", "u", 2)])
            assert (await end_of(ended)).reason is CloseReason.REFRESH
            await store.commit([Put("others", "o", 3)])
            assert values([await receive(spared)]) == [3]


async def test_a_replay_that_nobody_reads_any_more_is_left(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, "a", "b")
        places = await cursors(store)
        paged = Paged(store)
        async with open_store_publisher(paged, ["jobs"]) as publisher:
            paged.held = anyio.Event()
            async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(WouldBlock):
                    subscription.receive_nowait()
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(PATIENCE):
                paged.held.set()
                await anyio.wait_all_tasks_blocked()
            assert paged.pages == 1
