"""Replays from the log of a store: what is older than the history in memory, for who resumes or has fallen behind.

One function does it for all topics of the store, so that unions of them are replayed, too.
It reads one page each time, up to the newest commit that is published; from there on the history has the rest.

The log decides whether a cursor is good: a client may come with one of another copy of the store (D24).
Where a commit cannot be read that concerns what is asked for, nobody gets past it: who comes to it is stale, and a
new snapshot has what it did.
While the store fails, a replay waits, for some seconds; then it has failed.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from trio_stream import (
    ALL,
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    StaleCursorError,
    SubscribeRequest,
    Topic,
)
from trio_stream._warn import Warner

from ._errors import HistoryLostError, StoreError, UnreadableCommitError
from ._pages import FollowedPages, Place, changes_behind
from ._patience import patiently
from ._publication import Publications
from ._store import Store
from ._topic_log import PagedLog
from ._turns import BURST, Turns
from ._values import Commit, Entry, EpochIndex, Name, Put, Record

_warner: Final = Warner("trio_stream.stores")


class Replay:
    """The replay function of all topics of a store's publisher."""

    def __init__(
        self, store: Store, publisher: EventPublisher, topics: Mapping[str, Topic[Record]], place: Place
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._publications = Publications(topics)
        self._place = place
        self._pages = store if isinstance(store, PagedLog) else FollowedPages(store, place)

    async def __call__(
        self, request: SubscribeRequest[Record], cursor: Cursor, page: SnapshotAppender[Record]
    ) -> Cursor:
        """See `ReplayFunc`."""
        upto = self._publisher.index
        commits: Sequence[Commit] = ()
        reached = cursor
        if cursor.index < upto:
            commits = await self._read(request, cursor, upto)
            reached = await self._append(request, commits, cursor, page)
        else:
            await self._check(request, cursor)
        if reached.index >= upto and await self._is_finished(request, commits, reached):
            page.finish()
        return reached

    async def _read(self, request: SubscribeRequest[Record], cursor: Cursor, upto: int) -> Sequence[Commit]:
        """One page, which begins behind the cursor."""

        async def read() -> Sequence[Commit]:
            if commits := await self._pages.page_of(request, cursor, upto=upto):
                return commits
            # It has gone back for a while, as a replica might.
            raise StoreError(f"the log of the store ends before commit {upto}, which was published")

        return await patiently(read, _check)

    async def _append(
        self,
        request: SubscribeRequest[Record],
        commits: Sequence[Commit],
        cursor: Cursor,
        page: SnapshotAppender[Record],
    ) -> Cursor:
        """Returns how far that came."""
        publications = self._publications.only(request)
        turns = Turns()
        # What there is to append, and where that is in the log.
        found: list[Sequence[Event[Record]]] = []
        places: list[Commit] = []
        for commit in commits:
            events, _, _ = await publications.make(commit.index, commit.mark, commit.operations, turns)
            if events:
                found.append(events)
                places.append(commit)
        taken = await page.extend(found)
        last = commits[-1] if taken == len(found) else places[taken - 1]
        return Cursor(last.index, cursor.epoch, last.mark)

    async def _check(self, request: SubscribeRequest[Record], cursor: Cursor) -> None:
        """Raises if the store knows already that this cursor, which is ahead, is none of its own."""

        async def enter() -> None:
            topics = frozenset(each.topic.name for each in request.interests)
            async with changes_behind(self._store, topics, self._place(cursor)):
                pass

        await patiently(enter, _check)

    async def _is_finished(
        self, request: SubscribeRequest[Record], commits: Sequence[Commit], reached: Cursor
    ) -> bool:
        """Whether the one key that is asked for is finished there: behind these commits, if they are about it."""
        name = _name(request)
        if name is None:
            return False  # noqa: ASYNC910 - the caller has waited
        turns = Turns()
        for commit in reversed(commits):
            for start in range(0, len(commit.operations), BURST):
                portion = commit.operations[start : start + BURST]
                await turns.take(len(portion))
                for operation in portion:
                    if operation.name == name:
                        return isinstance(operation, Put) and operation.final

        async def get() -> Entry | None:
            return await self._store.get(name.topic, name.key, namespace=name.namespace)

        entry = await patiently(get, _check)
        if entry is None or not entry.final or entry.index > reached.index:
            return False
        return not isinstance(entry.index, EpochIndex) or entry.index.epoch == reached.epoch


def _name(request: SubscribeRequest[Record]) -> Name | None:
    """The one key that is asked for; None if it is more, or none that a store can have."""
    if len(request.interests) > 1:
        return None
    topic, key, is_prefix, namespace, partition = request.interests[0]
    if not key or is_prefix or namespace is ALL or partition != "default":
        return None
    return Name(topic.name, key, namespace)


def _check(error: StoreError) -> None:
    """Raises where no other attempt will do better."""
    if isinstance(error, UnreadableCommitError):
        _warner.warn("subscribers must start again: %s", error)
    if isinstance(error, UnreadableCommitError | HistoryLostError):
        raise StaleCursorError(str(error)) from error
