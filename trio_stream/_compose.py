"""Composes the snapshot of several interests out of theirs.

Each part has a reader of its own, so that it shares the snapshot that others read of it.
The parts are pumped into one snapshot at the same time, each at its own pace, and none waits for another: whoever has
had its end-of-snapshot goes on with the changes after it.
When the last part has had its end-of-snapshot, the greatest index that any part has come to is that of the whole; the
parts are brought there by the commits up to it, once they are published.

Where interests overlap, a row may come by several parts.
What came last is right: each part ends in the state at that index, and its events keep their order.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio

from ._errors import CloseReason, SnapshotFailed, SubscriptionForceClosed
from ._events import Event
from ._feeds import Interests
from ._passages import Passages
from ._reader import Reader
from ._request import SubscribeRequest
from ._subscription import BURST, Subscription

Put: TypeAlias = Callable[[Event[Any]], Awaitable[None]]
"""Appends a delivery to the snapshot that is made; waits while its readers are far behind."""


class Composer:
    """Makes the snapshots of several interests of one publisher."""

    def __init__(self, passages: Passages) -> None:
        self._passages = passages

    async def compose(self, interests: Interests, put: Put) -> int | None:
        """Puts everything; returns the index, or None if it cannot be had: the history has passed a part, or a part is
        of another copy of the store than what was published, or the publisher stops.

        Raises what the snapshot function of a part has raised.
        """
        requests = [SubscribeRequest[Any](interests=(each,)) for each in interests]
        parts = [Subscription(each, self._passages, _no_leave, fresh=True) for each in requests]
        try:
            composition = _Composition(parts, put)
            index = await composition.pump()
            if index is None:
                return None  # noqa: ASYNC910 - something was awaited
            await parts[0].wait_published(index)
            for part in parts:
                while (gate := part._gate()) is not None:
                    await part._wait_at(gate, None)
                if self._passages.timeline.is_stopped:
                    return None  # noqa: ASYNC910 - as above
                for event in part._take_up_to(index):
                    if event.is_new_snapshot_to_follow:
                        return None  # noqa: ASYNC910 - as above
                    await put(event)
        except SnapshotFailed as failed:
            assert failed.__cause__ is not None
            raise failed.__cause__ from None
        except SubscriptionForceClosed as ended:
            if ended.reason in (CloseReason.LAGGED, CloseReason.STOPPED):
                return None  # noqa: ASYNC910 - as above
            raise
        else:
            return index
        finally:
            for part in parts:
                part.unsubscribe()


class _Composition:
    """The parts, until each has had its end-of-snapshot."""

    def __init__(self, parts: list[Subscription[Any]], put: Put) -> None:
        self._parts = parts
        self._put = put
        self._unfinished = len(parts)
        self._index: int | None = None
        self._ended: SubscriptionForceClosed | None = None
        # Whether a part has begun anew: what was put of it is no longer right.
        self._is_stale = False
        # What waits for more of a part; to be left when no more is wanted.
        self._waits: dict[anyio.CancelScope, None] = {}

    async def pump(self) -> int | None:
        """Puts everything up to the greatest index that any part comes to, and returns that; or raises an end.

        None if a part has begun anew.
        """
        async with anyio.create_task_group() as tasks:
            for part in self._parts:
                tasks.start_soon(self._pump, part, tasks.cancel_scope)
        if self._ended is not None:
            raise self._ended
        return None if self._is_stale else self._index

    async def _pump(self, part: Subscription[Any], everything: anyio.CancelScope) -> None:
        while self._index is None:
            try:
                for event in await self._receive(part):
                    if event.is_end_of_snapshot:
                        self._unfinished -= 1
                    elif event.is_new_snapshot_to_follow:
                        self._is_stale = True
                        everything.cancel()
                        return
                    else:
                        await self._put(event)
            except SubscriptionForceClosed as error:
                self._ended = self._ended or error
                everything.cancel()
                return
            if not self._unfinished and self._index is None:
                self._index = max([each.index for each in self._parts])
                for scope in self._waits:
                    scope.cancel()

    async def _receive(self, part: Subscription[Any]) -> "list[Event[Any]]":
        """What is ready of it; nothing if no more is wanted."""
        with anyio.CancelScope() as scope:
            self._waits[scope] = None
            try:
                return [*await part.receive_batch(BURST)]
            finally:
                del self._waits[scope]
        return []


def _no_leave(_: Reader[Any]) -> None:
    """A part is no subscription of anybody."""
