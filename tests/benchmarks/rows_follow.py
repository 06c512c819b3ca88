"""Rows: a process that follows the commits of others through the SQLite store, by the wall clock."""

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time

import anyio

from trio_stream import EventPublisher, SubscribeRequest, Subscription
from trio_stream.stores import Record, open_store, open_store_publisher, topic

from .processes import ENVIRONMENT, command
from .row import Aim, Figure, Load, Row, Sample
from .store_writer import TOPIC
from .timing import settle

PACED = 200  # commits, one every PACE
PACE = 0.005  # seconds
HOT = 2  # processes that commit as fast as they can to another topic


@asynccontextmanager
async def _subscribed(url: str) -> AsyncIterator[tuple[EventPublisher, Subscription[Record]]]:
    """To what comes."""
    async with open_store(url) as store, open_store_publisher(store, [TOPIC]) as publisher:
        now = publisher.cursor
        request = SubscribeRequest(topic(TOPIC), index=now.index, epoch=now.epoch, mark=now.mark)
        async with publisher.subscribe(request) as subscription:
            yield publisher, subscription


async def latency(url: str, commits: int, pace: float) -> list[float]:
    """Seconds from each commit of another process until it is received here."""
    took: list[float] = []
    async with _subscribed(url) as (_, subscription):
        writer = command("store_writer", url, commits, pace)
        async with await anyio.open_process(writer, stdout=None, stderr=None, env=ENVIRONMENT):
            async for event in subscription:
                for record in event.payloads:
                    assert isinstance(record.value, float)
                    took.append(perf_counter() - record.value)
                if len(took) == commits:
                    break
    return took


async def _idle(url: str, seconds: float) -> float:
    """Percent of a processor, while nobody commits."""
    async with _subscribed(url) as (_, subscription):
        settle()
        with anyio.move_on_after(seconds / 10):
            await subscription.receive()
        begin, before = perf_counter(), process_time()
        with anyio.move_on_after(seconds):
            await subscription.receive()
        return (process_time() - before) / (perf_counter() - begin) * 100


@contextmanager
def _writers(path: Path, count: int) -> Iterator[None]:
    """While so many processes commit all the time."""
    processes = [
        subprocess.Popen(
            command("store_committer", "trio", path, f"hot-{number}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        for number in range(count)
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.write(b"\n")
            process.stdin.flush()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def _create(url: str) -> None:
    async with open_store(url):
        pass


def idle(backend: str, load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:{Path(directory) / 'bench.db'}"
        return {"used": anyio.run(_idle, url, load.n, backend=backend)}


def after_quiet(backend: str, load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:{Path(directory) / 'bench.db'}"
        took = anyio.run(latency, url, load.n, min(1.0, 2 * load.seconds), backend=backend)
    return {"half": median(took) * 1e3}


def beside_writers(backend: str, load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        anyio.run(_create, f"sqlite:{path}", backend=backend)
        with _writers(path, HOT):
            took = anyio.run(latency, f"sqlite:{path}", load.n, PACE, backend=backend)
    cuts = quantiles(took, n=100)
    return {"half": cuts[49] * 1e3, "most": cuts[98] * 1e3}


ROWS = (
    Row(
        "store-idle",
        "A process that follows the SQLite store while nobody commits",
        (Figure("used", "% of a processor"),),
        {f"on {backend}": partial(idle, backend) for backend in ("trio", "asyncio")},
        (20,),
        (1,),
        counts="seconds",
        aims=(Aim("used", "on trio", 20, at_most=0.5), Aim("used", "on asyncio", 20, at_most=0.5)),
        rounds=2,
    ),
    Row(
        "store-first",
        "The first commit of another process after a second of quiet",
        (Figure("half", "ms until it is received, half of them"),),
        {f"on {backend}": partial(after_quiet, backend) for backend in ("trio", "asyncio")},
        (50,),
        (3,),
        counts="commits",
        aims=(Aim("half", "on trio", 50, at_most=10), Aim("half", "on asyncio", 50, at_most=10)),
        rounds=2,
    ),
    Row(
        "store-busy",
        f"Commits of another process, every 5 ms, beside {HOT} that commit all the time",
        (
            Figure("half", "ms until it is received, half of them"),
            Figure("most", "ms, 99 of 100 of them"),
        ),
        {f"on {backend}": partial(beside_writers, backend) for backend in ("trio", "asyncio")},
        (PACED,),
        (20,),
        counts="commits",
        rounds=3,
    ),
)
