"""Rows: many records in the SQLite store: imported, read as one snapshot, and what a publisher's start then takes."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import anyio
import anyio.lowlevel
from typing_extensions import override

from trio_stream import Event, SnapshotAppender, SubscribeRequest
from trio_stream.stores import Put, Record, Store, open_store, open_store_publisher, topic

from . import by_hand
from .row import Aim, Figure, Load, Row, Sample
from .timing import settle

TOPIC = "values"
BATCH = 1_000  # records of one commit
PEAK, MEMORY = "VmHWM", "VmRSS"


def _records(count: int) -> Iterator[tuple[str, dict[str, object]]]:
    return ((f"key-{number:08}", {"number": number, "name": f"record {number}"}) for number in range(count))


def _lines(count: int) -> Iterator[bytes]:
    return (b"%s\n" % json.dumps({"key": key, "value": value}).encode() for key, value in _records(count))


def status_of(name: str) -> float:
    """MB of this process; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def reset_peak() -> float:
    """The peak is from now on; what is in use now, MB."""
    settle()
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5")
    return status_of(MEMORY)


async def _commit_lines(store: Store, lines: Iterable[bytes]) -> None:
    records = map(json.loads, lines)
    while some := list(islice(records, BATCH)):
        await store.commit([Put(TOPIC, record["key"], record["value"]) for record in some])


async def _import(path: Path, file: Path) -> float:
    async with open_store(f"sqlite:{path}") as store:
        begin = perf_counter()
        with file.open("rb") as lines:
            await _commit_lines(store, lines)
        return perf_counter() - begin


def import_by_commits(path: Path, file: Path) -> float:
    return anyio.run(_import, path, file, backend="trio")


def import_by_command(path: Path, file: Path) -> float:
    store = f"sqlite:{path}"
    command = [sys.executable, "-m", "trio_stream", "--store", store, "import", TOPIC, str(file)]
    begin = perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - begin


def import_by_hand(path: Path, file: Path) -> float:
    by_hand.create(path)
    with by_hand.connected(path) as connection, file.open("rb") as lines:
        begin = perf_counter()
        by_hand.load_lines(connection, TOPIC, lines, BATCH)
        return perf_counter() - begin


