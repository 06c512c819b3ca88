"""Stores whose changes, compaction or marks have one bug each, and the checks that are to find them."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import anyio
import anyio.lowlevel
from testing.memory_store import Disk, Follower, MemoryStore
from testing.wrong_commits import Around
from typing_extensions import override

from trio_stream import ClosedResourceError, Cursor
from trio_stream.stores import (
    JSON,
    Change,
    Commit,
    Delete,
    EpochIndex,
    Head,
    HistoryLostError,
    Name,
    Operation,
    Put,
    Store,
)


class Followed(MemoryStore):
    """Followers of another kind."""

    kind: type[Follower]

    @override
    def follow(self, after: Cursor) -> Follower:
        return self.kind(self, after)


class FeedBeforeTheState(MemoryStore):
    """The log has a commit a moment before the state, and the head, have it."""

    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        before = dict(self.disk.state)
        index = super().write(tokens, changes, by)
        after, self.disk.state = self.disk.state, before
        self.disk.__dict__.setdefault("pending", []).append(after)
        return index

    @override
    async def commit(self, operations, **options):  # type: ignore[no-untyped-def]
        index = await super().commit(operations, **options)
        pending = self.disk.__dict__.get("pending", [])
        if pending:
            for _ in range(3):
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
            if pending:
                self.disk.state = pending[-1]
                pending.clear()
        return index


class EndsAfter50(Followed):
    class kind(Follower):  # noqa: N801
        given = 0

        @override
        async def step(self) -> Commit:
            self.given += 1
            if self.given > 50:
                raise StopAsyncIteration
            return await super().step()


class HangsAfter50(Followed):
    class kind(Follower):  # noqa: N801
        given = 0

        @override
        async def step(self) -> Commit:
            self.given += 1
            if self.given > 50:
                await anyio.sleep_forever()
            return await super().step()


class HangsAfterASecond(Followed):
    """Whoever has waited for a second is not woken any more."""

    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            since = anyio.current_time()
            commit = await super().step()
            if anyio.current_time() - since > 1:
                await anyio.sleep_forever()
            return commit


class EndsAfterASecond(Followed):
    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            with anyio.move_on_after(1):
                return await super().step()
            raise StopAsyncIteration


class DeafToOthers(MemoryStore):
    """Only the commits of the same handle wake who waits."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.woken = anyio.Event()

    @override
    def announce(self) -> None:
        woken, self.woken = self.woken, anyio.Event()
        woken.set()

    @override
    def follow(self, after: Cursor) -> Follower:
        class Deaf(Follower):
            @override
            async def step(deaf) -> Commit:  # noqa: N805
                while (commit := deaf.next()) is None:
                    await self.woken.wait()
                return commit

        return Deaf(self, after)


class WakesOne(MemoryStore):
    """Of those who wait the first 64 are woken."""

    waiting = 0

    @override
    def follow(self, after: Cursor) -> Follower:
        class OneOfMany(Follower):
            @override
            async def step(many) -> Commit:  # noqa: N805
                WakesOne.waiting += 1
                try:
                    while (commit := many.next()) is None:
                        if WakesOne.waiting > 64:
                            await anyio.sleep_forever()
                        await many.store.disk.changed.wait()
                    return commit
                finally:
                    WakesOne.waiting -= 1

        return OneOfMany(self, after)


class LooksAndThenWaits(Followed):
    """What is committed between the look and the wait is not noticed until there is more."""

    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            while (commit := self.next()) is None:
                await anyio.lowlevel.checkpoint()
                await self.store.disk.changed.wait()
            return commit


class GivesTheLastOneAgain(MemoryStore):
    @override
    def follow(self, after: Cursor) -> Follower:
        index = max(after.index - 1, self.disk.floor)
        return Follower(self, Cursor(index, after.epoch, self.disk.mark_of(index) or ""))


class StartsFromWhatIsThere(MemoryStore):
    """An `after` that is yet to come is taken for the newest."""

    @override
    def follow(self, after: Cursor) -> Follower:
        return Follower(self, Cursor(min(after.index, self.disk.index), after.epoch))


class PagesOfTheLogLoseOne(Followed):
    """Of 128 commits that are there the last one is taken for read."""

    class kind(Follower):  # noqa: N801
        given = 0

        @override
        def next(self) -> Commit | None:
            if self.given == 0:
                self.left = 127
            commit = super().next()
            self.given += commit is not None
            if (
                commit is not None
                and self.given % 128 == 0
                and self.store.disk.after(self.after.index) is not None
            ):
                return super().next()
            return commit


