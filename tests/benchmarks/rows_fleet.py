"""Rows: what one more process of a fleet costs, in processor time; "From one process to a fleet" reckons with them."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import process_time

import anyio
import anyio.lowlevel
from stores.postgresql.server import missing

from trio_stream import SubscribeRequest, open_publisher
from trio_stream.stores import open_store

from .ours import START, VALUES, commit, live, no_state
from .row import Figure, Load, Row, Sample
from .rows_bulk import MEMORY, status_of
from .rows_follow import latency
from .rows_postgresql import DURABLE, served
from .timing import seconds_each, settle

FAST, PACED = 0.0, 0.005  # seconds before each commit of the other process
FEW = 500  # readers, before memory is looked at for the first time


async def _publish(n: int, seconds: float, *, is_relayed: bool) -> Sample:
    async with (
        open_publisher({VALUES: no_state}, index=START, history=2 * n) as first,
        open_publisher({VALUES: no_state}, index=START, history=2 * n, epoch=first.epoch) as second,
        first.subscribe(SubscribeRequest(VALUES, index=START)) as subscription,
    ):
        settle()

        async def rounds(count: int) -> float:
            spent = 0.0
            for _ in range(count):
                begin = process_time()
                for _ in range(n):
                    first.publish(commit(first.index + 1))
                while is_relayed and second.index < first.index:
                    for event in await subscription.receive_batch():
                        second.publish(event.events, index=event.index, mark=event.mark)
                spent += process_time() - begin
                if not is_relayed:
                    await subscription.receive_batch()
            return spent

        return {"each": await seconds_each(rounds, seconds) / n * 1e6}


def publish(is_relayed: bool, load: Load) -> Sample:
    return anyio.run(partial(_publish, load.n, load.seconds, is_relayed=is_relayed), backend="trio")


async def _wait(n: int) -> Sample:
    """Readers who wait in `async for`, each in a task of its own."""
    async with (
        open_publisher({VALUES: no_state}, index=START) as publisher,
        anyio.create_task_group() as tasks,
    ):

        async def read() -> None:
            async with live(publisher) as subscription:
                async for _ in subscription:
                    pass

        async def start(count: int) -> float:
            for _ in range(count):
                tasks.start_soon(read)
            before = publisher.statistics().waiting
            while publisher.statistics().waiting < before + count:
                await anyio.lowlevel.checkpoint()
            gc.collect()
            return status_of(MEMORY)

        few = await start(FEW)
        many = await start(n)
        tasks.cancel_scope.cancel()
    return {"size": (many - few) * 1e3 * 1024 / n}


def wait(backend: str, load: Load) -> Sample:
    return anyio.run(_wait, load.n, backend=backend)


async def _follow(url: str, commits: int, pace: float) -> Sample:
    async with open_store(url):
        pass
    begin = process_time()
    await latency(url, commits, pace)
    return {"each": (process_time() - begin) / commits * 1e6}


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        yield f"sqlite:{Path(directory) / 'bench.db'}"


def follow_sqlite(pace: float, load: Load) -> Sample:
    with _sqlite() as url:
        return anyio.run(_follow, url, load.n, pace, backend="trio")


def follow_postgresql(pace: float, load: Load) -> Sample:
    with served(**DURABLE) as url:
        return anyio.run(_follow, url, load.n, pace, backend="trio")


ROWS = (
    Row(
        "fleet-relay",
        "A publisher that is fed by the subscription of another one, so many commits of one event at a time, on trio",
        (Figure("each", "us of the processor for each commit"),),
        {
            "publish, and a second publisher": partial(publish, True),
            "publish": partial(publish, False),
        },
        (1, 100, 1_000),
        (2,),
        counts="commits",
        baseline="publish",
    ),
    Row(
        "fleet-reader",
        "Memory of the process for readers who wait, each a task of its own",
        (Figure("size", "bytes for each"),),
        {f"on {backend}": partial(wait, backend) for backend in ("trio", "asyncio")},
        (20_000,),
        (100,),
    ),
    Row(
        "fleet-follow",
        "A publisher's process that follows a store, with one reader, on trio; another process commits",
        (Figure("each", "us of its processor for each commit"),),
        {
            "SQLite, as fast as it can": partial(follow_sqlite, FAST),
            "SQLite, every 5 ms": partial(follow_sqlite, PACED),
            "PostgreSQL, as fast as it can": partial(follow_postgresql, FAST),
            "PostgreSQL, every 5 ms": partial(follow_postgresql, PACED),
        },
        (2_000,),
        (20,),
        counts="commits",
        rounds=3,
        missing=missing,
    ),
)