def importing(do: Callable[[Path, Path], float], load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path, file = Path(directory) / "bench.db", Path(directory) / "records.ndjson"
        with file.open("wb") as target:
            target.writelines(_lines(load.n))
        settle()
        seconds = do(path, file)
    return {"rate": load.n / seconds}


def fill_log(path: Path, count: int) -> None:
    """With so many commits of one put."""
    by_hand.create(path)
    with by_hand.connected(path, "OFF") as connection:
        by_hand.load_log(connection, TOPIC, count)


async def _fill_state(path: Path, count: int) -> None:
    async with open_store(f"sqlite:{path}", synchronous="OFF") as store:
        await _commit_lines(store, _lines(count))


async def measure_start(url: str) -> Sample:
    async with open_store(url) as store:
        await store.head()
        memory = reset_peak()
        begin = perf_counter()
        async with open_store_publisher(store, [TOPIC]):
            took = perf_counter() - begin
            return {"took": took * 1e3, "memory": max(0.0, status_of(MEMORY) - memory)}


async def measure_head(url: str) -> Sample:
    async with open_store(url) as store:
        await store.head()
        memory = reset_peak()
        begin = perf_counter()
        await store.head()
        return {"took": (perf_counter() - begin) * 1e3, "memory": max(0.0, status_of(MEMORY) - memory)}


def starting(
    fill: Callable[[Path, int], None], measure: Callable[[str], Awaitable[Sample]], load: Load
) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        fill(path, load.n)
        return anyio.run(measure, f"sqlite:{path}", backend="trio")


class _Counter(SnapshotAppender[Record]):
    """Keeps nothing."""

    def __init__(self) -> None:
        self.count = 0

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        self.count += sum(1 for _ in events)
        await anyio.lowlevel.checkpoint()
        return True


async def _read_snapshot(path: Path) -> int:
    counter = _Counter()
    async with open_store(f"sqlite:{path}") as store:
        await store.snapshot(SubscribeRequest(topic(TOPIC)), counter)
    return counter.count


async def _subscribe(path: Path) -> int:
    """The first subscriber of a publisher that starts; the snapshot is kept until it has been read."""
    count = 0
    async with (
        open_store(f"sqlite:{path}") as store,
        open_store_publisher(store, [TOPIC], history=1) as publisher,
    ):
        async with publisher.subscribe(SubscribeRequest(topic(TOPIC))) as subscription:
            async for event in subscription:
                count += len(list(event.payloads))
                if event.is_end_of_snapshot:
                    return count
    raise AssertionError


def read(backend: str, work: Callable[[Path], Awaitable[int]]) -> Callable[[Path], int]:
    return lambda path: anyio.run(work, path, backend=backend)


def _read_by_hand(path: Path) -> int:
    with by_hand.connected(path) as connection:
        return by_hand.read_state(connection, TOPIC)


def _fill_by_hand(path: Path, count: int) -> None:
    by_hand.create(path)
    with by_hand.connected(path, "OFF") as connection:
        by_hand.load_lines(connection, TOPIC, _lines(count), BATCH)


def _fill(path: Path, count: int) -> None:
    anyio.run(_fill_state, path, count, backend="trio")


def reading(fill: Callable[[Path, int], None], work: Callable[[Path], int], load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        fill(path, load.n)
        memory = reset_peak()
        begin = perf_counter()
        count = work(path)
        seconds = perf_counter() - begin
        assert count == load.n
        return {"rate": count / seconds, "peak": max(0.0, status_of(PEAK) - memory)}


ROWS = (
    Row(
        "store-import",
        f"Records of an NDJSON file into the SQLite store, {BATCH:,} in each commit",
        (Figure("rate", "records/s", more_is_better=True),),
        {
            "Store.commit, on trio": partial(importing, import_by_commits),
            "trio-stream import, a process": partial(importing, import_by_command),
            "by hand": partial(importing, import_by_hand),
        },
        (200_000,),
        (2_000,),
        counts="records",
        baseline="by hand",
        rounds=3,
    ),
    Row(
        "store-start",
        "A publisher of the SQLite store starts, with a log of so many commits of one put",
        (Figure("took", "ms"), Figure("memory", "MB more in use")),
        {
            "open_store_publisher": partial(starting, fill_log, measure_start),
            "Store.head": partial(starting, fill_log, measure_head),
        },
        (10_000, 1_000_000),
        (500,),
        counts="commits",
        aims=(
            Aim("took", "open_store_publisher", 1_000_000, at_most=50),
            Aim("memory", "open_store_publisher", 1_000_000, at_most=20),
        ),
        rounds=2,
    ),
    Row(
        "store-start-import",
        f"A publisher of the SQLite store starts, after so many records were imported, {BATCH:,} in each commit",
        (Figure("took", "ms"), Figure("memory", "MB more in use")),
        {
            "open_store_publisher": partial(starting, _fill, measure_start),
            "Store.head": partial(starting, _fill, measure_head),
        },
        (200_000,),
        (2_000,),
        counts="records",
        aims=(
            Aim("took", "open_store_publisher", 200_000, at_most=50),
            Aim("memory", "open_store_publisher", 200_000, at_most=20),
        ),
        rounds=2,
    ),
    Row(
        "store-snapshot",
        "The state of so many keys out of the SQLite store",
        (
            Figure("rate", "keys/s", more_is_better=True),
            Figure("peak", "MB more in use at the peak"),
        ),
        {
            "Store.snapshot, on trio": partial(reading, _fill, read("trio", _read_snapshot)),
            "Store.snapshot, on asyncio": partial(reading, _fill, read("asyncio", _read_snapshot)),
            "a publisher's first subscriber, on trio": partial(reading, _fill, read("trio", _subscribe)),
            "by hand": partial(reading, _fill_by_hand, _read_by_hand),
        },
        (1_000_000,),
        (2_000,),
        counts="keys",
        baseline="by hand",
        aims=(
            Aim("rate", "Store.snapshot, on trio", 1_000_000, at_least=0.5, versus="by hand"),
            Aim("peak", "Store.snapshot, on trio", 1_000_000, at_most=64),
        ),
        rounds=2,
    ),
)
