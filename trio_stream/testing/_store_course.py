"""Random courses: everything that a store can be asked for, in any order, at several handles, against a model.

A course is the same each time: its number is the seed.
"""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import anyio.lowlevel

from trio_stream import Cursor, Subject
from trio_stream.stores import (
    Commit,
    ConflictError,
    Delete,
    HistoryLostError,
    Name,
    Operation,
    Put,
    Revoke,
)

from ._store_guard import Guarded
from ._store_samples import KEYS, some_key, some_value
from ._store_trial import StoreCheck, Trial, check

_COURSES: Final = 5
_STEPS: Final = 60


@check("any course of calls", keeps_open=False)
async def any_course_of_calls_gives_what_a_model_says(t: Trial) -> None:
    """Commits of any kind, reads of any kind, compactions; after some time all handles are closed, and it goes on."""
    await anyio.lowlevel.checkpoint()
    ids: dict[UUID, int] = {}
    for seed in range(_COURSES):
        async with AsyncExitStack() as handles:
            course = _Course(t, random.Random(seed), handles, ids)  # noqa: S311 - no secret
            try:
                await course.run()
            except Exception as error:
                error.add_note(f"course {seed}: {'; '.join(course.told[-6:])}")
                raise


@dataclass
class _Follower:
    """An iteration of `changes` and the commit that it has given last."""

    commits: AsyncIterator[Commit]
    last: int


