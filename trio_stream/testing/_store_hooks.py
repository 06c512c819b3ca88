"""Checks of what only an engine can bring about: a process that is killed, a server that restarts, an older copy.

They need a factory that offers it; see `KillsStore`, `RestartsStore` and `RewindsStore`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar, runtime_checkable
from uuid import UUID, uuid4

import anyio
import anyio.lowlevel

from trio_stream import Cursor
from trio_stream.stores import (
    Commit,
    ConflictError,
    EpochIndex,
    HistoryLostError,
    Name,
    Operation,
    Store,
    StoreError,
)

from ._store_guard import Guarded
from ._store_model import exact
from ._store_trial import StoreCheck, Trial, check

T = TypeVar("T")

_KILLS: Final = 6
_RESTARTS: Final = 6


@runtime_checkable
class KillsStore(Protocol):
    """A `StoreFactory` whose handles can be dropped as the death of their process would drop them."""

    async def kill(self, store: Store) -> None:
        """Nothing of this handle is flushed, finished or closed, and others are told nothing.

        Calls that are under way in it, and later ones, raise any exception.
        Its context is left afterwards, which must not raise.
        """
        ...


@runtime_checkable
class RestartsStore(Protocol):
    """A `StoreFactory` whose server can be stopped and started again."""

    async def restart(self) -> None:
        """As a crash would stop it, with all handles open; returns when the server is there again.

        Calls that are under way may raise `StoreError`; those that come later do until the handle has found back.
        """
        ...


@runtime_checkable
class RewindsStore(Protocol):
    """A `StoreFactory` whose store can be replaced by an older copy of it."""

    async def save(self) -> Any:
        """A copy of the store as it is now."""
        ...

    async def rewind(self, saved: Any) -> None:
        """Puts the copy in the place of the store, as a restore of a backup would; as often as one wants.

        It is called with handles open, and with none. Open ones may raise `StoreError` until they have found back.
        """
        ...


@dataclass
class _Deed:
    """A commit that somebody wants to make, whatever happens, and has an id for it."""

    operations: Sequence[Operation]
    by: UUID = field(default_factory=uuid4)
    index: EpochIndex | None = None


@check("what was acknowledged outlives a kill")
async def what_was_acknowledged_outlives_a_kill(t: Trial) -> str | None:
    """What a killed handle has committed is there, once; what it was about to commit is whole or absent."""
    await anyio.lowlevel.checkpoint()
    factory: object = t.factory
    if not isinstance(factory, KillsStore):
        await anyio.lowlevel.checkpoint()
        return "the factory does not offer `kill`"
    for number in range(_KILLS):
        before = t.newest
        deeds = await _until_killed(t, factory, number)
        async with t.open() as other:
            await _are_made(t, other, before, deeds)
            await t.commit(t.put("after the kill", number), store=other)
            await t.agrees("after a kill", other, t.store)
            await t.store.compact(t.newest)
    return None


async def _until_killed(t: Trial, factory: KillsStore, number: int) -> Sequence[_Deed]:
    """What four tasks have committed, or begun to commit, until their handle was killed."""
    deeds: list[_Deed] = []
    enough = anyio.Event()

    async def write(store: Guarded, writer: int) -> None:
        await anyio.lowlevel.checkpoint()
        for n in range(10_000):
            size = t.most((1, 2, 40)[(n + writer) % 3])
            deed = _Deed([t.put(f"{writer} {m}", [number, n, m]) for m in range(size)])
            deeds.append(deed)
            try:
                deed.index = await store.commit(deed.operations, id=deed.by)
            except Exception:  # noqa: BLE001 - the handle was killed
                return
            if sum(each.index is not None for each in deeds) > 7 * number:
                enough.set()

    async with t.open() as victim, anyio.create_task_group() as tasks:
        for writer in range(4):
            tasks.start_soon(write, victim, writer)
        with t.within(t.patience, "commits before the kill"):
            await enough.wait()
        await t.store.bounded("kill()", lambda: factory.kill(victim.store))
    return deeds


async def _are_made(t: Trial, store: Guarded, before: int, deeds: Sequence[_Deed]) -> None:
    """Those that were acknowledged are in the log, and of the others each whole or not; then all are made, once."""
    acknowledged = {int(deed.index): deed for deed in deeds if deed.index is not None}
    open_deeds = [deed for deed in deeds if deed.index is None]
    for commit in await t.log(before, (await store.head()).index, store):
        deed = acknowledged.pop(int(commit.index), None) or _deed_of(t, commit, open_deeds)
        if deed in open_deeds:
            open_deeds.remove(deed)
            deed.index = EpochIndex(commit.index, t.start.epoch, commit.mark)
        expected = t.model.add(int(commit.index), deed.operations, mark=commit.mark)
        t.equal("a commit of the log", commit, expected, commit.index)
    for index in acknowledged:
        t.fail("a commit that was acknowledged is lost", index)
    for deed in deeds:
        if deed.index is None:
            deed.index = await t.commit(*deed.operations, store=store, id=deed.by)
        again = await store.commit(deed.operations, id=deed.by)
        t.equal("the index of a commit that is repeated by its id", int(again), int(deed.index))


def _deed_of(t: Trial, commit: Commit, deeds: Sequence[_Deed]) -> _Deed:
    for deed in deeds:
        if exact(commit.operations) == exact(tuple(t.model.effect(deed.operations))):
            return deed
    return t.fail(f"the log has what nobody has asked for, or a part of it: {commit!r}", commit.index)


@check("a restart of the server loses nothing")
async def a_restart_of_the_server_loses_nothing(t: Trial) -> str | None:
    """Handles find back; what was acknowledged is there once; a feed that goes on from its cursor misses nothing."""
    factory: object = t.factory
    if not isinstance(factory, RestartsStore):
        await anyio.lowlevel.checkpoint()
        return "the factory does not offer `restart`"
    async with t.open() as other:
        for number in range(_RESTARTS):
            first = len(t.model.log)
            seen = await _over_a_restart(t, factory, (t.store, other), number)
            for mine in seen:
                t.equal("what a follower got", mine, t.model.log[first:])
            t.equal("the epoch after a restart", (await t.store.head()).epoch, t.start.epoch)
            await t.agrees("after a restart", t.store, other)
    return None


async def _over_a_restart(
    t: Trial, factory: RestartsStore, stores: Sequence[Guarded], number: int
) -> Sequence[Sequence[Commit]]:
    """Commits go on before, while and after the server restarts; what feeds got of them."""
    cursor = (await _persist(t, t.store.head)).cursor
    deeds: list[_Deed] = []
    seen: list[list[Commit]] = [[] for _ in stores]
    newest = 0  # 0 as long as it is not known
    is_over, are_all_seen = anyio.Event(), anyio.Event()

    async def write(store: Guarded, writer: int) -> None:
        await anyio.lowlevel.checkpoint()
        n = 0
        while n < 10 or not is_over.is_set():
            deed = _Deed([t.put(f"{writer} {m}", [number, n, m]) for m in range(n % 3 + 1)])
            deeds.append(deed)
            deed.index = await _persist(t, partial(store.commit, deed.operations, id=deed.by))
            n += 1

    async def follow(store: Guarded, mine: list[Commit]) -> None:
        after = Cursor(int(mine[-1].index), cursor.epoch, mine[-1].mark) if mine else cursor
        async with store.changes(after) as commits:
            async for commit in commits:
                mine.append(commit)
                if newest and all(each and each[-1].index >= newest for each in seen):
                    are_all_seen.set()

    async with anyio.create_task_group() as followers:
        for store, mine in zip(stores, seen, strict=True):
            followers.start_soon(_persist, t, partial(follow, store, mine))
        async with anyio.create_task_group() as tasks:
            for writer in range(4):
                tasks.start_soon(write, stores[writer % 2], writer)
            for _ in range(20 + number):
                await anyio.lowlevel.checkpoint()
            await t.store.bounded("restart()", factory.restart)
            is_over.set()
        last = _Deed([t.put("end", number)])
        deeds.append(last)
        newest = max(int(deed.index or 0) for deed in deeds) + 1
        last.index = await _persist(t, partial(t.store.commit, last.operations, id=last.by))
        with t.within(t.patience, "the last of the commits, for those who follow a store that was restarted"):
            await are_all_seen.wait()
        followers.cancel_scope.cancel()
    for deed in sorted(deeds, key=lambda each: int(each.index or 0)):
        t.model.add(int(deed.index or 0), deed.operations)
        again = await t.store.commit(deed.operations, id=deed.by)
        t.equal("the index of a commit that is repeated by its id", int(again), int(deed.index or 0))
    return seen


async def _persist(t: Trial, call: Callable[[], Awaitable[T]]) -> T:
    """What the call returns, in the end: `StoreError` is what happens while the store is away."""
    last = "nothing"
    with anyio.move_on_after(t.patience):
        while True:
            try:
                return await call()
            except (HistoryLostError, ConflictError):
                raise
            except StoreError as error:
                last = repr(error)
            await anyio.sleep(0.02)
    return t.fail(f"a handle has not found back within {t.patience:g} s; it raised {last}")


@check("an older copy is told from the newer one", keeps_open=False)
async def an_older_copy_is_told_from_the_newer_one(t: Trial) -> str | None:
    """A cursor of commits that were lost is `HistoryLostError`, though nobody ran when the copy was put back; twice."""
    return await _rewind(t, is_open=False)


@check("an older copy is told from the newer one by who is running")
async def an_older_copy_is_told_by_who_is_running(t: Trial) -> str | None:
    """The same with handles and feeds open: those that have seen what was lost get `HistoryLostError`."""
    return await _rewind(t, is_open=True)


async def _rewind(t: Trial, *, is_open: bool) -> str | None:
    factory: object = t.factory
    if not isinstance(factory, RewindsStore):
        await anyio.lowlevel.checkpoint()
        return "the factory does not offer `save` and `rewind`"
    async with t.open() as store:
        for n in range(4):
            await store.commit([t.put("a", n)])
        saved = await store.bounded("save()", factory.save)
        at_save = await _sight(t, store)
    lost: list[_Life] = []
    for number in range(3):
        # The lives differ in length, so that the heads of later ones pass those of earlier ones, and do not.
        life = _Life(number, at_save)
        if is_open:
            await _live_open(t, factory, life, saved, 4 + number * 3 % 5)
        else:
            async with t.open() as store:
                await life.run(t, store, 4 + number * 3 % 5)
        lost.append(life)
        if not is_open:
            await t.store.bounded("rewind()", partial(factory.rewind, saved))
        async with t.open() as store:
            found = await _persist(t, partial(_sight, t, store))
            t.equal("the state after an older copy was put back", found.rows, at_save.rows)
            t.equal("the index after an older copy was put back", found.cursor.index, at_save.cursor.index)
    async with t.open() as store, t.open() as other:
        last = _Life(99, at_save)
        await last.run(t, store, 14)
        marks = [cursor.mark for life in (*lost, last) for cursor in life.cursors]
        t.equal("marks that differ, of commits of several lives", len({*marks}), len(marks))
        for handle in (store, other):
            for life in lost:
                await life.is_refused(t, handle)
            for cursor in last.cursors[:-1]:
                await t.log(cursor, last.cursors[-1].index, handle)
    return None


@dataclass
class _Sight:
    """What there is at one moment."""

    cursor: Cursor
    rows: object


async def _sight(t: Trial, store: Guarded) -> _Sight:
    return _Sight((await store.head()).cursor, await t.rows(store))


@dataclass
class _Life:
    """What was committed after the copy was saved, and before it was put back."""

    number: int
    start: _Sight
    cursors: list[Cursor] = field(default_factory=list)
    made: list[tuple[UUID, EpochIndex]] = field(default_factory=list)

    async def run(self, t: Trial, store: Guarded, count: int) -> None:
        """Commits some, with ids."""
        await anyio.lowlevel.checkpoint()
        for n in range(count):
            by = uuid4()
            index = await _persist(t, partial(store.commit, [t.put("a", [self.number, n])], id=by))
            head = await _persist(t, store.head)
            t.equal("the head after a commit", head.index, int(index))
            self.cursors.append(head.cursor)
            self.made.append((by, index))

    async def is_refused(self, t: Trial, store: Guarded) -> None:
        """Nobody goes on from what was lost, or expects it; and its ids are free."""
        for cursor in self.cursors:
            call = _next(store, cursor)
            await t.raises(HistoryLostError, f"changes({cursor!r}), a cursor of what was lost,", call)
        head = await store.head()
        name = Name(t.topic, "a")
        for _, index in self.made:
            if index.epoch and index.epoch != head.epoch:
                again = store.commit([t.put("b")], expect={name: index})
                await t.raises(ConflictError, f"an expected index of epoch {index.epoch!r}", again)
        for by, _ in self.made[:1]:
            index = await store.commit([t.put("c", self.number)], id=by)
            if int(index) <= head.index:
                t.fail("an id of a commit that was lost is still taken", index)
            self.made.pop(0)


async def _live_open(t: Trial, factory: RewindsStore, life: _Life, saved: object, count: int) -> None:
    """Lives with two handles and two feeds, puts the copy back under them, and goes on beyond what was lost."""
    lost: list[HistoryLostError] = []
    has_read = [anyio.Event(), anyio.Event()]

    async def follow(store: Guarded, has_read: anyio.Event) -> None:
        await anyio.lowlevel.checkpoint()

        async def step() -> None:
            after = begin if not has_read.is_set() else life.cursors[-1]
            async with store.changes(after) as commits:
                async for commit in commits:
                    if has_read.is_set():
                        t.fail(
                            f"a feed goes on with {commit!r} after {after!r}, which was lost", commit.index
                        )
                    if commit.index == life.cursors[-1].index:
                        has_read.set()

        try:
            await _persist(t, step)
        except HistoryLostError as error:
            t.holds(has_read.is_set(), f"{error!r} before anything was lost")
            lost.append(error)

    async with t.open() as store, t.open() as other:
        begin = (await _persist(t, store.head)).cursor
        await life.run(t, store, count)
        async with anyio.create_task_group() as tasks:
            for handle, event in zip((store, other), has_read, strict=True):
                tasks.start_soon(follow, handle, event)
            with t.within(t.patience, "what feeds get before the copy is put back"):
                for event in has_read:
                    await event.wait()
            await store.bounded("rewind()", partial(factory.rewind, saved))
            beyond = _Life(life.number + 50, life.start)
            await beyond.run(t, other, count + 2)
        t.equal("feeds that were told", len(lost), 2)
        for handle in (store, other):
            newest = (await _persist(t, handle.head)).index
            t.equal("the head of the copy", newest, beyond.cursors[-1].index)
            entry = await handle.get(t.topic, "a")
            t.equal("get after the copy was put back", entry and entry.value, [beyond.number, count + 1])
            await _Life(life.number, life.start, life.cursors, life.made[:0]).is_refused(t, handle)
        await store.bounded("rewind()", partial(factory.rewind, saved))
        await _persist(t, store.head)


async def _next(store: Guarded, cursor: Cursor) -> Commit:
    commits: AsyncIterator[Commit]
    async with store.changes(cursor) as commits:
        return await anext(commits)


HOOK_CHECKS: Final[Sequence[StoreCheck]] = (
    what_was_acknowledged_outlives_a_kill,
    a_restart_of_the_server_loses_nothing,
    an_older_copy_is_told_from_the_newer_one,
    an_older_copy_is_told_by_who_is_running,
)
