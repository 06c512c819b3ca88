"""What the checks of a store share: an open one, topics that nobody has used, and how they fail."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
from typing_extensions import override

from trio_stream import Event, SnapshotAppender
from trio_stream.stores import JSON, Commit, Operation, Put, Record, Store

from ._broken import PromiseBroken

E = TypeVar("E", bound=Exception)

StoreFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]
"""Opens one store, the same each time."""
StoreCheck: TypeAlias = Callable[[StoreFactory], Awaitable[None]]
"""One promise of a store: returns if it is kept, raises `PromiseBroken` if not."""


@dataclass
class Trial:
    """An open store and the topic of one check, in which there is nothing yet."""

    promise: str
    store: Store
    topic: str

    def fail(self, difference: str, index: int | None = None) -> NoReturn:
        """The promise is broken."""
        raise PromiseBroken(f"store, {self.promise}", index, difference)

    def equal(self, what: str, found: object, expected: object, index: int | None = None) -> None:
        """The promise is broken if these differ."""
        if found != expected:
            self.fail(f"{what}: {found!r}, not {expected!r}", index)

    def put(self, key: str, value: JSON = None) -> Put:
        """A put to the topic of the check."""
        return Put(self.topic, key, value)

    async def commit(self, *operations: Operation) -> int:
        """Commits without an expectation."""
        return await self.store.commit(operations)

    async def state(self, store: Store | None = None) -> dict[str, JSON]:
        """What `list` says."""
        async with (store or self.store).list(self.topic) as entries:
            return {key: entry.value async for key, entry in entries}

    async def raises(self, kind: type[E], what: str, call: Awaitable[object]) -> E:
        """The promise is broken unless the call raises this."""
        await anyio.lowlevel.checkpoint()
        try:
            result = await call
        except kind as error:
            return error
        except Exception as error:  # noqa: BLE001 - it is the cause of what is raised
            self.fail_from(error, f"{what} raised {error!r}, not {kind.__name__}")
        return self.fail(f"{what} returned {result!r}, and must raise {kind.__name__}")

    def fail_from(self, cause: Exception, difference: str) -> NoReturn:
        """The promise is broken by an exception of the wrong kind."""
        raise PromiseBroken(f"store, {self.promise}", None, difference) from cause


@asynccontextmanager
async def trial(factory: StoreFactory, promise: str) -> AsyncIterator[Trial]:
    """The store, opened for one check."""
    async with factory() as store:
        yield Trial(promise, store, f"check-{secrets.token_hex(6)}")


async def take(commits: AsyncIterator[Commit], count: int) -> Sequence[Commit]:
    """The next commits, waited for."""
    await anyio.lowlevel.checkpoint()
    return [await anext(commits) for _ in range(count)]


@dataclass
class Sink(SnapshotAppender[Record]):
    """Keeps what is appended; `at_append` happens before each."""

    at_append: Callable[[], Awaitable[object]] | None = None
    events: list[Event[Record]] = field(default_factory=list)

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        if self.at_append is not None:
            await self.at_append()
        await anyio.lowlevel.checkpoint()
        self.events += events
        return True

    @property
    def state(self) -> dict[str, JSON]:
        """What a reader makes of it."""
        records = [event.payload for event in self.events if isinstance(event.payload, Record)]
        return {record.key: record.value for record in records if not record.is_delete}
