"""A log that can be read by topic, and by pages: what the feed of a publisher uses if the store offers it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from trio_stream import Cursor, SubscribeRequest

from ._values import Commit, Record


@runtime_checkable
class TopicLog(Protocol):
    """Reads the commits of some topics without decoding those of others."""

    def changes_of(
        self, topics: frozenset[str], after: int | Cursor
    ) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        """As `Store.changes`, with the operations of these topics only.

        Every commit comes, with its mark and with what it revokes: a publisher has to know the mark of each, since
        its clients come from publishers of other topics, too.
        One about other topics has no operations.
        `UnreadableCommitError` only for a commit that concerns one of the topics, or may concern any.
        """
        ...


@runtime_checkable
class PagedLog(Protocol):
    """Reads pages of the log for replays: what is asked for, and no more."""

    async def page_of(
        self, request: SubscribeRequest[Record], after: Cursor, *, upto: int
    ) -> Sequence[Commit]:
        """Some of the commits behind this cursor and up to the index `upto`, oldest first.

        Nothing is kept open between two pages, and nothing is waited for: empty if there is none yet.
        A page is about 1 MiB of JSON, or as many commits as are read at once.
        Operations that the request does not cover may be among the others, and may be left out.
        Commits of which nothing is left may be left out as well, but the last one that was looked at comes in any
        case, with its mark: the next page goes on behind it.

        `HistoryLostError` as of `Store.changes`.
        `UnreadableCommitError` if the first commit cannot be read and may concern what is asked for; a page ends before
        a later one.
        """
        ...
