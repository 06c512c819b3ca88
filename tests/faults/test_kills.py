"""Writers killed with `kill -9` at random moments, several at once, under readers that stay and readers that return."""

import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from evidence import count
from faults.following import caught_up, log, reading
from faults.returning import Returning, folds
from proof import amount
from stores.storehouse import PATIENCE, open_at, put, python, sql, state

from trio_stream import Event, EventPublisher
from trio_stream.stores import JSON, Record, Store, open_store_publisher

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = amount(5, 50)  # on each back end, with each seed
WRITERS = 2  # processes at once
TASKS = 3  # of each, that commit at the same time
KEYS = 10  # of one commit
SMALL_HISTORY = 32  # who was away for longer gets a new snapshot

# Each task commits for ever, with what a lost, repeated or torn commit would show at; it says each that was
# acknowledged: index, task, number. Every other one expects the task's last commit to be the newest of its key, and
# every third adds one to what all tasks of all processes count together, and tries again after a conflict.
WRITER = f"""
import sys, anyio
from trio_stream.stores import ConflictError, Delete, Name, Put, open_store

COUNTER = Name("jobs", "counter", "default")

async def write(store, task):
    number = last = 0
    while True:
        number += 1
        keys = [f"{{task}}-{{key}}" for key in range({KEYS})]
        operations = [Put("jobs", key, [number, "x" * (number * 97 % 3000)]) for key in keys]
        operations += [Delete("jobs", task), Put("jobs", task, number)]
        expect = {{Name("jobs", task, "default"): last}} if number % 2 else {{}}
        last = await commit(store, operations, expect, counts=not number % 3)
        print(last, task, number, flush=True)

async def commit(store, operations, expect, counts):
    while counts:
        entry = await store.get(*COUNTER[:2])
        add = Put("jobs", "counter", entry.value + 1 if entry else 1)
        try:
            return await store.commit([*operations, add], expect={{**expect, COUNTER: entry.index if entry else 0}})
        except ConflictError as error:
            assert error.name == COUNTER, error
    return await store.commit(operations, expect=expect)

async def main():
    path, name = sys.argv[1:]
    async with open_store("sqlite:" + path) as store, anyio.create_task_group() as tasks:
        for task in range({TASKS}):
            tasks.start_soon(write, store, f"{{name}}.{{task}}")

anyio.run(main)
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A commit that the writer was told of."""

    index: int
    task: str
    number: int


def acknowledged(lines: Sequence[str]) -> list[Told]:
    """The last line may be torn."""
    whole = (line.split() for line in lines if line.endswith("\n"))
    return [Told(int(index), task, int(number)) for index, task, number in whole]


