"""Row: the log of the SQLite store is read again, by itself and for a subscriber who comes back."""

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import anyio

from trio_stream import SubscribeRequest
from trio_stream.stores import open_store, open_store_publisher, topic

from . import by_hand
from .row import Aim, Figure, Load, Row, Sample
from .rows_bulk import PEAK, TOPIC, fill_log, reset_peak, status_of

FIRST = 1  # the commit that whoever reads has already: without one a subscriber asks for a snapshot


async def read_changes(url: str) -> Sample:
    """All commits of the store behind the first one."""
    async with open_store(url) as store:
        newest = await store.head()
        measure = Measure(newest.index)
        async with store.changes(FIRST) as changes:
            async for commit in changes:
                measure.count += 1
                if commit.index == newest.index:
                    break
        return measure.sample()


async def read_replay(url: str) -> Sample:
    """The same as a subscriber of a publisher that has none of them in its history."""
    async with open_store(url) as store, open_store_publisher(store, [TOPIC]) as publisher:
        async with store.changes(0) as changes:
            first = await anext(changes)
        assert first.index == FIRST
        request = SubscribeRequest(topic(TOPIC), index=FIRST, epoch=publisher.epoch, mark=first.mark)
        measure = Measure(publisher.index)
        async with publisher.subscribe(request) as subscription:
            async for event in subscription:
                measure.count += 1
                if event.index == publisher.index:
                    break
        return measure.sample()


class Measure:
    """What it is to read so many commits but the first; by the wall clock: a store reads in other threads."""

    def __init__(self, newest: int) -> None:
        self.count = 0
        self._expected = newest - FIRST
        self._memory = reset_peak()
        self._begin = perf_counter()

    def sample(self) -> Sample:
        seconds = perf_counter() - self._begin
        assert self.count == self._expected
        return {"rate": self.count / seconds, "peak": max(0.0, status_of(PEAK) - self._memory)}


def from_store(backend: str, read: Callable[[str], Awaitable[Sample]], load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        fill_log(path, load.n)
        return anyio.run(read, f"sqlite:{path}", backend=backend)


def from_select(take: Callable[..., object], load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        fill_log(path, load.n)
        with by_hand.connected(path) as connection:
            measure = Measure(load.n)
            measure.count = by_hand.read_log(connection, FIRST, take)
            return measure.sample()


FIGURES = (Figure("rate", "commits/s", more_is_better=True), Figure("peak", "MB more in use at the peak"))
SELECT, BARE = "SELECT and json.loads", "SELECT"
OBJECTS = "SELECT, json.loads and the objects that a reader gets"

ROWS = (
    Row(
        "store-replay",
        "The log of the SQLite store, with so many commits of one put, is read again",
        FIGURES,
        {
            "a publisher's subscriber who resumes, on trio": partial(from_store, "trio", read_replay),
            "a publisher's subscriber who resumes, on asyncio": partial(from_store, "asyncio", read_replay),
            "Store.changes, on trio": partial(from_store, "trio", read_changes),
            OBJECTS: partial(from_select, by_hand.delivered),
            SELECT: partial(from_select, by_hand.decoded),
            BARE: partial(from_select, by_hand.as_it_is),
        },
        (200_000,),
        (2_000,),
        counts="commits",
        baseline=SELECT,
        aims=(
            Aim(
                "rate",
                "a publisher's subscriber who resumes, on trio",
                200_000,
                at_least=0.5,
                versus=SELECT,
            ),
            Aim("rate", "Store.changes, on trio", 200_000, at_least=0.5, versus=SELECT),
            Aim(
                "rate",
                "a publisher's subscriber who resumes, on trio",
                200_000,
                at_least=0.5,
                versus=OBJECTS,
            ),
        ),
        rounds=2,
    ),
)
