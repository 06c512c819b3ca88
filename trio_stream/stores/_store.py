"""The protocol that every engine satisfies."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from trio_stream import Cursor, SnapshotAppender, SubscribeRequest

from ._values import Commit, Entry, Head, Name, Operation, Record


class Store(Protocol):
    """Named JSON values, changed by atomic commits that are numbered from 1 without gaps.

    Every replica of one store gives the same commit the same index, within one epoch.
    A new epoch means that the store was restored or replaced: indexes from before mean nothing any more.
    Every method raises `StoreError` when the store cannot be reached or is damaged.
    """

    async def head(self) -> Head:
        """The newest index, the oldest one that changes can follow, and the epoch they belong to."""
        ...

    async def commit(
        self, operations: Sequence[Operation], *, expect: Mapping[Name, int] | None = None
    ) -> int:
        """Does all operations or none, in order, and returns the index once they are durable.

        `expect` maps names, of these operations or not, to the index of the commit that put them there,
        0 for a name that must not exist; if one differs: `ConflictError`, and nothing is changed.
        A plain tuple may stand for a `Name`.
        An index that `get`, `list` or `commit` has returned knows its epoch: after the store was restored or
        replaced it is refused, even if another value has come to have the same index. A number of your own counts
        as read in the epoch that the store was last seen in.
        No operations are a `ValueError`: every index stands for a change.
        A value that is not JSON, or not finite, is a `ValueError` too, before anything is written.

        Cancelled means not committed: once a commit can no longer be taken back it is awaited, and its index
        returned. A native `Task.cancel()` of asyncio cannot be held up like that: the commit is whole or
        absent, and only the store knows which; `expect` makes it safe to repeat.
        """
        ...

    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        """The value of a key and the index it has had since; None if there is none."""
        ...

    def list(
        self, topic: str, *, namespace: str = "default"
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Entry]]]:
        """All keys of a topic in order, with their values, as of one index; read as they are asked for.

        Usage: `async with store.list("jobs") as entries: async for key, entry in entries: ...`.
        A slow reader holds nobody up, but what it has not read yet is kept for it until it leaves.
        """
        ...

    async def snapshot(self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]) -> int:
        """A `SnapshotFunc` for every topic; consistent at the index that it returns, and streamed.

        Only the partition "default" has any keys.
        A store need not know `SubscribeRequest.prefix` and `ALL`: a publisher asks only a SQLite store for them.
        """
        ...

    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        """Every commit from `after` + 1 on, in order, whoever makes it; waits for those to come.

        Usage: `async with store.changes(index) as commits: async for commit in commits: ...`.
        The iteration belongs to the epoch that the store has on entering. `HistoryLostError`, on entering or
        later, when commits that it needs were compacted, or when the epoch has changed.
        `UnreadableCommitError` at a commit that is damaged or missing, behind those before it, and at each step after.
        An `after` that the store has yet to reach is waited for.
        An index is trusted to be of that epoch; a `Cursor` of another one is a `HistoryLostError`.
        One task iterates; a cancelled step loses nothing. A context manager, so that nothing outlives it.
        """
        ...

    async def compact(self, index: int) -> None:
        """Forgets the commits up to `index`; the state stays. They can no longer be resumed from.

        An index that the store has not reached is a `ValueError`; below the floor there is nothing to do.
        """
        ...
