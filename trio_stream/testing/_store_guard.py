"""A handle of a store under test: each call is bounded, and what it returns is looked at.

A call that does not come back, that is missing or that returns something of another type is a broken promise, in words.
What a call raises goes through, with a note that says which call it was: a check may expect it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar, cast
from uuid import UUID

import anyio
import anyio.lowlevel
from typing_extensions import override

from trio_stream import Cursor, SnapshotAppender, SubscribeRequest
from trio_stream.stores import (
    Commit,
    Delete,
    Entry,
    EpochIndex,
    Head,
    Limits,
    Name,
    Operation,
    Put,
    Record,
    Revocations,
    Store,
)

from ._broken import PromiseBroken

T = TypeVar("T")
Fail: TypeAlias = Callable[[str], NoReturn]

PATIENCE: Final = 30.0
"""Seconds after which a call of a store hangs, unless `check_store` is told another number."""

_MOST: Final = 200_000  # items of one iteration, of which no check makes as many


class Guarded:
    """See above. What is checked is `store`."""

    def __init__(self, store: Store, fail: Fail, patience: float) -> None:
        self.store = store
        self._fail = fail
        self._patience = patience

    @property
    def limits(self) -> Limits:
        """See `Store.limits`."""
        limits = self._typed("limits", self._member("limits"), Limits)
        for what in ("operations", "commit", "key", "value"):
            if self._whole(f"limits.{what}", getattr(limits, what)) < 1:
                self._fail(f"limits.{what} is {getattr(limits, what)}: nothing could be committed")
        return limits

    async def head(self) -> Head:
        """See `Store.head`."""
        head = self._typed("head()", await self._call("head()", self._member("head")), Head)
        floor, index = self._whole("floor of head()", head.floor), self._whole("index of head()", head.index)
        if not 0 <= floor <= index:
            self._fail(f"head() has floor {floor} and index {index}: the floor is from 0 to the index")
        if not self._typed("epoch of head()", head.epoch, str):
            self._fail("the epoch of head() is empty")
        self._typed("mark of head()", head.mark, str)
        return head

    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,  # noqa: A002 - the word for it
        if_changed: bool = False,
    ) -> EpochIndex:
        """See `Store.commit`; only the options that are used are asked for.

        The index has the epoch and the mark that it came with, "" if with none.
        """
        options: dict[str, Any] = {} if expect is None else {"expect": expect}
        options |= {} if id is None else {"id": id}
        options |= {"if_changed": True} if if_changed else {}
        what = f"commit({', '.join(['operations', *options])})"
        index = await self._call(what, lambda: self._member("commit")(operations, **options))
        if self._whole(what, index) < 1:
            self._fail(f"{what} returned {index!r}: indexes are from 1 on")
        return self._with_epoch(what, index)

    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        """See `Store.get`."""
        options = {} if namespace == "default" else {"namespace": namespace}
        entry = await self._call("get()", lambda: self._member("get")(topic, key, **options))
        return None if entry is None else self._entry("get()", entry)

    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        """See `Store.list`."""
        options = {} if namespace == "default" else {"namespace": namespace}
        options |= {"prefix": prefix} if prefix else {}
        what = f"list({', '.join(['topic', *options])})"
        async with self._entered(what, lambda: self._member("list")(topic, **options)) as entries:
            yield _Steps(self, f"a step of {what}", entries, self._row)

    async def topics(self) -> Sequence[str]:
        """See `Store.topics`."""
        found = await self._call("topics()", self._member("topics"))
        return [self._typed("a topic of topics()", each, str) for each in self._several("topics()", found)]

    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> EpochIndex:
        """See `Store.snapshot`; the index has the epoch and the mark that it came with, "" if with none."""
        index = await self._call("snapshot()", lambda: self._member("snapshot")(request, snapshot))
        if isinstance(index, Cursor):
            return EpochIndex(index.index, index.epoch, index.mark)
        self._whole("snapshot()", index)
        return self._with_epoch("snapshot()", index)

    @asynccontextmanager
    async def changes(self, after: int | Cursor) -> AsyncIterator[AsyncIterator[Commit]]:
        """See `Store.changes`; the end of it is a broken promise."""
        async with self._entered("changes()", lambda: self._member("changes")(after)) as commits:
            yield _Steps(self, "a step of changes()", commits, self._commit, is_endless=True)

    @asynccontextmanager
    async def changes_of(
        self, topics: frozenset[str], after: int | Cursor
    ) -> AsyncIterator[AsyncIterator[Commit]]:
        """See `TopicLog.changes_of`."""
        async with self._entered(
            "changes_of()", lambda: self._member("changes_of")(topics, after)
        ) as commits:
            yield _Steps(self, "a step of changes_of()", commits, self._commit, is_endless=True)

    async def compact(self, index: int) -> None:
        """See `Store.compact`."""
        await self._call("compact()", lambda: self._member("compact")(index))

    async def revocations(self) -> Revocations:
        """See `Store.revocations`."""
        what = "revocations()"
        found = self._typed(what, await self._call(what, self._member("revocations")), Revocations)
        if not 1 <= len(self._typed(f"salt of {what}", found.salt, bytes)) <= 64:
            self._fail(f"the salt of {what} has {len(found.salt)} bytes, not 1 to 64")
        self._whole(f"floor of {what}", found.floor)
        if not isinstance(found.newest, Mapping):
            self._fail(f"newest of {what} is {brief(found.newest)}, not a mapping")
        for digest, index in found.newest.items():
            self._typed(f"a digest of {what}", digest, str)
            self._whole(f"an index of {what}", index)
        return found

    def patient(self) -> "Guarded":
        """The same handle for a call that is to take as long as it takes."""
        return Guarded(self.store, self._fail, float("inf"))

    async def bounded(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """What any other call returns, if it does in time."""
        return await self._call(what, call)

    async def _call(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        with anyio.move_on_after(self._patience):
            try:
                return await call()
            except PromiseBroken:
                raise
            except Exception as error:
                error.add_note(f"raised by {what}")
                raise
        return self._hangs(what)  # noqa: ASYNC910 - it was cancelled

    @asynccontextmanager
    async def _entered(
        self, what: str, call: Callable[[], AbstractAsyncContextManager[Any]]
    ) -> AsyncIterator[Any]:
        """Entering and leaving are bounded; what happens in between is not."""
        with anyio.CancelScope(deadline=anyio.current_time() + self._patience) as scope:
            async with call() as value:
                scope.deadline = float("inf")
                try:
                    yield value
                finally:
                    scope.deadline = anyio.current_time() + self._patience
        if scope.cancelled_caught:
            self._hangs(f"entering or leaving {what}")

    def _hangs(self, what: str) -> NoReturn:
        self._fail(f"{what} did not come back within {self._patience:g} s")

    def _member(self, name: str) -> Any:
        try:
            return getattr(self.store, name)
        except AttributeError:
            self._fail(f"the store has no `{name}`, which the protocol `Store` asks for")

    def _typed(self, what: str, value: object, kind: type[T]) -> T:
        if not isinstance(value, kind):
            self._fail(f"{what} is {brief(value)}, of type {type(value).__name__}, not {kind.__name__}")
        return value

    def _whole(self, what: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self._fail(f"{what} is {brief(value)}, not an integer")
        return value

    def _several(self, what: str, value: object) -> Sequence[object]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            self._fail(f"{what} is {brief(value)}, of type {type(value).__name__}, not a sequence")
        return value

    def _with_epoch(self, what: str, index: int) -> EpochIndex:
        """Plain numbers have neither epoch nor mark."""
        epoch = self._typed(f"the epoch of what {what} returned", getattr(index, "epoch", ""), str)
        mark = self._typed(f"the mark of what {what} returned", getattr(index, "mark", ""), str)
        return EpochIndex(index, epoch, mark)

    def _entry(self, what: str, entry: object) -> Entry:
        found = self._typed(what, entry, Entry)
        self._whole(f"the index of {what}", found.index)
        self._typed(f"final of {what}", found.final, bool)
        return found

    def _row(self, what: str, row: object) -> tuple[str, Entry]:
        if not (isinstance(row, tuple) and len(row) == 2):
            self._fail(f"{what} gave {brief(row)}, not a key and an Entry")
        return self._typed(f"the key of {what}", row[0], str), self._entry(f"the entry of {what}", row[1])

    def _commit(self, what: str, commit: object) -> Commit:
        found = self._typed(what, commit, Commit)
        self._whole(f"the index of {what}", found.index)
        for operation in self._typed(f"operations of {what}", found.operations, tuple):
            if not isinstance(operation, Put | Delete):
                self._fail(f"commit {found.index} has {brief(operation)}, neither a Put nor a Delete")
        self._typed(f"the mark of {what}", found.mark, str)
        for digest in self._typed(f"revoked of {what}", found.revoked, tuple):
            self._typed(f"a digest of {what}", digest, str)
        return found

    async def step(self, what: str, steps: object) -> Any:
        """The next of what an iteration gives."""
        return await self._call(what, lambda: cast("Awaitable[Any]", steps.__anext__()))  # type: ignore[attr-defined]

    def ended(self, what: str, count: int) -> NoReturn:
        """An iteration that has no end came to one."""
        self._fail(f"{what}: the iteration ended after {count}, and it must wait for what is to come")

    def never_ends(self, what: str) -> NoReturn:
        """An iteration gives more than there can be."""
        self._fail(f"{what}: it gives no end of them, {_MOST} so far")


class _Steps(AsyncIterator[T], Generic[T]):
    """Each step bounded, each item looked at."""

    def __init__(
        self,
        guarded: Guarded,
        what: str,
        steps: object,
        look: Callable[[str, object], T],
        *,
        is_endless: bool = False,
    ) -> None:
        self._guarded = guarded
        self._what = what
        self._steps = steps
        self._look = look
        self._is_endless = is_endless
        self._count = 0

    @override
    async def __anext__(self) -> T:
        try:
            item = await self._guarded.step(self._what, self._steps)
        except StopAsyncIteration:
            if self._is_endless:
                self._guarded.ended(self._what, self._count)
            raise
        self._count += 1
        if self._count > _MOST:
            self._guarded.never_ends(self._what)
        return self._look(self._what, item)


def brief(value: object, most: int = 160) -> str:
    """Its `repr`, with the middle left out if it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
