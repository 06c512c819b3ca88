"""A log that can be read by topic: what the feed of a publisher uses if the store offers it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from ._values import Commit


@runtime_checkable
class TopicLog(Protocol):
    """Reads the commits of some topics without reading those of others."""

    def changes_of(
        self, topics: frozenset[str], after: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        """As `Store.changes`, with the operations of these topics only.

        Indexes increase and may leave commits of other topics out.
        A commit without operations says that all up to its index have passed.
        `UnreadableCommitError` only for a commit that concerns one of the topics, or may concern any.
        """
        ...

    async def reach(self, topics: frozenset[str], *, after: int, upto: int, characters: int) -> int:
        """The lowest index from `after` on behind which these topics have at most so many characters, up to `upto`.

        Reads no commit, and looks only at as much of the log as it must.
        """
        ...
