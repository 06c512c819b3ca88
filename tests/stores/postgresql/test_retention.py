"""What of the log a store keeps by itself, with one commit in 64."""

from collections.abc import Sequence
from datetime import timedelta

import anyio
import pytest
from stores.postgresql.server import Server
from stores.storehouse import PATIENCE, commit_each

from trio_stream.stores import Retention, Store, open_store
from trio_stream.stores._postgresql_database import Database

pytestmark = pytest.mark.anyio


def log(server: Server, url: str) -> Sequence[int]:
    """The indexes of the rows that are there."""
    schema = url.partition("schema=")[2]
    return [index for (index,) in server.sql(f"SELECT idx FROM {schema}.ts_log ORDER BY idx")]


async def commit_many(store: Store, count: int) -> None:
    async with anyio.create_task_group() as tasks:
        for n in range(count):
            tasks.start_soon(commit_each, store, f"{n}")


async def test_the_newest_commits_are_kept(server: Server, url: str) -> None:
    async with open_store(url, retention=Retention(commits=10)) as store:
        await commit_each(store, *(f"{n}" for n in range(100)))
        head = await store.head()
        assert head.floor == 54  # as of commit 64
        assert log(server, url) == list(range(55, 101))
        async with store.changes(54) as commits:
            assert (await anext(commits)).index == 55
    async with open_store(
        url, retention=Retention(commits=10)
    ) as store:  # a process that makes but one commit
        await commit_each(store, "z")
        assert (await store.head()).floor == 91
        assert log(server, url) == list(range(92, 102))


async def test_what_is_older_is_forgotten(server: Server, url: str) -> None:
    schema = url.partition("schema=")[2]
    async with open_store(url) as store:
        await commit_many(store, 100)
    server.sql(f"UPDATE {schema}.ts_log SET at = at - interval '1 hour' WHERE idx <= 40")
    async with open_store(url, retention=Retention(age=timedelta(minutes=30))) as store:
        await commit_each(store, "z")
        assert (await store.head()).floor == 40
        assert log(server, url) == list(range(41, 102))


async def test_a_clock_that_was_ahead_makes_commits_stay(server: Server, url: str) -> None:
    """Times do not decrease: what comes after is as old as the newest seems, and nothing young is forgotten."""
    schema = url.partition("schema=")[2]
    async with open_store(url, retention=Retention(age=0.0)) as store:
        await commit_each(store, "a")
        server.sql(f"UPDATE {schema}.ts_head SET at = at + interval '1 hour'")
        await commit_many(store, 99)
        assert (await store.head()).floor <= 1
    found = server.sql(f"SELECT at FROM {schema}.ts_log ORDER BY idx")
    assert found == sorted(found)


async def test_a_long_log_is_shortened_by_small_steps(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_stream.stores._postgresql_database._SHORTENED", 20)
    async with open_store(url) as store:
        await commit_many(store, 100)
    for left in (81, 62, 43):  # and each adds one
        async with open_store(url, retention=Retention(commits=1)) as store:
            await commit_each(store, "z")
            head = await store.head()
            assert head.floor == head.index - 1
            assert len(log(server, url)) == left


async def test_a_commit_that_was_made_is_acknowledged_whatever_becomes_of_the_retention(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another transaction that keeps the store locked holds nobody up, and a failure is no failure of the commit."""
    schema = url.partition("schema=")[2]
    shorten = Database.shorten
    courses: list[str] = []

    def shorten_behind_a_lock(self: Database, retention: Retention) -> None:
        courses.append("locked")
        with server.connect() as connection:
            connection.execute(f"SELECT 1 FROM {schema}.ts_head FOR UPDATE")
            shorten(self, retention)

    def fail(self: Database, retention: Retention) -> None:
        courses.append("failed")
        raise ZeroDivisionError

    with anyio.fail_after(PATIENCE):
        for course in (shorten_behind_a_lock, fail):
            monkeypatch.setattr(Database, "shorten", course)
            async with open_store(
                url, retention=Retention(commits=1), statement_timeout=10 * PATIENCE
            ) as store:
                await commit_each(store, "a")
                assert (await store.head()).index == len(courses)
    assert courses == ["locked", "failed"]
