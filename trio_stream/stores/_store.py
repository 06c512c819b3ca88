"""The protocol that every engine satisfies."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from trio_stream import Cursor, SnapshotAppender, SubscribeRequest

from ._values import Commit, Entry, Head, Limits, Name, Operation, Record, Revocations


class Store(Protocol):
    """Named JSON values, changed by atomic commits that are numbered by indexes from 1 on.

    Indexes strictly increase; there may be gaps.
    Every replica of one store gives the same commit the same index, within one epoch.
    A new epoch means that the store was restored or replaced: indexes from before mean nothing any more.
    Every commit has a mark, so that a cursor of one copy of the store is told from one of another, also where nobody
    has noticed that the store was replaced.
    Every method raises `StoreError` when the store cannot be reached or is damaged.
    """

    @property
    def limits(self) -> Limits:
        """What one commit may have at most."""
        ...

    async def head(self) -> Head:
        """The newest index and its mark, the oldest index that changes can follow, and the epoch of both.

        It knows of every commit that was acknowledged before the question, by whomever: by it a publisher tells how old
        its feed is. So a member that the others may have gone on without has to ask them.
        A replica for reading only cannot; what it is behind comes on top of the age.
        """
        ...

    async def commit(
        self,
        operations: Sequence[Operation],
        *,
        expect: Mapping[Name, int] | None = None,
        id: UUID | None = None,  # noqa: A002 - the word for it
        if_changed: bool = False,
    ) -> int:
        """Does all operations or none, and returns the index once they are durable.

        Of several operations with one name the last counts.
        `expect` maps names, of these operations or not, to the index of the commit that put them there,
        0 for a name that must not exist; if one differs: `ConflictError`, and nothing is changed.
        A plain tuple may stand for a `Name`.
        An index that `get`, `list` or `commit` has returned knows its epoch: after the store was restored or
        replaced it is refused, even if another value has come to have the same index. A number of your own counts
        as read in the epoch that the store was last seen in.
        A `Put` to a key whose value is final is a `ConflictError`, too.

        `id` makes a commit safe to repeat: a second one with the same id does nothing, and returns the index of the
        first, whatever its operations. It is remembered as long as the log has the commit, at least 10 minutes.
        `if_changed` leaves out what would change nothing: a value that is equal to what is there, a delete of what
        is not. If nothing is left there is no commit, and what is returned is the newest index.

        No operations are a `ValueError`: every index stands for a change.
        A value that is not JSON, or not finite, is a `ValueError` too, and more than the `limits` allow is a
        `LimitExceededError`, before anything is written.
        `CommitUnknownError`: the connection went after the commit was sent. Ask again with the same `id`.

        Cancelled means not committed: once a commit can no longer be taken back it is awaited, and its index
        returned. A native `Task.cancel()` of asyncio cannot be held up like that: the commit is whole or
        absent, and only the store knows which; `expect` or an `id` makes it safe to repeat.
        """
        ...

    async def get(self, topic: str, key: str, *, namespace: str = "default") -> Entry | None:
        """The value of a key and the index it has had since; None if there is none."""
        ...

    def list(
        self, topic: str, *, namespace: str = "default", prefix: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, Entry]]]:
        """All keys of a topic in order, with their values, as of one index; read as they are asked for.

        The order is that of the keys' characters as numbers (Unicode code points), in every engine.
        With `prefix` only the keys that begin with it.
        Usage: `async with store.list("jobs") as entries: async for key, entry in entries: ...`.
        A slow reader holds nobody up, but what it has not read yet is kept for it until it leaves.
        """
        ...

    async def topics(self) -> Sequence[str]:
        """The topics that have a key in any namespace, in order."""
        ...

    async def snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        """A `SnapshotFunc` for every topic; consistent at the index that it returns, and streamed.

        An index that is returned should have its epoch and its mark with it: as a `Cursor`, or as those that `commit`
        of the same store returns.
        Only the partition "default" has any keys.
        A request for one key whose value is final is told so by `SnapshotAppender.finish`.
        A replica that knows less than it was seen to know raises `BehindError` before it appends anything: then it is
        asked again.
        A store need not know `SubscribeRequest.prefix` and `ALL`: a publisher asks for them only one that `WideStore`
        describes.
        """
        ...

    def changes(self, after: int | Cursor) -> AbstractAsyncContextManager[AsyncIterator[Commit]]:
        """Every commit after this one, in order, whoever makes it; waits for those to come.

        Usage: `async with store.changes(cursor) as commits: async for commit in commits: ...`.
        The iteration belongs to the epoch that the store has on entering. `HistoryLostError`, on entering or
        later, when commits that it needs were compacted, when the epoch has changed, or when the store has another
        commit with the index of the cursor, which its mark tells.
        `UnreadableCommitError` at a commit that is damaged or missing, behind those before it, and at each step after.
        An `after` that the store has yet to reach is waited for.
        An index is trusted to be of that epoch.
        One task iterates; a cancelled step loses nothing. A context manager, so that nothing outlives it.
        """
        ...

    async def compact(self, index: int) -> None:
        """Forgets the commits up to `index`; the state stays. They can no longer be resumed from.

        An index that the store has not reached is a `ValueError`; below the floor there is nothing to do.
        """
        ...

    async def revocations(self) -> Revocations:
        """The tokens that were revoked lately, which `compact` does not forget."""
        ...
