"""Stores that lose something when they are killed, restarted or put back, and the checks that are to find them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import anyio.lowlevel
from testing.memory_store import Disk, Follower, MemoryStore
from testing.wrong_commits import Around
from testing.wrong_feeds import Followed
from testing.wrong_options import IdsOfTheHandle
from typing_extensions import override

from trio_stream import Cursor
from trio_stream.stores import Change, Commit, Entry, EpochIndex, Operation, Store, StoreError


class SaysSoBeforeItIsDurable(MemoryStore):
    """The last commits of a handle are on the disk when it makes the next ones, or closes."""

    @override
    def check_alive(self, restarts: int) -> None:
        was_alive = not self.disk.__dict__.get("lost")
        super_is_dead = self.is_dead
        if super_is_dead and was_alive:
            self.disk.__dict__["lost"] = True
            lose_the_last(self.disk)
        super().check_alive(restarts)


def lose_the_last(disk: Disk) -> None:
    if not disk.log:
        return
    commit = disk.log.pop()
    for change in commit.operations:
        disk.state.pop(change.name, None)
        if change.replaces:
            disk.state[change.name] = Entry(change.previous, EpochIndex(disk.index, disk.epoch))


class TornByAKill(Around):
    """A kill in the middle leaves a part of the commit, in the log too."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        if len(operations) < 3:
            return await self.right(operations, **options)
        await anyio.lowlevel.checkpoint()
        if self.is_dead:
            self.is_dead = False
            await self.right(operations[:2], expect=None, id=None, if_changed=False)
            self.is_dead = True
            raise StoreError("memory: killed")
        return await self.right(operations, **options)


class MadeTwiceAfterAKill(IdsOfTheHandle):
    """A commit is made, and its id is forgotten with the handle."""


class KeepsTheLockOfTheDead(Around):
    """What a killed handle had locked nobody can have."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        await anyio.lowlevel.checkpoint()
        if self.is_dead:
            self.disk.__dict__["locked"] = True
        if self.disk.__dict__.get("locked"):
            await anyio.sleep_forever()
        return await self.right(operations, **options)


class NeverFindsBack(MemoryStore):
    """A handle that has seen a restart is of no use any more."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.restarts = disk.restarts

    @override
    def check_alive(self, restarts: int) -> None:
        super().check_alive(self.restarts)


class RestartsWithANewEpoch(MemoryStore):
    @override
    def check_alive(self, restarts: int) -> None:
        if self.disk.__dict__.setdefault("seen", 0) != self.disk.restarts:
            self.disk.__dict__["seen"] = self.disk.restarts
            self.disk.epoch += "+"
        super().check_alive(restarts)


class LosesTheLastByARestart(MemoryStore):
    @override
    def check_alive(self, restarts: int) -> None:
        if self.disk.__dict__.setdefault("seen", 0) != self.disk.restarts:
            self.disk.__dict__["seen"] = self.disk.restarts
            lose_the_last(self.disk)
        super().check_alive(restarts)


class FeedsSkipWhatCameInARestart(Followed):
    """A feed that was cut off goes on by itself, from what is there then."""

    class kind(Follower):  # noqa: N801
        @override
        def next(self) -> Commit | None:
            if self.restarts != self.store.disk.restarts:
                self.restarts = self.store.disk.restarts
                self.after = Cursor(self.store.disk.index, self.after.epoch, self.store.disk.mark)
            return super().next()


class IdsAreLostByARestart(MemoryStore):
    @override
    def check_alive(self, restarts: int) -> None:
        if self.disk.__dict__.setdefault("seen", 0) != self.disk.restarts:
            self.disk.__dict__["seen"] = self.disk.restarts
            self.disk.ids.clear()
        super().check_alive(restarts)


class SaysItFailedThoughItIsMade(Around):
    """And an id is not kept with a commit whose answer was lost."""

    @override
    async def around(self, operations: Sequence[Operation], **options: Any) -> int:
        restarts, by = self.disk.restarts, options.pop("id")
        if by is not None and (index := self.made_by(by)) is not None:
            await anyio.lowlevel.checkpoint()
            return index
        index = EpochIndex(await self.right(operations, id=None, **options), self.disk.epoch, self.disk.mark)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        self.check_alive(restarts)
        if by is not None:
            self.remember(by, index)
        return index


class MarksOfTheIndex(MemoryStore):
    """A commit of another copy with the same index has the same mark."""

    @override
    def new_mark(self) -> str:
        return hashlib.sha256(str(self.disk.next_index()).encode()).hexdigest()[:16]


class MarksAreNotComparedAtAll(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        super().judge(Cursor(after.index, after.epoch))


class FeedsDoNotLookAgain(Followed):
    """A feed compares the mark on entering, and never again."""

    class kind(Follower):  # noqa: N801
        @override
        def next(self) -> Commit | None:
            self.after = Cursor(self.after.index, self.after.epoch)
            return super().next()


class IdsOutliveARewind(MemoryStore):
    """They are not in what was put back, and are not forgotten."""

    @override
    def made_by(self, by: UUID) -> EpochIndex | None:
        return super().made_by(by) or self.known.get(by)

    @override
    def remember(self, by: UUID, index: EpochIndex) -> None:
        super().remember(by, index)
        self.known[by] = index

    @property
    def known(self) -> dict[UUID, EpochIndex]:
        return self.disk.__dict__.setdefault("known", {})  # type: ignore[no-any-return]


class TheStateOutlivesARewind(MemoryStore):
    """A cache of the state that nobody tells of the older copy."""

    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        logged = super().apply(change, index)
        self.disk.__dict__["cached"] = dict(self.disk.state)
        return logged

    @override
    def rows(self, topic: str, namespace: str, prefix: str):  # type: ignore[no-untyped-def]
        state, self.disk.state = self.disk.state, self.disk.__dict__.get("cached", self.disk.state)
        try:
            return super().rows(topic, namespace, prefix)
        finally:
            self.disk.state = state


_KILL = "what_was_acknowledged_outlives_a_kill"
_RESTART = "a_restart_of_the_server_loses_nothing"
_OPEN = "an_older_copy_is_told_by_who_is_running"
_CLOSED = "an_older_copy_is_told_from_the_newer_one"

WRONG_HOOKS: Mapping[type[Store], str] = {
    SaysSoBeforeItIsDurable: _KILL,
    TornByAKill: _KILL,
    MadeTwiceAfterAKill: _KILL,
    KeepsTheLockOfTheDead: _KILL,
    NeverFindsBack: _RESTART,
    RestartsWithANewEpoch: _RESTART,
    LosesTheLastByARestart: _RESTART,
    FeedsSkipWhatCameInARestart: _RESTART,
    IdsAreLostByARestart: _RESTART,
    SaysItFailedThoughItIsMade: _RESTART,
    MarksOfTheIndex: _CLOSED,
    MarksAreNotComparedAtAll: _CLOSED,
    FeedsDoNotLookAgain: _OPEN,
    IdsOutliveARewind: _CLOSED,
    TheStateOutlivesARewind: _CLOSED,
}
