"""D9, D20: a commit that revokes a token closes its subscriptions in every process, and no older cursor is good."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from stores.clocks import until
from stores.engines import Unreliable
from stores.houses import House
from stores.readers import after, end_of, until_index
from stores.storehouse import ALL_JOBS, JOBS, commit_each, kinds, put, receive, until_live
from testing.memory_store import Disk, MemoryStore
from typing_extensions import override

from trio_stream import (
    CloseReason,
    Cursor,
    EventPublisher,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    WouldBlock,
)
from trio_stream.stores import (
    MOST_REVOKED,
    Operation,
    Put,
    Record,
    Revocations,
    Revoke,
    StoreError,
    open_store_publisher,
    token_digest,
    topic,
)

pytestmark = pytest.mark.anyio

MINE = SubscribeRequest(JOBS, token="mine")
ANOTHER = SubscribeRequest(JOBS, token="another")
USERS = topic("users")


async def test_it_closes_the_streams_of_the_token_in_every_process_and_no_other(house: House) -> None:
    async with house.open() as store, house.open() as other:
        async with open_store_publisher(store, ["jobs"]) as one, open_store_publisher(other, ["jobs"]) as two:
            async with (
                one.subscribe(MINE) as here,
                two.subscribe(MINE) as there,
                two.subscribe(ANOTHER) as spared,
            ):
                for subscription in (here, there, spared):
                    await until_live(subscription)
                await store.commit([Revoke("mine")])
                for subscription in (here, there):
                    assert (await end_of(subscription)).reason is CloseReason.TOKEN
                await commit_each(store, "a")
                assert kinds([await receive(spared)])[0].endswith(":a=a")


async def test_it_comes_before_the_other_operations_of_its_commit(house: House) -> None:
    """Wherever in the commit it stands."""
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(MINE) as subscription, publisher.subscribe(ANOTHER) as spared:
            await until_live(subscription)
            await until_live(spared)
            await store.commit([put("a", 1), Revoke("mine"), put("b", 2)])
            assert kinds([await receive(spared)])[0].endswith(":a=1+b=2")
            assert (await end_of(subscription)).reason is CloseReason.TOKEN
            assert subscription.index == 0


async def test_what_was_ready_before_is_not_returned_any_more(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(MINE) as subscription:
            await until_live(subscription)
            await commit_each(store, "a", "b")
            await store.commit([Revoke("mine")])
            await until_index(publisher, (await store.head()).index)
            assert (await end_of(subscription)).reason is CloseReason.TOKEN
            assert subscription.statistics().delivered == 1


async def test_a_log_that_is_read_by_topic_has_it_too(house: House) -> None:
    """Also in a commit about other topics, and in one about nothing else."""
    async with house.open() as store, open_store_publisher(store, ["users"]) as publisher:
        commits: list[list[Operation]] = [[Revoke("mine")], [put("a"), Revoke("mine")]]
        for operations in commits:
            async with publisher.subscribe(SubscribeRequest(USERS, token="mine")) as subscription:
                await until_live(subscription)
                await store.commit(operations)
                assert (await end_of(subscription)).reason is CloseReason.TOKEN


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_older_cursor_of_the_token_is_stale_and_a_newer_one_is_good(
    house: House, is_restarted: bool
) -> None:
    """D20: one at the very index of the revocation is an older one. Also after a restart, and a compaction."""
    places: list[Cursor] = []
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        commits: list[list[Operation]] = [[put("a")], [put("b"), Revoke("mine")], [put("c")]]
        for operations in commits:
            await store.commit(operations)
            places.append((await store.head()).cursor)
        await until_index(publisher, places[-1].index)
        if not is_restarted:
            await check_cursors(publisher, places)
        else:
            await store.compact(places[0].index)
    if is_restarted:
        async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
            await check_cursors(publisher, places)


async def check_cursors(publisher: EventPublisher, places: list[Cursor]) -> None:
    """Those of the token up to the second one are stale, and nobody else's."""
    for place, is_stale in zip(places, (True, True, False), strict=True):
        async with publisher.subscribe(after(MINE, place)) as subscription:
            events = [text.partition(":")[0] for text in kinds(await subscription.receive_until_current())]
            assert (events[:1] == ["marker"]) is is_stale
        async with publisher.subscribe(after(ANOTHER, place)) as subscription:
            assert "marker" not in kinds(await subscription.receive_until_current())


