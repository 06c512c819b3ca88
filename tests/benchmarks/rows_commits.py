"""Rows: commits of the SQLite store, from tasks and from processes at once, by the wall clock."""

import itertools
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import anyio.to_thread

from trio_stream.stores import open_store

from . import by_hand
from .processes import ENVIRONMENT, command
from .row import Aim, Figure, Load, Row, Sample
from .store_committer import OTHERS, commit_for
from .timing import settle

LONGER = 4  # times the seconds of other rows: the disk is waited for


async def commits_of_tasks(url: str, options: dict[str, Any], tasks: int, seconds: float) -> float:
    """Commits a second, of so many tasks, to a store that is opened with these options."""
    counts: list[int] = []

    async def work(number: int) -> None:
        counts.append(await commit_for(store, f"{number}", seconds))

    async with open_store(url, **options) as store:
        await commit_for(store, "first", 0.0)
        settle()
        begin = perf_counter()
        async with anyio.create_task_group() as group:
            for number in range(tasks):
                group.start_soon(work, number)
        return sum(counts) / (perf_counter() - begin)


def from_tasks(backend: str, synchronous: str, load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        url, options = f"sqlite:{Path(directory) / 'bench.db'}", {"synchronous": synchronous}
        rate = anyio.run(commits_of_tasks, url, options, load.n, LONGER * load.seconds, backend=backend)
    return {"rate": rate}


def from_one_thread(synchronous: str, load: Load) -> Sample:
    """However many tasks would ask for them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        by_hand.create(path)
        with by_hand.connected(path, synchronous) as connection:
            by_hand.commit_for(connection, OTHERS, "first", 0.0)
            settle()
            begin = perf_counter()
            count = by_hand.commit_for(connection, OTHERS, "0", LONGER * load.seconds)
            return {"rate": count / (perf_counter() - begin)}


async def commits_of_worker(commit: Callable[[str, int], object], tasks: int, seconds: float) -> float:
    """What an async program has to do that may not stop its event loop: each commit in a worker thread, in turn.

    `commit` takes a key and a value.
    """
    turn = anyio.Lock()
    counts: list[int] = []

    async def work(number: int) -> None:
        end = perf_counter() + seconds
        for count in itertools.count(1):
            async with turn:
                await anyio.to_thread.run_sync(commit, f"{number}-{count % 1000}", count)
            if perf_counter() >= end:
                counts.append(count)
                return

    commit("first", 0)
    settle()
    begin = perf_counter()
    async with anyio.create_task_group() as group:
        for number in range(tasks):
            group.start_soon(work, number)
    return sum(counts) / (perf_counter() - begin)


def from_worker(synchronous: str, load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        by_hand.create(path)
        with by_hand.connected(path, synchronous, check_same_thread=False) as connection:

            def commit(key: str, value: int) -> None:
                by_hand.commit(connection, OTHERS, [(key, value)])

            seconds = LONGER * load.seconds
            rate = anyio.run(commits_of_worker, commit, load.n, seconds, backend="trio")
    return {"rate": rate}


async def _create(path: Path) -> None:
    async with open_store(f"sqlite:{path}"):
        pass


def from_processes(way: str, load: Load) -> Sample:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory) / "bench.db"
        if way == "by hand":
            by_hand.create(path)
        else:
            anyio.run(_create, path)
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command("store_committer", way, path, number, LONGER * load.seconds),
                    env=ENVIRONMENT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(load.n)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        begin = perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        count = sum(int(process.communicate()[0]) for process in processes)
        return {"rate": count / (perf_counter() - begin)}


def _row(name: str, title: str, synchronous: str, *aims: Aim) -> Row:
    return Row(
        name,
        title,
        (Figure("rate", "commits/s", more_is_better=True),),
        {
            "trio_stream on trio": partial(from_tasks, "trio", synchronous),
            "trio_stream on asyncio": partial(from_tasks, "asyncio", synchronous),
            "by hand, one after the other": partial(from_one_thread, synchronous),
            "by hand, in a worker thread of trio": partial(from_worker, synchronous),
        },
        (1, 8, 64),
        (1, 64),
        counts="tasks",
        baseline="by hand, one after the other",
        aims=aims,
        rounds=3,
    )


ROWS = (
    _row(
        "commits",
        "The SQLite store: one put in each commit, from so many tasks at once, durable (FULL)",
        "FULL",
        Aim("rate", "trio_stream on trio", 1, at_least=0.7, versus="by hand, one after the other"),
        Aim("rate", "trio_stream on trio", 64, at_least=3, versus="trio_stream on trio", versus_n=1),
    ),
    _row(
        "commits-normal",
        "The SQLite store: one put in each commit, from so many tasks at once, without waiting for the disk (NORMAL)",
        "NORMAL",
        Aim("rate", "trio_stream on trio", 1, at_least=0.7, versus="by hand, one after the other"),
        Aim("rate", "trio_stream on trio", 64, at_least=3, versus="trio_stream on trio", versus_n=1),
    ),
    Row(
        "commits-processes",
        "The SQLite store: one put in each commit, from so many processes at once, durable (FULL)",
        (Figure("rate", "commits/s of all of them", more_is_better=True),),
        {
            "trio_stream on trio": partial(from_processes, "trio"),
            "trio_stream on asyncio": partial(from_processes, "asyncio"),
            "by hand": partial(from_processes, "by hand"),
        },
        (8,),
        (2,),
        counts="processes",
        baseline="by hand",
        aims=(Aim("rate", "trio_stream on trio", 8, at_least=0.7, versus="by hand"),),
        rounds=3,
    ),
)
