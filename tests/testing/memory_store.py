"""A store in memory, right in all that the protocol says, and stores with one bug each."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
from typing_extensions import override

from trio_stream import Cursor, Event, SnapshotAppender, Subject, SubscribeRequest
from trio_stream.stores import (
    JSON,
    Commit,
    ConflictError,
    Delete,
    Entry,
    Head,
    HistoryLostError,
    Name,
    Operation,
    Put,
    Record,
    Store,
)
from trio_stream.testing import StoreFactory


@dataclass
class Disk:
    """What outlives the handles."""

    log: list[Commit] = field(default_factory=list)
    floor: int = 0
    state: dict[Name, Entry] = field(default_factory=dict)
    epoch: str = "one"
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def index(self) -> int:
        return self.log[-1].index if self.log else self.floor


def valid(value: JSON) -> JSON:
    match value:
        case None | bool() | int():
            return value
        case float():
            if value - value != 0:
                raise ValueError("not finite")
            return value
        case str():
            value.encode()
            return value
        case list():
            return [valid(item) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: valid(item) for key, item in value.items()}
        case _:
            raise ValueError(f"not JSON: {value!r}")


class MemoryStore(Store):
    """One handle; each method is a checkpoint, and what it does it does in one go."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    async def head(self) -> Head:
        await anyio.lowlevel.checkpoint()
        return Head(self.disk.index, self.disk.floor, self.disk.epoch)

    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        await anyio.lowlevel.checkpoint()
        operations = self.check(operations)
        for name, index in (expect or {}).items():
            self.expect(name, index)
        index = self.next_index()
        for operation in operations:
            self.apply(operation, index)
        self.disk.log.append(Commit(index, operations))
        self.announce()
        return index

    def check(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        if not operations:
            raise ValueError("no operations")
        for operation in operations:
            if isinstance(operation, Put):
                valid(operation.value)
        return tuple(operations)

    def expect(self, name: Name, index: int) -> None:
        entry = self.disk.state.get(name)
        if (actual := entry.index if entry else 0) != index:
            raise ConflictError(name, index, actual)

    def next_index(self) -> int:
        return self.disk.index + 1

    def apply(self, operation: Operation, index: int) -> None:
        if isinstance(operation, Put):
            self.disk.state[operation.name] = Entry(operation.value, index)
        else:
            self.disk.state.pop(operation.name, None)

    def announce(self) -> None:
        changed, self.disk.changed = self.disk.changed, anyio.Event()
        changed.set()

    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        await anyio.lowlevel.checkpoint()
        return self.disk.state.get(Name(topic, key, namespace))

    def rows(self, topic: str, namespace: str) -> list[tuple[str, Entry]]:
        names = [name for name in self.disk.state if (name.topic, name.namespace) == (topic, namespace)]
        return sorted((name.key, self.disk.state[name]) for name in names)

    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default"
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        steps = Steps(self.rows(topic, namespace))
        await anyio.lowlevel.checkpoint()
        yield steps
        steps.is_closed = True

    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        await anyio.lowlevel.checkpoint()
        index = self.disk.index
        for name, entry in sorted(self.disk.state.items()):
            if name.topic == request.topic.name and request.covers(
                request.topic, Subject(name.key, name.namespace)
            ):
                record = Record(name.key, entry.value, "put", name.namespace)
                await snapshot.append([Event(request.topic, entry.index, record)])
        return index

    @asynccontextmanager
    async def changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        if isinstance(after, Cursor):
            if after.epoch != self.disk.epoch:
                raise HistoryLostError(after.index, self.disk.floor, self.disk.epoch)
            after = after.index
        self.check_history(after)
        await anyio.lowlevel.checkpoint()
        follower = self.follow(after)
        yield follower
        follower.is_closed = True

    def follow(self, after: int) -> "Follower":
        return Follower(self, after)

    def check_history(self, after: int) -> None:
        if after < self.disk.floor:
            raise HistoryLostError(after, self.disk.floor, self.disk.epoch)

    async def compact(self, index: int) -> None:
        await anyio.lowlevel.checkpoint()
        if index > self.disk.index:
            raise ValueError("not there yet")
        self.disk.floor = max(self.disk.floor, index)
        self.disk.log = [commit for commit in self.disk.log if commit.index > index]


class Steps(AsyncIterator[tuple[str, Entry]]):
    def __init__(self, rows: Sequence[tuple[str, Entry]]) -> None:
        self.rows = iter(rows)
        self.is_closed = False

    @override
    async def __anext__(self) -> tuple[str, Entry]:
        await anyio.lowlevel.checkpoint()
        if self.is_closed:
            raise anyio.ClosedResourceError
        for row in self.rows:
            return row
        raise StopAsyncIteration


class Follower(AsyncIterator[Commit]):
    def __init__(self, store: MemoryStore, after: int) -> None:
        self.store = store
        self.after = after
        self.is_closed = False

    @override
    async def __anext__(self) -> Commit:
        await anyio.lowlevel.checkpoint()
        if self.is_closed:
            raise anyio.ClosedResourceError
        while True:
            self.store.check_history(self.after)
            for commit in self.store.disk.log:
                if commit.index > self.after:
                    self.after = commit.index
                    return commit
            await self.store.disk.changed.wait()


def factory_of(kind: Callable[[Disk], Store]) -> StoreFactory:
    """Opens handles of one new store."""
    disk: list[Disk] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        if not disk:
            disk.append(Disk())
        yield kind(disk[0])

    def factory() -> AbstractAsyncContextManager[Store]:
        return opened()

    return factory


def is_delete_of(operation: Operation, state: Mapping[Name, Entry]) -> bool:
    return isinstance(operation, Delete) and operation.name in state
