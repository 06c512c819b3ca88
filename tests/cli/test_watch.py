"""watch: the state, a line that ends it, then what other processes commit; and how it ends."""

import os
import signal
import sqlite3
import sys
from contextlib import closing

import anyio
import pytest
from cli.console import PATIENCE, PROGRAM, put, run, started

pytestmark = pytest.mark.anyio

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@BACKENDS
async def test_the_state_comes_first_and_then_the_changes_of_other_processes(backend: str) -> None:
    await put("web", '{"port": 80}')
    await run("put", "other", "x", "0")
    await put("db", "1")
    async with started("watch", "jobs", "--backend", backend) as watch:
        assert [await watch.line() for _ in range(3)] == [
            "       3  has     db  1",
            '       1  has     web  {"port": 80}',
            "-- end of snapshot at 3; changes as they are committed:",
        ]
        await run("put", "jobs", "web", "2")
        assert await watch.line() == "       4  put     web  2"
        await run("delete", "jobs", "db")
        assert await watch.line() == "       5  delete  db"
        ended = await watch.end(signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("-- go on with --from 5@")


async def test_one_key_can_be_watched_and_one_namespace() -> None:
    await put("a", "1", namespace="n")
    async with started("watch", "jobs", "a", "--namespace", "n") as watch:
        assert len(await watch.until("end of snapshot")) == 2
        await put("b", "2", namespace="n")
        await put("a", "3")
        await put("a", "4", namespace="n")
        assert await watch.line() == "       4  put     a  4"


@BACKENDS
async def test_json_is_a_line_for_each_commit_and_nothing_else(backend: str) -> None:
    await put("a", "1")
    async with started("watch", "jobs", "--json", "--backend", backend) as watch:
        state = await watch.object()
        epoch = state["epoch"]
        a = {"type": "put", "namespace": "default", "key": "a", "value": 1}
        assert state == {"type": "snapshot", "index": 1, "epoch": epoch, "cursor": None, "events": [a]}
        end = await watch.object()
        assert end["cursor"].startswith(f"1@{epoch}.")
        assert {**end, "cursor": None} == {
            "type": "end-of-snapshot",
            "index": 1,
            "epoch": epoch,
            "cursor": None,
            "events": [],
        }
        await run(
            "import", "jobs", "-", stdin=b'{"key": "b", "value": 2}\n{"key": "c", "value": "\xc3\xa9"}\n'
        )
        commit = await watch.object()
        assert (commit["type"], commit["index"]) == ("commit", 2)
        assert commit["cursor"].startswith(f"2@{epoch}.")
        assert [(each["key"], each["value"]) for each in commit["events"]] == [("b", 2), ("c", "é")]
        await run("delete", "jobs", "a")
        gone = {"type": "delete", "namespace": "default", "key": "a", "value": None}
        assert (await watch.object())["events"] == [gone]
        ended = await watch.end(signal.SIGTERM)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith(f"-- go on with --from 3@{epoch}.")


async def test_a_second_signal_finds_nobody_who_holds_it_up() -> None:
    await put("a", "1")
    async with started("watch", "jobs") as watch:
        await watch.until("end of snapshot")
        watch.process.send_signal(signal.SIGINT)
        assert (await watch.end(signal.SIGINT)).code in {0, 130}


async def test_it_ends_quietly_when_its_reader_has_left_though_nothing_happens() -> None:
    await put("a", "1")
    async with started("watch", "jobs") as watch:
        await watch.until("end of snapshot")
        assert watch.process.stdout is not None
        await watch.process.stdout.aclose()
        with anyio.fail_after(PATIENCE):
            assert await watch.process.wait() == 0


async def test_it_ends_quietly_when_it_never_had_a_reader() -> None:
    await put("a", "1")
    reading, writing = os.pipe()
    os.close(reading)
    with anyio.fail_after(PATIENCE):
        ended = await anyio.run_process([*PROGRAM, "watch", "jobs"], stdout=writing, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_a_reader_who_stands_still_does_not_keep_a_signal_out() -> None:
    await put("a", f'"{"x" * 100_000}"')
    async with started("watch", "jobs", "--json") as watch:
        await watch.process.stdout.receive(1)  # type: ignore[union-attr] # the pipe holds less than the line
        ended = await watch.end(signal.SIGTERM)
    assert ended.code == 0
    assert ended.err == "-- ended inside the snapshot: there is no cursor\n"


@pytest.mark.parametrize("options", [[], ["--view"]], ids=["changes", "view"])
async def test_a_store_that_does_not_exist_yet_is_made_and_waited_on(options: list[str]) -> None:
    async with started("watch", "jobs", *options) as watch:
        assert await (watch.warning() if options else watch.line())
        assert await put("a", "1") == 1
        if not options:
            assert await watch.line() == "       1  put     a  1"


WRITER = """
import sys, trio
from trio_stream.stores import Put, open_store

async def main():
    async with open_store("sqlite:trio-stream.db", synchronous="OFF") as store:
        for n in range(int(sys.argv[1])):
            await store.commit([Put("jobs", f"{n % 7}", n), Put("jobs", "newest", n)])

trio.run(main)
"""


@BACKENDS
async def test_nothing_is_missing_between_the_state_and_the_changes(backend: str) -> None:
    """The watch begins somewhere in the middle of many commits."""
    await put("newest", "-1")
    async with started("watch", "jobs") as early:
        await early.until("end of snapshot")
        async with await anyio.open_process([sys.executable, "-c", WRITER, "1500"]) as writer:
            await early.until("newest  50")
            async with started("watch", "jobs", "--json", "--backend", backend) as watch:
                lines = [await watch.object()]
                while lines[-1]["type"] != "end-of-snapshot":
                    lines.append(await watch.object())
                index, epoch = lines[-1]["index"], lines[-1]["epoch"]
                assert max(each["index"] for each in lines) == index
                while index < 1501:
                    commit = await watch.object()
                    index += 1
                    assert (commit["type"], commit["index"], commit["epoch"]) == ("commit", index, epoch)
                    assert commit["events"][1]["value"] == index - 2
            assert await writer.wait() == 0


@pytest.mark.parametrize("options", [[], ["--view"]], ids=["changes", "view"])
async def test_without_a_cursor_nothing_of_the_log_is_read(options: list[str]) -> None:
    await put("a", "1")
    await put("a", "2")
    with closing(sqlite3.connect("trio-stream.db")) as connection, connection:
        connection.execute("UPDATE ts_log SET operations = 'nonsense'")
    ended = await run("watch", "jobs", "--exit-after-snapshot", *options)
    assert (ended.code, ended.err) == (0, "")
    assert "a  2" in ended.out
    ended = await run("wait", "jobs", "a")
    assert (ended.code, ended.out, ended.err) == (0, "2\n", "")
