"""`check_store`: SQLite and a store in memory pass every check; a store with a bug fails the one that is about it."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from testing.memory_store import Disk, Follower, MemoryStore, Steps, factory_of
from typing_extensions import override

from trio_stream import Cursor, SnapshotAppender, SubscribeRequest
from trio_stream.stores import Commit, Entry, Head, Name, Operation, Put, Record, open_store
from trio_stream.testing import STORE_CHECKS, PromiseBroken, StoreCheck, check_store

pytestmark = pytest.mark.anyio

PATIENCE = 15.0  # seconds after which a check hangs


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_the_sqlite_store_conforms(check: StoreCheck, tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE):
        await check(lambda: open_store(f"sqlite:{tmp_path / 'checked.db'}", synchronous="OFF"))


async def test_a_store_in_memory_that_was_used_before_conforms() -> None:
    factory = factory_of(MemoryStore)
    async with factory() as store:
        for number in range(5):
            await store.commit([Put("jobs", "a", number)])
        await store.compact(3)
    with anyio.fail_after(PATIENCE):
        await check_store(factory)


class SkipsIndexes(MemoryStore):
    @override
    def next_index(self) -> int:
        return self.disk.index + 1 + (self.disk.index % 3 == 2)


class ReusesIndexes(MemoryStore):
    """The index is read, then there is a checkpoint, then it is used."""

    @override
    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        index = self.disk.index
        await anyio.lowlevel.checkpoint()
        await super().commit(operations, expect=expect)
        return index + 1


class TornCommits(MemoryStore):
    """A checkpoint between two operations of one commit."""

    @override
    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        operations = self.check(operations)
        for name, index in (expect or {}).items():
            self.expect(name, index)
        index = self.next_index()
        self.disk.log.append(Commit(index, operations))
        for operation in operations:
            self.apply(operation, index)
            await anyio.lowlevel.checkpoint()
        self.announce()
        return index


class AppliesBackwards(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        return super().check(operations)[::-1]


class WritesBeforeItChecks(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        for operation in operations:
            if isinstance(operation, Put) and not (
                isinstance(operation.value, float) and math.isnan(operation.value)
            ):
                self.apply(operation, self.disk.index + 1)
        return super().check(operations)


class TakesWhatIsNoJSON(MemoryStore):
    @override
    def check(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        return tuple(operations)


class ForgetsExpectations(MemoryStore):
    @override
    def expect(self, name: Name, index: int) -> None:
        pass


class ExpectsTooLittle(MemoryStore):
    """0 is not taken for "must not exist"."""

    @override
    def expect(self, name: Name, index: int) -> None:
        if index:
            super().expect(name, index)


class FoldsCase(MemoryStore):
    @override
    def apply(self, operation: Operation, index: int) -> None:
        if isinstance(operation, Put):
            operation = Put(operation.topic, operation.key.lower(), operation.value, operation.namespace)
        super().apply(operation, index)


class GivesWholeNumbersForBooleans(MemoryStore):
    @override
    def apply(self, operation: Operation, index: int) -> None:
        if isinstance(operation, Put) and isinstance(operation.value, bool):
            operation = Put(operation.topic, operation.key, int(operation.value), operation.namespace)
        super().apply(operation, index)


class KeepsTheFirstIndex(MemoryStore):
    @override
    def apply(self, operation: Operation, index: int) -> None:
        before = self.disk.state.get(operation.name)
        super().apply(operation, before.index if before else index)


class ListsWhatIsThereNow(MemoryStore):
    @override
    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default"
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        keys = [key for key, _ in self.rows(topic, namespace)]

        class Live(Steps):
            @override
            async def __anext__(live) -> tuple[str, Entry]:  # noqa: N805
                key, entry = await super().__anext__()
                return key, self.disk.state.get(Name(topic, key, namespace), entry)

        live = Live([(key, Entry(None, 0)) for key in keys])
        yield live
        live.is_closed = True


class SnapshotsOfTwoMoments(MemoryStore):
    @override
    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        await super().snapshot(request, snapshot)
        return self.disk.index


class SnapshotsOfEveryKey(MemoryStore):
    @override
    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        return await super().snapshot(SubscribeRequest(request.topic, namespace=request.namespace), snapshot)


class SnapshotsThatSwallow(MemoryStore):
    @override
    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        index = self.disk.index
        try:
            return await super().snapshot(request, snapshot)
        except Exception:  # noqa: BLE001
            return index


class GivesTheIndexAgain(MemoryStore):
    @override
    def follow(self, after: int) -> Follower:
        return Follower(self, max(after - 1, self.disk.floor))


class StartsFromWhatIsThere(MemoryStore):
    """An `after` that is yet to come is taken for the newest."""

    @override
    def follow(self, after: int) -> Follower:
        return Follower(self, min(after, self.disk.index))


class SilentGap(MemoryStore):
    """etcd #17529: history trimmed past a reader, and no error."""

    @override
    def check_history(self, after: int) -> None:
        pass


