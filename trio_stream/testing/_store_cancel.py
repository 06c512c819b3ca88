"""Checks of cancellation: at each checkpoint of each call, and then all is whole or absent and goes on."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final
from uuid import uuid4

import anyio
import anyio.lowlevel
import trio

from trio_stream import SubscribeRequest
from trio_stream.stores import Commit, Delete, Entry, Operation, Revoke, topic

from ._store_guard import Guarded
from ._store_model import exact
from ._store_trial import Sink, StoreCheck, Trial, check

_STEPS: Final = 12  # of an iteration, each cancelled at each of its checkpoints


@check("a cancelled commit is not made")
async def a_cancelled_commit_is_not_made(t: Trial) -> None:
    """A commit that returns is made, one that is cancelled is not; of a few operations and of many."""
    await t.know_salt()
    for size in (2, t.most(300)):
        await _cancel_commits(t, size)


async def _cancel_commits(t: Trial, size: int) -> None:
    returned: list[int] = []
    tried = 0

    async def commit() -> None:
        nonlocal tried
        tried += 1
        asked: list[Operation] = [t.put(f"{n}", [tried, n]) for n in range(size - 1)]
        asked.append(Revoke(f"{tried}"))
        index = await t.store.commit(asked)
        returned.append(int(index))
        t.model.add(int(index), asked)

    async def after(_: bool) -> None:
        await t.agrees("after a commit that was to be cancelled")

    await t.sweep(commit, after_each=after)
    t.holds(returned, "a commit that nobody cancelled has not returned")


@check("a commit cancelled natively is whole or absent")
async def a_commit_cancelled_natively_is_whole_or_absent(t: Trial) -> str | None:
    """`Task.cancel()` of asyncio cannot be held up: what was made is whole. Not on trio."""
    if trio.lowlevel.in_trio_run():
        await anyio.lowlevel.checkpoint()
        return "trio has no native cancellation"
    for size in (2, t.most(300)):
        await _cancel_commits_natively(t, size)
    return None


async def _cancel_commits_natively(t: Trial, size: int) -> None:
    tried = 0
    asked: list[Operation] = []

    async def commit() -> None:
        nonlocal tried, asked
        tried += 1
        asked = [t.put(f"{n}", tried) for n in range(size)]
        await t.store.commit(asked)

    async def after(_: bool) -> None:
        """What was cancelled is before the commit of another, or behind it, or nowhere."""
        mine: list[Operation] = [t.put("another", tried)]
        index = await t.store.commit(mine)
        log = await t.log(t.newest, (await t.store.head()).index)
        for commit in log:
            t.model.add(int(commit.index), mine if commit.index == index else asked)
        t.holds(len(log) <= 2, "a commit that was cancelled natively was made twice")
        async with t.open() as other:
            await t.agrees("after a commit that was cancelled natively", other, t.store)

    await t.sweep(commit, native=True, after_each=after)


@check("a cancelled commit with an id is made once")
async def a_cancelled_commit_with_an_id_is_made_once(t: Trial) -> None:
    """However often it is cancelled and asked for again, natively too where that is possible."""
    await anyio.lowlevel.checkpoint()
    for native in _kinds():
        before, by = t.newest, uuid4()
        await t.sweep(partial(t.store.commit, [t.put("a", native), t.put("b", native)], id=by), native=native)
        head = await t.store.head()
        log = await t.log(before, head.index)
        t.equal("commits of one id", len(log), 1)
        t.model.add(head.index, [t.put("a", native), t.put("b", native)])
        await t.agrees()


def _kinds() -> Sequence[bool]:
    """Whether tasks are cancelled natively."""
    return (False,) if trio.lowlevel.in_trio_run() else (False, True)


@check("a cancelled read leaves the store as it was")
async def a_cancelled_read_leaves_the_store_as_it_was(t: Trial) -> None:
    """`head`, `get`, `list`, `topics`, `snapshot`, `revocations`, `compact`: after each, commits and reads go on."""
    await t.commit(*(t.put(f"{n:03}", 0) for n in range(t.most(60))))
    store = t.store

    async def read_list() -> None:
        async with store.list(t.topic, prefix="0") as entries:
            async for _ in entries:
                pass

    async def read_log() -> None:
        async with store.changes(t.newest - 1) as commits:
            await anext(commits)

    async def compact() -> None:
        await store.compact((await store.head()).index)

    async def after(_: bool) -> None:
        before = t.newest
        await t.commit(t.put("000", before))
        entry = await t.store.get(t.topic, "000")
        t.equal("the value", entry and entry.value, before, before + 1)

    for call in (
        store.head,
        lambda: store.get(t.topic, "001"),
        read_list,
        store.topics,
        store.revocations,
        lambda: store.snapshot(SubscribeRequest(topic(t.topic)), Sink(t)),
        lambda: store.snapshot(SubscribeRequest(topic(t.topic), "001"), Sink(t)),
        read_log,
        compact,
    ):
        await t.commit(t.put("001", 0))
        await t.sweep(call, after_each=after)
    await t.agrees()


@check("a cancelled step loses nothing")
async def a_cancelled_step_loses_nothing(t: Trial) -> None:
    """A step of `changes` or `list` that is cancelled and made again gives what it would have given."""
    await anyio.lowlevel.checkpoint()
    for native in _kinds():
        first = len(t.model.log)
        async with t.store.changes(t.newest) as commits:
            await _cancel_steps(t, commits, first, native=native)
        for start in range(0, 150, t.most(50)):
            await t.commit(*(t.put(f"{n:03}", n) for n in range(start, min(150, start + t.most(50)))))
        async with t.store.list(t.topic) as entries:
            await _cancel_rows(t, entries, native=native)


async def _cancel_steps(t: Trial, commits: AsyncIterator[Commit], first: int, *, native: bool) -> None:
    await anyio.lowlevel.checkpoint()
    steps: list[Commit] = []

    async def step() -> None:
        steps.append(await anext(commits))

    async def commit(_: bool) -> None:
        await t.commit(t.put("a", 1))

    for n in range(_STEPS):
        await t.commit(t.put(f"{n}", n))
        await t.sweep(step, native=native, after_each=commit)
    while not steps or steps[-1].index < t.newest:
        await step()
    t.equal("the commits that came", steps, t.model.log[first:])


async def _cancel_rows(t: Trial, entries: AsyncIterator[tuple[str, Entry]], *, native: bool) -> None:
    rows: list[tuple[str, Entry]] = []

    async def step() -> None:
        rows.append(await anext(entries))

    while len(rows) < _STEPS:
        await t.sweep(step, native=native)
    rows += [row async for row in entries]
    t.equal("the rows that came", rows, t.model.rows(t.topic))


@check("a reader that gives up leaves the others alone")
async def a_reader_that_gives_up_leaves_the_others_alone(t: Trial) -> None:
    """Readers that wait are cancelled while others wait, and those get what comes."""
    found: list[list[Commit]] = []
    cursor = t.start.cursor

    async def follow(store: Guarded, count: int) -> None:
        async with store.changes(cursor) as commits:
            found.append([await anext(commits) for _ in range(count)])

    async with t.open() as other:
        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(follow, (t.store, other)[n % 2], 4)
            for n in range(4):
                async with anyio.create_task_group() as giving_up:
                    for m in range(20):
                        giving_up.start_soon(follow, (t.store, other)[m % 2], 1_000)
                    for _ in range(20):
                        await anyio.lowlevel.checkpoint()
                    giving_up.cancel_scope.cancel()
                await t.commit(t.put("a", n), Delete(t.topic, "b"), store=(t.store, other)[n % 2])
        t.equal("how many went on", len(found), 20)
        for commits in found:
            t.holds(
                exact(commits) == exact(t.model.log), "a reader beside those that gave up missed a commit"
            )


CANCEL_CHECKS: Final[Sequence[StoreCheck]] = (
    a_cancelled_commit_is_not_made,
    a_commit_cancelled_natively_is_whole_or_absent,
    a_cancelled_commit_with_an_id_is_made_once,
    a_cancelled_read_leaves_the_store_as_it_was,
    a_cancelled_step_loses_nothing,
    a_reader_that_gives_up_leaves_the_others_alone,
)
