"""Pages of the log, for replays: what is asked for, in few steps, and nothing is kept open in between."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stores.connections import Connections
from stores.storehouse import JOBS, commit_each, open_at, put, sql

from trio_stream import ALL, Cursor, SubscribeRequest
from trio_stream.stores import (
    Commit,
    Delete,
    HistoryLostError,
    Put,
    Record,
    Revoke,
    UnreadableCommitError,
    topic,
)

pytestmark = pytest.mark.anyio

USERS = topic("users")


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Any]:
    """One whose log can be read by pages."""
    async with open_at(path) as store:
        yield store


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends after 20 ms as well, which a busy machine may need for a few commits."""
    monkeypatch.setattr("trio_stream.stores._sqlite_log._SECONDS", 60.0)


async def page(
    store: Any, request: SubscribeRequest[Record], after: int = 0, upto: int = 1000
) -> Sequence[Commit]:
    cursor = Cursor(after, (await store.head()).epoch)
    commits: Sequence[Commit] = await store.page_of(request, cursor, upto=upto)
    return commits


def keys(commits: Sequence[Commit]) -> list[tuple[int, list[str]]]:
    return [(commit.index, [change.key for change in commit.operations]) for commit in commits]


async def test_a_page_has_the_commits_of_a_topic_and_the_last_one_of_all(store: Any) -> None:
    await store.commit([put("a"), Put("users", "u", 1)])
    await store.commit([Put("users", "v", 1)])
    await store.commit([put("b")])
    await store.commit([Put("users", "w", 1)])
    assert keys(await page(store, SubscribeRequest(JOBS))) == [(1, ["a"]), (3, ["b"]), (4, [])]
    assert keys(await page(store, SubscribeRequest(JOBS), after=3)) == [(4, [])]


async def test_a_page_ends_at_the_index_that_is_asked_for(store: Any) -> None:
    await commit_each(store, "a", "b", "c")
    assert keys(await page(store, SubscribeRequest(JOBS), after=1, upto=2)) == [(2, ["b"])]
    assert await page(store, SubscribeRequest(JOBS), after=2, upto=2) == []
    assert await page(store, SubscribeRequest(JOBS), after=3) == []


async def test_commits_have_their_marks(store: Any) -> None:
    await commit_each(store, "a")
    await store.commit([Put("users", "u", 1), Revoke("x")])
    found = await page(store, SubscribeRequest(JOBS))
    async with store.changes(0) as commits:
        assert [commit.mark for commit in found] == [(await anext(commits)).mark for _ in range(2)]


async def test_who_asks_for_one_key_gets_no_commits_of_others(store: Any) -> None:
    await commit_each(store, "a", "b", "ab", "a", '\u00e9"', "c")
    assert keys(await page(store, SubscribeRequest(JOBS, key="a"))) == [(1, ["a"]), (4, ["a"]), (6, [])]
    assert keys(await page(store, SubscribeRequest(JOBS, key='\u00e9"'))) == [(5, ['\u00e9"']), (6, [])]
    assert keys(await page(store, SubscribeRequest(JOBS, key="a", namespace=ALL)))[:-1] == [
        (1, ["a"]),
        (4, ["a"]),
    ]


async def test_who_asks_for_a_prefix_gets_all_that_begins_with_it(store: Any) -> None:
    await commit_each(store, "ab", "b", "a\n", "a", "ba")
    assert keys(await page(store, SubscribeRequest(JOBS, key="a", prefix=True))) == [
        (1, ["ab"]),
        (3, ["a\n"]),
        (4, ["a"]),
        (5, []),
    ]
    assert keys(await page(store, SubscribeRequest(JOBS, key="a\n", prefix=True)))[0] == (3, ["a\n"])


async def test_unions_are_read_in_one_go(store: Any) -> None:
    await store.commit([put("a")])
    await store.commit([put("b")])
    await store.commit([Put("users", "u", 1), put("c")])
    await store.commit([Delete("jobs", "a")])
    request = SubscribeRequest(JOBS, key="a") | SubscribeRequest(USERS)
    assert keys(await page(store, request)) == [(1, ["a"]), (3, ["u", "c"]), (4, ["a"])]


async def test_more_interests_than_are_looked_for_are_found_all_the_same(store: Any) -> None:
    await commit_each(store, *(f"{n}" for n in range(40)))
    request = SubscribeRequest(JOBS, key="0")
    for n in range(1, 30):
        request = request | SubscribeRequest(JOBS, key=f"{n}")
    found = keys(await page(store, request))
    assert {f"{n}" for n in range(30)} <= {key for _, names in found for key in names}


async def test_a_page_is_bounded_in_bytes(store: Any) -> None:
    for n in range(6):
        await store.commit([put(f"{n}", "x" * 400_000)])
    assert [index for index, _ in keys(await page(store, SubscribeRequest(JOBS)))] == [1, 2, 3]
    assert [index for index, _ in keys(await page(store, SubscribeRequest(JOBS), after=3))] == [4, 5, 6]


async def test_commits_of_others_cost_no_bytes(store: Any) -> None:
    for n in range(6):
        await store.commit([put(f"{n}", "x" * 400_000)])
    assert keys(await page(store, SubscribeRequest(USERS))) == [(6, [])]
    assert keys(await page(store, SubscribeRequest(JOBS, key="5"))) == [(6, ["5"])]


async def test_a_cursor_is_judged_on_each_page(store: Any) -> None:
    await commit_each(store, "a", "b", "c")
    epoch = (await store.head()).epoch
    for wrong in (Cursor(1, "another"), Cursor(2, epoch, "0" * 16), Cursor(9, epoch, "0" * 16)):
        with pytest.raises(HistoryLostError):
            await store.page_of(SubscribeRequest(JOBS), wrong, upto=3)
    await store.compact(2)
    with pytest.raises(HistoryLostError):
        await page(store, SubscribeRequest(JOBS), after=1)


async def test_nothing_is_open_between_two_pages(path: Path, connections: Connections) -> None:
    async with open_at(path) as store:
        await commit_each(store, "a", "b")
        await page(store, SubscribeRequest(JOBS))
        before = connections.open
        for _ in range(5):
            await page(store, SubscribeRequest(JOBS), after=1)
        assert connections.open == before
        # Nobody reads: the whole log can be moved to the file.
        assert sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


async def test_a_commit_that_cannot_be_read_ends_a_page_before_it(store: Any, path: Path) -> None:
    await commit_each(store, "a", "b", "c")
    sql(path, 'UPDATE ts_log SET operations = \'[["put","jobs"]]\' WHERE idx = 2')
    assert keys(await page(store, SubscribeRequest(JOBS))) == [(1, ["a"])]
    with pytest.raises(UnreadableCommitError) as caught:
        await page(store, SubscribeRequest(JOBS), after=1)
    assert caught.value.mark == sql(path, "SELECT lower(hex(mark)) FROM ts_log WHERE idx = 2")[0][0]
    assert keys(await page(store, SubscribeRequest(USERS), after=1)) == [(3, [])]
