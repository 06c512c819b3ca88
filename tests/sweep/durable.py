"""The public async calls of stores, on a file of SQLite's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from stores.storehouse import ALL_JOBS, Sink, kinds, open_at, put, state, until_live
from sweep.driver import Scene, Setting

from trio_stream import Cursor
from trio_stream.stores import Commit, DescribedStore, PagedLog, Store, TopicLog, open_store_publisher

LAST = 5  # the newest commit in the end


class Keeper:
    """A store, and a task that commits one more whenever it is told to, up to the last."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self.store = store
        self._writing = anyio.Lock()
        self._sending, self._told = anyio.create_memory_object_stream[None](1000)

    def commit(self) -> None:
        self._sending.send_nowait(None)

    async def run(self) -> None:
        async for _ in self._told:
            await self.commit_one()

    async def commit_one(self) -> None:
        async with self._writing:
            index = (await self.store.head()).index
            if index < LAST:
                await self.store.commit([put("a", index + 1)])

    async def commit_the_rest(self) -> None:
        while (await self.store.head()).index < LAST:
            await self.commit_one()

    def close(self) -> None:
        self._sending.close()
        self._told.close()


@asynccontextmanager
async def kept(commits: int = 1) -> AsyncIterator[Keeper]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        async with open_at(path, synchronous="OFF") as store, anyio.create_task_group() as tasks:
            keeper = Keeper(path, store)
            with closing(keeper):
                for _ in range(commits):
                    await keeper.commit_one()
                tasks.start_soon(keeper.run)
                yield keeper
                tasks.cancel_scope.cancel()


async def topics(store: Store) -> Sequence[str]:
    return await store.topics()


async def revocations(store: Store) -> dict[str, int]:
    return {**(await store.revocations()).newest}


async def status(store: Store) -> int:
    assert isinstance(store, DescribedStore)
    return (await store.status()).head.index


async def page_of(store: Store) -> list[int]:
    assert isinstance(store, PagedLog)
    epoch = (await store.head()).epoch
    return [commit.index for commit in await store.page_of(ALL_JOBS, Cursor(0, epoch), upto=1)]


def asking(ask: Callable[[Store], Awaitable[object]], expected: object) -> Scene:
    """A call that changes nothing: its answer, and that the store goes on."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with kept() as keeper:
            answers: list[object] = []

            async def call() -> None:
                answers.append(await ask(keeper.store))

            async def check() -> None:
                assert answers == [expected]
                await keeper.commit_the_rest()
                assert await state(keeper.store) == {"a": LAST}

            yield Setting(settle=checkpoint, call=call, check=check)

    return scene


async def head(store: Store) -> int:
    return (await store.head()).index


async def get(store: Store) -> object:
    entry = await store.get("jobs", "a")
    return entry and entry.value


async def read_snapshot(store: Store) -> object:
    sink = Sink()
    index = await store.snapshot(ALL_JOBS, sink)
    return index, [record.value for _, record in sink.records]


@asynccontextmanager
async def committing() -> AsyncIterator[Setting]:
    """A commit that returns is made; natively one that was cancelled is made or not, but whole."""
    async with kept(0) as keeper:
        store = keeper.store
        returned: list[int] = []

        async def call() -> None:
            returned.append(await store.commit([put("a", len(returned)), put("b", len(returned))]))

        async def left() -> None:
            await store.commit([put("c")])
            index = (await store.head()).index
            found = await state(store)
            assert found.get("a") == found.get("b")
            async with store.changes(0) as commits:
                assert [(await anext(commits)).index for _ in range(index)] == list(range(1, index + 1))

        async def check() -> None:
            assert len(returned) == 1

        yield Setting(settle=checkpoint, call=call, left=left, check=check)


@asynccontextmanager
async def compacting() -> AsyncIterator[Setting]:
    async with kept(3) as keeper:

        async def call() -> None:
            await keeper.store.compact(2)

        async def check() -> None:
            assert (await keeper.store.head()).floor == 2
            await keeper.commit_the_rest()
            async with keeper.store.changes(2) as commits:
                assert [(await anext(commits)).index for _ in range(3)] == [3, 4, 5]

        yield Setting(settle=checkpoint, call=call, check=check)


def stepping(
    enter: Callable[[Store], Any], shown: Callable[[Any], object], expected: Sequence[object]
) -> Scene:
    """A step that is cancelled and made again gives what it would have given."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with kept() as keeper, enter(keeper.store) as steps:
            seen: list[object] = []

            async def call() -> None:
                while len(seen) < len(expected):
                    seen.append(shown(await anext(steps)))

            async def check() -> None:
                assert seen == list(expected)

            yield Setting(settle=checkpoint, call=call, wake=keeper.commit, check=check)

    return scene


