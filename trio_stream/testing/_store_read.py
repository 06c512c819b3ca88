"""Checks of what reads the state, and of what is durable: `get`, `list`, `snapshot`, `head`."""

from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel

from trio_stream import SubscribeRequest
from trio_stream.stores import Delete, Entry, Put, topic

from ._broken import PromiseBroken
from ._handler import check_snapshot_handler
from ._store_trial import Sink, StoreCheck, StoreFactory, take, trial

_ROWS: Final = 700  # more than an engine is likely to read in one go


async def what_was_committed_is_read(factory: StoreFactory) -> None:
    """`get` and `list` have the newest value and the index of its commit, and nothing of what was deleted."""
    async with trial(factory, "what was committed is read") as t:
        t.equal("get of nothing", await t.store.get(t.topic, "a"), None)
        t.equal("list of nothing", await t.state(), {})
        first = await t.commit(t.put("a", 1), t.put("b", 1))
        t.equal("get", await t.store.get(t.topic, "a"), Entry(1, first), first)
        second = await t.commit(t.put("a", 2))
        t.equal("get", await t.store.get(t.topic, "a"), Entry(2, second), second)
        t.equal("get of what stayed", await t.store.get(t.topic, "b"), Entry(1, first), second)
        third = await t.commit(Delete(t.topic, "a"))
        t.equal("get of what was deleted", await t.store.get(t.topic, "a"), None, third)
        async with t.store.list(t.topic) as entries:
            t.equal("list", [item async for item in entries], [("b", Entry(1, first))], third)


async def a_list_is_of_one_index(factory: StoreFactory) -> None:
    """`list` has all keys in order as of one commit, although others are made while it is read."""
    async with trial(factory, "a list is of one index") as t:
        keys = [f"{n:04}" for n in range(_ROWS)]
        index = await t.commit(*(t.put(key, 0) for key in reversed(keys)))
        async with t.store.list(t.topic) as entries:
            found = [await anext(entries)]
            await t.commit(*(t.put(key, 1) for key in keys), Delete(t.topic, keys[-1]), t.put("9999"))
            found += [item async for item in entries]
        t.equal("the keys", [key for key, _ in found], keys, index)
        for key, entry in found:
            t.equal(f"the entry of {key}", entry, Entry(0, index), index)


async def a_snapshot_is_of_the_index_that_it_returns(factory: StoreFactory) -> None:
    """Also while commits go on, for all keys and for one, and not for those of other namespaces and topics."""
    async with trial(factory, "a snapshot is of the index that it returns") as t:
        await t.commit(*(t.put(f"{n:04}", 0) for n in range(_ROWS)), Put(t.topic, "a", 0, "check"))
        states = {}
        number = 0

        async def commit() -> None:
            nonlocal number
            number += 1
            await anyio.lowlevel.checkpoint()
            if number <= 5:
                index = await t.commit(
                    t.put("0000", number), t.put(f"{_ROWS - 1}", number), Delete(t.topic, f"0{number:03}")
                )
                states[index] = await t.state()

        states[(await t.store.head()).index] = await t.state()
        for key in ("", "0000", "missing"):
            number = 0
            sink = Sink(commit)
            index = await t.store.snapshot(SubscribeRequest(topic(t.topic), key), sink)
            expected = {name: value for name, value in states[index].items() if key in ("", name)}
            if sink.state != expected:
                changed = dict(sorted(sink.state.items() ^ expected.items())[:4])
                t.fail(f"of key {key!r} it differs by {changed!r}", index)


async def a_snapshot_is_well_formed(factory: StoreFactory) -> None:
    """What `check_snapshot_handler` asks of every snapshot function."""
    async with trial(factory, "a snapshot is well formed") as t:
        for n in range(3):
            await t.commit(t.put(f"a{n}", n), t.put(f"b{n}", n))
        await t.commit(Delete(t.topic, "a1"))
        for key in ("", "a2", "a1"):
            try:
                await check_snapshot_handler(t.store.snapshot, SubscribeRequest(topic(t.topic), key))
            except PromiseBroken as error:
                t.fail_from(error, str(error))
        sink = Sink()
        elsewhere = SubscribeRequest(topic(t.topic), partition="another")
        index = await t.store.snapshot(elsewhere, sink)
        t.equal("a snapshot of another partition", (index, sink.events), ((await t.store.head()).index, []))


async def one_store_whoever_opens_it(factory: StoreFactory) -> None:
    """Two handles have one head, one state and one log, and what one commits the other one gets."""
    async with trial(factory, "one store, whoever opens it") as t, factory() as other:
        start = (await t.store.head()).index
        await t.commit(t.put("a", 1))
        async with other.changes(start) as commits:
            await take(commits, 1)
            t.equal("the state", await t.state(other), {"a": 1})
            t.equal("the head", await other.head(), await t.store.head())

            async def commit_when_the_other_waits() -> None:
                await anyio.wait_all_tasks_blocked()
                await t.commit(t.put("b", 2))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit_when_the_other_waits)
                (commit,) = await take(commits, 1)
            t.equal("the commit", commit.operations, (t.put("b", 2),), commit.index)
            index = await other.commit([t.put("c", 3)])
            t.equal("the index", index, commit.index + 1)


async def what_was_returned_is_durable(factory: StoreFactory) -> None:
    """State, log, floor and epoch are the same after the store has been closed and opened again."""
    async with trial(factory, "what was returned is durable") as t:
        index = await t.commit(t.put("a", 1), t.put("b", 1))
        await t.store.compact(index)
        await t.commit(t.put("a", 2))
        await t.commit(Delete(t.topic, "b"))
        head, name = await t.store.head(), t.topic
        t.equal("the floor after compact", head.floor, index)
    async with trial(factory, "what was returned is durable") as t:
        t.topic = name
        t.equal("the head", await t.store.head(), head)
        t.equal("the state", await t.state(), {"a": 2})
        async with t.store.changes(index) as commits:
            found = [commit.operations for commit in await take(commits, 2)]
        t.equal("the log", found, [(t.put("a", 2),), (Delete(name, "b"),)])
        t.equal("the next index", await t.commit(t.put("c")), head.index + 1)


READ_CHECKS: Final[Sequence[StoreCheck]] = (
    what_was_committed_is_read,
    a_list_is_of_one_index,
    a_snapshot_is_of_the_index_that_it_returns,
    a_snapshot_is_well_formed,
    one_store_whoever_opens_it,
    what_was_returned_is_durable,
)
