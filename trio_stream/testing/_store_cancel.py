"""Checks of cancellation: at each checkpoint of each call, and then all is whole or absent and goes on."""

from collections.abc import Sequence
from typing import Final

import anyio.lowlevel
import trio

from trio_stream import SubscribeRequest
from trio_stream.stores import Commit, topic

from ._cancel import cancel_at_every_checkpoint
from ._store_trial import Sink, StoreCheck, StoreFactory, take, trial


async def a_cancelled_commit_is_not_made(factory: StoreFactory) -> None:
    """A commit that returns is made, one that is cancelled is not, and the next one has the next index."""
    async with trial(factory, "a cancelled commit is not made") as t:
        returned: list[int] = []
        start = (await t.store.head()).index

        async def commit() -> None:
            returned.append(await t.commit(t.put("a", len(returned)), t.put("b", len(returned))))

        async def after(_: bool) -> None:
            t.equal("the head", (await t.store.head()).index, start + len(returned))
            if returned:
                t.equal("the state", await t.state(), dict.fromkeys("ab", len(returned) - 1), returned[-1])

        await cancel_at_every_checkpoint(commit, after_each=after)
        t.equal("the indexes", returned, list(range(start + 1, start + 1 + len(returned))))


async def a_commit_cancelled_natively_is_whole_or_absent(factory: StoreFactory) -> None:
    """`Task.cancel()` of asyncio cannot be held up: what was made is whole, and the log has no gap. Not on trio."""
    if trio.lowlevel.in_trio_run():
        await anyio.lowlevel.checkpoint()
        return
    async with trial(factory, "a commit cancelled natively is whole or absent") as t:
        start = (await t.store.head()).index
        number = 0

        async def commit() -> None:
            nonlocal number
            number += 1
            await t.commit(t.put("a", number), t.put("b", number))

        async def after(_: bool) -> None:
            index = await t.commit(t.put("c", number))
            state = await t.state()
            t.equal("a, and b of the same commit", state.get("a"), state.get("b"), index)
            async with t.store.changes(start) as commits:
                found = [each.index for each in await take(commits, index - start)]
            t.equal("the log", found, list(range(start + 1, index + 1)))

        await cancel_at_every_checkpoint(commit, native=True, after_each=after)


async def a_cancelled_read_leaves_the_store_as_it_was(factory: StoreFactory) -> None:
    """`head`, `get`, `list`, `snapshot` and `compact`: after each cancellation commits and reads go on."""
    async with trial(factory, "a cancelled read leaves the store as it was") as t:
        await t.commit(*(t.put(f"{n:03}", 0) for n in range(60)))

        async def read_list() -> None:
            await t.state()

        async def compact() -> None:
            await t.store.compact((await t.store.head()).index)

        async def after(_: bool) -> None:
            before = (await t.store.head()).index
            t.equal("the index of the next commit", await t.commit(t.put("000", before)), before + 1)
            entry = await t.store.get(t.topic, "000")
            t.equal("the value", entry and entry.value, before, before + 1)

        for call in (
            t.store.head,
            lambda: t.store.get(t.topic, "001"),
            read_list,
            lambda: t.store.snapshot(SubscribeRequest(topic(t.topic), "001"), Sink()),
            compact,
        ):
            await cancel_at_every_checkpoint(call, after_each=after)
        t.equal("the number of keys", len(await t.state()), 60)


async def a_cancelled_step_loses_nothing(factory: StoreFactory) -> None:
    """A step of `changes` or `list` that is cancelled and made again gives what it would have given."""
    async with trial(factory, "a cancelled step loses nothing") as t:
        start = (await t.store.head()).index
        steps: list[Commit] = []
        async with t.store.changes(start) as commits:

            async def step() -> None:
                steps.append(await anext(commits))

            for n in range(3):
                await t.commit(t.put(f"{n}"))
                await cancel_at_every_checkpoint(step, after_each=lambda _: t.commit(t.put("a")))
            newest = (await t.store.head()).index
            while not steps or steps[-1].index < newest:
                steps.append(await anext(commits))
        t.equal("the indexes", [step.index for step in steps], list(range(start + 1, newest + 1)))
        keys: list[str] = []
        expected = sorted({*await t.state(), *(f"{n:03}" for n in range(40))})
        await t.commit(*(t.put(key) for key in expected))
        async with t.store.list(t.topic) as entries:

            async def next_key() -> None:
                keys.append((await anext(entries))[0])

            while len(keys) < 10:
                await cancel_at_every_checkpoint(next_key, after_each=lambda _: t.store.head())
        t.equal("the keys", keys, expected[: len(keys)])


CANCEL_CHECKS: Final[Sequence[StoreCheck]] = (
    a_cancelled_commit_is_not_made,
    a_commit_cancelled_natively_is_whole_or_absent,
    a_cancelled_read_leaves_the_store_as_it_was,
    a_cancelled_step_loses_nothing,
)
