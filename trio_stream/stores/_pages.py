"""Pages of a log that can only be followed: for the replays of a store that does not read pages itself.

Each page enters the changes anew and leaves them again, so that nothing is open while nobody asks for more.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Final, TypeAlias

from typing_extensions import override

from trio_stream import Cursor, SubscribeRequest

from ._errors import HistoryLostError, StoreError, UnreadableCommitError
from ._raised import error_of
from ._store import Store
from ._topic_log import PagedLog, TopicLog
from ._turns import BURST, Turns
from ._values import JSON, Change, Commit, Put, Record

# In a page, or one commit more.
_EVENTS: Final = 1024
_BYTES: Final = 1 << 20
_PASSED: Final = 4096  # commits that a page looks at, with those about nothing that is asked for

_NODE: Final = 32  # bytes that a value takes beside its characters, about

Changes: TypeAlias = AbstractAsyncContextManager[AsyncIterator[Commit]]
Place: TypeAlias = Callable[[Cursor], int | Cursor]
"""How the store is asked for what comes behind a cursor."""


def changes_behind(store: Store, topics: frozenset[str], place: int | Cursor) -> Changes:
    """What the store has of these topics behind this place; and of others, if it cannot tell them apart."""
    return store.changes_of(topics, place) if isinstance(store, TopicLog) else store.changes(place)


class FollowedPages(PagedLog):
    """Pages made by following the log for a while."""

    def __init__(self, store: Store, place: Place) -> None:
        self._store = store
        self._place = place

    @override
    async def page_of(self, request: SubscribeRequest[Record], after: Cursor, *, upto: int) -> list[Commit]:
        """The log has the commit `upto`, or will have it: it is waited for."""
        topics = frozenset(each.topic.name for each in request.interests)
        place = self._place(after)
        page = _Page(topics)
        try:
            async with changes_behind(self._store, topics, place) as commits:
                if not isinstance(place, Cursor):
                    await self._check_epoch(after)
                async for commit in commits:
                    await page.add(commit.index, commit.mark, commit.operations)
                    if page.is_full or commit.index >= upto:
                        break
        except (StoreError, BaseExceptionGroup) as raised:
            await page.end(error_of(raised))
        return page.commits()  # noqa: ASYNC910 - entering the changes was one

    async def _check_epoch(self, after: Cursor) -> None:
        """These commits are of the epoch of the cursor, of which the store was not told."""
        head = await self._store.head()
        if head.epoch != after.epoch:
            raise HistoryLostError(after.index, head.floor, head.epoch)


class _Page:
    """Takes commits until there are enough."""

    def __init__(self, topics: frozenset[str]) -> None:
        self.last: Commit | None = None
        self._topics = topics
        self._turns = Turns()
        self._commits: list[Commit] = []
        self._events = 0
        self._bytes = 0
        self._passed = 0

    @property
    def is_full(self) -> bool:
        return self._events >= _EVENTS or self._bytes >= _BYTES or self._passed >= _PASSED

    async def add(  # noqa: ASYNC910 - `_turns` sees to it
        self, index: int, mark: str, operations: tuple[Change, ...]
    ) -> None:
        asked: list[Change] = []
        for start in range(0, len(operations) or 1, BURST):
            portion = operations[start : start + BURST]
            await self._turns.take(max(1, len(portion)))
            for each in portion:
                if each.topic in self._topics:
                    asked.append(each)
                    self._weigh(each.previous)
                    if isinstance(each, Put):
                        self._weigh(each.value)
        self.last = Commit(index, tuple(asked), mark)
        self._passed += 1
        self._events += len(asked)
        if asked:
            self._commits.append(self.last)

    def _weigh(self, value: JSON) -> None:
        """Counts its bytes, unless there are enough already: what is left of it then is not looked at."""
        left = [value]
        while left and self._bytes < _BYTES:
            match left.pop():
                case str(text):
                    self._bytes += len(text)
                case list() | tuple() as items:
                    left += islice(items, _BYTES // _NODE)
                case dict(items):
                    left += islice(items.keys(), _BYTES // _NODE)
                    left += islice(items.values(), _BYTES // _NODE)
                case _:
                    pass
            self._bytes += _NODE

    async def end(self, error: StoreError) -> None:  # noqa: ASYNC910 - the caller has waited
        """The log cannot be followed further; raises that, unless the page has something."""
        if (
            isinstance(error, UnreadableCommitError)
            and error.topics is not None
            and not self._topics & error.topics
        ):
            await self.add(error.index, error.mark, error.operations)
        if self.last is None:
            raise error

    def commits(self) -> list[Commit]:
        """Those of the topics, and the last one."""
        if self.last is not None and (not self._commits or self._commits[-1] is not self.last):
            self._commits.append(self.last)
        return self._commits
