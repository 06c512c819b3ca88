"""What the stores of all engines do in the same way: how calls are checked, and how a snapshot is made of rows.

An engine says what it reads and writes: one key, the rows of a range, the commits behind a place, and a commit.
"""

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, TypeAlias
from uuid import UUID

from typing_extensions import override

from trio_stream import ALL, Cursor, Event, SnapshotAppender, SubscribeRequest

from ._orders import Order
from ._scans import Range, Rows
from ._status import DescribedStore
from ._steps import Steps
from ._store import Store
from ._topic_log import PagedLog, TopicLog
from ._values import (
    Commit,
    Entry,
    EpochIndex,
    Name,
    Operation,
    Record,
    check_expected,
    check_operations,
)
from ._wide import WideStore

_GROUP: Final = 256  # events of a snapshot that are appended at once, at most

Scan: TypeAlias = AbstractAsyncContextManager[tuple[EpochIndex, Callable[[], Awaitable[Rows]]]]
"""The index of a state, and what gives some of its rows at each call, empty at their end."""


class EngineStore(Store, DescribedStore, TopicLog, PagedLog, WideStore):
    """A store of the library's own."""

    @abstractmethod
    def _scan(self, rows: Range) -> Scan:
        """The rows of a range, of one state."""

    @abstractmethod
    async def _get(self, name: Name) -> tuple[EpochIndex, Entry | None]:
        """One key, and the index of the state in which it was read."""

    @abstractmethod
    def _changes(
        self, after: int | Cursor, topics: frozenset[str] | None
    ) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        """The commits behind a place; with topics, their operations only."""

    @property
    @override
    def is_wide(self) -> bool:
        return True

    @override
    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self._changes(after, None)

    @override
    def changes_of(
        self, topics: frozenset[str], after: int | Cursor
    ) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        return self._changes(after, topics)

    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        _, entry = await self._get(Name(topic, key, namespace))
        return entry

    @override
    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        async with self._scan(Range.of_prefix(topic, namespace, prefix)) as (head, fetch):

            async def fetch_entries() -> Sequence[tuple[str, Entry]]:
                return [
                    (key, Entry(value, EpochIndex(index, head.epoch), final))
                    for key, value, index, _, final in await fetch()
                ]

            with Steps(fetch_entries) as entries:
                yield entries

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> EpochIndex:
        topic, key = request.topic.name, request.key
        if request.partition not in ("default", ALL):
            head = await self.head()
            return EpochIndex(head.index, head.epoch, head.mark)
        is_one_key = key != "" and not request.prefix
        if is_one_key and request.namespace is not ALL:
            return await self._snapshot_key(request, Name(topic, key, request.namespace), snapshot)
        namespace = None if request.namespace is ALL else request.namespace
        rows = (Range.of_key if is_one_key else Range.of_prefix)(topic, namespace, key)
        async with self._scan(rows) as (index, fetch):
            while page := await fetch():
                for events in _by_commit(request, page):
                    await snapshot.append(events)
            return index

    async def _snapshot_key(
        self, request: SubscribeRequest[Record], name: Name, snapshot: SnapshotAppender[Record]
    ) -> EpochIndex:
        index, entry = await self._get(name)
        if entry is not None:
            row = (name.key, entry.value, entry.index, name.namespace, entry.final)
            for events in _by_commit(request, [row]):
                await snapshot.append(events)
            if entry.final and request.partition == "default":
                snapshot.finish()
        return index


def order_of(
    operations: Sequence[Operation],
    expect: Mapping[Name, int] | None,
    epoch: str,
    id_: UUID | None,
    *,
    if_changed: bool,
) -> Order:
    """What is to be committed; raises for what no engine should be asked to. `epoch`: the one that is known."""
    operations, expected = tuple(operations), check_expected(expect or {})
    check_operations(operations)
    if id_ is not None and not isinstance(id_, UUID):
        raise TypeError(f"the id of a commit is a UUID, not {id_!r}")
    return Order(operations, expected, epoch, id=id_, if_changed=if_changed)


def _by_commit(request: SubscribeRequest[Record], rows: Rows) -> Iterator[Sequence[Event[Record]]]:
    """Events for the rows, in their order; neighbours of one commit come together."""
    for index, group in groupby(rows, key=itemgetter(2)):
        while events := [
            Event(request.topic, index, Record(key, value, "put", namespace))
            for key, value, _, namespace, _ in islice(group, _GROUP)
        ]:
            yield events
