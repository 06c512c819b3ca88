"""Stores that read their state with one bug each, and the checks that are to find them."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from operator import itemgetter

import anyio.lowlevel
from testing.memory_store import Disk, MemoryStore, Rows
from typing_extensions import override

from trio_stream import Cursor, Event, SnapshotAppender, SubscribeRequest
from trio_stream.stores import Entry, EpochIndex, Head, Name, Record, Store


class LocaleOrder(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        return sorted(super().rows(topic, namespace, prefix), key=lambda row: (row[0].casefold(), row[0]))


class OrderOfUTF16(MemoryStore):
    """Characters beyond the first 65,536 come before some within them."""

    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        rows = super().rows(topic, namespace, prefix)
        return sorted(rows, key=lambda row: row[0].encode("utf-16-be", "surrogatepass"))


class OrderOfInsertion(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        places = {name: place for place, name in enumerate(self.disk.state)}
        rows = super().rows(topic, namespace, prefix)
        return sorted(rows, key=lambda row: places[Name(topic, row[0], namespace)])


class ListsAThousand(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        return super().rows(topic, namespace, prefix)[:1000]


class PagesOfAListLoseOne(MemoryStore):
    """The first row of each page after the first is skipped."""

    page = 1024

    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        rows = super().rows(topic, namespace, prefix)
        return [row for place, row in enumerate(rows) if place == 0 or place % self.page]


class PagesOfAListRepeatOne(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        rows = super().rows(topic, namespace, prefix)
        return [row for place, row in enumerate(rows) for _ in range(2 if place == 512 else 1)]


class ListsForEver(MemoryStore):
    """At the end it begins anew."""

    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        rows = super().rows(topic, namespace, prefix)
        return _Endless(rows)  # type: ignore[return-value]


class _Endless:
    def __init__(self, rows: Sequence[tuple[str, Entry]]) -> None:
        self.rows = rows

    def __iter__(self) -> "_Endless":
        return self

    def __next__(self) -> tuple[str, Entry]:
        if not self.rows:
            raise StopIteration
        return self.rows[0]


class ListsWhatIsThereNow(MemoryStore):
    """Values are looked up when they are asked for."""

    @override
    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        await self.begin()

        class Live(Rows):
            @override
            async def step(live) -> tuple[str, Entry]:  # noqa: N805
                key, entry = await super().step()
                return key, self.disk.state.get(Name(topic, key, namespace), entry)

        live = Live(self.rows(topic, namespace, prefix))
        yield live
        live.is_closed = True


class ListsEndWhenRowsGo(MemoryStore):
    """Read by key, a page of 1,000 at a time: what was deleted meanwhile is missing."""

    @override
    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        await self.begin()

        class Paged(Rows):
            @override
            async def step(paged) -> tuple[str, Entry]:  # noqa: N805
                key, entry = await super().step()
                while Name(topic, key, namespace) not in self.disk.state:
                    key, entry = await super().step()
                return key, entry

        paged = Paged(self.rows(topic, namespace, prefix))
        yield paged
        paged.is_closed = True


class ForgetsNulls(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        return [row for row in super().rows(topic, namespace, prefix) if row[1].value is not None]


class GetsNoNulls(MemoryStore):
    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        entry = await super().get(topic, key, namespace=namespace)
        return entry if entry and entry.value is not None else None


class GetsWithoutNamespace(MemoryStore):
    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        return await super().get(topic, key, namespace=namespace) or await super().get(topic, key)


class GetsFromACache(MemoryStore):
    """Of this handle, and nobody tells it of the commits of others."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.known: dict[Name, tuple[str, Entry | None]] = {}
        self.mine = ""

    @override
    def announce(self) -> None:
        self.mine = self.disk.mark
        super().announce()

    @override
    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        name = Name(topic, key, namespace)
        if name not in self.known or self.known[name][0] != self.mine:
            self.known[name] = self.mine, await super().get(topic, key, namespace=namespace)
        await anyio.lowlevel.checkpoint()
        return self.known[name][1]


