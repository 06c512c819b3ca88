"""watch --from: no snapshot where it can go on, and a visible new one where it cannot."""

import signal
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from cli.console import Running, put, run, started

from trio_stream.stores import Put, open_store

pytestmark = pytest.mark.anyio

MARKER = "-- new snapshot to follow: what was shown so far is out of date"


async def cursor() -> str:
    """After the newest commit."""
    index = await put("marked", "0")
    with closing(sqlite3.connect("trio-stream.db")) as connection:
        (epoch,) = connection.execute("SELECT epoch FROM ts_head").fetchone()
    return f"{index}@{epoch}"


def replace_store(folder: Path) -> None:
    """Puts other.db in the place of the store, as its documentation wants it done."""
    for suffix in ("-wal", "-shm"):
        (folder / f"trio-stream.db{suffix}").unlink(missing_ok=True)
    (folder / "other.db").replace(folder / "trio-stream.db")


async def types(watch: Running, count: int) -> list[tuple[str, int]]:
    objects = [await watch.object() for _ in range(count)]
    return [(each["type"], each["index"]) for each in objects]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_it_goes_on_after_a_first_one_was_killed(backend: str) -> None:
    await put("a", "1")
    async with started("watch", "jobs", "--json", "--backend", backend) as first:
        await first.object()
        await first.object()
        await put("a", "2")
        after = (await first.object())["cursor"]
        await first.end(signal.SIGKILL)
    await put("a", "3")
    await put("a", "4")
    async with started("watch", "jobs", "--json", "--from", after, "--backend", backend) as second:
        assert await types(second, 2) == [("commit", 3), ("commit", 4)]
        await put("a", "5")
        assert await types(second, 1) == [("commit", 5)]


async def test_the_cursor_stays_where_nothing_came() -> None:
    start = await cursor()
    async with started("watch", "jobs", "--from", start) as watch:
        await put("a", "1")
        await watch.line()
        ended = await watch.end(signal.SIGINT)
    after = ended.out.split()[-1]
    async with started("watch", "jobs", "--json", "--from", after) as again:
        await put("a", "2")
        await again.object()
        assert after.partition("@")[0] == "2"


async def test_index_0_is_a_fresh_start() -> None:
    await put("a", "1")
    async with started("watch", "jobs", "--json", "--from", "0@whatever") as watch:
        assert await types(watch, 2) == [("snapshot", 1), ("end-of-snapshot", 1)]


async def test_after_compact_a_new_snapshot_follows() -> None:
    start = await cursor()
    await put("a", "1")
    await run("compact")
    async with started("watch", "jobs", "--from", start) as watch:
        lines = await watch.until("end of snapshot")
    assert lines[0] == MARKER
    assert len(lines) == 4


async def test_another_store_is_known_by_its_epoch() -> None:
    await cursor()
    async with started("watch", "jobs", "--json", "--from", "1@another-epoch") as watch:
        assert await types(watch, 3) == [
            ("new-snapshot-to-follow", 0),
            ("snapshot", 1),
            ("end-of-snapshot", 1),
        ]


async def test_more_commits_than_a_history_usually_has_are_no_reason_for_a_snapshot() -> None:
    start = await cursor()
    async with open_store("sqlite:trio-stream.db", synchronous="OFF") as store:
        for number in range(5000):
            await store.commit([Put("jobs", "k", number)])
    async with started("watch", "jobs", "--json", "--from", start) as watch:
        assert await types(watch, 5000) == [("commit", 2 + number) for number in range(5000)]


@pytest.mark.parametrize(("backend", "is_json"), [("trio", False), ("asyncio", True)])
async def test_a_store_that_is_replaced_is_noticed_and_followed(
    folder: Path, backend: str, is_json: bool
) -> None:
    await run("--store", "sqlite:other.db", "put", "jobs", "new", "1")
    await put("old", "1")
    await put("old", "2")
    async with started("watch", "jobs", "--backend", backend, *(["--json"] if is_json else [])) as watch:
        await watch.until("end")
        replace_store(folder)
        lines = await watch.until("end")
        texts: Iterable[str] = (
            ["new-snapshot-to-follow", '"new"', "end-of-snapshot"] if is_json else [MARKER, "new", "--"]
        )
        assert all(text in line for text, line in zip(texts, lines, strict=True))
        await put("new", "2")
        assert "2" in await watch.line()
        ended = await watch.end(signal.SIGINT)
    assert ended.code == 0
    assert "trio-stream: " in ended.err  # which says what it has seen of the replacing
    assert "--from 2@" in (ended.err if is_json else ended.out)


async def test_a_store_that_is_gone_is_waited_for(folder: Path) -> None:
    await put("a", "1")
    async with started("watch", "jobs") as watch:
        await watch.until("end of snapshot")
        (folder / "trio-stream.db").rename(folder / "other.db")
        assert "the file is gone" in await watch.warning()
        (folder / "other.db").rename(folder / "trio-stream.db")
        await put("a", "2")
        assert await watch.line() == "       2  put     a  2"


async def test_a_state_that_cannot_be_read_ends_it_with_the_reason() -> None:
    await put("a", "1")
    with closing(sqlite3.connect("trio-stream.db")) as connection, connection:
        connection.execute("UPDATE ts_state SET value = '{'")
    result = await run("watch", "jobs")
    assert result.code == 1
    assert result.err.startswith("Error: the state cannot be read: ")
    assert "a value of commit 1 is not JSON" in result.err
