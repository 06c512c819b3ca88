"""Real processes on one file: those that commit, and those that are killed in the middle of it."""

import subprocess
from pathlib import Path
from typing import IO

import anyio
import pytest
from stores.storehouse import open_at, python, sql, state, take

from trio_stream.stores import Store

KEYS = 40  # of one commit

# Commits for ever: every key gets the number of the commit. Says the index of each commit that was acknowledged.
WRITER = f"""
import sys, anyio
from trio_stream.stores import Put, open_store

async def main():
    async with open_store("sqlite:" + sys.argv[1]) as store:
        while True:
            number = (await store.head()).index + 1
            index = await store.commit([Put("jobs", f"{{key}}", [number, "x" * 500]) for key in range({KEYS})])
            print(index, flush=True)

anyio.run(main)
"""

OPENER = """
import sys, anyio
from trio_stream.stores import Put, open_store

async def main():
    sys.stdin.readline()
    async with open_store("sqlite:" + sys.argv[1]) as store:
        for _ in range(5):
            await store.commit([Put("jobs", sys.argv[2], 1)])
        print((await store.head()).epoch)

anyio.run(main)
"""


def last_acknowledged(output: IO[str], count: int) -> int:
    """Reads some lines."""
    return [int(output.readline()) for _ in range(count)][-1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_writer_killed_in_mid_commit_loses_no_acknowledged_commit_and_leaves_no_torn_one(
    path: Path,
) -> None:
    for kill in range(10):
        with python(WRITER, str(path), stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = last_acknowledged(writer.stdout, 1 + 3 * kill)
            writer.kill()
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        async with open_at(path) as store:
            head = await store.head()
            assert head.index >= acknowledged
            assert list((await state(store)).values()) == [[head.index, "x" * 500]] * KEYS
            async with store.changes(0) as commits:
                assert await take(commits, head.index) == list(range(1, head.index + 1))
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.anyio
async def test_the_commits_of_another_process_are_found(store: Store, path: Path) -> None:
    with python(WRITER, str(path), stdout=subprocess.DEVNULL) as writer:
        try:
            async with store.changes(0) as commits:
                assert await take(commits, 20) == list(range(1, 21))
        finally:
            writer.kill()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_processes_that_make_one_file_at_once_get_one_store(path: Path) -> None:
    openers = [
        python(OPENER, str(path), f"{n}", stdin=subprocess.PIPE, stdout=subprocess.PIPE) for n in range(5)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    epochs = {opener.communicate()[0] for opener in openers}
    async with open_at(path) as store:
        head = await store.head()
        assert epochs == {f"{head.epoch}\n"}
        assert head.index == 25
        assert len(await state(store)) == 5


@pytest.mark.anyio
async def test_two_openings_of_a_new_file_at_once_get_one_store(path: Path) -> None:
    epochs: set[str] = set()

    async def ask() -> None:
        async with open_at(path) as store:
            epochs.add((await store.head()).epoch)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask)
    assert len(epochs) == 1