async def test_a_fresh_start_with_the_token_is_served(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await until_index(publisher, await store.commit([put("a", 1), Revoke("mine")]))
        async with publisher.subscribe(MINE) as subscription:
            assert kinds(await until_live(subscription))[0].endswith(":a=1")
            await store.commit([Revoke("another")])
            await commit_each(store, "b")
            assert kinds([await receive(subscription)])[0].endswith(":b=b")


async def test_closing_here_closes_here_only_and_by_the_token(house: House) -> None:
    async with house.open() as store, house.open() as other:
        async with open_store_publisher(store, ["jobs"]) as one, open_store_publisher(other, ["jobs"]) as two:
            async with one.subscribe(MINE) as here, two.subscribe(MINE) as there:
                await until_live(here)
                await until_live(there)
                assert one.close_subscriptions(["mine", "mine", "nobody's"]) == 1
                assert (await end_of(here)).reason is CloseReason.TOKEN
                await commit_each(store, "a")
                assert kinds([await receive(there)])[0].endswith(":a=a")
                await until_index(one, there.index)
                async with one.subscribe(MINE.after(there.cursor)) as subscription:
                    with pytest.raises(WouldBlock):
                        subscription.receive_nowait()
            with pytest.raises(TypeError):
                one.close_subscriptions("mine")
            with pytest.raises(TypeError):
                one.close_subscriptions([1])  # type: ignore[list-item]
            with pytest.raises(TypeError):
                one.close_subscriptions(1)  # type: ignore[arg-type]


async def test_a_cursor_from_before_closing_here_is_stale_here(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "a")
        await until_index(publisher, (await store.head()).index)
        place = publisher.cursor
        publisher.close_subscriptions(["mine"])
        async with publisher.subscribe(MINE.after(place)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(ANOTHER.after(place)) as subscription:
            await commit_each(store, "b")
            assert kinds([await receive(subscription)])[0].endswith(":b=b")


async def test_a_slow_reader_that_is_being_replayed_is_closed_as_well(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"], history=2) as publisher:
        async with publisher.subscribe(MINE) as subscription:
            await until_live(subscription)
            await commit_each(store, *"abcdefgh")
            await until_index(publisher, (await store.head()).index)
            await receive(subscription)
            await receive(subscription)
            await store.commit([Revoke("mine")])
            await until_index(publisher, (await store.head()).index)
            assert (await end_of(subscription)).reason is CloseReason.TOKEN
            assert subscription.statistics().delivered == 3


async def test_revocations_are_kept_when_the_log_is_compacted_away(house: House) -> None:
    async with house.open() as store:
        await commit_each(store, "a")
        place = (await store.head()).cursor
        await store.commit([Revoke("mine")])
        await commit_each(store, "b")
        await store.compact(place.index)
        async with open_store_publisher(store, ["jobs"]) as publisher:
            async with publisher.subscribe(MINE.after(place)) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
            async with publisher.subscribe(ANOTHER.after(place)) as subscription:
                assert kinds([await receive(subscription)])[0].endswith(":b=b")


async def test_after_a_change_of_epoch_the_revocations_of_the_new_store_count() -> None:
    """And tokens are known by its salt."""
    disk, new = Disk(), Disk()
    store, another = MemoryStore(disk), MemoryStore(new)
    await commit_each(another, "x")
    place = (await another.head()).cursor
    await another.commit([Revoke("mine")])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            disk.put_back(new)
            await end_of(subscription)
        await until_index(publisher, (await another.head()).index)
        async with publisher.subscribe(MINE.after(place)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]
        async with (
            publisher.subscribe(MINE) as subscription,
            publisher.subscribe(ANOTHER.after(place)) as spared,
        ):
            await until_live(subscription)
            await store.commit([Revoke("mine")])
            assert (await end_of(subscription)).reason is CloseReason.TOKEN
            await commit_each(store, "y")
            assert kinds([await receive(spared)])[0].endswith(":y=y")


async def test_very_many_of_them_are_taken_over_in_portions() -> None:
    """And no resume is served before all of them are known: not even while the epoch changes."""
    disk = Disk()
    store = MemoryStore(disk)
    await commit_each(store, "a")
    place = (await store.head()).cursor
    index = await store.commit([Revoke("mine")])
    await commit_each(store, "b")
    digests = {token_digest(f"{number}", disk.salt): index for number in range(MOST_REVOKED - 1)}
    disk.revoked = {**digests, **disk.revoked}
    async with open_store_publisher(store, ["jobs"]) as publisher:
        for token in ("mine", "0", f"{MOST_REVOKED - 2}"):
            request = SubscribeRequest(JOBS, token=token).after(place)
            async with publisher.subscribe(request) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            newer = disk.copy()
            newer.epoch = "another"
            disk.put_back(newer)
            place = Cursor(place.index, "another", place.mark)
            await end_of(subscription)
        looks = 0
        while publisher.epoch != "another":
            await anyio.lowlevel.checkpoint()
        while looks < 200:
            async with publisher.subscribe(MINE.after(place)) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
            looks += 1
        async with publisher.subscribe(ANOTHER.after(place)) as subscription:
            assert kinds([await receive(subscription)])[0].endswith(":b=b")


async def test_the_floor_of_what_is_forgotten_counts_for_every_token() -> None:
    disk = Disk()
    store = MemoryStore(disk)
    await commit_each(store, "a", "b", "c")
    disk.revoked_floor = 2
    places = [Cursor(commit.index, disk.epoch, commit.mark) for commit in disk.log]
    async with open_store_publisher(store, ["jobs"]) as publisher:
        for place in places[:2]:
            async with publisher.subscribe(ANOTHER.after(place)) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(ANOTHER.after(places[2])) as subscription:
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()


async def test_who_was_revoked_here_gets_a_new_snapshot_when_the_store_was_replaced_unnoticed() -> None:
    """Where the store knows nothing of it, nobody can tell whether a cursor is older: none is good then."""
    disk = Disk()
    store = MemoryStore(disk)
    await commit_each(store, "a")
    place = (await store.head()).cursor
    older = disk.copy()
    async with open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "lost")
        await until_index(publisher, 2)
        publisher.close_subscriptions(["mine"])
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            disk.put_back(older)
            await commit_each(store, "b", "c")
            await end_of(subscription)
        await until_index(publisher, 3)
        async with publisher.subscribe(MINE.after(place)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]


async def test_a_snapshot_ends_behind_the_revocations_that_it_is_ahead_of() -> None:
    """D20: until those are published its readers have the rights of before, and no cursor may hide that elsewhere."""
    disk = Disk()
    behind, store = Unreliable(MemoryStore(disk)), MemoryStore(disk)
    await commit_each(store, "a")
    async with open_store_publisher(behind, ["jobs"]) as publisher, anyio.create_task_group() as tasks:
        behind.open = anyio.Event()
        begin = publisher.index
        await commit_each(store, "b")
        async with publisher.subscribe(MINE) as subscription:  # nothing was revoked: it is ahead, and may be
            await until_live(subscription)
            assert subscription.cursor.index == 2
        assert publisher.index == begin
        await store.commit([Revoke("mine")])
        await commit_each(store, "c")
        async with publisher.subscribe(MINE) as subscription, publisher.subscribe(ANOTHER) as spared:
            for each in (subscription, spared):
                tasks.start_soon(until_over, each)
            await anyio.wait_all_tasks_blocked()
            for each in (subscription, spared):
                assert each.statistics().delivered == 3
                assert each.cursor.index == 0
            behind.open.set()
            await until_index(publisher, 4)
            await anyio.wait_all_tasks_blocked()
            assert (await end_of(subscription)).reason is CloseReason.TOKEN
            assert subscription.resume_request().index == 0
            assert spared.cursor.index == 4


async def until_over(subscription: Subscription[Record]) -> None:
    """Receives up to end-of-snapshot, or until it is closed."""
    with suppress(SubscriptionForceClosed):
        await until_live(subscription)


async def test_a_snapshot_that_waits_for_them_ends_with_the_epoch() -> None:
    disk = Disk()
    behind, store = Unreliable(MemoryStore(disk)), MemoryStore(disk)
    await commit_each(store, "a")
    older = disk.copy()
    async with open_store_publisher(behind, ["jobs"]) as publisher:
        behind.open = anyio.Event()
        await store.commit([Revoke("mine")])
        async with publisher.subscribe(ANOTHER) as subscription:
            assert kinds([await receive(subscription)]) == ["1:a=a"]
            disk.put_back(older, epoch="another")
            behind.open.set()
            assert (await end_of(subscription)).reason is CloseReason.REFRESH
        async with publisher.subscribe(ANOTHER) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "eos@1"]


async def test_a_token_is_in_nothing_that_the_publisher_says(house: House) -> None:
    async with house.open() as store, open_store_publisher(store, ["jobs"]) as publisher:
        request = SubscribeRequest(JOBS, token="s3cret")
        async with publisher.subscribe(request) as subscription:
            await until_live(subscription)
            await store.commit([Revoke("s3cret"), Put("jobs", "a", 1)])
            end = await end_of(subscription)
        said = [repr(publisher), repr(subscription), repr(end), str(end), repr(publisher.statistics())]
        assert not any("s3cret" in text for text in said)


class OutOfOrder(MemoryStore):
    """Its table of what was revoked is."""

    is_damaged = True

    @override
    async def revocations(self) -> Revocations:
        known = await super().revocations()
        return replace(known, newest={"b": 2, "a": 1}) if self.is_damaged else known


async def test_a_table_out_of_order_is_an_error_of_the_store_and_names_it() -> None:
    with pytest.raises(StoreError, match=r"OutOfOrder: damaged: .* out of order"):
        async with open_store_publisher(OutOfOrder(Disk()), ["jobs"]):
            pytest.fail("nobody knows whose cursors are good")


async def test_a_table_out_of_order_keeps_a_publisher_from_another_timeline_until_it_is_right(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then it begins there, with all that was revoked."""
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    disk = Disk()
    store = OutOfOrder(disk)
    store.is_damaged = False
    async with open_store_publisher(store, ["jobs"]) as publisher:
        await store.commit([Revoke("mine")])
        await until_index(publisher, 1)
        store.is_damaged = True
        disk.put_back(disk.copy(), epoch="another")
        await until(lambda: any("out of order" in text for text in caplog.messages))
        assert publisher.epoch != "another"
        store.is_damaged = False
        await until(lambda: publisher.epoch == "another")
        async with publisher.subscribe(MINE.after(publisher.cursor)) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]


class Meanwhile(MemoryStore):
    """Something happens while it is asked what was revoked."""

    happens: Callable[[], Awaitable[None]] | None = None

    @override
    async def revocations(self) -> Revocations:
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        return await super().revocations()


async def test_who_was_revoked_here_while_the_publisher_begins_again_has_no_good_cursor() -> None:
    """Not even one of a snapshot that was ahead of the commit at which it begins."""
    disk = Disk()
    store = Meanwhile(disk)
    await commit_each(store, "a")
    older = disk.copy()

    async def happens() -> None:
        await commit_each(store, "c")
        async with publisher.subscribe(MINE) as subscription:
            await until_live(subscription)
            places.append(subscription.cursor)
            publisher.close_subscriptions(["mine"])

    places: list[Cursor] = []
    async with open_store_publisher(store, ["jobs"]) as publisher:
        await commit_each(store, "lost")
        await until_index(publisher, 2)
        store.happens = happens
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            disk.put_back(older)
            await commit_each(store, "b")
            await end_of(subscription)
        await until_index(publisher, 3)
        assert [place.index for place in places] == [3]
        async with publisher.subscribe(MINE.after(places[0])) as subscription:
            assert kinds([await receive(subscription)]) == ["marker"]
