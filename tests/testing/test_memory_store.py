"""The store in memory that other tests rely on: the protocol, member by member."""

from uuid import uuid4

import anyio
import pytest
from testing.memory_store import Disk, MemoryFactory, MemoryStore

from trio_stream import ALL, Cursor, Event, SubscribeRequest
from trio_stream.stores import (
    JSON,
    Commit,
    ConflictError,
    Delete,
    Entry,
    EpochIndex,
    HistoryLostError,
    LimitExceededError,
    Limits,
    Name,
    Operation,
    Put,
    Record,
    Revocations,
    Revoke,
    token_digest,
    topic,
)

pytestmark = pytest.mark.anyio

A = Name("jobs", "a")


class Sink:
    def __init__(self) -> None:
        self.keys: list[str] = []
        self.is_finished = False

    async def append(self, events: "list[Event[Record]]", /) -> bool:
        self.keys += [event.payload.key for event in events if isinstance(event.payload, Record)]
        return True

    def finish(self) -> None:
        self.is_finished = True


async def log_of(store: MemoryStore, after: int | Cursor = 0) -> list[Commit]:
    newest, found = store.disk.index, list[Commit]()
    if newest == int(after.index if isinstance(after, Cursor) else after):
        return found
    async with store.changes(after) as commits:
        async for commit in commits:
            found.append(commit)
            if commit.index == newest:
                break
    return found


async def test_the_log_tells_what_was_replaced_and_leaves_out_what_changed_nothing() -> None:
    store = MemoryStore(Disk())
    await store.commit([Put("jobs", "a", None)])
    await store.commit([Put("jobs", "a", 1), Put("jobs", "b", 1), Put("jobs", "a", 2), Delete("jobs", "c")])
    await store.commit([Delete("jobs", "c")])
    await store.commit([Delete("jobs", "a")])
    first, second, third, fourth = await log_of(store)
    assert first.operations == (Put("jobs", "a", None),)
    assert not first.operations[0].replaces
    assert second.operations == (Put("jobs", "b", 1), Put("jobs", "a", 2))
    assert [(each.replaces, each.previous) for each in second.operations] == [(False, None), (True, None)]
    assert third.operations == ()
    assert [(each.replaces, each.previous) for each in fourth.operations] == [(True, 2)]


async def test_a_handle_follows_another_and_compaction_ends_what_it_overtakes() -> None:
    factory = MemoryFactory(has_gaps=True)
    async with factory() as store, factory() as other:
        indexes = [await other.commit([Put("jobs", "a", n)]) for n in range(6)]
        assert [*map(int, indexes)] == [1, 2, 4, 7, 8, 10]
        async with store.changes(0) as commits:
            assert (await anext(commits)).index == 1
            await other.compact(9)
            with pytest.raises(HistoryLostError) as caught:
                await anext(commits)
        assert (caught.value.after, caught.value.floor) == (1, 8)
        head = await store.head()
        assert (head.floor, head.index, head.mark) == (8, 10, indexes[-1].mark)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="newest"):
            await store.compact(11)


async def test_a_cursor_of_another_copy_or_epoch_is_refused() -> None:
    disk = Disk()
    store = MemoryStore(disk)
    for n in range(3):
        await store.commit([Put("jobs", "a", n)])
    older = disk.copy()
    lost = await store.commit([Put("jobs", "a", 3)])
    assert isinstance(lost, EpochIndex)
    disk.put_back(older)
    assert store.disk.index == 3
    async with store.changes(lost.cursor) as commits:  # which the copy has yet to reach
        await store.commit([Put("jobs", "a", 4)])
        with pytest.raises(HistoryLostError):
            await anext(commits)
    with pytest.raises(HistoryLostError):
        async with store.changes(lost.cursor):
            pass
    with pytest.raises(HistoryLostError):
        async with store.changes(Cursor(2, "another")):
            pass
    assert [each.index for each in await log_of(store, Cursor(2, disk.epoch, older.log[1].mark))] == [3, 4]


async def test_an_index_of_another_epoch_is_not_expected() -> None:
    disk = Disk()
    store = MemoryStore(disk)
    index = await store.commit([Put("jobs", "a", 1)])
    disk.put_back(disk.copy(), epoch="two")
    for expected in (1, index):  # the handle has not seen the new one, and then it has
        with pytest.raises(ConflictError):
            await store.commit([Put("jobs", "a", 2)], expect={A: expected})
    await store.commit([Put("jobs", "a", 2)], expect={A: 1})


