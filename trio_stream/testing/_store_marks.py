"""Checks of marks and cursors: a commit of one copy of the store is told from one of another."""

from collections.abc import Iterable, Sequence
from typing import Final

import anyio
import anyio.lowlevel

from trio_stream import Cursor
from trio_stream.stores import Commit, Delete, HistoryLostError, Revoke

from ._store_guard import Guarded
from ._store_trial import StoreCheck, Trial, check

_SHORTEST: Final = 8  # characters of a mark: it has 8 random bytes or more


@check("marks tell commits apart")
async def marks_tell_commits_apart(t: Trial) -> None:
    """No two commits have the same one, whoever made them, and each has the same one wherever it is told."""
    heads: list[Cursor] = []
    for n in range(30):
        async with t.open() as other:
            for store in (other, t.store, other, t.store):
                index = await t.commit(t.put("a", n), store=store)
                heads.append((await store.head()).cursor)
                t.holds(index.mark in ("", heads[-1].mark), "commit() and head() have different marks", index)
    await t.commit(Delete(t.topic, "never there"))
    heads.append((await t.store.head()).cursor)
    await t.commit(Revoke("token"))
    heads.append((await t.store.head()).cursor)
    _are_marks(t, [cursor.mark for cursor in heads])
    async with t.open() as other:
        for store in (t.store, other):
            log = await t.log(t.start.index, t.newest, store)
            found = [(int(commit.index), commit.mark) for commit in log]
            t.equal("indexes and marks of the log", found, [(each.index, each.mark) for each in heads])
            index, _ = await t.look("a", store=store)
            t.holds(
                index.mark in ("", heads[-1].mark), "the mark of a snapshot is not that of its index", index
            )
            t.holds(index.epoch in ("", t.start.epoch), f"a snapshot of epoch {index.epoch!r}", index)
        await other.compact(t.newest)
        for store in (t.store, other):
            t.equal("the head of a log without commits", (await store.head()).cursor, heads[-1])


def _are_marks(t: Trial, marks: Sequence[str]) -> None:
    for mark in marks:
        t.holds(len(mark) >= _SHORTEST, f"{mark!r} is no mark: it has less than {_SHORTEST} characters")
    for place, mark in enumerate(marks):
        t.holds(mark not in marks[:place], f"two commits have the mark {mark!r}")


@check("a cursor of another copy is refused")
async def a_cursor_of_another_copy_is_refused(t: Trial) -> None:
    """With another mark at its index it is `HistoryLostError`, wherever in the log; with its own one goes on."""
    for n in range(40):
        await t.commit(t.put("a", n))
    log = await t.log(t.start.index, t.newest)
    marks = [commit.mark for commit in log]
    async with t.open() as other:
        for floor in (None, 3, 38, 39):
            if floor is not None:
                await t.store.compact(log[floor].index)
            for place in (0, 1, 3, 4, 20, 38, 39):
                for store in (t.store, other):
                    await _judges(t, store, log, place, floor or -1, _others(marks, place))


async def _judges(
    t: Trial, store: Guarded, log: Sequence[Commit], place: int, floor: int, wrong: Iterable[str]
) -> None:
    commit = log[place]
    own = Cursor(int(commit.index), t.start.epoch, commit.mark)
    if place < floor:
        await t.raises(HistoryLostError, f"changes({own!r}) from below the floor", _next(store, own))
    else:
        t.equal(f"changes({own!r})", await t.log(own, t.newest, store), list(log[place + 1 :]))
    for mark in wrong:
        cursor = Cursor(own.index, own.epoch, mark)
        error = await t.raises(
            HistoryLostError, f"changes({cursor!r}), where the mark is {own.mark!r},", _next(store, cursor)
        )
        found = int(error.after), error.epoch
        t.equal("after and epoch of the error", found, (own.index, t.start.epoch), own.index)


def _others(marks: Sequence[str], place: int) -> Sequence[str]:
    own = marks[place]
    changed = chr(ord(own[-1]) ^ 1)
    return [
        marks[place - 1],
        marks[(place + 1) % len(marks)],
        own[:-1] + changed,
        chr(ord(own[0]) ^ 1) + own[1:],
        own[:-1],
        own + own[-1],
        "another",
    ]


@check("a cursor of another epoch is refused")
async def a_cursor_of_another_epoch_is_refused(t: Trial) -> None:
    """Whatever its mark, and whether its index is there, gone or yet to come."""
    for n in range(10):
        await t.commit(t.put("a", n))
    log = await t.log(t.start.index, t.newest)
    await t.store.compact(log[3].index)
    epoch = t.start.epoch
    async with t.open() as other:
        for wrong in ("another", epoch + "x", epoch[:-1] or "y", epoch.swapcase() + " "):
            for store in (t.store, other):
                for commit in log[::3]:
                    for mark in ("", commit.mark):
                        cursor = Cursor(int(commit.index), wrong, mark)
                        call = _next(store, cursor)
                        error = await t.raises(
                            HistoryLostError, f"changes({cursor!r}) in epoch {epoch!r}", call
                        )
                        t.equal("the epoch of the error", error.epoch, epoch)
                ahead = Cursor(t.newest + 5, wrong, log[0].mark)
                call = _next(store, ahead)
                await t.raises(HistoryLostError, f"changes({ahead!r}) in epoch {epoch!r}", call)
        await t.agrees("", t.store, other)


@check("a cursor from the future is judged when its index has come")
async def a_cursor_from_the_future_is_judged(t: Trial) -> None:
    """One with a mark above the head is of another copy: nothing is given after it, now or when the index is there."""
    await t.commit(t.put("a", 0))
    log = await t.log(t.start.index, t.newest)
    async with t.open() as other:
        for ahead, store in ((1, t.store), (3, other), (8, t.store)):
            cursor = Cursor((await store.head()).index + ahead, (await store.head()).epoch, log[0].mark[::-1])
            lost: list[HistoryLostError] = []

            async def follow(
                store: Guarded = store, cursor: Cursor = cursor, lost: list[HistoryLostError] = lost
            ) -> None:
                lost.append(await t.raises(HistoryLostError, f"changes({cursor!r})", _next(store, cursor)))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                newest = 0
                while newest <= cursor.index + 1:
                    newest = int(await other.commit([t.put("a", ahead)]))
            t.equal("errors", len(lost), 1)


async def _next(store: Guarded, cursor: Cursor) -> Commit:
    async with store.changes(cursor) as commits:
        return await anext(commits)


MARK_CHECKS: Final[Sequence[StoreCheck]] = (
    marks_tell_commits_apart,
    a_cursor_of_another_copy_is_refused,
    a_cursor_of_another_epoch_is_refused,
    a_cursor_from_the_future_is_judged,
)
