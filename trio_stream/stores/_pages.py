"""Pages of a log that can only be followed: for the replays of a store that does not read pages itself.

Each page enters the changes anew and leaves them again, so that nothing is open while nobody asks for more.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from typing_extensions import override

from trio_stream import Cursor, SubscribeRequest

from ._errors import HistoryLostError, StoreError, UnreadableCommitError
from ._raised import error_of
from ._store import Store
from ._topic_log import PagedLog, TopicLog
from ._turns import Turns
from ._values import Change, Commit, Record

_EVENTS: Final = 1024  # in a page, or one commit more
_PASSED: Final = 4096  # commits that a page looks at, with those about nothing that is asked for

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
        self._passed = 0

    @property
    def is_full(self) -> bool:
        return self._events >= _EVENTS or self._passed >= _PASSED

    async def add(self, index: int, mark: str, operations: tuple[Change, ...]) -> None:
        await self._turns.take(max(1, len(operations)))
        asked = tuple([each for each in operations if each.topic in self._topics])
        self.last = Commit(index, asked, mark)
        self._passed += 1
        self._events += len(asked)
        if asked:
            self._commits.append(self.last)  # noqa: ASYNC910 - `_turns` sees to it

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
