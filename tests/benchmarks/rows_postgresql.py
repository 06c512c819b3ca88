"""Rows: the store in PostgreSQL, by the wall clock, each measurement with a server of its own on this machine."""

import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Final

import anyio
from stores.postgresql.server import Server, missing

from trio_stream.stores import open_store

from . import by_hand_postgresql as by_hand
from .by_hand import as_it_is, decoded, delivered
from .processes import ENVIRONMENT, command
from .row import Aim, Figure, Load, Row, Sample
from .rows_bulk import TOPIC, measure_head, measure_start
from .rows_commits import LONGER, commits_of_tasks, commits_of_worker
from .rows_follow import PACE, PACED, latency
from .rows_replay import BARE, FIGURES, FIRST, OBJECTS, SELECT, Measure, read_changes, read_replay
from .store_committer import OTHERS
from .timing import settle

with suppress(ImportError):  # `missing` says so
    import psycopg

    from trio_stream.stores.postgresql import create_tables

# What a server has that somebody trusts with data; that of the tests does without.
DURABLE: Final = {"fsync": "on", "full_page_writes": "on"}
ONE_THREAD, WORKER = "by hand, one after the other", "by hand, in a worker thread of trio"


@contextmanager
def served(**settings: str) -> Iterator[str]:
    """The URL of a database without a store."""
    server = Server()
    try:
        server.create()
        server.start(**settings)
        yield server.url()
    finally:
        server.remove()


@contextmanager
def connected(url: str) -> Iterator["psycopg.Connection[Any]"]:
    """To a database that has a store then."""
    with closing(psycopg.connect(url)) as connection:
        create_tables(connection)
        connection.commit()
        yield connection


def from_tasks(backend: str, load: Load) -> Sample:
    with served(**DURABLE) as url:
        seconds = LONGER * load.seconds
        return {"rate": anyio.run(commits_of_tasks, url, {}, load.n, seconds, backend=backend)}


def from_one_thread(load: Load) -> Sample:
    """However many tasks would ask for them."""
    with served(**DURABLE) as url, connected(url) as connection:
        by_hand.commit_for(connection, OTHERS, "first", 0.0)
        settle()
        begin = perf_counter()
        count = by_hand.commit_for(connection, OTHERS, "0", LONGER * load.seconds)
        return {"rate": count / (perf_counter() - begin)}


def from_worker(load: Load) -> Sample:
    with served(**DURABLE) as url, connected(url) as connection:
        commit = partial(by_hand.commit, connection, OTHERS)
        seconds = LONGER * load.seconds
        return {"rate": anyio.run(commits_of_worker, commit, load.n, seconds, backend="trio")}


async def _create(url: str) -> None:
    async with open_store(url):
        pass


def receive(backend: str, load: Load) -> Sample:
    with served(**DURABLE) as url:
        anyio.run(_create, url, backend=backend)
        return _of(anyio.run(latency, url, load.n, _pace(load), backend=backend))


def receive_by_hand(read: Callable[[str, int, float], list[float]], load: Load) -> Sample:
    with served(**DURABLE) as url:
        with connected(url):
            pass
        return _of(read(url, load.n, _pace(load)))


def from_notices(url: str, commits: int, pace: float) -> list[float]:
    """Seconds from each commit of another process until the notice of it is here; it has the value."""
    with closing(by_hand.payloads(url)) as payloads, _writer(next(payloads), url, commits, pace):
        return [-float(next(payloads)) + perf_counter() for _ in range(commits)]  # the time is taken last


def from_log(url: str, commits: int, pace: float) -> list[float]:
    """The same until it was read from the log, as it has to be if there are commits without a notice."""
    took: list[float] = []
    with (
        closing(psycopg.connect(url, autocommit=True)) as connection,
        closing(by_hand.payloads(url)) as payloads,
        _writer(next(payloads), url, commits, pace),
    ):
        index = 0  # nobody has committed yet
        for _ in payloads:
            index, values = by_hand.read_behind(connection, index)
            took += [perf_counter() - value for value in values]
            if len(took) == commits:
                break
    return took


@contextmanager
def _writer(_listens: str, url: str, commits: int, pace: float) -> Iterator[None]:
    """Another process that commits by hand, from when somebody listens."""
    with subprocess.Popen(command("postgresql_writer", url, commits, pace), env=ENVIRONMENT):
        yield


