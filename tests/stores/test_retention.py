"""Whoever commits forgets what the retention says, in small steps: the log stays short without `compact`."""

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from stores.connections import tapped
from stores.storehouse import commit_each, open_at, put, sql, state

from trio_stream import Cursor
from trio_stream.stores import HistoryLostError, Retention, Store

pytestmark = pytest.mark.anyio


class Clock:
    """The one that commits are dated by, set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is forgotten in a transaction depends on the number of rows only, and not on the machine."""
    monkeypatch.setattr("trio_stream.stores._sqlite_retention._SECONDS", 60.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock.time)
    return clock


def retaining(path: Path, retention: Retention | None = None) -> AbstractAsyncContextManager[Store]:
    return open_at(path, retention=retention, synchronous="OFF")


async def commit_many(store: Store, count: int) -> None:
    for n in range(count):
        await store.commit([put(f"{n % 10}", n)])


def rows(path: Path) -> int:
    ((count,),) = sql(path, "SELECT count(*) FROM ts_log")
    return int(count)


async def test_a_log_keeps_about_as_many_commits_as_it_may(path: Path) -> None:
    async with retaining(path, Retention(commits=50)) as store:
        await commit_many(store, 200)
        head = await store.head()
        assert 50 <= head.index - head.floor < 50 + 64
        assert rows(path) == head.index - head.floor
        assert len(await state(store)) == 10


async def test_cursors_below_are_lost_and_those_above_are_good(path: Path) -> None:
    async with retaining(path, Retention(commits=50)) as store:
        await commit_many(store, 20)
        early = (await store.head()).cursor
        await commit_many(store, 150)
        late = (await store.head()).cursor
        await commit_many(store, 30)
        with pytest.raises(HistoryLostError):
            async with store.changes(early):
                pass
        async with store.changes(late) as commits:
            assert (await anext(commits)).index == 171


async def test_the_mark_of_the_floor_is_kept(path: Path) -> None:
    cursors = {}
    async with retaining(path, Retention(commits=10)) as store:
        for n in range(200):
            index: Any = await store.commit([put("a", n)])
            cursors[int(index)] = index.cursor
        head = await store.head()
        async with store.changes(cursors[head.floor]) as commits:
            assert (await anext(commits)).index == head.floor + 1
        with pytest.raises(HistoryLostError):
            async with store.changes(Cursor(head.floor, head.epoch, "0" * 16)):
                pass


async def test_a_log_may_keep_nothing(path: Path) -> None:
    async with retaining(path, Retention(commits=0)) as store:
        await commit_each(store, "a")
        head = await store.head()
        assert (head.index, head.floor) == (1, 1)
        assert head.mark != ""
        await commit_each(store, "b")
        assert (await store.head()).index == 2


async def test_old_commits_are_forgotten(path: Path, clock: Clock) -> None:
    async with retaining(path, Retention(age=timedelta(hours=1))) as store:
        for _ in range(200):
            await commit_many(store, 1)
            clock.now += 60
        head = await store.head()
        # An hour, and what was committed since it was looked at last.
        assert 60 <= head.index - head.floor < 60 + 64


async def test_young_commits_are_kept_when_the_clock_is_set_back(path: Path, clock: Clock) -> None:
    async with retaining(path, Retention(age=3600)) as store:
        await commit_many(store, 100)
        clock.now -= 1_000_000
        await commit_many(store, 200)
        clock.now += 1_000_000 + 1800
        await commit_many(store, 200)
        assert (await store.head()).floor == 0
        times = [at for (at,) in sql(path, "SELECT at FROM ts_log ORDER BY idx")]
        assert times == sorted(times)
        clock.now += 3600
        await commit_many(store, 100)
        assert (await store.head()).floor >= 300


async def test_of_both_the_stricter_one_holds(path: Path, clock: Clock) -> None:
    async with retaining(path, Retention(commits=100, age=3600)) as store:
        await commit_many(store, 200)
        head = await store.head()
        assert 100 <= head.index - head.floor < 100 + 64
        clock.now += 7200
        await commit_many(store, 80)
        head = await store.head()
        assert head.index - head.floor <= 80


async def test_a_long_log_is_shortened_in_small_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the floor is where it should be from the first one on."""
    async with retaining(path) as store:
        await commit_many(store, 300)
    monkeypatch.setattr("trio_stream.stores._sqlite_retention._SECONDS", 0.0)
    left = []
    with tapped(monkeypatch) as tap:
        async with retaining(path, Retention(commits=10)) as store:
            for _ in range(4):
                await commit_many(store, 64)
                left.append(rows(path))
            head = await store.head()
            assert head.index - head.floor <= 10 + 64
        assert tap.count("DELETE FROM ts_log") <= 6
    assert left == sorted(left, reverse=True)
    assert left[0] > 290
    assert all(before - after <= 64 for before, after in pairwise(left))


async def test_the_file_gives_its_space_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_stream.stores._sqlite_retention._MOST_FREE", 10)
    async with retaining(path) as store:
        for n in range(20):
            await store.commit([put("a", f"{n}" + "x" * 100_000)])
    before = sql(path, "PRAGMA page_count")[0][0]
    async with retaining(path, Retention(commits=5)) as store:
        for _ in range(4):
            await commit_many(store, 64)
    assert sql(path, "PRAGMA page_count")[0][0] < before - 150


async def test_ids_are_forgotten_with_their_commits(path: Path, clock: Clock) -> None:
    async with retaining(path, Retention(commits=10)) as store:
        for n in range(200):
            await store.commit([put("a", n)], id=uuid4())
        assert sql(path, "SELECT count(*) FROM ts_ids") == [(200,)]
        clock.now += 601
        await commit_many(store, 64)
        assert sql(path, "SELECT count(*) FROM ts_ids") == [(0,)]


async def test_without_a_retention_nothing_is_forgotten(store: Store) -> None:
    await commit_many(store, 70)
    assert (await store.head()).floor == 0


async def test_a_damaged_log_does_not_keep_anybody_from_committing(path: Path) -> None:
    async with retaining(path) as store:
        await commit_many(store, 150)
    sql(path, "DELETE FROM ts_log WHERE idx BETWEEN 60 AND 140", "UPDATE ts_log SET at = 'x' WHERE idx < 50")
    async with retaining(path, Retention(commits=100, age=1e9)) as store:
        await commit_many(store, 200)
        assert (await store.head()).index == 350


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"commits": -1}, ValueError),
        ({"commits": 1.5}, TypeError),
        ({"commits": True}, TypeError),
        ({"age": -1}, ValueError),
        ({"age": float("nan")}, ValueError),
        ({"age": float("inf")}, ValueError),
        ({"age": timedelta(-1)}, ValueError),
        ({"age": "1h"}, TypeError),
        ({"age": True}, TypeError),
    ],
)
def test_a_retention_that_makes_no_sense(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Retention(**options)


def test_a_store_takes_a_retention_only(path: Path) -> None:
    with pytest.raises(TypeError, match="retention"):
        open_at(path, retention=100)


def test_an_age_is_a_time_or_seconds() -> None:
    assert Retention(age=timedelta(minutes=1)).seconds == Retention(age=60).seconds == 60.0
    assert Retention().seconds == float("inf")
