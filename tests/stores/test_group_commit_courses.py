"""Commits of many tasks while the lock, the disk and the tasks themselves have trouble, at random but repeatable."""

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from interruptions import on_asyncio
from proof import amount
from stores.connections import tapped
from stores.storehouse import PATIENCE, open_at, put, state

from trio_stream.stores import Name, Store, StoreError

pytestmark = pytest.mark.anyio

COURSES = range(amount(30, 300))


class Trouble:
    """What SQLite fails at."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._busy, self._full = self._chance.choice([(0.0, 0.0), (0.5, 0.0), (0.8, 0.1), (0.0, 0.2)])

    def fail(self, sql: str, _: tuple[Any, ...]) -> None:
        """As `Tap.fail`."""
        if sql == "BEGIN IMMEDIATE" and self._chance.random() < self._busy:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        if sql.startswith("INSERT OR REPLACE") and self._chance.random() < self._full / 3:
            raise sqlite3.OperationalError("database or disk is full")
        if sql == "COMMIT" and self._chance.random() < self._full:
            raise sqlite3.OperationalError("disk I/O error")


class Course:
    """Some tasks, each with a commit of its own and perhaps cancelled; what each of them knows."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._chance = random.Random(seed)
        self.indexes: dict[str, int] = {}
        self.refused: set[str] = set()
        self.cancelled: set[str] = set()

    async def run(self, *, natively: bool) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(self._chance.choice([2, 5, 40])):
                turns = self._chance.choice([-1, 0, self._chance.randrange(40)])
                tasks.start_soon(self._cancel_natively if natively else self._cancel, f"{number}", turns)
                for _ in range(self._chance.choice([0, 0, 3])):
                    await anyio.lowlevel.checkpoint()

    async def _commit(self, key: str) -> None:
        try:
            self.indexes[key] = await self._store.commit([put(key)], expect={Name("jobs", key): 0})
        except StoreError:
            self.refused.add(key)
        except anyio.get_cancelled_exc_class():
            self.cancelled.add(key)
            raise

    async def _cancel(self, key: str, turns: int) -> None:
        """After so many turns of the loop; not at all if it is below 0."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._commit, key)
            if turns >= 0:
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

    async def _cancel_natively(self, key: str, turns: int) -> None:
        task = asyncio.ensure_future(self._commit(key))
        if turns >= 0:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            task.cancel()
        await asyncio.wait([task])


async def check(path: Path, seed: int, *, natively: bool) -> None:
    with pytest.MonkeyPatch.context() as patch, tapped(patch) as tap:
        async with open_at(path, busy_timeout=random.Random(seed).choice([0, 1e6])) as store:
            tap.fail = Trouble(seed).fail
            course = Course(store, seed)
            with anyio.fail_after(PATIENCE):
                await course.run(natively=natively)
            tap.fail = lambda _sql, _parameters: None
            kept = await state(store)
            known = set(course.indexes)
            assert known <= set(kept) <= known | (course.cancelled if natively else set())
            assert not course.refused & set(kept)
            assert (await store.head()).index == len(kept)
            for key, index in course.indexes.items():
                entry = await store.get("jobs", key)
                assert entry is not None
                assert entry.index == index
            assert await store.commit([put("last")]) == len(kept) + 1


async def test_each_commit_is_made_once_or_not_at_all_and_its_task_knows(tmp_path: Path) -> None:
    for seed in COURSES:
        await check(tmp_path / f"{seed}.db", seed, natively=False)


@on_asyncio
async def test_who_is_cancelled_natively_has_made_one_commit_or_none(tmp_path: Path) -> None:
    for seed in COURSES:
        await check(tmp_path / f"{seed}.db", seed, natively=True)