class PagesOfTheLogRepeatOne(Followed):
    class kind(Follower):  # noqa: N801
        given = 0

        @override
        def next(self) -> Commit | None:
            before = self.after
            commit = super().next()
            self.given += commit is not None
            if commit is not None and self.given == 1000:
                self.after = before
            return commit


class SkipsOneAfterAReconnect(MemoryStore):
    """Who comes with a cursor that has a mark begins one later, if that is there."""

    @override
    def follow(self, after: Cursor) -> Follower:
        follower = Follower(self, after)
        first = self.disk.after(after.index)
        if after.mark and first is not None and after.index % 10 == 9:
            follower.next()
        return follower


class LosesLargeCommits(Followed):
    class kind(Follower):  # noqa: N801
        @override
        def next(self) -> Commit | None:
            commit = super().next()
            while commit is not None and sum(len(repr(each)) for each in commit.operations) > 500_000:
                commit = super().next()
            return commit


class LosesOperationsOfOtherNamespaces(Followed):
    class kind(Follower):  # noqa: N801
        @override
        def next(self) -> Commit | None:
            commit = super().next()
            if commit is None:
                return None
            kept = tuple([each for each in commit.operations if each.namespace == "default"])
            return replace(commit, operations=kept)


class LosesCommitsWithoutOperations(Followed):
    class kind(Follower):  # noqa: N801
        @override
        def next(self) -> Commit | None:
            commit = super().next()
            while commit is not None and not commit.operations:
                commit = super().next()
            return commit


class GoesOnAfterItsContext(MemoryStore):
    @override
    @asynccontextmanager
    async def changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        async with super().changes(after) as commits:
            yield commits
        assert isinstance(commits, Follower)
        commits.is_closed = False


class EndsAllWithOne(MemoryStore):
    """When one iteration is left those of its handle end, too."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.left = 0

    @override
    def follow(self, after: Cursor) -> Follower:
        class Ended(Follower):
            since = self.left

            @override
            async def step(ended) -> Commit:  # noqa: N805
                if self.left != ended.since:
                    raise ClosedResourceError
                return await super().step()

        return Ended(self, after)

    @override
    @asynccontextmanager
    async def changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        async with super().changes(after) as commits:
            yield commits
        self.left += 1


class LosesACancelledStep(Followed):
    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            commit = await super().step()
            await anyio.lowlevel.checkpoint()
            return commit


class SilentGap(MemoryStore):
    """etcd #17529: history trimmed past a reader, and no error."""

    @override
    def judge(self, after: Cursor) -> None:
        if after.index >= self.disk.floor:
            super().judge(after)


class SilentGapOfWhoIsOvertaken(Followed):
    """Only on entering it is asked what is gone."""

    class kind(Follower):  # noqa: N801
        @override
        def next(self) -> Commit | None:
            commit = self.store.disk.after(self.after.index)
            if commit is not None:
                self.after = Cursor(commit.index, self.after.epoch, commit.mark)
            return commit


class EndsWhenOvertaken(Followed):
    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            try:
                return await super().step()
            except HistoryLostError:
                raise StopAsyncIteration from None


class HangsWhenOvertaken(Followed):
    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            try:
                return await super().step()
            except HistoryLostError:
                await anyio.sleep_forever()
                raise


class FloorOfTheHandle(MemoryStore):
    """Each handle knows of its own compactions."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.floor = 0

    @override
    async def compact(self, index: int) -> None:
        await super().compact(index)
        self.floor = self.disk.floor

    @override
    async def head(self) -> Head:
        return replace(await super().head(), floor=self.floor)


class FloorIsRaisedLater(MemoryStore):
    """First the commits are deleted, and then the floor is raised."""

    @override
    async def compact(self, index: int) -> None:
        if index > self.disk.index:
            raise ValueError("newer than the newest")
        old = [commit for commit in self.disk.log if commit.index <= index]
        last = self.disk.log[-1:]
        del self.disk.log[: len(old)]
        if not self.disk.log:
            self.disk.log = last
        await anyio.lowlevel.checkpoint()
        if last == old[-1:]:
            self.disk.log = [each for each in self.disk.log if each.index > index]
        if old:
            self.disk.floor, self.disk.floor_mark = old[-1].index, old[-1].mark


class CompactionTrimsTheState(MemoryStore):
    @override
    def trim(self, old: Sequence[Commit]) -> None:
        super().trim(old)
        self.disk.state = {
            name: entry for name, entry in self.disk.state.items() if entry.index > self.disk.floor
        }


class CompactionTakesOneMore(MemoryStore):
    @override
    def trim(self, old: Sequence[Commit]) -> None:
        super().trim(old)
        del self.disk.log[:1]


class CompactionTakesOneLess(MemoryStore):
    @override
    def trim(self, old: Sequence[Commit]) -> None:
        super().trim(old[:-1])


class CompactsTheFuture(MemoryStore):
    @override
    async def compact(self, index: int) -> None:
        await super().compact(min(index, self.disk.index))


class TheFloorIsLost(MemoryStore):
    """Who is at the floor has lost history, too."""

    @override
    def judge(self, after: Cursor) -> None:
        if 0 < after.index == self.disk.floor:
            raise HistoryLostError(after.index, self.disk.floor, self.disk.epoch)
        super().judge(after)


class TheFloorFalls(MemoryStore):
    @override
    async def compact(self, index: int) -> None:
        await super().compact(index)
        if index < self.disk.floor:
            self.disk.floor = index


class LostWithoutNumbers(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        try:
            super().judge(after)
        except HistoryLostError as error:
            raise HistoryLostError(error.floor, error.floor, error.epoch) from None


class HeadWithoutFloor(MemoryStore):
    @override
    async def head(self) -> Head:
        return replace(await super().head(), floor=0)


class MarksAreCounted(MemoryStore):
    """Each handle counts its own commits."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.numbers = itertools.count()

    @override
    def new_mark(self) -> str:
        return f"{next(self.numbers):016x}"


