"""A store in memory, right in all that the protocol says, and small: what it does it does in one go.

`Disk` is what outlives the handles, which are `MemoryStore`s; `MemoryFactory` opens them, and can do to the disk what
happens to a disk. `Disk.copy` and `Disk.put_back` are a backup and its restore.
"""

import json
import secrets
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Generic, TypeVar
from uuid import UUID

import anyio
import anyio.lowlevel
from typing_extensions import override

from trio_stream import ALL, ClosedResourceError, Cursor, Event, SnapshotAppender, Subject, SubscribeRequest
from trio_stream.stores import (
    JSON,
    MAX_DEPTH,
    MOST_REVOKED,
    Change,
    Commit,
    ConflictError,
    Delete,
    Entry,
    EpochIndex,
    Head,
    HistoryLostError,
    LimitExceededError,
    Limits,
    Name,
    Operation,
    Put,
    Record,
    Revocations,
    Revoke,
    Store,
    StoreError,
    token_digest,
)

T = TypeVar("T")

LIMITS = Limits(operations=10_000, commit=16 << 20, key=32 << 10, value=4 << 20)


@dataclass
class Disk:
    """What outlives the handles."""

    limits: Limits = LIMITS
    has_gaps: bool = False
    """Whether indexes leave some out."""
    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    log: list[Commit] = field(default_factory=list)
    floor: int = 0
    floor_mark: str = ""
    state: dict[Name, Entry] = field(default_factory=dict)
    ids: dict[UUID, EpochIndex] = field(default_factory=dict)
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    revoked: dict[str, int] = field(default_factory=dict)
    revoked_floor: int = 0
    restarts: int = 0
    # Set at each change; another one after it.
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def index(self) -> int:
        """Of the newest commit."""
        return self.log[-1].index if self.log else self.floor

    @property
    def mark(self) -> str:
        """Of the newest commit."""
        return self.log[-1].mark if self.log else self.floor_mark

    def next_index(self) -> int:
        """1, 2, 4, 7, 8, 10, ... with gaps."""
        return self.index + 1 + (self.index // 2 % 3 if self.has_gaps else 0)

    def mark_of(self, index: int) -> str | None:
        """None if there is no such commit, or it is gone."""
        if index == self.floor:
            return self.floor_mark
        commit = self.after(index - 1)
        return commit.mark if commit is not None and commit.index == index else None

    def after(self, index: int) -> Commit | None:
        """The oldest commit of the log after this index."""
        place = bisect_right(self.log, index, key=attrgetter("index"))
        return self.log[place] if place < len(self.log) else None

    def announce(self) -> None:
        """Wakes who waits for a change."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def copy(self) -> "Disk":
        """As it is now, to be put back later."""
        return replace(
            self,
            log=[*self.log],
            state={**self.state},
            ids={**self.ids},
            revoked={**self.revoked},
            changed=anyio.Event(),
        )

    def put_back(self, older: "Disk", *, epoch: str | None = None) -> None:
        """Makes it what `older` is, under the handles; with the epoch of that, unless there is to be another."""
        changed = self.changed
        self.__dict__.update(older.copy().__dict__)
        self.epoch = epoch or self.epoch
        self.changed = changed
        self.announce()


class MemoryStore(Store):
    """One handle."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        # The epoch that this handle has seen last, in which indexes without one are taken to have been read.
        self.epoch = disk.epoch
        self.is_dead = False

    @property
    @override
    def limits(self) -> Limits:
        return self.disk.limits

    @property
    def is_wide(self) -> bool:
        """See `WideStore`."""
        return True

    async def begin(self) -> None:
        """What each call begins with; there is no other checkpoint in most of them."""
        restarts = self.disk.restarts
        await anyio.lowlevel.checkpoint()
        self.check_alive(restarts)

    def check_alive(self, restarts: int) -> None:
        """Raises if its process was killed, or the server was restarted since."""
        if self.is_dead:
            raise StoreError("memory: killed")
        if self.disk.restarts != restarts:
            raise StoreError("memory: the connection was lost")

    @override
    async def head(self) -> Head:
        await self.begin()
        self.epoch = self.disk.epoch
        return Head(self.disk.index, self.disk.floor, self.disk.epoch, self.disk.mark)

    @override
    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,
        if_changed: bool = False,
    ) -> int:
        operations, expected = self.check(operations), expected_of(expect or {}, self.epoch)
        self.check_limits(operations)
        await self.begin()
        self.epoch = self.disk.epoch
        if id is not None and (index := self.made_by(id)) is not None:
            return index
        for name, at in expected.items():
            self.expect(name, at)
        tokens = list(dict.fromkeys(each.token for each in operations if isinstance(each, Revoke)))
        changes = last_changes(operations)
        if if_changed:
            changes = [each for each in changes if self.is_change(each)]
            if not (changes or tokens):
                return EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        for change in changes:
            self.check_not_final(change, expected)
        return self.write(tokens, changes, id)

    def write(self, tokens: Sequence[str], changes: Sequence[Change], by: UUID | None) -> EpochIndex:
        """Nothing can be wrong any more."""
        index = EpochIndex(self.disk.next_index(), self.disk.epoch, self.new_mark())
        digests = tuple(self.revoke(token, int(index)) for token in tokens)
        logged = tuple(each for change in changes if (each := self.apply(change, index)) is not None)
        self.disk.log.append(Commit(int(index), logged, index.mark, digests))
        if by is not None:
            self.remember(by, index)
        self.announce()
        return index

    def check(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """Raises for what nobody can commit; the same with values of its own."""
        if not operations:
            raise ValueError("no operations")
        return [
            replace(each, value=json.loads(text_of(each.value))) if isinstance(each, Put) else each
            for each in operations
        ]

    def check_limits(self, operations: Sequence[Operation]) -> None:
        limits, total = self.limits, 0
        if len(operations) > limits.operations:
            self.refuse("operations", limits.operations, len(operations))
        for each in operations:
            if isinstance(each, Revoke):
                continue
            for part in each.name:
                total += (length := len(part.encode()))
                if length > limits.key:
                    self.refuse("key", limits.key, length)
            if isinstance(each, Put):
                total += (length := len(text_of(each.value).encode()))
                if length > limits.value:
                    self.refuse("value", limits.value, length)
        if total > limits.commit:
            self.refuse("commit", limits.commit, total)

    def refuse(self, what: str, limit: int, actual: int) -> None:
        raise LimitExceededError("memory", what, limit, actual)

    def made_by(self, by: UUID) -> EpochIndex | None:
        return self.disk.ids.get(by)

    def remember(self, by: UUID, index: EpochIndex) -> None:
        self.disk.ids[by] = index

    def expect(self, name: Name, expected: EpochIndex) -> None:
        actual = self.index_of(name)
        if actual != expected or (expected and expected.epoch != self.disk.epoch):
            raise ConflictError(name, int(expected), actual)

    def index_of(self, name: Name) -> int:
        entry = self.disk.state.get(name)
        return int(entry.index) if entry else 0

    def is_change(self, change: Change) -> bool:
        entry = self.disk.state.get(change.name)
        if entry is None or isinstance(change, Delete):
            return (entry is None) == isinstance(change, Put)
        return (text_of(entry.value), entry.final) != (text_of(change.value), change.final)

    def check_not_final(self, change: Change, expect: Mapping[Name, int]) -> None:
        entry = self.disk.state.get(change.name)
        if isinstance(change, Put) and entry is not None and entry.final:
            expected = int(expect.get(change.name, entry.index))
            raise ConflictError(change.name, expected, int(entry.index), is_final=True)

    def new_mark(self) -> str:
        return secrets.token_hex(8)

    def revoke(self, token: str, index: int) -> str:
        """The digest; the token is remembered as the newest of them."""
        digest, revoked = token_digest(token, self.disk.salt), self.disk.revoked
        revoked.pop(digest, None)
        revoked[digest] = index
        if len(revoked) > MOST_REVOKED:
            self.disk.revoked_floor = revoked.pop(next(iter(revoked)))
        return digest

    def apply(self, change: Change, index: EpochIndex) -> Change | None:
        """Changes the state; what the log has of it."""
        entry = self.disk.state.pop(change.name, None)
        if isinstance(change, Put):
            self.disk.state[change.name] = Entry(change.value, EpochIndex(index, index.epoch), change.final)
        elif entry is None:
            return None
        return replace(change, previous=entry.value if entry else None, replaces=entry is not None)

    def announce(self) -> None:
        self.disk.announce()

    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        await self.begin()
        self.epoch = self.disk.epoch
        return self.disk.state.get(Name(topic, key, namespace))

    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        """In order of their keys."""
        found = [
            (name.key, entry)
            for name, entry in self.disk.state.items()
            if (name.topic, name.namespace) == (topic, namespace) and name.key.startswith(prefix)
        ]
        return sorted(found, key=itemgetter(0))

    @override
    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        await self.begin()
        self.epoch = self.disk.epoch
        steps = Rows(self.rows(topic, namespace, prefix))
        yield steps
        steps.is_closed = True

    @override
    async def topics(self) -> Sequence[str]:
        await self.begin()
        return sorted({name.topic for name in self.disk.state})

    def covered(self, request: SubscribeRequest[Record]) -> Sequence[tuple[Name, Entry]]:
        """What the request asks for."""
        found = [
            (name, entry)
            for name, entry in self.disk.state.items()
            if name.topic == request.topic.name
            and request.covers(request.topic, Subject(name.key, name.namespace))
        ]
        return sorted(found, key=itemgetter(0))

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        await self.begin()
        index = EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        rows = self.covered(request)
        for at, group in groupby(rows, key=lambda row: int(row[1].index)):
            events = [
                Event(request.topic, at, Record(name.key, entry.value, "put", name.namespace))
                for name, entry in group
            ]
            await snapshot.append(events)
        if is_of_one_key(request) and any(entry.final for _, entry in rows):
            snapshot.finish()
        return index

    @override
    @asynccontextmanager
    async def changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        if not isinstance(after, Cursor):
            after = Cursor(after, self.disk.epoch, self.disk.mark_of(after) or "")
        self.judge(after)
        follower = self.follow(Cursor(after.index, self.disk.epoch, after.mark))
        await self.begin()
        yield follower
        follower.is_closed = True

    def follow(self, after: Cursor) -> "Follower":
        return Follower(self, after)

    def judge(self, after: Cursor) -> None:
        """Raises unless the commits after this one are there, and are those that followed on it."""
        disk = self.disk
        is_lost = after.index < disk.floor or after.epoch not in ("", disk.epoch)
        if after.mark and after.index <= disk.index:
            is_lost = is_lost or disk.mark_of(after.index) != after.mark
        if is_lost:
            raise HistoryLostError(after.index, disk.floor, disk.epoch)

    @override
    async def compact(self, index: int) -> None:
        await self.begin()
        if index > self.disk.index:
            raise ValueError(f"the newest commit is {self.disk.index}")
        self.trim([commit for commit in self.disk.log if commit.index <= index])

    def trim(self, old: Sequence[Commit]) -> None:
        """Forgets these, the oldest of the log."""
        if old:
            self.disk.floor, self.disk.floor_mark = old[-1].index, old[-1].mark
            del self.disk.log[: len(old)]

    @override
    async def revocations(self) -> Revocations:
        await self.begin()
        return Revocations(self.disk.salt, self.disk.revoked_floor, {**self.disk.revoked})


class Steps(AsyncIterator[T], Generic[T]):
    """What an iteration shares with the other kind: it ends with its context."""

    def __init__(self) -> None:
        self.is_closed = False

    async def step(self) -> T:
        raise NotImplementedError

    @override
    async def __anext__(self) -> T:
        await anyio.lowlevel.checkpoint()
        if self.is_closed:
            raise ClosedResourceError("this iteration has ended: its context was left")
        return await self.step()


class Rows(Steps[tuple[str, Entry]]):
    def __init__(self, rows: Sequence[tuple[str, Entry]]) -> None:
        super().__init__()
        self.rows = iter(rows)

    @override
    async def step(self) -> tuple[str, Entry]:
        for row in self.rows:
            return row
        raise StopAsyncIteration


class Follower(Steps[Commit]):
    def __init__(self, store: MemoryStore, after: Cursor) -> None:
        super().__init__()
        self.store = store
        self.restarts = store.disk.restarts
        self.after = after  # the commit that was given last, in the epoch of the beginning

    @override
    async def step(self) -> Commit:
        while (commit := self.next()) is None:
            await self.store.disk.changed.wait()
            self.store.check_alive(self.restarts)
        return commit

    def next(self) -> Commit | None:
        """The commit after the last one, if it is there."""
        self.store.judge(self.after)
        commit = self.store.disk.after(self.after.index)
        if commit is not None:
            self.after = Cursor(commit.index, self.after.epoch, commit.mark)
        return commit


class MemoryFactory:
    """Opens handles of one store, which is made at the first opening; a `StoreFactory` with all hooks."""

    def __init__(
        self,
        kind: Callable[[Disk], Store] = MemoryStore,
        *,
        has_gaps: bool = False,
        rewinds_are_noticed: bool = False,
    ) -> None:
        self.kind = kind
        self.has_gaps = has_gaps
        self.rewinds_are_noticed = rewinds_are_noticed
        """Whether an older copy gets a new epoch."""
        self._disk: Disk | None = None

    @property
    def disk(self) -> Disk:
        """Needs an event loop."""
        if self._disk is None:
            self._disk = Disk(has_gaps=self.has_gaps)
        return self._disk

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Store]:
        await anyio.lowlevel.checkpoint()
        yield self.kind(self.disk)

    async def kill(self, store: Store) -> None:
        """See `KillsStore`."""
        await anyio.lowlevel.checkpoint()
        assert isinstance(store, MemoryStore)
        store.is_dead = True
        self.disk.announce()

    async def restart(self) -> None:
        """See `RestartsStore`."""
        await anyio.lowlevel.checkpoint()
        self.disk.restarts += 1
        self.disk.announce()

    async def save(self) -> Disk:
        """See `RewindsStore`."""
        await anyio.lowlevel.checkpoint()
        return self.disk.copy()

    async def rewind(self, saved: Disk) -> None:
        """See `RewindsStore`."""
        await anyio.lowlevel.checkpoint()
        self.disk.put_back(saved, epoch=secrets.token_hex(4) if self.rewinds_are_noticed else None)