async def test_a_finished_key_is_freed_by_a_delete_only() -> None:
    store = MemoryStore(Disk())
    await store.commit([Put("jobs", "a", 1, final=True)])
    assert await store.get("jobs", "a") == Entry(1, 1, final=True)
    again: list[list[Operation]] = [[Put("jobs", "a", 2)], [Delete("jobs", "a"), Put("jobs", "a", 2)]]
    for operations in again:
        with pytest.raises(ConflictError) as caught:
            await store.commit(operations)
        assert caught.value.is_final
    sink = Sink()
    await store.snapshot(SubscribeRequest(topic("jobs"), "a"), sink)  # type: ignore[arg-type]
    assert sink.is_finished
    await store.commit([Delete("jobs", "a")])
    await store.commit([Put("jobs", "a", 3)])


async def test_revocations_outlive_compaction() -> None:
    store = MemoryStore(Disk())
    index = await store.commit([Put("jobs", "a", 1), Revoke("one"), Revoke("two"), Revoke("one")])
    again = await store.commit([Revoke("one")])
    one, two = (token_digest(token, store.disk.salt) for token in ("one", "two"))
    assert [commit.revoked for commit in await log_of(store)] == [(one, two), (one,)]
    await store.compact(again)
    assert await store.revocations() == Revocations(store.disk.salt, 0, {two: index, one: again})


async def test_an_id_is_of_one_commit_whoever_repeats_it() -> None:
    factory = MemoryFactory()
    async with factory() as store, factory() as other:
        by = uuid4()
        index = await store.commit([Put("jobs", "a", 1)], id=by)
        await store.compact(index)
        assert await other.commit([Put("jobs", "a", 2)], id=by, expect={A: 7}) == index
        assert (await store.head()).index == index


async def test_what_changes_nothing_is_no_commit_if_asked_for_so() -> None:
    store = MemoryStore(Disk())
    index = await store.commit([Put("jobs", "a", 1)])
    nothing: list[Operation] = [Put("jobs", "a", 7), Put("jobs", "a", 1), Delete("jobs", "b")]
    assert await store.commit(nothing, if_changed=True) == index
    values: list[JSON] = [1.0, True, "1"]
    for n, value in enumerate(values, 2):
        assert await store.commit([Put("jobs", "a", value), Delete("jobs", "b")], if_changed=True) == n
    assert await store.commit([Put("jobs", "a", "1", final=True)], if_changed=True) == 5


async def test_more_than_the_limits_is_refused_with_the_numbers() -> None:
    store = MemoryStore(Disk(limits=Limits(operations=2, commit=40, key=10, value=20)))
    for operations, what, actual in (
        ([Put("jobs", f"{n}", 1) for n in range(3)], "operations", 3),
        ([Put("jobs", "k" * 11, 1)], "key", 11),
        ([Put("jobs", "a", "x" * 19)], "value", 21),
        ([Put("jobs", f"{n}", "x" * 18) for n in range(2)], "commit", 64),
    ):
        with pytest.raises(LimitExceededError) as caught:
            await store.commit(operations)
        assert (caught.value.what, caught.value.actual) == (what, actual)
    assert (await store.head()).index == 0


async def test_names_are_listed_in_the_order_of_their_characters() -> None:
    store = MemoryStore(Disk())
    keys = ["a", "B", "\uffff", "😀", "ab", "a%", "A"]
    await store.commit([Put(topic, key, 1) for key in keys for topic in ("jobs", "Jobs")])
    async with store.list("jobs") as entries:
        assert [key async for key, _ in entries] == sorted(keys)
    async with store.list("jobs", prefix="a") as entries:
        assert [key async for key, _ in entries] == ["a", "a%", "ab"]
    await store.commit([Delete("jobs", key) for key in keys])
    assert await store.topics() == ["Jobs"]


async def test_a_snapshot_knows_prefixes_and_all_namespaces() -> None:
    store = MemoryStore(Disk())
    index = await store.commit([Put("jobs", "a", 1), Put("jobs", "ab", 1, "n"), Put("jobs", "b", 1)])
    sink = Sink()
    request = SubscribeRequest(topic("jobs"), "a", prefix=True, namespace=ALL)
    returned = await store.snapshot(request, sink)  # type: ignore[arg-type]
    assert isinstance(returned, EpochIndex)
    assert returned.cursor == (await store.head()).cursor
    assert (returned, sink.keys) == (index, ["a", "ab"])


async def test_a_waiting_reader_gets_what_comes() -> None:
    factory = MemoryFactory()
    async with factory() as store, factory() as other, anyio.create_task_group() as tasks:
        found: list[int] = []

        async def follow() -> None:
            async with store.changes(1) as commits:
                found.append((await anext(commits)).index)
            tasks.cancel_scope.cancel()

        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        for n in range(2):
            await other.commit([Put("jobs", "a", n)])
        await anyio.sleep_forever()
    assert found == [2]
