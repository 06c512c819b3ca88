"""What tests of the stores share: short ways to a store on a file, and what readers make of it."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from typing_extensions import override

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Subscription
from trio_stream.stores import JSON, Commit, Put, Record, Store, open_store, topic

JOBS = topic("jobs")
ALL_JOBS = SubscribeRequest(JOBS)
PATIENCE = 20.0  # seconds after which what should have come will not come any more


def open_at(path: Path, **options: Any) -> AbstractAsyncContextManager[Store]:
    return open_store(f"sqlite:{path}", **options)


def put(key: str, value: JSON = "x") -> Put:
    return Put("jobs", key, value)


async def commit_each(store: Store, *keys: str) -> None:
    """One commit for each key, with the key as the value."""
    for key in keys:
        await store.commit([put(key, key)])


async def state(store: Store, name: str = "jobs") -> dict[str, JSON]:
    async with store.list(name) as entries:
        return {key: entry.value async for key, entry in entries}


async def take(commits: AsyncIterator[Commit], count: int) -> list[int]:
    """The indexes of the next commits, which must come."""
    with anyio.fail_after(PATIENCE):
        return [(await anext(commits)).index for _ in range(count)]


async def receive(subscription: Subscription[Record]) -> Event[Record]:
    """The next event, which must come."""
    with anyio.fail_after(PATIENCE):
        return await subscription.receive()


async def until_live(subscription: Subscription[Record]) -> list[Event[Record]]:
    """Everything up to and with end-of-snapshot."""
    events = [await receive(subscription)]
    while not events[-1].is_end_of_snapshot:
        events.append(await receive(subscription))
    return events


def kinds(events: Iterable[Event[Record]]) -> list[str]:
    """What a test compares: `marker`, `eos@7`, or `3:a=x+b-` for a commit that has put a and deleted b."""

    def kind(received: Event[Record]) -> str:
        if received.is_new_snapshot_to_follow:
            return "marker"
        if received.is_end_of_snapshot:
            return f"eos@{received.index}"
        records = (single.payload for single in received.events)
        texts = [
            f"{r.key}-" if r.is_delete else f"{r.key}={r.value}" for r in records if isinstance(r, Record)
        ]
        return f"{received.index}:" + "+".join(texts)

    return [kind(received) for received in events]


class Sink(SnapshotAppender[Record]):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event[Record]] = []
        self.groups: list[int] = []

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        group = list(events)
        self.groups.append(len(group))
        self.events += group
        await anyio.lowlevel.checkpoint()
        return True

    @property
    def records(self) -> list[tuple[int, Record]]:
        """Each with its index."""
        return [(event.index, event.payload) for event in self.events if isinstance(event.payload, Record)]


def sql(path: Path, *statements: str) -> list[Any]:
    """Does something to the file behind the store's back; returns the rows of the last statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows: list[Any] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def copy(source: Path, target: Path) -> Path:
    """A closed copy, as a backup makes it: `cp` would drop the locks that this process has on the file."""
    sql(source, f"VACUUM INTO '{target}'")
    return target


def python(code: str, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Another process."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], text=True, **options)


def on_another_system(patch: pytest.MonkeyPatch) -> None:
    """On one whose kernel does not tell of writes to a file: other commits are looked for, every `poll_interval`."""
    patch.setattr(sys, "platform", "another")