class HeadOfYesterday(MemoryStore):
    """A head that is asked for while another one is, is that one."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.asked = 0
        self.last = Head(0, 0, disk.epoch)

    @override
    async def head(self) -> Head:
        self.asked += 1
        if self.asked % 5 or not self.last.index:
            self.last = await super().head()
        await anyio.lowlevel.checkpoint()
        return self.last


class PrefixIsAPattern(MemoryStore):
    """As LIKE would have it."""

    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        if not prefix:
            return super().rows(topic, namespace, prefix)
        pattern = "".join({"%": ".*", "_": "."}.get(each, re.escape(each)) for each in prefix)
        rows = super().rows(topic, namespace, "")
        return [row for row in rows if re.match(pattern, row[0], re.DOTALL)]


class PrefixFoldsCase(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        rows = super().rows(topic, namespace, "")
        return [row for row in rows if row[0].lower().startswith(prefix.lower())]


class PrefixHasABound(MemoryStore):
    """Keys from the prefix up to it with the last character but one of all behind it."""

    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        rows = super().rows(topic, namespace, prefix)
        return [row for row in rows if not prefix or row[0] < prefix + "\uffff"]


class PrefixIsNotTheKey(MemoryStore):
    @override
    def rows(self, topic: str, namespace: str, prefix: str) -> Sequence[tuple[str, Entry]]:
        return [row for row in super().rows(topic, namespace, prefix) if row[0] != prefix]


class TopicsOfWhatIsGone(MemoryStore):
    @override
    async def topics(self) -> Sequence[str]:
        await self.begin()
        logged = {each.topic for commit in self.disk.log for each in commit.operations}
        return sorted(logged | {name.topic for name in self.disk.state})


class TopicsOfOneNamespace(MemoryStore):
    @override
    async def topics(self) -> Sequence[str]:
        await self.begin()
        return sorted({name.topic for name in self.disk.state if name.namespace == "default"})


class TopicsInNoOrder(MemoryStore):
    @override
    async def topics(self) -> Sequence[str]:
        return sorted(await super().topics(), key=str.casefold)


class SnapshotReads(MemoryStore):
    """Whose snapshots are made of these parts."""

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        index = EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        await self.begin()
        await self.append(request, snapshot, self.covered(request))
        return index

    async def append(
        self,
        request: SubscribeRequest[Record],
        snapshot: SnapshotAppender[Record],
        rows: Sequence[tuple[Name, Entry]],
    ) -> None:
        for at, group in groupby(rows, key=lambda row: int(row[1].index)):
            await snapshot.append(
                [
                    Event(request.topic, at, Record(name.key, entry.value, "put", name.namespace))
                    for name, entry in group
                ]
            )
        if request.key and len(rows) == 1 and rows[0][1].final and not request.prefix:
            snapshot.finish()


class SnapshotIndexFirst(SnapshotReads):
    """The index by one statement, and then the rows by another."""


class SnapshotIndexLast(SnapshotReads):
    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        await super().snapshot(request, snapshot)
        return EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)


class SnapshotCutShortByCompaction(MemoryStore):
    """What is left to read when the log is compacted is not read."""

    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        floor = self.disk.floor
        index = EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        rows = self.covered(request)
        await self.begin()
        for at, group in groupby(rows, key=lambda row: int(row[1].index)):
            if self.disk.floor != floor:
                return index
            events = [Event(request.topic, at, Record(n.key, e.value, "put", n.namespace)) for n, e in group]
            await snapshot.append(events)
        if request.key and len(rows) == 1 and rows[0][1].final:
            snapshot.finish()
        return index


class SnapshotOfEveryNamespace(MemoryStore):
    @override
    def covered(self, request: SubscribeRequest[Record]) -> Sequence[tuple[Name, Entry]]:
        rows = [row for row in self.disk.state.items() if row[0].topic == request.topic.name]
        key = request.key
        return sorted((row for row in rows if key in ("", row[0].key)), key=itemgetter(0))


class SnapshotOfEveryPartition(MemoryStore):
    @override
    def covered(self, request: SubscribeRequest[Record]) -> Sequence[tuple[Name, Entry]]:
        request = SubscribeRequest(
            request.topic, request.key, namespace=request.namespace, prefix=request.prefix
        )
        return super().covered(request)


class SnapshotOfAThousand(MemoryStore):
    @override
    def covered(self, request: SubscribeRequest[Record]) -> Sequence[tuple[Name, Entry]]:
        return super().covered(request)[:1000]


class SnapshotThatSwallows(MemoryStore):
    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        index = EpochIndex(self.disk.index, self.disk.epoch, self.disk.mark)
        try:
            return await super().snapshot(request, snapshot)
        except Exception:  # noqa: BLE001
            return index


class SnapshotOfTheWrongMark(MemoryStore):
    @override
    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        index = await super().snapshot(request, snapshot)
        assert not isinstance(index, Cursor)
        return EpochIndex(index, self.disk.epoch, "0" * 16)


class PrefixesOfSnapshotsFoldCase(MemoryStore):
    @override
    def covered(self, request: SubscribeRequest[Record]) -> Sequence[tuple[Name, Entry]]:
        if not request.prefix:
            return super().covered(request)
        every = SubscribeRequest(request.topic, namespace=request.namespace, partition=request.partition)
        rows = super().covered(every)
        return [row for row in rows if row[0].key.lower().startswith(request.key.lower())]


class AFewSlowReadersAtMost(MemoryStore):
    """There are 64 places for those who read slowly; who comes later waits for one."""

    readers = 0

    @override
    @asynccontextmanager
    async def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AsyncIterator[AsyncIterator[tuple[str, Entry]]]:
        kind = type(self)
        kind.readers += 1
        try:
            if kind.readers > 64:
                await anyio.sleep_forever()
            async with super().list(topic, namespace=namespace, prefix=prefix) as steps:
                yield steps
        finally:
            kind.readers -= 1


class HandlesOfTheirOwn(MemoryStore):
    """Two handles are two stores."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(Disk())