def _pace(load: Load) -> float:
    return min(PACE, load.seconds)


def _of(took: list[float]) -> Sample:
    return {"half": median(took) * 1e3, "most": quantiles(took, n=100)[98] * 1e3}


def from_store(measure: Callable[[str], Awaitable[Sample]], load: Load) -> Sample:
    """With a log of so many commits."""
    with _logged(load.n) as url:
        return anyio.run(measure, url, backend="trio")


def from_select(take: Callable[..., object], load: Load) -> Sample:
    with _logged(load.n) as url, closing(psycopg.connect(url)) as connection:
        measure = Measure(load.n)
        measure.count = by_hand.read_log(connection, FIRST, take)
        return measure.sample()


@contextmanager
def _logged(commits: int) -> Iterator[str]:
    """A store with a log of so many commits of one put."""
    with served() as url:
        with connected(url) as connection:
            by_hand.load_log(connection, TOPIC, commits)
        yield url


ROWS = (
    Row(
        "postgresql-commits",
        "The store in PostgreSQL: one put in each commit, from so many tasks at once, durable (fsync)",
        (Figure("rate", "commits/s", more_is_better=True),),
        {
            "trio_stream on trio": partial(from_tasks, "trio"),
            "trio_stream on asyncio": partial(from_tasks, "asyncio"),
            ONE_THREAD: from_one_thread,
            WORKER: from_worker,
        },
        (1, 8, 64),
        (1, 64),
        counts="tasks",
        baseline=ONE_THREAD,
        aims=(
            *(
                Aim("rate", f"trio_stream on {backend}", tasks, at_least=0.7, versus=ONE_THREAD)
                for backend in ("trio", "asyncio")
                for tasks in (1, 64)
            ),
            Aim("rate", "trio_stream on trio", 1, at_least=0.7, versus=WORKER),
        ),
        rounds=3,
        missing=missing,
    ),
    Row(
        "postgresql-receive",
        "Commits of another process to PostgreSQL, every 5 ms, durable (fsync)",
        (
            Figure("half", "ms from commit to receive, half of them"),
            Figure("most", "ms, 99 of 100 of them"),
        ),
        {
            "trio_stream on trio": partial(receive, "trio"),
            "trio_stream on asyncio": partial(receive, "asyncio"),
            "LISTEN by hand, and the SELECT of what is new": partial(receive_by_hand, from_log),
            "LISTEN by hand": partial(receive_by_hand, from_notices),
        },
        (PACED,),
        (20,),
        counts="commits",
        baseline="LISTEN by hand",
        aims=tuple(
            Aim("half", f"trio_stream on {backend}", PACED, at_most=1.5, versus="LISTEN by hand")
            for backend in ("trio", "asyncio")
        ),
        rounds=3,
        missing=missing,
    ),
    Row(
        "postgresql-start",
        "A publisher of the store in PostgreSQL starts, with a log of so many commits of one put",
        (Figure("took", "ms"), Figure("memory", "MB more in use")),
        {
            "open_store_publisher": partial(from_store, measure_start),
            "Store.head": partial(from_store, measure_head),
        },
        (10_000, 1_000_000),
        (500,),
        counts="commits",
        aims=(
            Aim("took", "open_store_publisher", 1_000_000, at_most=50),
            Aim("memory", "open_store_publisher", 1_000_000, at_most=20),
        ),
        rounds=2,
        missing=missing,
    ),
    Row(
        "postgresql-replay",
        "The log of the store in PostgreSQL, with so many commits of one put, is read again",
        FIGURES,
        {
            "a publisher's subscriber who resumes": partial(from_store, read_replay),
            "Store.changes": partial(from_store, read_changes),
            OBJECTS: partial(from_select, delivered),
            SELECT: partial(from_select, decoded),
            BARE: partial(from_select, as_it_is),
        },
        (200_000,),
        (2_000,),
        counts="commits",
        baseline=SELECT,
        aims=(
            Aim("rate", "a publisher's subscriber who resumes", 200_000, at_least=0.5, versus=SELECT),
            Aim("rate", "Store.changes", 200_000, at_least=0.5, versus=SELECT),
            Aim("rate", "a publisher's subscriber who resumes", 200_000, at_least=0.5, versus=OBJECTS),
        ),
        rounds=2,
        missing=missing,
    ),
)
