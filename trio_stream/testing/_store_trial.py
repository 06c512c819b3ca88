"""What the checks of a store share: an open handle, topics that nobody has used, a model, and how they fail."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol, TypeAlias, TypeVar
from uuid import UUID

import anyio
import anyio.lowlevel
from typing_extensions import override

from trio_stream import Cursor, Event, SnapshotAppender, Subject, SubscribeRequest
from trio_stream.stores import (
    JSON,
    Commit,
    Entry,
    EpochIndex,
    Head,
    Name,
    Operation,
    Put,
    Record,
    Store,
    topic,
)

from ._broken import PromiseBroken
from ._cancel import cancel_at_every_checkpoint
from ._store_guard import PATIENCE, Guarded
from ._store_model import Model, difference, exact

E = TypeVar("E", bound=Exception)

_MOST_RUNS: Final = 2_000  # of one call, each cancelled at another checkpoint
_MOST_EVENTS: Final = 200_000  # of one snapshot, of which no check makes as many

StoreFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]
"""Opens one store, the same each time.

It may be an object with more to offer: `KillsStore`, `RestartsStore`, `RewindsStore`.
"""


class StoreCheck(Protocol):
    """One promise of a store."""

    __name__: str

    def __call__(self, factory: StoreFactory, /, *, patience: float = PATIENCE) -> Awaitable[str | None]:
        """Returns None if the promise is kept, or says why that could not be checked; else `PromiseBroken`.

        `patience`: seconds after which one call of the store hangs.
        """
        ...


@dataclass
class Trial:
    """An open store and the topics of one check, in which there is nothing yet."""

    promise: str
    factory: StoreFactory
    patience: float
    store: Guarded
    start: Head
    """How the store stood when the check began."""
    topic: str = field(default_factory=lambda: f"check-{secrets.token_hex(6)}")
    model: Model = field(default_factory=Model)

    def fail(self, difference: str, index: int | None = None) -> NoReturn:
        """The promise is broken."""
        raise PromiseBroken(f"store, {self.promise}", index, difference)

    def equal(self, what: str, found: object, expected: object, index: int | None = None) -> None:
        """The promise is broken if these differ, also by the type of a value."""
        if exact(found) != exact(expected):
            self.fail(f"{what}: {difference(found, expected)}", index)

    def holds(self, truth: object, difference: str, index: int | None = None) -> None:
        """The promise is broken unless this is so."""
        if not truth:
            self.fail(difference, index)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Guarded]:
        """One more handle."""
        async with opened(self.factory, self.fail, self.patience) as store:
            yield store

    def put(
        self, key: str, value: JSON = None, namespace: str = "default", *, final: bool = False, to: str = ""
    ) -> Put:
        """A put to the topic of the check, or to one whose name is that and `to`."""
        return Put(self.topic + to, key, value, namespace, final=final)

    async def know_salt(self, store: Guarded | None = None) -> None:
        """Has the model know what the digests of tokens are made with: before the first `Revoke`."""
        self.model.salt = (await (store or self.store).revocations()).salt

    async def commit(
        self,
        *operations: Operation,
        store: Guarded | None = None,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,  # noqa: A002 - the word for it
        if_changed: bool = False,
    ) -> EpochIndex:
        """A commit that nothing is wrong with; the model has it, too. No other is made at the same time."""
        index = await (store or self.store).commit(operations, expect=expect, id=id, if_changed=if_changed)
        self.holds(index > self.newest, f"the commit after {self.newest} has index {int(index)}", index)
        self.model.add(int(index), operations, mark=index.mark, if_changed=if_changed)
        return index

    def most(self, count: int) -> int:
        """The same, or fewer: as many operations as a commit may have."""
        return min(count, self.store.limits.operations)

    @property
    def newest(self) -> int:
        """The index of the newest commit that the check knows."""
        return self.model.log[-1].index if self.model.log else self.start.index

    async def rows(
        self, store: Guarded | None = None, *, namespace: str = "default", prefix: str = "", to: str = ""
    ) -> list[tuple[str, Entry]]:
        """What `list` gives."""
        listed = (store or self.store).list(self.topic + to, namespace=namespace, prefix=prefix)
        async with listed as entries:
            return [row async for row in entries]

    async def state(self, store: Guarded | None = None) -> dict[str, JSON]:
        """The values of `list`."""
        return {key: entry.value for key, entry in await self.rows(store)}

    async def log(self, after: int | Cursor, upto: int, store: Guarded | None = None) -> list[Commit]:
        """The commits after one up to another, which is there."""
        await anyio.lowlevel.checkpoint()
        found: list[Commit] = []
        last = after.index if isinstance(after, Cursor) else after
        if last >= upto:
            return found
        async with (store or self.store).changes(after) as commits:
            while last < upto:
                commit = await anext(commits)
                self.holds(
                    commit.index > last, f"changes() gives commit {commit.index} after {last}", commit.index
                )
                last = int(commit.index)
                found.append(commit)
        return found

    async def agrees(self, what: str = "", *stores: Guarded) -> None:
        """The promise is broken unless state and log are those of the model, at each of these handles."""
        await anyio.lowlevel.checkpoint()
        lead = f"{what}: " if what else ""
        for store in stores or (self.store,):
            head = await store.head()
            self.equal(f"{lead}the index of the head", head.index, self.newest, self.newest)
            for topic_name, namespace in self.places():
                listed = store.list(topic_name, namespace=namespace)
                async with listed as entries:
                    found = [row async for row in entries]
                expected = self.model.rows(topic_name, namespace)
                self.equal(f"{lead}list({topic_name!r}, {namespace!r})", found, expected, self.newest)
            after = max(self.start.index, head.floor)
            expected_log = [commit for commit in self.model.log if commit.index > after]
            log = await self.log(after, self.newest, store)
            self.equal(f"{lead}the log", log, expected_log)
            marks = [one.mark and other.mark for one, other in zip(expected_log, log, strict=True)]
            self.equal(f"{lead}the marks of the log", marks, [commit.mark for commit in expected_log])

    def places(self) -> Sequence[tuple[str, str]]:
        """Topics and namespaces that the check has used."""
        names = {change.name for commit in self.model.log for change in commit.operations}
        return sorted({(name.topic, name.namespace) for name in names} | {(self.topic, "default")})

    async def look(
        self,
        key: str = "",
        *,
        store: Guarded | None = None,
        to: str = "",
        at_append: "Callable[[], Awaitable[object]] | None" = None,
        **asked: Any,
    ) -> "tuple[EpochIndex, Sink]":
        """A snapshot: its index and what was appended."""
        sink = Sink(self, at_append)
        request = SubscribeRequest(topic(self.topic + to), key, **asked)
        index = await (store or self.store).snapshot(request, sink)
        return index, sink

    async def sweep(
        self,
        call: Callable[[], Awaitable[object]],
        *,
        native: bool = False,
        after_each: Callable[[bool], Awaitable[object]] | None = None,
    ) -> None:
        """`cancel_at_every_checkpoint`; the promise is broken if there is no end of them."""
        runs = 0

        async def after(was_cancelled: bool) -> None:
            nonlocal runs
            await anyio.lowlevel.checkpoint()
            runs += 1
            self.holds(runs < _MOST_RUNS, f"a call has more checkpoints each time, {runs} so far")
            if after_each is not None:
                await after_each(was_cancelled)

        await cancel_at_every_checkpoint(call, native=native, after_each=after)

    async def raises(self, kind: type[E], what: str, call: Awaitable[object]) -> E:
        """The promise is broken unless the call raises this."""
        await anyio.lowlevel.checkpoint()
        try:
            result = await call
        except kind as error:
            return error
        except PromiseBroken:
            raise
        except Exception as error:  # noqa: BLE001 - it is the cause of what is raised
            self.fail_from(error, f"{what} raised {error!r}, not {kind.__name__}")
        return self.fail(f"{what} returned {result!r}, and must raise {kind.__name__}")

    def fail_from(self, cause: BaseException, difference: str) -> NoReturn:
        """The promise is broken by an exception of the wrong kind."""
        raise PromiseBroken(f"store, {self.promise}", None, difference) from cause

    @contextmanager
    def within(self, seconds: float, what: str) -> Iterator[None]:
        """The promise is broken unless the block is left in time."""
        with anyio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            self.fail(f"{what}: not within {seconds:g} s")


@dataclass(eq=False)
class Check:
    """A `StoreCheck` made of a function of a `Trial`, which may return why it could not be run."""

    promise: str
    function: Callable[[Trial], Awaitable[str | None]]
    keeps_open: bool = True
    """Whether there is a handle that is open all along; else the check opens those that there are."""

    def __post_init__(self) -> None:
        self.__name__ = self.function.__name__
        self.__qualname__ = self.__name__
        self.__doc__ = self.function.__doc__

    async def __call__(self, factory: StoreFactory, /, *, patience: float = PATIENCE) -> str | None:
        """Whatever goes wrong is `PromiseBroken`."""
        try:
            async with opened(factory, self._fail, patience) as store:
                t = Trial(self.promise, factory, patience, store, await store.head())
                if self.keeps_open:
                    return await self.function(t)
            return await self.function(t)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the store's
            broken = self._broken(error)
            raise broken from broken.__cause__

    def _fail(self, difference: str) -> NoReturn:
        raise PromiseBroken(f"store, {self.promise}", None, difference)

    def _broken(self, error: Exception) -> PromiseBroken:
        leaves = list(_leaves(error))
        for leaf in leaves:
            if isinstance(leaf, PromiseBroken):
                return leaf
        (cause, *_) = leaves
        notes = ", ".join(getattr(cause, "__notes__", ()))
        broken = PromiseBroken(f"store, {self.promise}", None, f"{cause!r}{notes and ', '}{notes}")
        broken.__cause__ = cause
        return broken


def check(
    promise: str, *, keeps_open: bool = True
) -> Callable[[Callable[[Trial], Awaitable[str | None]]], Check]:
    """Makes a check of a function; `promise` says in words what it is about."""
    return lambda function: Check(promise, function, keeps_open)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


@asynccontextmanager
async def opened(
    factory: StoreFactory, fail: Callable[[str], NoReturn], patience: float
) -> AsyncIterator[Guarded]:
    """A handle; opening and closing are bounded, too."""
    with anyio.CancelScope(deadline=anyio.current_time() + patience) as scope:
        async with factory() as store:
            scope.deadline = float("inf")
            try:
                yield Guarded(store, fail, patience)
            finally:
                scope.deadline = anyio.current_time() + patience
    if scope.cancelled_caught:
        fail(f"opening or closing the store did not come back within {patience:g} s")


async def take(commits: AsyncIterator[Commit], count: int) -> list[Commit]:
    """The next commits, waited for."""
    await anyio.lowlevel.checkpoint()
    return [await anext(commits) for _ in range(count)]


@dataclass
class Sink(SnapshotAppender[Record]):
    """Keeps what is appended; `at_append` happens before each."""

    trial: Trial
    at_append: Callable[[], Awaitable[object]] | None = None
    events: list[Event[Record]] = field(default_factory=list)
    is_finished: bool = False

    @override
    async def append(self, events: Iterable[Event[Record]], /) -> bool:
        if self.at_append is not None:
            await self.at_append()
        await anyio.lowlevel.checkpoint()
        for event in events:
            given: object = event
            if not (isinstance(given, Event) and isinstance(given.payload, Record)):
                self.trial.fail(f"a snapshot has appended {event!r}, not an event of a Record")
            self.events.append(event)
        if len(self.events) > _MOST_EVENTS:
            self.trial.fail(f"a snapshot gives no end of events, {len(self.events)} so far")
        return True

    @override
    def finish(self) -> None:
        self.is_finished = True

    @property
    def state(self) -> dict[Subject, tuple[JSON, int]]:
        """What a reader makes of it: the value of each subject, and the index that came with it."""
        state: dict[Subject, tuple[JSON, int]] = {}
        for event in self.events:
            record = event.payload
            assert isinstance(record, Record)
            if record.subject in state:
                self.trial.fail(f"a snapshot has {record.subject!r} twice", int(event.index))
            if not record.is_delete:
                state[record.subject] = (record.value, int(event.index))
        return state
