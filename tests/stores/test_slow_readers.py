"""Who is slow while a whole topic is read holds nothing that others need: no transaction, connection or slot."""

import errno
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.lowlevel
import pytest
from interruptions import after, drives
from proof import amount
from stores.connections import Connections
from stores.storehouse import ALL_JOBS, PATIENCE, Sink, open_at, put, sql, state
from typing_extensions import override

from trio_stream import ClosedResourceError, Event, SubscribeRequest
from trio_stream.stores import Entry, Put, Record, Store, StoreError

pytestmark = pytest.mark.anyio

MANY = 3000  # rows; several pages
LARGE = 12_000  # rows; more than one call of a worker thread reads
READERS = 100
ROWS = 1100  # what each of them is to read: two pages
STEPS = range(0, 60, amount(3, 1))  # turns of the loop before the cancellation

TEMPORARY_FILE = tempfile.TemporaryFile


async def fill(store: Store, rows: int = MANY, namespace: str = "default") -> None:
    await store.commit([Put("jobs", f"{n:05}", n, namespace) for n in range(rows)])


class Stalled(Sink):
    """Says when it has been given something, and never returns."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = anyio.Event()

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        self.reached.set()
        await anyio.sleep_forever()
        return False


async def stall(store: Store, reached: anyio.Event) -> None:
    """As `Stalled`, in a list."""
    async with store.list("jobs") as entries:
        await anext(entries)
        reached.set()
        await anyio.sleep_forever()


@asynccontextmanager
async def stalled_readers(store: Store, count: int) -> AsyncIterator[None]:
    """Half of them take a snapshot, half a list; all of them have begun."""
    async with anyio.create_task_group() as tasks:
        begun: list[anyio.Event] = []
        for number in range(count):
            if number % 2:
                begun.append(anyio.Event())
                tasks.start_soon(stall, store, begun[-1])
            else:
                sink = Stalled()
                begun.append(sink.reached)
                tasks.start_soon(store.snapshot, ALL_JOBS, sink)
        with anyio.fail_after(PATIENCE):
            for each in begun:
                await each.wait()
        yield
        tasks.cancel_scope.cancel()


class Temporary:
    """The temporary files that are made."""

    def __init__(self) -> None:
        self.files: list[IO[bytes]] = []

    def make(self, *arguments: Any, **options: Any) -> IO[bytes]:
        self.files.append(TEMPORARY_FILE(*arguments, **options))
        return self.files[-1]

    @property
    def open(self) -> list[IO[bytes]]:
        return [file for file in self.files if not file.closed]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(os.fstat(file.fileno()).st_size for file in self.open)

    async def grown_to(self, size: int) -> None:
        """What is copied has come so far."""
        with anyio.fail_after(PATIENCE):
            while self.size < size:
                await anyio.lowlevel.checkpoint()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Temporary:
    files = Temporary()
    monkeypatch.setattr(tempfile, "TemporaryFile", files.make)
    return files


async def test_the_write_ahead_log_does_not_grow_for_a_stalled_reader(store: Store, path: Path) -> None:
    """U6: SQLite begins it anew at 4 MB, unless a transaction goes on."""
    await fill(store, LARGE)
    log = path.with_name(f"{path.name}-wal")
    largest = 0
    async with stalled_readers(store, 2):
        for number in range(amount(300, 3000)):
            await store.commit([Put("other", f"{number % 100}", "x" * 20_000)])
            largest = max(largest, log.stat().st_size)
    assert largest < 6_000_000


async def test_stalled_readers_hold_up_nobody(store: Store, connections: Connections) -> None:
    """U6, D10: neither other readers nor writers, however many they are."""
    await fill(store, ROWS)
    async with stalled_readers(store, READERS):
        with anyio.fail_after(PATIENCE):
            sink = Sink()
            assert await store.snapshot(ALL_JOBS, sink) == 1
            assert len(sink.events) == ROWS
            assert len(await state(store)) == ROWS
            assert await store.commit([put("a")]) == 2
            await store.compact(2)
            assert (await store.head()).floor == 2
        assert connections.open < 10


async def test_stalled_readers_of_much_hold_up_nobody(store: Store, connections: Connections) -> None:
    """U6: neither while the rest is copied for them, nor after that."""
    await fill(store, LARGE)
    async with stalled_readers(store, 12):
        with anyio.fail_after(PATIENCE):
            assert len(await state(store)) == LARGE
        assert connections.open < 10


async def test_stalled_readers_share_a_file(store: Store, temporary: Temporary) -> None:
    await fill(store, ROWS)
    async with stalled_readers(store, READERS):
        assert len(temporary.open) == 1
    assert temporary.open == []


async def test_what_fits_a_page_needs_no_file_and_no_connection(
    store: Store, connections: Connections, temporary: Temporary
) -> None:
    await fill(store, 100)
    await state(store)
    connections.made = 0
    async with stalled_readers(store, 10):
        await state(store)
        assert connections.open <= 8
    for _ in range(10):
        await store.snapshot(ALL_JOBS, Sink())
    assert connections.made <= 8
    assert temporary.files == []


async def test_what_is_small_does_not_wait_for_what_is_copied(store: Store) -> None:
    """However many large scans have begun."""
    await fill(store, 10, "small")
    await fill(store, 20_000)
    done: list[str] = []

    async def read(namespace: str) -> None:
        await store.snapshot(SubscribeRequest(ALL_JOBS.topic, namespace=namespace), Sink())
        done.append(namespace)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(read, "default")
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(read, "small")
    assert done[0] == "small"


async def test_slow_readers_get_every_row_as_of_the_index_at_which_they_began(
    store: Store, temporary: Temporary
) -> None:
    """In whatever order they read and leave, and whatever is committed in between."""
    chance = random.Random(1)
    sizes = {"one": 1, "page": 1024, "two": 1025, "more": 5000, "large": LARGE}
    for namespace, rows in sizes.items():
        await fill(store, rows, namespace)
    async with AsyncExitStack() as stack:
        readers: list[tuple[str, AsyncIterator[tuple[str, Entry]], list[tuple[str, Any]]]] = []
        for namespace in [*sizes] * 2:
            entries = await stack.enter_async_context(store.list("jobs", namespace=namespace))
            readers.append((namespace, entries, []))
            await store.commit([Put("jobs", "00000", "later", name) for name in sizes])
        for namespace, entries, seen in readers[5:]:
            await store.commit([Put("jobs", "00000", namespace, namespace)])
            seen.append(("00000", (await anext(entries))[1].value))
            assert seen == [("00000", "later")]
        reading = list(readers)
        while reading:
            reader = chance.choice(reading)
            for _ in range(chance.randrange(3000)):
                try:
                    key, entry = await anext(reader[1])
                except StopAsyncIteration:
                    reading.remove(reader)
                    break
                reader[2].append((key, entry.value))
        for namespace, _, seen in readers:
            assert [key for key, _ in seen] == [f"{n:05}" for n in range(sizes[namespace])]
            assert [value for _, value in seen[1:]] == list(range(1, sizes[namespace]))
    assert temporary.open == []


async def test_a_stalled_reader_does_not_keep_the_space_of_those_that_come_and_go(
    store: Store, temporary: Temporary
) -> None:
    await store.commit([put(f"{n}", "x" * 600_000) for n in range(8)])
    async with store.list("jobs"):
        await temporary.grown_to(3_600_000)
        before = temporary.size
        for _ in range(2):
            async with store.list("jobs"):
                await temporary.grown_to(before + 3_600_000)
            assert temporary.size < before + 1_000_000


class Stubborn:
    """A file that cannot be made shorter."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def truncate(self, size: int) -> None:
        raise OSError(errno.EIO, f"cannot be cut to {size}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


async def test_space_that_cannot_be_given_back_is_no_trouble_and_leaves_no_file(
    store: Store, temporary: Temporary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda *args, **options: Stubborn(temporary.make(*args, **options))
    )
    await fill(store, LARGE)
    for _ in range(2):
        async with store.list("jobs") as stalled:
            await anext(stalled)
            async with store.list("jobs") as entries:
                assert len([key async for key, _ in entries]) == LARGE
    assert temporary.files
    assert temporary.open == []


async def test_who_has_read_everything_keeps_no_temporary_file(store: Store, temporary: Temporary) -> None:
    await fill(store)
    async with store.list("jobs") as entries:
        assert len([key async for key, _ in entries]) == MANY
        assert len(temporary.files) == 1
        assert temporary.open == []
        with pytest.raises(StopAsyncIteration):
            await anext(entries)


@pytest.mark.parametrize("key", ["00000", "00300", "02999"])
async def test_a_damaged_value_comes_as_itself_and_ends_the_scan(store: Store, path: Path, key: str) -> None:
    await fill(store)
    sql(path, f"UPDATE ts_state SET value = 'not json' WHERE key = '{key}'")
    with pytest.raises(StoreError, match="a value of commit 1 is not JSON"):
        await store.snapshot(ALL_JOBS, Sink())
    async with store.list("jobs") as entries:
        with pytest.raises(StoreError, match="a value of commit 1 is not JSON"):
            async for found, _ in entries:
                assert found < key
        with pytest.raises(ClosedResourceError):
            await anext(entries)
    assert len(await keys_until_it_fails(store)) == int(key) // 1024 * 1024


async def keys_until_it_fails(store: Store) -> list[str]:
    """What a list gives before it fails."""
    keys: list[str] = []
    with pytest.raises(StoreError):
        async with store.list("jobs") as entries:
            async for found, _ in entries:
                keys.append(found)
    return keys


@pytest.mark.parametrize("key", ["02900", "11000"])
async def test_an_error_while_the_rest_is_copied_comes_as_itself_after_the_rows(
    store: Store, path: Path, connections: Connections, key: str
) -> None:
    await fill(store, LARGE)
    sql(path, f"UPDATE ts_state SET value = CAST(x'ff' AS TEXT) WHERE key = '{key}'")
    for _ in range(3):
        with pytest.raises(StoreError, match=f"{path}: .*UTF-8"):
            await store.snapshot(ALL_JOBS, Sink())
        assert await keys_until_it_fails(store) == [f"{n:05}" for n in range(int(key) // 1024 * 1024)]
    assert connections.open < 10


async def test_without_a_place_for_temporary_files_what_is_large_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
) -> None:
    await fill(store, 10, "small")
    await fill(store)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(StoreError, match=f"{path}: a temporary file in .*missing.*: No such file"):
        await store.snapshot(ALL_JOBS, Sink())
    await store.snapshot(SubscribeRequest(ALL_JOBS.topic, namespace="small"), Sink())
    monkeypatch.undo()
    assert len(await state(store)) == MANY


@pytest.mark.slow
async def test_a_scan_that_is_cancelled_anywhere_leaves_nothing(
    path: Path, connections: Connections, temporary: Temporary
) -> None:
    """D12, D13: no connection, no temporary file, and the places of others."""
    async with open_at(path) as store:
        await fill(store, LARGE)

        async def read() -> None:
            await state(store)

        async def take() -> None:
            await store.snapshot(ALL_JOBS, Sink())

        calls: list[Callable[[], Any]] = [read, take]
        for call, drive in product(calls, drives()):
            for steps in STEPS:
                await drive(call, after(steps))
                assert temporary.open == []
        assert len(await state(store)) == LARGE
        assert connections.open <= 4
    assert connections.open == 0