def factory_of(kind: Callable[[Disk], Store]) -> MemoryFactory:
    """Opens handles of one new store."""
    return MemoryFactory(kind)


def expected_of(expect: Mapping[Name, int], epoch: str) -> Mapping[Name, EpochIndex]:
    """Each name as a `Name`, each index with the epoch that it was read in: this one if it does not say."""
    return {
        Name(*name): index if isinstance(index, EpochIndex) else EpochIndex(index, epoch)
        for name, index in expect.items()
    }


def text_of(value: JSON) -> str:
    """As JSON; `ValueError` for what is none, or would come back as something else."""
    check_value(value, MAX_DEPTH)
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    return text


def check_value(value: object, depth: int) -> None:
    match value:
        case None | bool() | int() | float() | str():
            return
        case list() | tuple() if depth:
            for item in value:
                check_value(item, depth - 1)
        case dict() if depth and all(isinstance(key, str) for key in value):
            for item in value.values():
                check_value(item, depth - 1)
        case _:
            raise ValueError("not JSON, or too deep")


def last_changes(operations: Sequence[Operation]) -> Sequence[Change]:
    """Of several of one name the last, in the order of those."""
    last = {each.name: each for each in operations if not isinstance(each, Revoke)}
    return [each for each in operations if not isinstance(each, Revoke) and last[each.name] is each]


def is_of_one_key(request: SubscribeRequest[Record]) -> bool:
    return request.key != "" and not request.prefix and ALL not in (request.namespace, request.partition)
