"""A store that keeps a log of its commits, and a replay function over it: pages, gates, marks."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from catalogue import HEALTH, JOBS, Catalogue, Health, ready
from conflated import EVERY, by_subject
from scenes import quiet
from typing_extensions import override

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    ReplayFunc,
    SnapshotAppender,
    Source,
    StaleCursorError,
    SubscribeRequest,
    Subscription,
    open_publisher,
)

EPOCH = "e"


@dataclass
class Page:
    """What the replay function was asked for, and did."""

    request: SubscribeRequest[Health]
    cursor: Cursor
    appended: list[int] = field(default_factory=list)  # indexes
    is_cancelled: bool = False


@dataclass
class Logged(Catalogue):
    """A catalogue that remembers all its commits, also what each event replaces.

    `copy`: commit 7 has the mark "a7" where that is "a", and none where it is "".
    """

    copy: str = ""
    log: list[list[Event[Health]]] = field(default_factory=list)
    size: int = 3  # commits in a page, at most
    floor: int = 0  # the log has nothing up to here
    pages: list[Page] = field(default_factory=list)
    # {index: opened to let the function append that commit}; 0 is before it begins
    gates: dict[int, anyio.Event] = field(default_factory=dict)
    # Called before each commit that the function appends, and before it returns.
    meanwhile: Callable[[], object] = lambda: None

    @override
    def commit_events(self, events: Iterable[Event[Health]], **more: Any) -> int:
        commit = [replace(each, mark=self.mark(each.index)) for each in events]
        self.log.append(commit)
        return super().commit_events(commit, **more)

    def change(self, key: str, value: str | None, *, namespace: str = "default") -> int:
        """A commit of one event that says what it replaces."""
        payload = Health(key, value, namespace)
        before = self.states[self.index].get(HEALTH, {}).get(payload.subject)
        previous = None if before is None else replace(payload, value=before)
        return self.commit_events([Event(HEALTH, self.index + 1, payload, previous=previous)])

    def fill(self, count: int, keys: str = "abc") -> None:
        """Commits of one event each; the value is the index."""
        for _ in range(count):
            index = self.index + 1
            self.commit((keys[index % len(keys)], f"{index}"))

    def mark(self, index: int) -> str:
        return f"{self.copy}{index}" if self.copy and index else ""

    def cursor(self, index: int) -> Cursor:
        return Cursor(index, EPOCH, self.mark(index))

    def hold(self, at: int = 0) -> anyio.Event:
        """Has the function wait until the event is set."""
        gate = self.gates[at] = anyio.Event()
        return gate

    @property
    def asked(self) -> list[int]:
        """After which indexes pages were asked for."""
        return [page.cursor.index for page in self.pages]

    @override
    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
        index = await super().snapshot(request, snapshot)
        return self.cursor(index) if self.copy else index

    async def replay(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        """One page, at most `size` commits that are asked for."""
        page = Page(request, cursor)
        self.pages.append(page)
        try:
            return self.cursor(await self._fill(page, appender))
        except anyio.get_cancelled_exc_class():
            page.is_cancelled = True
            raise

    async def _fill(self, page: Page, appender: SnapshotAppender[Health]) -> int:
        await self._pass(0)
        reached = page.cursor.index
        if reached < self.floor or page.cursor.mark not in ("", self.mark(reached)):
            raise StaleCursorError(f"the log begins behind {self.floor}")
        for commit in list(self.log):
            index = commit[0].index
            if index <= page.cursor.index:
                continue
            covered = [
                each for each in commit for p in each.payloads if page.request.covers(each.topic, p.subject)
            ]
            if covered:
                if len(page.appended) == self.size:
                    break
                await self._pass(index)
                self.meanwhile()
                page.appended.append(index)
                reached = index
                if not await appender.append(covered):
                    break
            reached = index
        self.meanwhile()
        return reached

    async def _pass(self, index: int) -> None:
        if index in self.gates:
            await self.gates[index].wait()


@asynccontextmanager
async def logged(
    store: Logged | None = None, *, replay: ReplayFunc[Health] | None = None, **options: Any
) -> AsyncIterator[tuple[Logged, EventPublisher]]:
    """A publisher that begins at the newest commit of the store; `replay` stands in for the store's function."""
    store = store or Logged()
    options = {"index": store.index, "mark": store.mark(store.index), "epoch": EPOCH, "history": 4, **options}
    sources = {
        topic: Source(store.snapshot, replay=replay or store.replay, wide=True, row=by_subject)
        for topic in (HEALTH, JOBS)
    }
    async with open_publisher(sources, **options) as publisher:
        store.publisher = publisher
        yield store, publisher


def filled(count: int = 20, keys: str = "abc", **options: Any) -> Logged:
    """A store with so many commits, from 1 on, of these keys in turn."""
    store = Logged(**options)
    store.fill(count, keys)
    return store


def after(
    store: Logged, index: int, request: SubscribeRequest[Health] = EVERY, *, token: str = ""
) -> SubscribeRequest[Health]:
    """The request that goes on there."""
    return SubscribeRequest(interests=request.interests, token=token).after(store.cursor(index))


async def until(subscription: Subscription[Health], index: int) -> list[Event[Health]]:
    """Everything up to this index, one by one."""
    events: list[Event[Health]] = []
    while subscription.index < index:
        events.append(await subscription.receive())
    return events


def indexes(events: Iterable[Event[Health]]) -> list[int]:
    return [each.index for each in events]


async def caught_up(subscription: Subscription[Health], index: int) -> list[Event[Health]]:
    """Everything up to this index, of which the last may not be for the reader."""
    events: list[Event[Health]] = []
    for _ in range(200):
        events += ready(subscription)
        if subscription.horizon >= index:
            return events
        await quiet()
    raise AssertionError(f"it stays at {subscription.horizon}")
