"""Processes that write to a store and are killed, what they say before, and what the log must be then."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import anyio
import anyio.to_thread
from faults.places import Place
from faults.writer import COUNTER, KEYS, operations, value
from stores.storehouse import PATIENCE

from trio_stream.stores import JSON, Commit, Put, Store

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Told:
    """A commit that the writer was told of."""

    index: int
    task: str
    number: int


class Writer:
    """A process that writes, and what it has said."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / program, *arguments], text=True, stdout=subprocess.PIPE
        )
        self.told: list[Told] = []
        self.tried: dict[tuple[str, int], UUID] = {}
        self.repeated: list[str] = []  # what has failed and was tried again, with the error
        # Set, and replaced by a new one, whenever it has said something.
        self._stir = anyio.Event()
        self._has_ended = False

    async def listen(self) -> None:
        """Until it has ended."""
        assert self._process.stdout is not None
        try:
            with self._process.stdout as said:
                while line := await anyio.to_thread.run_sync(said.readline):
                    if line.endswith("\n"):  # the last one may be torn
                        self._take(line.split())
                    self._wake()
        finally:
            self._process.kill()
            self._process.wait()
            self._has_ended = True
            self._wake()

    def kill(self) -> None:
        assert self._process.poll() is None, "the writer has ended by itself"
        self._process.kill()

    def end(self) -> None:
        """Whether or not it runs."""
        self._process.kill()

    async def until_told(self, more: int) -> None:
        """Until it was told of so many more commits."""
        count = len(self.told) + more
        with anyio.fail_after(PATIENCE):
            while len(self.told) < count:
                assert not self._has_ended, "the writer has ended by itself"
                await self._stir.wait()

    @property
    def unknown(self) -> Mapping[tuple[str, int], UUID]:
        """The commits that it has begun, and was told nothing of."""
        told = {(each.task, each.number) for each in self.told}
        return {each: id_ for each, id_ in self.tried.items() if each not in told}

    def _take(self, words: Sequence[str]) -> None:
        match words:
            case ["try", task, number, id_]:
                self.tried[task, int(number)] = UUID(id_)
            case ["made", index, task, number]:
                self.told.append(Told(int(index), task, int(number)))
            case ["again", *_]:
                self.repeated.append(" ".join(words))
            case _:
                raise AssertionError(words)

    def _wake(self) -> None:
        stir, self._stir = self._stir, anyio.Event()
        stir.set()


@asynccontextmanager
async def writing(*writers: Writer) -> AsyncIterator[None]:
    """They are listened to, and have ended behind the block."""
    async with anyio.create_task_group() as tasks:
        try:
            for writer in writers:
                tasks.start_soon(writer.listen)
            yield
        finally:
            for writer in writers:
                writer.end()


async def kill_some(generator: random.Random, start: Sequence[Callable[[], Writer]]) -> list[Writer]:
    """Starts writers, kills each at a random moment after it was told of its first commit."""
    writers = [each() for each in start]

    async def kill(writer: Writer) -> None:
        await writer.until_told(1)
        await anyio.sleep(generator.uniform(0, 0.15))
        writer.kill()

    async with writing(*writers), anyio.create_task_group() as tasks:
        for writer in writers:
            tasks.start_soon(kill, writer)
    return writers


def writer(place: Place, name: str, mode: str = "") -> Writer:
    return Writer("writer.py", place.url, name, mode)


def application(place: Place, name: str) -> Writer:
    return Writer("application.py", *place.application, name)


async def settle(store: Store, writers: Sequence[Writer]) -> int:
    """Commits again, with their ids, what nobody was told of, twice; how many had been made before."""
    made = 0
    for writer in writers:
        for (task, number), id_ in writer.unknown.items():
            before = (await store.head()).index
            index = await store.commit(operations(task, number), id=id_)
            made += index <= before
            assert await store.commit(operations(task, number), id=id_) == index
            writer.told.append(Told(int(index), task, number))
    return made


class Log:
    """What the log of the store must be, however many writers were killed."""

    def __init__(self, commits: Sequence[Commit]) -> None:
        assert [commit.index for commit in commits] == list(range(1, len(commits) + 1))
        assert len({commit.mark for commit in commits}) == len(commits)
        # {key: value} of what was put by each commit, in the order of the log.
        self.puts = [
            {each.key: each.value for each in commit.operations if isinstance(each, Put)}
            for commit in commits
        ]

    def check(self, writers: Sequence[Writer]) -> None:
        self._check_acknowledged([told for writer in writers for told in writer.told])
        self._check_each_once(writers)
        self.check_whole()
        self._check_counter()

    def _check_acknowledged(self, told: Sequence[Told]) -> None:
        assert told
        for each in told:
            assert len(self.puts) >= each.index, "an acknowledged commit is lost"
            assert self.puts[each.index - 1][each.task] == each.number, "another commit has its index"

    def _check_each_once(self, writers: Sequence[Writer]) -> None:
        """A task has committed 1, 2, 3 and so on: all that it was told, and nothing that it has not tried."""
        newest: Counter[str] = Counter()
        for puts in self.puts:
            for task, number in _tasks(puts):
                assert number == newest[task] + 1, f"{task} has {number} after {newest[task]}"
                newest[task] = number
        told, tried = Counter[str](), Counter[str]()
        for writer in writers:
            told.update(each.task for each in writer.told)
            tried.update(task for task, _ in writer.tried)
        assert newest.keys() <= tried.keys()
        for task in tried:
            assert told[task] <= newest[task] <= tried[task], task

    def check_whole(self) -> None:
        for puts in self.puts:
            for task, number in _tasks(puts):
                of_commit = [puts[f"{task}-{key}"] for key in range(KEYS)]
                assert of_commit == [[*value(number)]] * KEYS, "a torn commit"

    def _check_counter(self) -> None:
        """No two commits have added to the same count."""
        counts = [puts[COUNTER.key] for puts in self.puts if COUNTER.key in puts]
        assert counts == list(range(1, len(counts) + 1))

    def has(self, told: Told) -> bool:
        """Whether it has this commit, at this index."""
        return len(self.puts) >= told.index and self.puts[told.index - 1].get(told.task) == told.number

    @property
    def made(self) -> list[tuple[str, int]]:
        """All that any task has committed, in order."""
        return sorted(each for puts in self.puts for each in _tasks(puts))

    def state(self) -> dict[str, JSON]:
        return {key: value for puts in self.puts for key, value in puts.items()}


def _tasks(puts: Mapping[str, JSON]) -> list[tuple[str, int]]:
    """Which task has made the commit, and its number."""
    return [(key, value) for key, value in puts.items() if "." in key and isinstance(value, int)]