@dataclass
class _Course:
    trial: Trial
    random: random.Random
    handles: AsyncExitStack
    ids: dict[UUID, int]
    stores: list[Guarded] = field(default_factory=list)
    followers: list[_Follower] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def run(self) -> None:
        t = self.trial
        for _ in range(2):
            await self.open()
        await t.know_salt(self.store)
        await t.agrees("opened again", *self.stores)
        kinds: Mapping[Callable[[], object], int] = {
            self.commit: 30,
            self.commit_again: 4,
            self.be_refused: 6,
            self.get: 8,
            self.list: 8,
            self.look: 5,
            self.topics: 3,
            self.resume: 6,
            self.follow: 3,
            self.step: 12,
            self.compact: 2,
            self.open: 2,
            self.agree: 2,
        }
        for _ in range(_STEPS):
            (call,) = self.random.choices([*kinds], [*kinds.values()])
            self.told.append(call.__name__)
            await call()  # type: ignore[misc]
        await t.agrees("at the end", *self.stores)

    @property
    def store(self) -> Guarded:
        return self.random.choice(self.stores)

    def name(self) -> Name:
        known = [*self.trial.model.state]
        if known and self.random.random() < 0.5:
            return self.random.choice(known)
        topic = self.trial.topic + self.random.choice(("", "", "2", " %", "_"))
        return Name(topic, some_key(self.random), self.random.choice(("default", "default", "n", "N")))

    def operation(self) -> Operation:
        name = self.name()
        match self.random.randrange(12):
            case 0 | 1 | 2:
                return Delete(*name)
            case 3:
                return Revoke(self.random.choice(("one", "two", some_key(self.random))))
            case _:
                is_final = self.random.random() < 0.1
                return Put(*name[:2], some_value(self.random), name.namespace, final=is_final)

    def operations(self) -> Sequence[Operation]:
        size = self.random.choice((1, 1, 1, 2, 3, 5, 5, 20, 150))
        return [self.operation() for _ in range(self.trial.most(size))]

    def expect(self) -> dict[Name, int]:
        names = [self.name() for _ in range(self.random.choice((0, 0, 1, 3, 40)))]
        return {name: self.trial.model.index_of(name) for name in names}

    async def commit(self) -> None:
        t, operations = self.trial, self.operations()
        if_changed = self.random.random() < 0.3
        by = UUID(int=self.random.getrandbits(128)) if self.random.random() < 0.3 else None
        if t.model.finished(t.model.effect(operations)):
            call = self.store.commit(operations, expect=self.expect())
            error = await t.raises(ConflictError, "a put of what is finished", call)
            t.holds(error.is_final, "is_final of the error is false, and the key is finished")
            return
        changes = t.model.effect(operations, if_changed=if_changed)
        if if_changed and not (changes or any(isinstance(each, Revoke) for each in operations)):
            index = await self.store.commit(operations, if_changed=True)
            t.equal("what a commit that changes nothing returns", int(index), t.newest)
            return
        index = await t.commit(
            *operations, store=self.store, expect=self.expect() or None, id=by, if_changed=if_changed
        )
        if by is not None:
            self.ids[by] = int(index)

    async def commit_again(self) -> None:
        if self.ids:
            by, made = self.random.choice([*self.ids.items()])
            index = await self.store.commit(self.operations(), id=by)
            self.trial.equal("the index of a commit with the id of another", int(index), made)
        await anyio.lowlevel.checkpoint()

    async def be_refused(self) -> None:
        t, wrong = self.trial, self.name()
        index = t.model.index_of(wrong)
        expected = self.random.choice(
            [each for each in (0, index - 1, index + 1, t.newest + 1) if each not in (index, -1)]
        )
        expect = {**self.expect(), wrong: expected}
        call = self.store.commit(self.operations(), expect=expect)
        error = await t.raises(ConflictError, f"expect {expected} where it is {index}", call)
        if not error.is_final:
            t.equal(
                "name and actual of the error", (tuple(error.name), int(error.actual)), (tuple(wrong), index)
            )

    async def get(self) -> None:
        name = self.name()
        entry = await self.store.get(name.topic, name.key, namespace=name.namespace)
        self.trial.equal(f"get of {name}", entry, self.trial.model.state.get(name))

    async def list(self) -> None:
        name = self.name()
        prefix = self.random.choice(("", name.key, name.key[:1], self.random.choice(KEYS)))
        async with self.store.list(name.topic, namespace=name.namespace, prefix=prefix) as entries:
            found = [row async for row in entries]
        expected = self.trial.model.rows(name.topic, name.namespace, prefix)
        self.trial.equal(f"list({name.topic!r}, {name.namespace!r}, {prefix!r})", found, expected)

    async def look(self) -> None:
        t, name = self.trial, self.name()
        key = self.random.choice(("", name.key))
        to = name.topic.removeprefix(t.topic)
        index, sink = await t.look(key, store=self.store, to=to, namespace=name.namespace)
        expected = {
            Subject(each, name.namespace): (entry.value, int(entry.index))
            for each, entry in t.model.rows(name.topic, name.namespace)
            if key in ("", each)
        }
        t.equal("the index of a snapshot", int(index), t.newest)
        t.equal(f"a snapshot of {key!r}", sink.state, expected, index)
        entry = t.model.state.get(name) if key else None
        is_final = entry is not None and entry.final
        t.equal(f"whether a snapshot of {key!r} says that it is finished", sink.is_finished, is_final)

    async def topics(self) -> None:
        t = self.trial
        found = [name for name in await self.store.topics() if name.startswith(t.topic)]
        t.equal("the topics", found, sorted({name.topic for name in t.model.state}))

    async def resume(self) -> None:
        """From anywhere in the log, by number or by cursor."""
        t = self.trial
        if not t.model.log:
            await anyio.lowlevel.checkpoint()
            return
        place = self.random.randrange(len(t.model.log))
        commit = t.model.log[place]
        after = self.random.choice(
            (
                commit.index,
                Cursor(commit.index, t.start.epoch),
                Cursor(commit.index, t.start.epoch, commit.mark),
            )
        )
        store = self.store
        floor = (await store.head()).floor
        if commit.index < floor:
            async with AsyncExitStack() as stack:

                async def first() -> Commit:
                    return await anext(await stack.enter_async_context(store.changes(after)))

                await t.raises(HistoryLostError, f"changes({after!r}), where the floor is {floor},", first())
        else:
            t.equal(f"changes({after!r})", await t.log(after, t.newest, store), t.model.log[place + 1 :])

    async def follow(self) -> None:
        after = (await self.store.head()).cursor
        commits = await self.handles.enter_async_context(self.store.changes(after))
        self.followers.append(_Follower(commits, after.index))

    async def step(self) -> None:
        t = self.trial
        if not self.followers:
            await anyio.lowlevel.checkpoint()
            return
        follower = self.random.choice(self.followers)
        following = [commit for commit in t.model.log if commit.index > follower.last]
        for expected in following[: self.random.randrange(1, 6)]:
            try:
                commit = await anext(follower.commits)
            except HistoryLostError as error:
                floor = (await self.store.head()).floor
                t.holds(follower.last < floor, f"{error!r} after {follower.last}, where the floor is {floor}")
                self.followers.remove(follower)
                return
            t.equal(f"the change after {follower.last}", commit, expected, expected.index)
            follower.last = int(commit.index)
        await anyio.lowlevel.checkpoint()

    async def compact(self) -> None:
        t = self.trial
        if t.model.log:
            index = self.random.choice(t.model.log).index
            before = (await self.store.head()).floor
            await self.store.compact(index)
            for store in self.stores:
                t.equal("the floor", (await store.head()).floor, max(before, index))
        await anyio.lowlevel.checkpoint()

    async def open(self) -> None:
        """One more handle; the third is closed again at the end only, as are all."""
        if len(self.stores) < 4:
            self.stores.append(await self.handles.enter_async_context(self.trial.open()))
        await anyio.lowlevel.checkpoint()

    async def agree(self) -> None:
        await self.trial.agrees("in between", self.store)


COURSE_CHECKS: Final[Sequence[StoreCheck]] = (any_course_of_calls_gives_what_a_model_says,)
