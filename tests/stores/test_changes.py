"""The feed of commits: from where one asks on, in order, whoever makes them, until the log has lost some."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from stores.storehouse import PATIENCE, commit_each, open_at, put, sql, take

from trio_stream import BusyResourceError, ClosedResourceError, Cursor
from trio_stream.stores import Commit, HistoryLostError, Put, Store, StoreError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("after", "indexes"), [(0, [1, 2, 3]), (1, [2, 3]), (2, [3])])
async def test_changes_begin_after_the_index_asked_for(store: Store, after: int, indexes: list[int]) -> None:
    await commit_each(store, "a", "b", "c")
    async with store.changes(after) as commits:
        assert await take(commits, len(indexes)) == indexes


async def test_a_second_task_that_iterates_is_refused_and_does_not_disturb_the_first(store: Store) -> None:
    async with store.changes(0) as commits, anyio.create_task_group() as tasks:
        tasks.start_soon(take, commits, 1)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError):
            await anext(commits)
        await commit_each(store, "a")


async def test_a_commit_comes_with_all_its_operations(store: Store) -> None:
    operations = (put("a", {"n": [1]}), Put("users", "b", None, "blue"))
    async with store.changes(0) as commits:
        await store.commit(operations)
        with anyio.fail_after(PATIENCE):
            assert await anext(commits) == Commit(1, operations)


async def test_more_commits_than_one_step_reads_come_all_and_in_order(store: Store) -> None:
    await commit_each(store, *(f"{n}" for n in range(1200)))
    async with store.changes(0) as commits:
        assert await take(commits, 1200) == list(range(1, 1201))


async def test_large_commits_are_read_few_at_a_time_and_come_all(store: Store) -> None:
    for _ in range(5):
        await store.commit([put("a", "x" * 600_000)])
    async with store.changes(0) as commits:
        assert await take(commits, 5) == [1, 2, 3, 4, 5]


async def test_changes_wait_for_the_commits_of_others(store: Store, other: Store) -> None:
    async with store.changes(0) as commits, anyio.create_task_group() as tasks:
        tasks.start_soon(commit_each, other, "a", "b", "c")
        assert await take(commits, 3) == [1, 2, 3]


@pytest.mark.parametrize("poll_interval", [3600.0])
async def test_own_commits_are_seen_without_polling(path: Path, poll_interval: float) -> None:
    async with open_at(path, poll_interval=poll_interval) as store, store.changes(0) as commits:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, commits, 2)
            await anyio.wait_all_tasks_blocked()
            await commit_each(store, "a", "b")


async def test_a_commit_is_never_missed_between_two_looks(store: Store, other: Store) -> None:
    """One round: read all, then wait; the other commits at any moment of that."""
    async with store.changes(0) as commits, anyio.create_task_group() as tasks:
        for index in range(1, 101):
            tasks.start_soon(commit_each, other, "a")
            for _ in range(index % 7):
                await anyio.lowlevel.checkpoint()
            assert await take(commits, 1) == [index]


async def test_an_index_that_the_store_has_yet_to_reach_is_waited_for(store: Store) -> None:
    await commit_each(store, "a")
    async with store.changes(3) as commits:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit_each, store, "b", "c", "d")
            assert await take(commits, 1) == [4]


async def test_any_number_of_readers_follow_each_at_its_own_place(store: Store, other: Store) -> None:
    seen: dict[int, list[int]] = {}

    async def follow(after: int) -> None:
        async with store.changes(after) as commits:
            seen[after] = await take(commits, 6 - after)

    await commit_each(store, "a", "b")
    async with anyio.create_task_group() as tasks:
        for after in range(3):
            tasks.start_soon(follow, after)
        await commit_each(other, "c", "d")
        await commit_each(store, "e", "f")
    assert seen == {after: list(range(after + 1, 7)) for after in range(3)}


async def test_when_the_reader_that_polls_for_all_leaves_another_takes_over(
    store: Store, other: Store
) -> None:
    scopes: list[anyio.CancelScope] = []
    seen: list[int] = []

    async def follow() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with store.changes(0) as commits:
                seen.extend(await take(commits, 1))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            scopes.pop().cancel()
            await anyio.lowlevel.checkpoint()
        await other.commit([put("a")])
    assert set(seen) == {1}  # more than one if a cancelled one was at it already


async def test_a_reader_that_gave_up_waiting_goes_on_where_it_was(store: Store) -> None:
    async with store.changes(0) as commits:
        for index in range(1, 4):
            with anyio.move_on_after(0.001):
                await anext(commits)
            await store.commit([put("a")])
            assert await take(commits, 1) == [index]


async def test_one_iteration_is_for_one_task(store: Store) -> None:
    async with store.changes(0) as commits, anyio.create_task_group() as tasks:
        tasks.start_soon(take, commits, 1)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(commits)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("after", [-1, True, 1.0])
async def test_an_index_that_is_none_is_refused(store: Store, after: int) -> None:
    with pytest.raises((TypeError, ValueError)):
        async with store.changes(after):
            pass


async def test_changes_whose_context_was_left_are_closed(store: Store) -> None:
    async with store.changes(0) as commits:
        pass
    with pytest.raises(ClosedResourceError):
        await anext(commits)


async def test_who_waits_for_changes_is_told_when_the_store_is_closed(path: Path) -> None:
    async def follow(commits: AsyncIterator[Commit]) -> None:
        with pytest.raises(ClosedResourceError):
            await take(commits, 1)

    async with anyio.create_task_group() as tasks:
        async with open_at(path) as store:
            changes = store.changes(0)
            commits = await changes.__aenter__()
            tasks.start_soon(follow, commits)
            await anyio.wait_all_tasks_blocked()
    await changes.__aexit__(None, None, None)


async def test_after_a_store_was_closed_every_call_says_so(path: Path) -> None:
    async with open_at(path) as store:
        pass
    for call in (store.head(), store.get("jobs", "a"), store.commit([put("a")]), store.compact(0)):
        with pytest.raises(ClosedResourceError):
            await call


async def test_compaction_drops_the_log_up_to_an_index_and_keeps_the_state(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    await store.compact(2)
    head = await store.head()
    assert (head.index, head.floor) == (3, 2)
    assert (await store.get("jobs", "a")) is not None
    async with store.changes(2) as commits:
        assert await take(commits, 1) == [3]


async def test_what_was_compacted_is_lost_history_with_the_numbers(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    await store.compact(2)
    with pytest.raises(HistoryLostError, match="cannot go on after 1: commits up to 2 are gone") as caught:
        async with store.changes(1):
            pass
    assert (caught.value.after, caught.value.floor) == (1, 2)
    assert caught.value.epoch == (await store.head()).epoch


async def test_a_reader_that_compaction_passes_is_told(store: Store) -> None:
    await commit_each(store, "a")
    async with store.changes(0) as commits:
        assert await take(commits, 1) == [1]
        await commit_each(store, "b", "c")
        await store.compact(3)
        with pytest.raises(HistoryLostError) as caught:
            await anext(commits)
    assert (caught.value.after, caught.value.floor) == (1, 3)


async def test_a_reader_that_is_not_behind_survives_a_compaction_of_everything(
    store: Store, other: Store
) -> None:
    await commit_each(store, "a", "b")
    async with store.changes(2) as commits:
        await other.compact(2)
        await other.commit([put("c")])
        assert await take(commits, 1) == [3]


async def test_compacting_below_the_floor_changes_nothing(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    await store.compact(2)
    for index in (0, 1, 2):
        await store.compact(index)
    assert (await store.head()).floor == 2


async def test_compacting_what_is_not_committed_yet_is_refused(store: Store) -> None:
    await commit_each(store, "a")
    with pytest.raises(ValueError, match="cannot compact up to 2: the newest commit is 1"):
        await store.compact(2)
    assert (await store.head()).floor == 0


@pytest.mark.parametrize(
    "operations",
    [
        "",
        "[]x",
        '{"a": 1}',
        "[1]",
        '[["put", "jobs"]]',
        '[["put", "", "default", "a", 1]]',
        '[["move", "a", "b", "c"]]',
    ],
)
async def test_a_log_that_cannot_be_read_is_a_store_error_that_names_the_file_and_the_commit(
    store: Store, path: Path, operations: str
) -> None:
    await commit_each(store, "a", "b")
    sql(path, f"UPDATE ts_log SET operations = '{operations}' WHERE idx = 2")
    with pytest.raises(StoreError, match=f"{path}: damaged: commit 2 of the log cannot be read"):
        async with store.changes(0) as commits:
            await take(commits, 2)


@pytest.mark.parametrize("missing", [2, 3])
async def test_a_log_with_a_hole_is_a_store_error(store: Store, path: Path, missing: int) -> None:
    await commit_each(store, "a", "b", "c")
    sql(path, f"DELETE FROM ts_log WHERE idx = {missing}")
    with pytest.raises(StoreError, match=f"{path}: damaged: commit {missing} is missing from the log"):
        async with store.changes(0) as commits:
            await take(commits, missing)


async def test_a_commit_that_is_damaged_is_quoted_escaped_and_in_part(store: Store, path: Path) -> None:
    sql(path, "UPDATE ts_head SET idx = 1")
    damaged = json.dumps([["\x9b" + "x" * 5000]], ensure_ascii=False)
    sql(path, f"INSERT INTO ts_log VALUES (1, x'00', '{damaged}', 0, '')")
    with pytest.raises(StoreError, match=f"{path}: damaged: commit 1 of the log") as caught:
        async with store.changes(0):
            pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


async def test_a_cursor_of_the_store_is_as_good_as_its_index(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    async with store.changes(Cursor(1, (await store.head()).epoch)) as commits:
        assert await take(commits, 2) == [2, 3]


@pytest.mark.parametrize("index", [0, 2, 3, 9])
async def test_a_cursor_of_another_epoch_is_lost_whatever_its_index(store: Store, index: int) -> None:
    await commit_each(store, "a", "b", "c")
    with pytest.raises(HistoryLostError, match="a new timeline") as lost:
        async with store.changes(Cursor(index, "another")):
            pytest.fail("it is of another timeline")
    assert (lost.value.after, lost.value.epoch) == (index, (await store.head()).epoch)


async def test_a_cursor_below_the_floor_is_lost(store: Store) -> None:
    await commit_each(store, "a", "b", "c")
    await store.compact(2)
    with pytest.raises(HistoryLostError, match="are gone"):
        async with store.changes(Cursor(1, (await store.head()).epoch)):
            pytest.fail("it is too old")


async def test_what_is_neither_an_index_nor_a_cursor_is_refused(store: Store) -> None:
    where: Any = "3@epoch"
    with pytest.raises(TypeError, match="an index is an integer"):
        async with store.changes(where):
            pytest.fail("it is a text")