class NewEpochWhenOpened(MemoryStore):
    def __init__(self, disk: Disk) -> None:
        disk.epoch += "+"
        super().__init__(disk)


WRONG_READS: dict[type[Store], str] = {
    LocaleOrder: "a_list_is_in_the_order_of_characters",
    OrderOfUTF16: "a_list_is_in_the_order_of_characters",
    OrderOfInsertion: "a_list_is_in_the_order_of_characters",
    ListsAThousand: "a_list_is_whole_however_long",
    PagesOfAListLoseOne: "a_list_is_whole_however_long",
    PagesOfAListRepeatOne: "a_list_is_whole_however_long",
    ListsForEver: "indexes_increase",
    ListsWhatIsThereNow: "a_list_is_of_one_index",
    ListsEndWhenRowsGo: "a_list_is_of_one_index",
    ForgetsNulls: "values_come_back_as_they_are",
    GetsNoNulls: "what_was_committed_is_read",
    GetsWithoutNamespace: "what_was_committed_is_read",
    GetsFromACache: "indexes_that_were_read_can_be_expected|any_course_of_calls_gives_what_a_model_says",
    HeadOfYesterday: "indexes_increase|all_agree_while_writers_go_on",
    PrefixIsAPattern: "a_prefix_is_taken_literally",
    PrefixFoldsCase: "a_prefix_is_taken_literally",
    PrefixHasABound: "a_prefix_is_taken_literally",
    PrefixIsNotTheKey: "a_prefix_is_taken_literally",
    TopicsOfWhatIsGone: "topics_are_those_that_have_a_key",
    TopicsOfOneNamespace: "topics_are_those_that_have_a_key",
    TopicsInNoOrder: "topics_are_those_that_have_a_key",
    SnapshotIndexFirst: "all_agree_while_writers_go_on",
    SnapshotIndexLast: "a_snapshot_is_of_the_index_that_it_returns",
    SnapshotCutShortByCompaction: "a_snapshot_is_of_the_index_that_it_returns",
    SnapshotOfEveryNamespace: "a_snapshot_is_of_the_index_that_it_returns",
    SnapshotOfEveryPartition: "a_snapshot_is_of_the_index_that_it_returns",
    SnapshotOfAThousand: "a_list_is_whole_however_long",
    SnapshotThatSwallows: "a_snapshot_is_well_formed",
    SnapshotOfTheWrongMark: "marks_tell_commits_apart",
    PrefixesOfSnapshotsFoldCase: "wide_snapshots_have_what_they_are_asked_for",
    AFewSlowReadersAtMost: "slow_readers_hold_nobody_up",
    HandlesOfTheirOwn: "one_store_whoever_opens_it",
    NewEpochWhenOpened: "what_was_returned_is_durable",
}
