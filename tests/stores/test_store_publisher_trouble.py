"""A publisher whose store fails, loses history or is replaced: subscribers are told, and never get a wrong state."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from stores.engines import Unreliable
from stores.readers import cursors, end_of, until_index
from stores.storehouse import (
    ALL_JOBS,
    commit_each,
    copy,
    kinds,
    open_at,
    put,
    receive,
    until_live,
)
from typing_extensions import override

from trio_stream import (
    CloseReason,
    Cursor,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
)
from trio_stream.stores import (
    Commit,
    Head,
    HistoryLostError,
    Record,
    Store,
    StoreError,
    open_store_publisher,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def unreliable(store: Store) -> Unreliable:
    return Unreliable(store)


async def test_while_the_store_fails_subscribers_wait_and_then_get_everything(
    unreliable: Unreliable, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store_publisher(unreliable, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            unreliable.failing = True
            await commit_each(unreliable, "a", "b")
            await unreliable.wait_failures(4)
            assert publisher.index == 0
            unreliable.failing = False
            assert kinds([await receive(subscription), await receive(subscription)]) == ["1:a=a", "2:b=b"]
    warnings = [record for record in caplog.records if record.name == "trio_stream.stores"]
    assert warnings
    assert {record.levelno for record in warnings} == {logging.WARNING}
    assert "jobs.db: on fire" in warnings[0].message


async def test_a_store_that_fails_for_long_is_logged_a_few_times(
    unreliable: Unreliable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U14: the same few warnings a minute as of views."""
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    async with open_store_publisher(unreliable, ["jobs"]):
        unreliable.failing = True
        await commit_each(unreliable, "secret")
        await unreliable.wait_failures(50)
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ["trying again in 0.00 s: jobs.db: on fire"] * 10


async def test_while_the_store_fails_so_do_snapshots_and_say_why(unreliable: Unreliable) -> None:
    async with open_store_publisher(unreliable, ["jobs"]) as publisher:
        unreliable.failing = True
        async with publisher.subscribe(ALL_JOBS) as subscription:
            end = await end_of(subscription)
    assert isinstance(end, SnapshotFailed)
    assert isinstance(end.__cause__, StoreError)