class TrimsTheState(MemoryStore):
    @override
    async def compact(self, index: int) -> None:
        await super().compact(index)
        self.disk.state = {name: entry for name, entry in self.disk.state.items() if entry.index > index}


class ForgetsItsFloor(MemoryStore):
    """The floor lies in the handle, not on the disk."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        disk.floor = 0 if disk.log and disk.log[0].index > 1 else disk.floor


class NewEpochWhenOpened(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        disk.epoch += "+"


class HandlesOfTheirOwn(MemoryStore):
    """Two handles are two stores."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Disk())


class DeafToOthers(MemoryStore):
    """Only the commits of the same handle wake who waits."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.changed = anyio.Event()

    @override
    def announce(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    @override
    def follow(self, after: int) -> Follower:
        store = self

        class Deaf(Follower):
            @override
            async def __anext__(deaf) -> Commit:  # noqa: N805
                while True:
                    await anyio.lowlevel.checkpoint()
                    if deaf.is_closed:
                        raise anyio.ClosedResourceError
                    store.check_history(deaf.after)
                    for commit in store.disk.log:
                        if commit.index > deaf.after:
                            deaf.after = commit.index
                            return commit
                    await store.changed.wait()

        return Deaf(self, after)


class MadeAlthoughCancelled(MemoryStore):
    @override
    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        index = await super().commit(operations, expect=expect)
        await anyio.lowlevel.checkpoint()
        return index


class LosesACancelledStep(MemoryStore):
    @override
    def follow(self, after: int) -> Follower:
        class Loses(Follower):
            @override
            async def __anext__(self) -> Commit:
                commit = await super().__anext__()
                await anyio.lowlevel.checkpoint()
                return commit

        return Loses(self, after)


class GoesOnAfterItsContext(MemoryStore):
    @override
    @asynccontextmanager
    async def changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        assert isinstance(after, int)
        self.check_history(after)
        yield self.follow(after)


class HeadOfYesterday(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.known = Head(0, 0, disk.epoch)

    @override
    async def head(self) -> Head:
        head, self.known = self.known, await super().head()
        return head


BUGS: dict[type[MemoryStore], str] = {
    SkipsIndexes: "indexes grow by one",
    ReusesIndexes: "writers share one order",
    TornCommits: "a commit is seen whole",
    AppliesBackwards: "writers share one order|a commit is seen whole|operations apply in order",
    WritesBeforeItChecks: "what is invalid is refused as a whole",
    TakesWhatIsNoJSON: "what is invalid is refused as a whole",
    ForgetsExpectations: "an expectation holds or nothing changes",
    ExpectsTooLittle: "an expectation holds or nothing changes",
    FoldsCase: "names are kept apart",
    GivesWholeNumbersForBooleans: "values come back as they are",
    KeepsTheFirstIndex: "of writers with one expectation one wins|an expectation holds or nothing changes",
    ListsWhatIsThereNow: "a commit is seen whole|a list is of one index",
    SnapshotsOfTwoMoments: "a snapshot is of the index that it returns",
    SnapshotsOfEveryKey: "a snapshot is of the index that it returns",
    SnapshotsThatSwallow: "a snapshot is well formed",
    GivesTheIndexAgain: "changes follow every index|writers share one order|values come back",
    StartsFromWhatIsThere: "changes wait for an index to come",
    SilentGap: "compaction loses history and says so",
    TrimsTheState: "compaction loses history and says so",
    ForgetsItsFloor: "what was returned is durable",
    NewEpochWhenOpened: "one store, whoever opens it|what was returned is durable",
    HandlesOfTheirOwn: "writers share one order",
    MadeAlthoughCancelled: "a cancelled commit is not made",
    LosesACancelledStep: "a cancelled step loses nothing",
    GoesOnAfterItsContext: "an iteration ends with its context",
    HeadOfYesterday: "indexes grow by one",
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", BUGS, ids=lambda kind: kind.__name__)
async def test_a_store_with_a_bug_is_refused_and_the_message_says_which_promise(
    kind: type[MemoryStore], anyio_backend: str
) -> None:
    with pytest.raises((PromiseBroken, BaseExceptionGroup)) as caught, anyio.fail_after(PATIENCE):
        await check_store(factory_of(kind))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error, *_) = error.exceptions
    assert isinstance(error, PromiseBroken)
    assert error.promise.removeprefix("store, ") in BUGS[kind].split("|")


async def test_a_store_that_does_not_hear_of_others_never_gets_done() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(1):
        await check_store(factory_of(DeafToOthers))
