"""Stores over another one that do not all that it does, or do it badly."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from stores.storehouse import PATIENCE
from typing_extensions import override

from trio_stream import Cursor, SnapshotAppender, SubscribeRequest
from trio_stream.stores import Commit, Entry, Head, Name, Operation, Record, Store, StoreError


class Plain(Store):
    """What every store must have, and no more: its log cannot be read by topic."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @override
    async def head(self) -> Head:
        return await self.store.head()

    @override
    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        return await self.store.commit(operations, expect=expect)

    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        return await self.store.get(topic, key, namespace=namespace)

    @override
    def list(
        self, topic: str, *, namespace: str = "default"
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Entry]]]:
        return self.store.list(topic, namespace=namespace)

    @override
    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        return await self.store.snapshot(request, snapshot)

    @override
    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self.store.changes(after)

    @override
    async def compact(self, index: int) -> None:
        await self.store.compact(index)


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
        assert isinstance(after, int)  # the feed asks by index
        return self._changes(after)

    @asynccontextmanager
    async def _changes(self, after: int) -> AsyncIterator[AsyncIterator[Commit]]:
        self.rounds += 1
        self._asked.set()
        self._asked = anyio.Event()
        self.enter(after)
        async with self.store.changes(after) as commits:
            yield Steps(lambda: self.step(commits, after))

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
    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
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