def index_of(commit: Commit) -> int:
    return commit.index


def entering(enter: Callable[[Store], Any], shown: Callable[[Any], object], first: object) -> Scene:
    """Wherever it is cancelled, in its beginning, its block or its end."""

    @asynccontextmanager
    async def scene() -> AsyncIterator[Setting]:
        async with kept() as keeper:

            async def call() -> None:
                async with enter(keeper.store) as steps:
                    assert shown(await anext(steps)) == first

            async def check() -> None:
                await keeper.commit_the_rest()
                assert await state(keeper.store) == {"a": LAST}

            yield Setting(settle=checkpoint, call=call, check=check)

    return scene


def changes(store: Store) -> Any:
    return store.changes(0)


def changes_of(store: Store) -> Any:
    assert isinstance(store, TopicLog)
    return store.changes_of(frozenset({"jobs"}), 0)


def listing(store: Store) -> Any:
    return store.list("jobs")


@asynccontextmanager
async def opening() -> AsyncIterator[Setting]:
    """What was opened is closed: SQLite takes its log away with the last connection."""
    # Natively, a thread that makes the file may still be at it when the call has ended.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "jobs.db"

        async def call() -> None:
            async with open_at(path) as store:
                assert (await store.head()).index == 0

        async def left() -> None:
            while path.with_name("jobs.db-wal").exists():
                await anyio.to_thread.run_sync(lambda: None)

        yield Setting(settle=checkpoint, call=call, left=left)


@asynccontextmanager
async def publishing() -> AsyncIterator[Setting]:
    async with kept() as keeper:

        async def call() -> None:
            async with (
                open_store_publisher(keeper.store, ["jobs"]) as publisher,
                publisher.subscribe(ALL_JOBS) as subscription,
            ):
                events = await until_live(subscription)
                index = events[-1].index
                assert kinds(events) == [f"{index}:a={index}", f"eos@{index}"]
                await keeper.commit_the_rest()
                while subscription.index < LAST:
                    events.append(await subscription.receive())
                assert kinds(events[2:]) == [f"{n}:a={n}" for n in range(index + 1, LAST + 1)]

        yield Setting(settle=checkpoint, call=call, wake=keeper.commit)


@asynccontextmanager
async def copying() -> AsyncIterator[Setting]:
    """A list of several pages, the rest of which is copied beside its reader."""
    async with kept(0) as keeper:
        await keeper.store.commit([put(f"{n}", "x" * 600_000) for n in range(5)])

        async def call() -> None:
            async with keeper.store.list("jobs") as entries:
                assert [key async for key, _ in entries] == [f"{n}" for n in range(5)]

        async def check() -> None:
            await keeper.commit_the_rest()
            assert len(await state(keeper.store)) == 6

        yield Setting(settle=checkpoint, call=call, check=check)


STORES: dict[str, Any] = {
    "Store.head": asking(head, 1),
    "Store.get": asking(get, 1),
    "Store.topics": asking(topics, ["jobs"]),
    "Store.revocations": asking(revocations, {}),
    "DescribedStore.status": asking(status, 1),
    "PagedLog.page_of": asking(page_of, [1]),
    "TopicLog.changes_of": entering(changes_of, index_of, 1),
    "Store.snapshot": asking(read_snapshot, (1, [1])),
    "Store.list": entering(listing, lambda entry: entry[0], "a"),
    "a step of a large Store.list": copying,
    "Store.changes": entering(changes, index_of, 1),
    "a step of Store.changes": stepping(changes, index_of, [1, 2, 3]),
    "Store.commit": committing,
    "Store.compact": compacting,
    "open_store": opening,
    "open_store_publisher": publishing,
}