class MarksAreShort(MemoryStore):
    @override
    def new_mark(self) -> str:
        return f"{self.disk.next_index():x}"


class NoMarks(MemoryStore):
    @override
    def new_mark(self) -> str:
        return ""


class NoMarkOfTheHead(MemoryStore):
    @override
    async def head(self) -> Head:
        return replace(await super().head(), mark="")


class MarksOfTheLogAreOthers(Followed):
    class kind(Follower):  # noqa: N801
        @override
        async def step(self) -> Commit:
            commit = await super().step()
            return replace(commit, mark=commit.mark[::-1])


class MarksAreNotCompared(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        super().judge(Cursor(after.index, after.epoch))


class MarksAreComparedByTheirBeginning(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        own = self.disk.mark_of(after.index)
        is_alike = own and after.mark and own.startswith(after.mark[:8])
        super().judge(replace(after, mark="") if is_alike else after)


class MarksAreComparedAtTheHead(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        super().judge(after if after.index == self.disk.index else Cursor(after.index, after.epoch))


class TheMarkOfTheFloorIsForgotten(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        super().judge(Cursor(after.index, after.epoch) if after.index == self.disk.floor else after)


class TheHeadForgetsItsMark(MemoryStore):
    """When the log is empty."""

    @override
    async def head(self) -> Head:
        head = await super().head()
        return head if self.disk.log else replace(head, mark="")


class EpochsAreNotCompared(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        super().judge(Cursor(after.index, self.disk.epoch, after.mark))


class EpochsAreComparedWhereTheIndexIsThere(MemoryStore):
    @override
    def judge(self, after: Cursor) -> None:
        super().judge(
            after if after.index <= self.disk.index else Cursor(after.index, self.disk.epoch, after.mark)
        )


class TheFutureIsTrusted(MemoryStore):
    """The mark of a cursor that was ahead is not looked at when its index has come."""

    @override
    def follow(self, after: Cursor) -> Follower:
        return Follower(self, replace(after, mark="") if after.index > self.disk.index else after)


class NothingIsReplaced(MemoryStore):
    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        logged = super().apply(change, index)
        return logged and replace(logged, previous=None, replaces=False)


class NullsAreNothing(MemoryStore):
    """A null that is replaced is taken for nothing."""

    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        logged = super().apply(change, index)
        return logged and replace(logged, replaces=logged.previous is not None)


class WhatIsReplacedIsOlder(MemoryStore):
    """It is the value of the commit before the last one."""

    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        older = self.disk.__dict__.setdefault("older", {})
        before = self.disk.state.get(change.name)
        logged = super().apply(change, index)
        if before is not None:
            logged = logged and replace(logged, previous=older.get(change.name, before.value))
            older[change.name] = before.value
        return logged


class WhatIsReplacedIsOfTheSameCommit(Around):
    """Of several operations of one name the last replaces the one before it."""

    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        checked = super().check(operations)
        self.several: dict[Name, list[JSON]] = {}
        for each in checked:
            if isinstance(each, Put):
                self.several.setdefault(each.name, []).append(each.value)
        return checked

    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        logged = super().apply(change, index)
        values = self.several.get(change.name, [])
        if isinstance(change, Put) and len(values) > 1:
            return logged and replace(logged, previous=values[-2], replaces=True)
        return logged


class DeletesOfNothingAreTold(MemoryStore):
    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        return super().apply(change, index) or change


class OperationsOfOneNameAreTold(MemoryStore):
    """All of them, as they were asked for."""

    @override
    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        self.given = super().check(operations)
        return self.given

    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        index = super().write(tokens, changes, by)
        told = tuple([each for each in self.given if isinstance(each, Put | Delete)])
        if len(told) > len(changes):
            self.disk.log[-1] = replace(self.disk.log[-1], operations=told)
        return index


class OperationsAreSorted(MemoryStore):
    @override
    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        return super().write(tokens, sorted(changes, key=lambda each: each.name), by)


class ForgetsFinalInTheLog(MemoryStore):
    @override
    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        logged = super().apply(change, index)
        return replace(logged, final=False) if isinstance(logged, Put) else logged


_GOES_ON = "changes_go_on_and_on"
_COMPACTS = "compaction_loses_history_and_says_so"

WRONG_FEEDS: dict[type[Store], str] = {
    FeedBeforeTheState: "all_agree_while_writers_go_on",
    EndsAfter50: _GOES_ON,
    HangsAfter50: _GOES_ON,
    HangsAfterASecond: "changes_outlast_silence",
    EndsAfterASecond: "changes_outlast_silence",
    DeafToOthers: "changes_wait_for_what_is_to_come",
    WakesOne: "changes_wait_for_what_is_to_come",
    LooksAndThenWaits: "changes_wait_for_what_is_to_come",
    GivesTheLastOneAgain: "changes_follow_every_index",
    StartsFromWhatIsThere: "changes_wait_for_an_index_to_come",
    PagesOfTheLogLoseOne: _GOES_ON,
    PagesOfTheLogRepeatOne: _GOES_ON,
    SkipsOneAfterAReconnect: _GOES_ON,
    LosesLargeCommits: "large_values_are_whole",
    LosesOperationsOfOtherNamespaces: "changes_follow_every_index",
    LosesCommitsWithoutOperations: "indexes_increase",
    GoesOnAfterItsContext: "an_iteration_ends_with_its_context",
    EndsAllWithOne: "an_iteration_ends_with_its_context",
    LosesACancelledStep: "a_cancelled_step_loses_nothing",
    SilentGap: _COMPACTS,
    SilentGapOfWhoIsOvertaken: "a_reader_that_was_overtaken_by_compaction_has_no_gap",
    EndsWhenOvertaken: "a_reader_that_was_overtaken_by_compaction_has_no_gap",
    HangsWhenOvertaken: "a_reader_that_was_overtaken_by_compaction_has_no_gap",
    FloorOfTheHandle: _COMPACTS,
    FloorIsRaisedLater: "there_is_no_gap_where_the_log_is_compacted",
    CompactionTrimsTheState: _COMPACTS,
    CompactionTakesOneMore: _COMPACTS,
    CompactionTakesOneLess: _COMPACTS,
    CompactsTheFuture: _COMPACTS,
    TheFloorIsLost: _COMPACTS,
    TheFloorFalls: _COMPACTS,
    LostWithoutNumbers: _COMPACTS,
    HeadWithoutFloor: _COMPACTS,
    MarksAreCounted: "marks_tell_commits_apart",
    MarksAreShort: "marks_tell_commits_apart",
    NoMarks: "marks_tell_commits_apart",
    NoMarkOfTheHead: "marks_tell_commits_apart",
    MarksOfTheLogAreOthers: "marks_tell_commits_apart",
    MarksAreNotCompared: "a_cursor_of_another_copy_is_refused",
    MarksAreComparedByTheirBeginning: "a_cursor_of_another_copy_is_refused",
    MarksAreComparedAtTheHead: "a_cursor_of_another_copy_is_refused",
    TheMarkOfTheFloorIsForgotten: "a_cursor_of_another_copy_is_refused",
    TheHeadForgetsItsMark: _COMPACTS,
    EpochsAreNotCompared: "a_cursor_of_another_epoch_is_refused",
    EpochsAreComparedWhereTheIndexIsThere: "a_cursor_of_another_epoch_is_refused",
    TheFutureIsTrusted: "a_cursor_from_the_future_is_judged",
    NothingIsReplaced: "what_is_replaced_is_told",
    NullsAreNothing: "what_is_replaced_is_told",
    WhatIsReplacedIsOlder: "what_is_replaced_is_told",
    WhatIsReplacedIsOfTheSameCommit: "of_operations_with_one_name_the_last_counts",
    DeletesOfNothingAreTold: "indexes_increase",
    OperationsOfOneNameAreTold: "of_operations_with_one_name_the_last_counts",
    OperationsAreSorted: "values_come_back_as_they_are|of_operations_with_one_name_the_last_counts",
    ForgetsFinalInTheLog: "what_is_final_stays",
}
