"""Checks of `Store.changes` and `Store.compact`: every commit once and in order, or an error."""

from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel

from trio_stream.stores import Commit, Delete, HistoryLostError

from ._store_trial import StoreCheck, StoreFactory, Trial, take, trial


async def changes_follow_every_index(factory: StoreFactory) -> None:
    """From wherever one begins, the same commits come, in order, each with its operations as they were made."""
    async with trial(factory, "changes follow every index") as t:
        start = (await t.store.head()).index
        made = await _some_commits(t, start)
        for after in range(start, start + len(made) + 1):
            expected = made[after - start :]
            async with t.store.changes(after) as commits:
                t.equal(f"the changes after {after}", await take(commits, len(expected)), expected, after)


async def changes_wait_for_what_is_to_come(factory: StoreFactory) -> None:
    """Several readers, of this handle and of another, get each commit, whoever makes it."""
    async with trial(factory, "changes wait for what is to come") as t, factory() as other:
        start = (await t.store.head()).index
        found: list[list[int]] = []

        async def follow(commits: "anyio.abc.ObjectReceiveStream[None]", reader: int) -> None:
            store = (t.store, other)[reader % 2]
            async with store.changes(start) as changes, commits:
                found.append([commit.index for commit in await take(changes, 6)])

        send, receive = anyio.create_memory_object_stream[None]()
        async with receive, anyio.create_task_group() as tasks:
            for reader in range(4):
                tasks.start_soon(follow, receive.clone(), reader)
            async with send:
                for store in (t.store, other, t.store, other, other, t.store):
                    await store.commit([t.put("a")])
        expected = list(range(start + 1, start + 7))
        t.equal("what the readers got", found, [expected] * 4)


async def changes_wait_for_an_index_to_come(factory: StoreFactory) -> None:
    """An `after` that the store has yet to reach is waited for; nothing older is given."""
    async with trial(factory, "changes wait for an index to come") as t:
        start = (await t.store.head()).index
        async with t.store.changes(start + 2) as commits, anyio.create_task_group() as tasks:
            first: list[Commit] = []

            async def follow() -> None:
                first.append(await anext(commits))

            tasks.start_soon(follow)
            for n in range(3):
                await t.commit(t.put("a", n))
        t.equal("the first change", first, [Commit(start + 3, (t.put("a", 2),))])


async def compaction_loses_history_and_says_so(factory: StoreFactory) -> None:
    """At the floor one goes on, below it is `HistoryLostError` with the numbers, and the state stays."""
    async with trial(factory, "compaction loses history and says so") as t:
        start = (await t.store.head()).index
        made = await _some_commits(t, start)
        state, epoch = await t.state(), (await t.store.head()).epoch
        floor = start + 2
        await t.store.compact(floor)
        await t.store.compact(start)
        head = await t.store.head()
        t.equal("the head", (head.index, head.floor, head.epoch), (start + len(made), floor, epoch))
        t.equal("the state", await t.state(), state)
        for after in range(max(0, start - 1), floor):
            error = await t.raises(HistoryLostError, f"changes({after})", _first(t, after))
            t.equal(
                "after, floor, epoch of the error",
                (error.after, error.floor, error.epoch),
                (after, floor, epoch),
            )
        for after in (floor, floor + 1):
            t.equal(f"the change after {after}", await _first(t, after), made[after - start], after)
        await t.raises(ValueError, "compact beyond the newest", t.store.compact(head.index + 1))
        t.equal("the head", await t.store.head(), head)
        await t.store.compact(head.index)
        t.equal("the floor of a log without commits", (await t.store.head()).floor, head.index)
        t.equal("the next index", await t.commit(t.put("a")), head.index + 1)


async def a_reader_that_was_overtaken_by_compaction_has_no_gap(factory: StoreFactory) -> None:
    """Whoever is inside the iteration gets every commit, or `HistoryLostError` instead of the first that is gone."""
    async with trial(factory, "a reader that was overtaken by compaction has no gap") as t:
        start = (await t.store.head()).index
        await t.commit(t.put("a"))
        async with t.store.changes(start) as commits:
            t.equal("the first change", (await anext(commits)).index, start + 1)
            for n in range(20):
                await t.commit(t.put("a", n))
            await t.store.compact(start + 19)
            index = start + 1
            try:
                while index < start + 21:
                    commit = await anext(commits)
                    t.equal("the next change", commit.index, index + 1, index)
                    index = commit.index
            except HistoryLostError:
                return
            # An engine may have read ahead; then nothing is missing.


async def an_iteration_ends_with_its_context(factory: StoreFactory) -> None:
    """What is used after it was left raises, and does not wait for ever."""
    async with trial(factory, "an iteration ends with its context") as t:
        index = await t.commit(t.put("a"))
        async with t.store.changes(index - 1) as commits:
            pass
        await t.raises(Exception, "a step of changes that were left", anext(commits))
        async with t.store.list(t.topic) as entries:
            pass
        await t.raises(Exception, "a step of a list that was left", anext(entries))


async def _some_commits(t: Trial, start: int) -> list[Commit]:
    operations = [
        (t.put("a", 1), t.put("c", 1)),
        (t.put("b", [1]), t.put("a", 2), Delete(t.topic, "b")),
        (Delete(t.topic, "never there"),),
        (t.put("a", {"x": None}),),
    ]
    await anyio.lowlevel.checkpoint()
    for each in operations:
        await t.commit(*each)
    return [Commit(start + n, each) for n, each in enumerate(operations, 1)]


async def _first(t: Trial, after: int) -> Commit:
    async with t.store.changes(after) as commits:
        return await anext(commits)


CHANGES_CHECKS: Final[Sequence[StoreCheck]] = (
    changes_follow_every_index,
    changes_wait_for_what_is_to_come,
    changes_wait_for_an_index_to_come,
    compaction_loses_history_and_says_so,
    a_reader_that_was_overtaken_by_compaction_has_no_gap,
    an_iteration_ends_with_its_context,
)
