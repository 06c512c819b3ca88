"""What becomes of a fleet when one process has lost the store, and the others have not.

It has readers that are old, and none that are wrong: nothing is published there that is not everywhere.
"""

import anyio
import pytest
from stores.clocks import LONG, Clock, age, until
from stores.engines import Unreliable
from stores.readers import after, end_of, until_index
from stores.storehouse import ALL_JOBS, JOBS, PATIENCE, commit_each, kinds, put, receive, until_live
from typing_extensions import override

from trio_stream import CloseReason, SnapshotFailed, SubscribeRequest
from trio_stream.stores import Operation, Revoke, Store, StoreError, open_store_publisher
from trio_stream.view import Status, open_view

pytestmark = pytest.mark.anyio


class Lost(Unreliable):
    """The store of a process that can lose it."""

    async def lose(self) -> None:
        self.failing = True
        await self.wait_failures(self.failures + 1)

    @override
    async def commit(self, operations: list[Operation]) -> int:  # type: ignore[override]
        self.check()
        return await self.store.commit(operations)


@pytest.fixture
def lost(store: Store) -> Lost:
    return Lost(store)


async def test_its_readers_are_old_and_get_everything_in_order_when_it_is_back(
    lost: Lost, other: Store, clock: Clock
) -> None:
    async with open_store_publisher(lost, ["jobs"]) as here, open_store_publisher(other, ["jobs"]) as there:
        async with here.subscribe(ALL_JOBS) as old, there.subscribe(ALL_JOBS) as new:
            await until_live(old)
            await until_live(new)
            await lost.lose()
            await commit_each(other, "a", "b")
            expected = ["1:a=a", "2:b=b"]
            assert kinds([await receive(new), await receive(new)]) == expected
            clock.jump()
            await lost.wait_failures(lost.failures + 3)
            await until(lambda: age(there) < LONG)
            assert (here.index, there.index) == (0, 2)
            assert age(here) >= LONG
            lost.failing = False
            assert kinds([await receive(old), await receive(old)]) == expected
            await until(lambda: age(here) < LONG)


async def test_what_cannot_be_committed_there_is_published_nowhere(
    lost: Lost, other: Store, clock: Clock
) -> None:
    """Delivering it to those nearby is what would split the fleet."""
    async with open_store_publisher(lost, ["jobs"]) as here, open_store_publisher(other, ["jobs"]) as there:
        async with here.subscribe(ALL_JOBS) as old, there.subscribe(ALL_JOBS) as new:
            await until_live(old)
            await until_live(new)
            await lost.lose()
            with pytest.raises(StoreError):
                await lost.commit([put("a")])
            lost.failing = False
            await lost.commit([put("b")])
            assert kinds([await receive(old)]) == kinds([await receive(new)]) == ["1:b=x"]


async def test_nobody_is_given_an_old_state_there_for_a_new_one(
    lost: Lost, other: Store, clock: Clock
) -> None:
    await commit_each(other, "a")
    async with open_store_publisher(lost, ["jobs"]) as here:
        async with here.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
        await lost.lose()
        await commit_each(other, "b")
        async with here.subscribe(ALL_JOBS) as subscription:
            end = await end_of(subscription)
    assert isinstance(end, SnapshotFailed)
    assert isinstance(end.__cause__, StoreError)


async def test_who_comes_there_from_another_process_is_not_taken_back(
    lost: Lost, other: Store, clock: Clock
) -> None:
    async with open_store_publisher(lost, ["jobs"]) as here, open_store_publisher(other, ["jobs"]) as there:
        await commit_each(other, "a")
        await until_index(here, 1)
        await lost.lose()
        await commit_each(other, "b")
        await until_index(there, 2)
        async with here.subscribe(after(ALL_JOBS, there.cursor)) as subscription:
            await lost.wait_failures(lost.failures + 3)
            lost.failing = False
            await commit_each(other, "c")
            assert kinds([await receive(subscription)]) == ["3:c=c"]


async def test_who_leaves_it_because_it_is_old_goes_on_elsewhere(
    lost: Lost, other: Store, clock: Clock
) -> None:
    async with open_store_publisher(lost, ["jobs"]) as here, open_store_publisher(other, ["jobs"]) as there:
        async with here.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await commit_each(other, "a")
            assert kinds([await receive(subscription)]) == ["1:a=a"]
            await lost.lose()
            await commit_each(other, "b")
            clock.jump()
            assert age(here) >= LONG
        async with there.subscribe(subscription.resume_request()) as subscription:
            assert kinds([await receive(subscription)]) == ["2:b=b"]


async def test_a_revocation_that_it_has_not_heard_of_comes_before_all_that_was_committed_since(
    lost: Lost, other: Store, clock: Clock
) -> None:
    """D9: until then the readers have what they had, and get nothing newer."""
    async with open_store_publisher(lost, ["jobs"]) as here:
        async with here.subscribe(SubscribeRequest(JOBS, token="eve")) as subscription:
            await until_live(subscription)
            await lost.lose()
            await other.commit([Revoke("eve"), put("secret")])
            await commit_each(other, "more")
            await lost.wait_failures(lost.failures + 3)
            lost.failing = False
            end = await end_of(subscription)
            assert (end.reason, end.index) == (CloseReason.TOKEN, 0)


async def test_a_view_there_keeps_what_it_has_and_catches_up(lost: Lost, other: Store, clock: Clock) -> None:
    await commit_each(other, "a")
    async with open_store_publisher(lost, ["jobs"]) as here, open_view(here.subscribe, ALL_JOBS) as view:
        await view.wait_current()
        await lost.lose()
        index = await other.commit([put("b")])
        clock.jump()
        assert (view.status.status, view.index, list(view), age(here) >= LONG) == (
            Status.CURRENT,
            1,
            ["a"],
            True,
        )
        lost.failing = False
        with anyio.fail_after(PATIENCE):
            await view.wait_index(index)
        assert sorted(view) == ["a", "b"]