async def kill_some(path: Path, generator: random.Random, names: Sequence[str]) -> list[Told]:
    """Starts writers, kills each at a random moment after its first commit; what they had been told."""
    writers = [python(WRITER, str(path), name, stdout=subprocess.PIPE) for name in names]
    told: list[Told] = []

    async def end(process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        first = await anyio.to_thread.run_sync(process.stdout.readline)
        await anyio.sleep(generator.uniform(0, 0.15))
        assert process.poll() is None, "the writer has ended by itself"
        process.kill()
        rest = await anyio.to_thread.run_sync(process.stdout.readlines)
        process.stdout.close()
        process.wait()
        told.extend(acknowledged([first, *rest]))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for writer in writers:
                tasks.start_soon(end, writer)
    return told


class Log:
    """What the log of the store must be, however many writers were killed."""

    def __init__(self, commits: Sequence[Sequence[Event[Record]]]) -> None:
        assert [commit[0].index for commit in commits] == list(range(1, len(commits) + 1))
        # {key: value} of what was put by each commit, in the order of the log.
        self.puts = [
            {
                event.payload.key: event.payload.value
                for event in commit
                if isinstance(event.payload, Record) and not event.payload.is_delete
            }
            for commit in commits
        ]

    def check_acknowledged(self, told: Sequence[Told]) -> None:
        assert told
        for each in told:
            assert len(self.puts) >= each.index, "an acknowledged commit is lost"
            assert self.puts[each.index - 1][each.task] == each.number, "another commit has its index"

    def check_each_once(self, told: Sequence[Told]) -> None:
        """A task has committed 1, 2, 3 and so on, and at most one more than it was told."""
        newest: Counter[str] = Counter()
        for puts in self.puts:
            for task, number in _tasks(puts):
                assert number == newest[task] + 1, f"{task} has {number} after {newest[task]}"
                newest[task] = number
        counted = Counter(each.task for each in told)
        assert all(newest[task] <= counted[task] + 1 for task in newest)

    def check_whole(self) -> None:
        for puts in self.puts:
            for task, number in _tasks(puts):
                of_commit = [puts[f"{task}-{key}"] for key in range(KEYS)]
                assert of_commit == [[number, "x" * (number * 97 % 3000)]] * KEYS, "a torn commit"

    def check_counter(self) -> None:
        """No two commits have added to the same count."""
        counts = [puts["counter"] for puts in self.puts if "counter" in puts]
        assert counts == list(range(1, len(counts) + 1))

    def state(self) -> dict[str, JSON]:
        return {key: value for puts in self.puts for key, value in puts.items()}


def _tasks(puts: dict[str, JSON]) -> list[tuple[str, int]]:
    """Which task has made the commit, and its number."""
    return [(key, value) for key, value in puts.items() if "." in key and isinstance(value, int)]


@asynccontextmanager
async def returning(
    publishers: Sequence[EventPublisher], generator: random.Random
) -> AsyncIterator[list[Returning]]:
    """Readers that come back: one always to the same publisher, two to any."""
    readers = [
        Returning(which, random.Random(generator.random()))
        for which in (publishers[:1], publishers, publishers)
    ]
    async with anyio.create_task_group() as tasks:
        for reader in readers:
            tasks.start_soon(reader.run)
        yield readers
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def opened(path: Path, history: int) -> AsyncIterator[tuple[Store, EventPublisher]]:
    async with (
        open_at(path, busy_timeout=PATIENCE) as store,
        open_store_publisher(store, ["jobs"], history=history) as publisher,
    ):
        yield store, publisher


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.parametrize("seed", range(amount(1, 2)))
async def test_no_kill_of_a_writer_loses_tears_or_repeats_a_commit_for_anybody(
    seed: int, path: Path, anyio_backend: str
) -> None:
    """D1 to D6 for readers in a process that lives, and durability of what was acknowledged."""
    generator = random.Random(f"{seed} {anyio_backend}")
    told: list[Told] = []
    async with AsyncExitStack() as stack:
        store, publisher = await stack.enter_async_context(opened(path, 100_000))
        _, other = await stack.enter_async_context(opened(path, SMALL_HISTORY))
        steady = await stack.enter_async_context(reading(publisher))
        readers = await stack.enter_async_context(returning((publisher, other), generator))
        for first in range(0, KILLS, WRITERS):
            names = [f"w{number}" for number in range(first, min(first + WRITERS, KILLS))]
            told += await kill_some(path, generator, names)
        index = await store.commit([put("last", "last")])
        assert await caught_up(publisher, store) == index
        await steady.until(lambda: steady.index == index)
        for reader in readers:
            await reader.until(index)
        commits = await log(store)
        kept = await state(store)
        epoch = (await store.head()).epoch
    found = Log(commits)
    found.check_acknowledged(told)
    found.check_each_once(told)
    found.check_whole()
    found.check_counter()
    assert kept == found.state()
    steady.check({epoch: commits})
    assert steady.ends == []
    fingerprints = folds(commits)
    for reader in readers:
        reader.check(fingerprints)
        assert reader.resumes
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    count(
        "fault",
        "a writer killed with `kill -9`: nothing acknowledged lost, nothing torn, nothing twice",
        KILLS,
    )
    count("resumed", "beside kills", sum(reader.resumes for reader in readers))