async def test_the_time_between_two_attempts_grows_up_to_a_bound_and_is_random(
    unreliable: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return 0.0

    monkeypatch.setattr("random.uniform", uniform)
    async with open_store_publisher(unreliable, ["jobs"]):
        unreliable.failing = True
        await commit_each(unreliable, "a")
        failures = 0
        while len(bounds) < 9:  # it also fails to say what its newest commit is
            failures += 1
            await unreliable.wait_failures(failures)
    assert bounds[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


async def lose_history(publisher: EventPublisher, store: Unreliable) -> Sequence[Cursor]:
    """The feed is held behind commit 1 while more are made, and compacted; returns the cursors of all."""
    await commit_each(store, "a")
    await until_index(publisher, 1)
    store.open = anyio.Event()
    await commit_each(store, "b", "c", "d", "e")
    places = await cursors(store.store)
    await store.compact(4)
    held, store.open = store.open, anyio.Event()
    store.open.set()
    store.failing = True
    held.set()
    await store.wait_failures(1)
    store.failing = False
    return places


async def test_when_compaction_overtakes_the_publisher_its_subscribers_start_again(
    unreliable: Unreliable,
) -> None:
    async with open_store_publisher(unreliable, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            epoch = publisher.epoch
            await lose_history(publisher, unreliable)
            end = await end_of(subscription)
            assert (end.reason, end.epoch) == (CloseReason.REFRESH, epoch)
        async with publisher.subscribe(subscription.resume_request()) as subscription:
            assert kinds(await until_live(subscription))[-1] == "eos@5"
            await commit_each(unreliable, "f")
            assert kinds([await receive(subscription)]) == ["6:f=f"]
        assert publisher.epoch == epoch


@pytest.mark.parametrize("index", [1, 2, 3])
async def test_nobody_resumes_from_before_or_between_commits_that_the_publisher_has_lost(
    unreliable: Unreliable, index: int
) -> None:
    """A client of another process may come with an index that this publisher never had (etcd #17529)."""
    async with open_store_publisher(unreliable, ["jobs"]) as publisher:
        places = await lose_history(publisher, unreliable)
        await until_index(publisher, 5)
        async with publisher.subscribe(ALL_JOBS.after(places[index - 1])) as subscription:
            assert kinds(await until_live(subscription))[0] == "marker"
        async with publisher.subscribe(ALL_JOBS.after(places[3])) as subscription:
            assert kinds([await receive(subscription)]) == ["5:e=e"]


async def test_a_file_replaced_by_another_store_closes_all_and_changes_the_epoch(
    store: Store, path: Path, tmp_path: Path
) -> None:
    async with open_at(tmp_path / "new.db") as new:
        await commit_each(new, "x", "y")
        places = await cursors(new)
        epoch = (await new.head()).epoch
    await commit_each(store, "a", "b", "c")
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            stale = subscription.resume_request()
            (tmp_path / "new.db").replace(path)
            end = await end_of(subscription)
            assert (end.reason, end.index) == (CloseReason.REFRESH, 3)
        await until_index(publisher, 2)
        assert publisher.epoch == epoch
        async with publisher.subscribe(stale) as subscription:
            assert kinds(await until_live(subscription)) == ["marker", "1:x=x", "2:y=y", "eos@2"]
        async with publisher.subscribe(ALL_JOBS.after(places[0])) as subscription:
            assert kinds([await receive(subscription)]) == ["2:y=y"]
            await commit_each(store, "z")
            assert kinds([await receive(subscription)]) == ["3:z=z"]


async def test_an_older_copy_put_in_place_is_a_new_timeline_to_every_process(
    store: Store, other: Store, path: Path, tmp_path: Path
) -> None:
    await commit_each(store, "a")
    older = copy(path, tmp_path / "older.db")
    async with open_store_publisher(store, ["jobs"]) as one, open_store_publisher(other, ["jobs"]) as two:
        before = one.epoch
        async with one.subscribe(ALL_JOBS) as first, two.subscribe(ALL_JOBS) as second:
            await until_live(first)
            await until_live(second)
            await commit_each(store, "b", "c")
            await until_index(one, 3)
            await until_index(two, 3)
            lost = one.cursor
            older.replace(path)
            assert [(await end_of(each)).reason for each in (first, second)] == [CloseReason.REFRESH] * 2
        assert one.epoch == two.epoch != before
        async with two.subscribe(ALL_JOBS.after(lost)) as subscription:
            assert kinds(await until_live(subscription)) == ["marker", "1:a=a", "eos@1"]


async def test_a_snapshot_of_a_timeline_that_the_publisher_does_not_know_fails(
    unreliable: Unreliable, path: Path, tmp_path: Path
) -> None:
    """The feed is held, so that a subscriber comes between the replacement and its discovery."""
    async with open_at(tmp_path / "new.db") as new:
        await commit_each(new, "x")
    await commit_each(unreliable, "a")
    async with open_store_publisher(unreliable, ["jobs"]) as publisher:
        unreliable.open = anyio.Event()
        await commit_each(unreliable, "b")
        await anyio.wait_all_tasks_blocked()
        (tmp_path / "new.db").replace(path)
        async with publisher.subscribe(ALL_JOBS) as subscription, anyio.create_task_group() as tasks:
            tasks.start_soon(until_live_or_closed, subscription)
            await anyio.wait_all_tasks_blocked()
            unreliable.open.set()
        await until_index(publisher, 1)


async def until_live_or_closed(subscription: Subscription[Record]) -> None:
    end = await end_of(subscription)
    assert end.reason in {CloseReason.SNAPSHOT_FAILED, CloseReason.REFRESH}


@pytest.mark.parametrize("returned", [0, Cursor(0, "another")], ids=["an index", "a cursor"])
async def test_a_snapshot_in_the_middle_of_which_the_store_was_replaced_fails(
    unreliable: Unreliable, returned: int | Cursor
) -> None:
    class Replaced(Unreliable):
        replaced = False

        @override
        async def head(self) -> Head:
            head = await super().head()
            return replace(head, epoch="another") if self.replaced else head

        @override
        async def snapshot(
            self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
        ) -> int | Cursor:
            self.replaced = True
            await super().snapshot(request, snapshot)
            return returned

    async with open_store_publisher(Replaced(unreliable.store), ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            end = await end_of(subscription)
    assert isinstance(end.__cause__, StoreError)
    assert "by 'another'" in str(end.__cause__)


async def test_a_snapshot_that_is_older_than_what_was_published_fails(unreliable: Unreliable) -> None:
    class Behind(Unreliable):
        async def snapshot(
            self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
        ) -> int:
            await super().snapshot(request, snapshot)
            return 0

    await commit_each(unreliable, "a")
    async with open_store_publisher(Behind(unreliable.store), ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            end = await end_of(subscription)
    assert isinstance(end.__cause__, StoreError)


async def test_history_lost_while_it_begins_is_no_error(unreliable: Unreliable) -> None:
    class CompactedMeanwhile(Unreliable):
        compacted = False

        def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
            if not self.compacted:
                self.compacted = True
                raise HistoryLostError(3, 3, "another")
            return super().changes(after)

    await commit_each(unreliable, "a", "b", "c")
    async with open_store_publisher(CompactedMeanwhile(unreliable.store), ["jobs"]) as publisher:
        assert publisher.index == 3


async def test_a_store_that_cannot_be_followed_at_the_beginning_is_an_error_of_the_block(
    unreliable: Unreliable,
) -> None:
    class FailsToFollow(Unreliable):
        @override
        def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
            raise StoreError("jobs.db: on fire")

    with pytest.raises(StoreError, match="on fire"):
        async with open_store_publisher(FailsToFollow(unreliable.store), ["jobs"]):
            pytest.fail("there is nothing to publish")


async def test_a_store_that_is_replaced_while_the_feed_connects_is_joined_anew(
    unreliable: Unreliable, path: Path, tmp_path: Path
) -> None:
    """Between asking for the head and entering the changes: these are of the new timeline already."""
    async with open_at(tmp_path / "new.db") as new:
        await commit_each(new, "x", "y")
        epoch = (await new.head()).epoch

    class Replaced(Unreliable):
        def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
            if (tmp_path / "new.db").exists():
                (tmp_path / "new.db").replace(path)
            return super().changes(after)

    await unreliable.commit([put("a")])
    async with open_store_publisher(Replaced(unreliable.store), ["jobs"]) as publisher:
        assert (publisher.epoch, publisher.index) == (epoch, 2)
