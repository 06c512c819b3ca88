"""Stores over another one that do not all that it does, or do it badly."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from uuid import UUID

import anyio
from stores.storehouse import PATIENCE
from typing_extensions import override

from trio_stream import Cursor, SnapshotAppender, SubscribeRequest
from trio_stream.stores import (
    Change,
    Commit,
    Entry,
    Head,
    Limits,
    Name,
    Operation,
    Record,
    Revocations,
    Store,
    StoreError,
)


class Plain(Store):
    """What every store must have, and no more: its log cannot be read by topic, nor by pages."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    @override
    def limits(self) -> Limits:
        return self.store.limits

    @override
    async def head(self) -> Head:
        return await self.store.head()

    @override
    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,
        if_changed: bool = False,
    ) -> int:
        return await self.store.commit(operations, expect=expect, id=id, if_changed=if_changed)

    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        return await self.store.get(topic, key, namespace=namespace)

    @override
    def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Entry]]]:
        return self.store.list(topic, namespace=namespace, prefix=prefix)

    @override
    async def topics(self) -> Sequence[str]:
        return await self.store.topics()

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        return await self.store.snapshot(request, snapshot)

    @override
    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self.store.changes(after)

    @override
    async def compact(self, index: int) -> None:
        await self.store.compact(index)

    @override
    async def revocations(self) -> Revocations:
        return await self.store.revocations()


class FirstEdition:
    """A store of the first edition: it knows no marks, tokens, final values, and not what a commit replaces."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def head(self) -> Head:
        head = await self._store.head()
        return Head(head.index, head.floor, head.epoch)

    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        return int(await self._store.commit(operations, expect=expect))

    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        entry = await self._store.get(topic, key, namespace=namespace)
        return entry and Entry(entry.value, int(entry.index))

    def list(
        self, topic: str, *, namespace: str = "default"
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Entry]]]:
        return self._store.list(topic, namespace=namespace)

    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        reached = await self._store.snapshot(request, snapshot)
        return reached.index if isinstance(reached, Cursor) else int(reached)

    @asynccontextmanager
    async def changes(self, after: int) -> AsyncIterator[AsyncIterator[Commit]]:
        assert type(after) is int
        async with self._store.changes(after) as commits:

            async def step() -> Commit:
                commit = await anext(commits)
                return Commit(commit.index, tuple([_plain(each) for each in commit.operations]))

            yield Steps(step)

    async def compact(self, index: int) -> None:
        await self._store.compact(index)


def _plain(operation: Change) -> Change:
    return replace(operation, previous=None, replaces=False)


class Steps(AsyncIterator[Commit]):
    """Each step is what the function gives."""

    def __init__(self, step: Callable[[], Awaitable[Commit]]) -> None:
        self.step = step

    @override
    async def __anext__(self) -> Commit:
        return await self.step()


class Stepping(Plain):
    """Whose changes come by `step`, and which counts how often somebody asks for them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.rounds = 0
        self._asked = anyio.Event()  # another one each time

    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        return await anext(commits)

    def enter(self, after: int) -> None:
        """Somebody asks for changes."""

    @override
    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self._changes(after)

    @asynccontextmanager
    async def _changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        self.rounds += 1
        self._asked.set()
        self._asked = anyio.Event()
        index = after.index if isinstance(after, Cursor) else after
        self.enter(index)
        async with self.store.changes(after) as commits:
            yield Steps(lambda: self.step(commits, index))

    async def wait_rounds(self, count: int) -> None:
        with anyio.fail_after(PATIENCE):
            while self.rounds < count:
                await self._asked.wait()


class Unreliable(Stepping):
    """Which can be made to fail, or to hold what it would do next."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.failing = False
        self.failures = 0
        self._failed = anyio.Event()  # another one after each failure
        # The feed does not get past this; set as long as it may run.
        self.open = anyio.Event()
        self.open.set()

    def check(self) -> None:
        if self.failing:
            self.failures += 1
            self._failed.set()
            self._failed = anyio.Event()
            raise StoreError("jobs.db: on fire")

    async def wait_failures(self, count: int) -> None:
        with anyio.fail_after(PATIENCE):
            while self.failures < count:
                await self._failed.wait()

    @override
    async def head(self) -> Head:
        self.check()
        await self.open.wait()
        return await self.store.head()

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        self.check()
        return await self.store.snapshot(request, snapshot)

    @override
    def enter(self, after: int) -> None:
        self.check()

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        self.check()
        commit = await anext(commits)
        await self.open.wait()
        self.check()
        return commit
