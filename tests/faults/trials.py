"""Faults of every kind, each under readers: some stay, some hop by their cursor between two publishers of the store.

A trial does one kind of fault some times, and then checks everything: each acknowledged commit is in the log, once and
whole; what nobody was told of is there once when it is repeated with its id; what the store has is what its log says;
and each reader had the state of the log at every commit that it saw, or was told to begin anew.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from faults.following import Reader, caught_up, commits_of, published, reading
from faults.places import Pair, Place, PostgreSQLPlace
from faults.returning import At, Returning, folds, going, returning
from faults.writing import Log, Writer, application, kill_some, settle, writer, writing
from stores.storehouse import PATIENCE, put, state

from trio_stream import EventPublisher
from trio_stream.stores import (
    Commit,
    Delete,
    EpochIndex,
    Operation,
    Put,
    Store,
    open_store,
    open_store_publisher,
)

WRITERS: Final = 2  # processes at once
SMALL_HISTORY: Final = 32  # commits in memory; who was away for longer is given those of the log
MOST_MORE: Final = 4  # commits of each writer between two faults


@dataclass
class Found:
    """What a trial has found right."""

    times: int
    resumes: int
    settled: int = 0
    """Commits that nobody was told of, and that had been made all the same."""
    repeats: Sequence[str] = ()
    """The errors after which a commit was made again with its id."""


@dataclass
class Readers:
    """All who read during a trial."""

    steady: Reader
    hopping: Sequence[Returning]

    async def check(self, store: Store, publisher: EventPublisher, writers: Sequence[Writer]) -> None:
        """Brings all to the end, and then checks the log, the state and each reader."""
        index = await bring_together(store, self.hopping)
        assert await caught_up(publisher, store) == index
        await self.steady.until(lambda: self.steady.index == index)
        commits = await commits_of(store)
        found = Log(commits)
        found.check(writers)
        assert await state(store) == found.state()
        self.steady.check({index.epoch: [published(commit) for commit in commits]})
        assert self.steady.ends == []
        fingerprints = folds(commits)
        for reader in self.hopping:
            reader.check(fingerprints)

    @property
    def resumes(self) -> int:
        return sum(reader.resumes for reader in self.hopping)


async def bring_together(store: Store, readers: Sequence[Returning], farthest: int = 0) -> EpochIndex:
    """Commits until each reader has gone on at its cursor, and is where the store is, beyond an index."""
    with anyio.fail_after(PATIENCE):
        while True:
            index = await store.commit([put("last", random.random())])
            assert isinstance(index, EpochIndex)
            if index <= farthest:
                continue
            for reader in readers:
                await reader.until(At(index, index.mark))
            if all(reader.resumes for reader in readers):
                return index


@asynccontextmanager
async def published_by(place: Place, history: int) -> AsyncIterator[tuple[Store, EventPublisher]]:
    async with (
        place.open() as store,
        open_store_publisher(store, ["jobs"], history=history) as publisher,
    ):
        yield store, publisher


@asynccontextmanager
async def watched(
    place: Place, generator: random.Random
) -> AsyncIterator[tuple[Store, EventPublisher, Readers]]:
    """The store, with two publishers and all readers."""
    async with AsyncExitStack() as stack:
        store, publisher = await stack.enter_async_context(published_by(place, 100_000))
        _, other = await stack.enter_async_context(published_by(place, SMALL_HISTORY))
        steady = await stack.enter_async_context(reading(publisher))
        hopping = await stack.enter_async_context(returning((publisher, other), generator))
        yield store, publisher, Readers(steady, hopping)


async def kills(place: Place, generator: random.Random, times: int) -> Found:
    """Processes that commit are killed at random moments, some at once."""
    writers: list[Writer] = []
    async with watched(place, generator) as (store, publisher, readers):
        for names in at_once(times):
            writers += await kill_some(generator, [partial(writer, place, name) for name in names])
        settled = await settle(store, writers)
        await readers.check(store, publisher, writers)
    place.check()
    return Found(times, readers.resumes, settled)


async def kills_of_applications(place: Place, generator: random.Random, times: int) -> Found:
    """The same of an application with a table of its own: a row and its event are there together, or neither is."""
    writers: list[Writer] = []
    async with watched(place, generator) as (store, publisher, readers):
        place.make_orders()
        for names in at_once(times):
            writers += await kill_some(generator, [partial(application, place, name) for name in names])
            await check_orders(place, store)
        await readers.check(store, publisher, writers)
        told = {(each.task, each.number) for process in writers for each in process.told}
        unknown = set(Log(await commits_of(store)).made) - told
    place.check()
    return Found(times, readers.resumes, len(unknown))


async def check_orders(place: Place, store: Store) -> None:
    """A server may yet come to the commit of an application that is dead: then rows and events are read again."""
    while True:
        before = await store.head()
        orders, commits = place.orders(), await commits_of(store)
        if await store.head() == before:
            assert orders == Log(commits).made
            return


def at_once(times: int) -> list[list[str]]:
    """Names of writers, as many as are killed at the same time."""
    names = [f"w{number}" for number in range(times)]
    return [names[first : first + WRITERS] for first in range(0, times, WRITERS)]


async def restarts(place: PostgreSQLPlace, generator: random.Random, times: int) -> Found:
    """The server is killed or shut down at once while processes commit, and started again."""

    def restart() -> None:
        generator.choice((place.server.kill, place.server.shut_down))()
        place.server.start()

    return await under_writers(place, generator, times, restart)


async def promotions(pair: Pair, generator: random.Random, times: int) -> Found:
    """The primary is killed while processes commit, the standby takes over, and the other one becomes its standby."""

    def promote() -> None:
        pair.promote()
        pair.stand_by()

    return await under_writers(pair, generator, times, promote)


async def under_writers(
    place: PostgreSQLPlace, generator: random.Random, times: int, fault: Callable[[], None]
) -> Found:
    """Processes commit all the time, and again with its id what has failed; in the end they are killed."""
    async with watched(place, generator) as (store, publisher, readers):
        writers = [writer(place, f"w{number}", "patient") for number in range(WRITERS)]
        async with writing(*writers):
            for _ in range(times):
                await until_told(writers, generator.randint(1, MOST_MORE))
                await anyio.sleep(generator.uniform(0, 0.1))
                await anyio.to_thread.run_sync(fault)
            await until_told(writers, MOST_MORE)
            for each in writers:
                each.kill()
        settled = await settle(store, writers)
        await readers.check(store, publisher, writers)
    return Found(times, readers.resumes, settled, repeats(writers))


def repeats(writers: Sequence[Writer]) -> Sequence[str]:
    return [each for process in writers for each in process.repeated]


async def until_told(writers: Sequence[Writer], more: int) -> None:
    for each in writers:
        await each.until_told(more)


@dataclass
class Lives:
    """The timelines of a store that older copies are put in the place of."""

    generator: random.Random
    # What was acknowledged in the present one.
    told: list[At] = field(default_factory=list)
    # The state at every commit of any.
    fingerprints: dict[At, int] = field(default_factory=dict)
    farthest: int = 0

    async def commit(self, store: Store, operations: Sequence[Operation] = ()) -> At:
        index = await store.commit(operations or some_operations(self.generator))
        assert isinstance(index, EpochIndex)
        self.told.append(At(index, index.mark))
        self.farthest = max(self.farthest, index)
        return self.told[-1]

    async def keep(self, store: Store) -> None:
        """Before it ends: it has all that was acknowledged, and nothing else."""
        commits: list[Commit] = await commits_of(store)
        assert [At(commit.index, commit.mark) for commit in commits] == self.told
        self.fingerprints |= folds(commits)


def some_operations(generator: random.Random) -> Sequence[Operation]:
    name = Put("jobs", f"{generator.randint(0, 5)}", generator.random())
    return [name if generator.random() < 0.8 else Delete("jobs", name.key)]


async def restores(place: Place, generator: random.Random, times: int) -> Found:
    """The store is replaced by an older copy while clients hold newer cursors, and goes on to other commits.

    Half of the times everything is closed meanwhile, and nobody is there to notice it.
    """
    lives = Lives(generator)
    readers = [Returning((), random.Random(generator.random())) for _ in range(3)]
    left = times
    copy: object = None
    while True:
        async with (
            published_by(place, 100_000) as (store, publisher),
            published_by(place, SMALL_HISTORY) as (_, other),
        ):
            for reader in readers:
                reader.publishers = (publisher, other)
            async with going(readers):
                if left == times:
                    await some_commits(lives, store)
                while left:
                    copy = await go_beyond(lives, place, store, readers)
                    left -= 1
                    if generator.random() < 0.5:
                        break
                    if await place.replace(copy, generator):
                        await go_on(lives, place, store)
                    else:
                        await some_commits(lives, store)
                else:
                    await to_the_end(lives, store, readers)
                    break
        await anyio.to_thread.run_sync(place.put_back, copy)
        async with place.open() as store:
            await go_on(lives, place, store)
    for reader in readers:
        reader.check(lives.fingerprints, can_go_back=True)
    place.check()
    return Found(times, sum(reader.resumes for reader in readers))


async def restores_under_writers(place: PostgreSQLPlace, generator: random.Random, times: int) -> Found:
    """The same while processes commit all the time, who know nothing of it: what each was told is in a log, once."""
    logs: list[Sequence[Commit]] = []
    async with watched(place, generator) as (store, _, readers):
        writers = [writer(place, f"w{number}", "forgetful") for number in range(WRITERS)]
        async with writing(*writers):
            for _ in range(times):
                await until_told(writers, generator.randint(1, MOST_MORE))
                copy = await anyio.to_thread.run_sync(place.copy)
                await until_told(writers, generator.randint(1, MOST_MORE))
                ended = await anyio.to_thread.run_sync(place.exchange, copy)
                logs.append(await commits_of_archive(place, ended))
            await until_told(writers, MOST_MORE)
            for each in writers:
                each.kill()
        farthest = max(commits[-1].index for commits in logs)
        await bring_together(store, readers.hopping, farthest)
        logs.append(await commits_of(store))
    found = [Log(commits) for commits in logs]
    for log in found:
        log.check_whole()
        assert len(set(log.made)) == len(log.made)
    for told in (told for process in writers for told in process.told):
        assert any(log.has(told) for log in found), "an acknowledged commit was never there"
    fingerprints: dict[At, int] = {}
    for commits in logs:
        fingerprints |= folds(commits)
    for reader in readers.hopping:
        reader.check(fingerprints, can_go_back=True)
    return Found(times, readers.resumes, repeats=repeats(writers))


async def commits_of_archive(place: PostgreSQLPlace, schema: str) -> Sequence[Commit]:
    async with open_store(place.server.url(schema=schema), read_only=True) as store:
        return await commits_of(store)


async def go_beyond(lives: Lives, place: Place, store: Store, readers: Sequence[Returning]) -> object:
    """Makes a copy, and then commits that some have seen and that it does not have."""
    copy = await anyio.to_thread.run_sync(place.copy)
    copied = len(lives.told)
    await some_commits(lives, store)
    await pass_all(lives, store)
    for reader in lives.generator.sample(readers, 2):
        await reader.until(lives.told[-1])
    await lives.keep(store)
    del lives.told[copied:]
    return copy


async def go_on(lives: Lives, place: Place, store: Store) -> None:
    """By who was there, or by a process that begins now and knows nothing."""
    if lives.generator.random() < 0.5:
        await some_commits(lives, store)
    else:
        async with place.open() as newcomer:
            await some_commits(lives, newcomer)


async def some_commits(lives: Lives, store: Store) -> None:
    for _ in range(lives.generator.randint(1, 6)):
        await lives.commit(store)


async def to_the_end(lives: Lives, store: Store, readers: Sequence[Returning]) -> None:
    await some_commits(lives, store)
    await pass_all(lives, store)
    while True:
        for reader in readers:
            await reader.until(lives.told[-1])
        if all(reader.resumes for reader in readers):
            break
        await pass_all(lives, store)
    await lives.keep(store)


async def pass_all(lives: Lives, store: Store) -> None:
    """Commits beyond every cursor: who waits for a commit that is lost is told then."""
    farthest = lives.farthest
    while lives.told[-1].index < farthest:
        await lives.commit(store)
    await lives.commit(store, [put("passing", lives.generator.random())])  # which everybody sees
