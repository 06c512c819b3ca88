"""A store that writes a mark with each commit, its publisher, and older copies of it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from catalogue import HEALTH, JOBS, Catalogue, Health

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    open_publisher,
)

EPOCH = "e"


@dataclass
class Marked(Catalogue):
    """The mark of commit 7 is "a7", until the store is a copy "b" that has a commit 7 of its own, "b7"."""

    copy: str = "a"
    marks: dict[int, str] = field(default_factory=dict)

    def commit_events(self, events: Iterable[Event[Health]], **more: Any) -> int:
        mark = self.marks[self.index + 1] = f"{self.copy}{self.index + 1}"
        return super().commit_events([replace(each, mark=mark) for each in events], **more)

    def cursor(self, index: int | None = None) -> Cursor:
        """That of a commit, of the newest by default."""
        index = self.index if index is None else index
        return Cursor(index, EPOCH, self.marks.get(index, ""))

    async def marked_snapshot(
        self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]
    ) -> Cursor:
        cursor = self.cursor()
        await self.snapshot(request, snapshot)
        return cursor

    def as_of(self, index: int) -> "Marked":
        """An older copy of it, of which nobody says so: its epoch is the same."""
        return Marked(
            index=index,
            states={at: state for at, state in self.states.items() if at <= index},
            modified={name: min(at, index) for name, at in self.modified.items()},
            copy=chr(ord(self.copy) + 1),
            marks={at: mark for at, mark in self.marks.items() if at <= index},
        )


@asynccontextmanager
async def marked(store: Marked | None = None, **options: Any) -> AsyncIterator[tuple[Marked, EventPublisher]]:
    """A store with marks and its publisher, which begins at the store's newest commit."""
    store = store or Marked()
    source = Source(store.marked_snapshot, wide=True)
    options = {"index": store.index, "mark": store.cursor().mark, "epoch": EPOCH, **options}
    async with open_publisher({HEALTH: source, JOBS: source}, **options) as publisher:
        store.publisher = publisher
        yield store, publisher
