"""Writers killed with `kill -9` at random moments, several at once, under a feed that goes on in this process."""

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from evidence import count
from faults.following import caught_up, log, reading
from proof import amount
from stores.storehouse import PATIENCE, open_at, put, python, sql, state

from trio_stream.stores import Put, Store, open_store_publisher

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = amount(4, 30)  # on each back end
WRITERS = 2  # at once
KEYS = 30  # of one commit

# Commits for ever, with what a lost or torn commit would show at; says each index that was acknowledged.
WRITER = f"""
import sys, anyio
from trio_stream.stores import Delete, Name, Put, open_store

async def main():
    path, name = sys.argv[1:]
    async with open_store("sqlite:" + path) as store:
        number = 0
        while True:
            number += 1
            keys = [f"{{name}}-{{key}}" for key in range({KEYS})]
            operations = [Put("jobs", key, [number, "x" * (number * 97 % 3000)]) for key in keys]
            index = await store.commit([*operations, Delete("jobs", name), Put("jobs", name, number)])
            print(index, number, flush=True)

anyio.run(main)
"""


def acknowledged(lines: Sequence[str]) -> list[tuple[int, int]]:
    """(index, number) of each commit that the writer was told of; the last line may be torn."""
    return [
        (int(index), int(number)) for index, number in (line.split() for line in lines if line.endswith("\n"))
    ]


async def kill_some(
    path: Path, generator: random.Random, names: Sequence[str]
) -> dict[str, list[tuple[int, int]]]:
    """Starts writers, kills each at a random moment after its first commit; what they had been told."""
    writers = {name: python(WRITER, str(path), name, stdout=subprocess.PIPE) for name in names}
    told: dict[str, list[tuple[int, int]]] = {}

    async def end(name: str) -> None:
        process = writers[name]
        assert process.stdout is not None
        first = await anyio.to_thread.run_sync(process.stdout.readline)
        await anyio.sleep(generator.uniform(0, 0.15))
        process.kill()
        rest = await anyio.to_thread.run_sync(process.stdout.readlines)
        process.stdout.close()
        process.wait()
        told[name] = acknowledged([first, *rest])

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(end, name)
    return told


async def check_store_after(store: Store, told: dict[str, list[tuple[int, int]]]) -> None:
    commits = await log(store)
    assert [commit[0].index for commit in commits] == list(range(1, len(commits) + 1))
    kept = await state(store)
    for name, commits_told in told.items():
        index, number = commits_told[-1]
        assert len(commits) >= index, "an acknowledged commit is lost"
        newest = kept[name]
        assert isinstance(newest, int)
        assert newest >= number
        assert newest <= number + 1, "a commit was made of which nobody began a second one"
        of_commit = [kept[f"{name}-{key}"] for key in range(KEYS)]
        assert of_commit == [[newest, "x" * (newest * 97 % 3000)]] * KEYS, "a torn commit"


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.parametrize("seed", range(amount(1, 2)))
async def test_no_kill_of_a_writer_loses_tears_or_repeats_a_commit_for_anybody(
    seed: int, path: Path, anyio_backend: str
) -> None:
    """D1 to D4 for a subscriber in a process that lives, and durability of what was acknowledged."""
    generator = random.Random(f"{seed} {anyio_backend}")
    async with open_at(path) as store:
        await store.commit([Put("jobs", "first", 0)])
        async with (
            open_store_publisher(store, ["jobs"], history=100_000) as publisher,
            reading(publisher) as reader,
        ):
            for batch in range(KILLS // WRITERS):
                names = [f"w{batch}.{n}" for n in range(WRITERS)]
                await check_store_after(store, await kill_some(path, generator, names))
            index = await store.commit([put("last")])
            assert await caught_up(publisher, store) == index
            await reader.until(lambda: reader.index == index)
        epoch = (await store.head()).epoch
        reader.check({epoch: await log(store)})
        assert reader.ends == []
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    kills = KILLS // WRITERS * WRITERS
    count(
        "fault",
        "a writer killed with `kill -9`: nothing acknowledged lost, nothing torn, nothing twice",
        kills,
    )
