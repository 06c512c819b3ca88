"""Composes the snapshot of several interests out of theirs.

Each part has a reader of its own, so that it shares the snapshot that others read of it.
A task for each part puts what that gives into one snapshot.
No part waits for another: one that has had its end-of-snapshot goes on with the changes after it.
When the last part has had its end-of-snapshot, the greatest index that any part has come to is that of the whole; the
parts are brought there by the commits up to it, once they are published.

A part whose subject is finished does not end: if that is reopened, it goes on.

The parts cannot wait where they are: a history has to keep the commits that are published while the slowest snapshot
function of them works.
If it does not, the snapshot is given up, and who reads it has fallen off.

Where interests overlap, a row may come by several parts.
What came last is right: each part ends in the state at that index, and its events keep their order.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter, methodcaller
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from ._buffer import Finished
from ._course import Course, Phase, Policy
from ._errors import SnapshotFailed, SubscriptionForceClosed
from ._events import Event
from ._passages import Made, Passages
from ._request import SubscribeRequest
from ._rights import Replacement, found
from ._routes import Interests
from ._subscription import BURST, Subscription

Put: TypeAlias = Callable[[Sequence[Event[Any]], Sequence[Replacement]], Awaitable[None]]
"""Appends deliveries, and what they replace, to the snapshot that is made; waits while its readers are far behind."""

PORTION: Final = 64  # parts that are begun between two checkpoints


class Composer:
    """Makes the snapshots of several interests of one publisher."""

    def __init__(self, passages: Passages) -> None:
        self._passages = passages

    async def compose(self, interests: Interests, put: Put) -> Made | None:
        """Puts everything.

        None if the history has passed a part, if that is of another copy of the store, or if the publisher stops.

        Raises what the snapshot function of a part has raised.
        """
        parts: list[Subscription[Any]] = []
        try:
            for each in interests:
                request = SubscribeRequest[Any](interests=(each,))
                parts.append(Subscription(request, self._passages, _no_leave, policy=Policy.PART))
                if not len(parts) % PORTION:
                    await self._passages.parking.backend.checkpoint()
            return await _Composition(parts, put).run()
        except SnapshotFailed as failed:
            raise failed.__cause__ or failed from None
        except SubscriptionForceClosed:  # lagged or stopped: nobody else knows of these
            return None  # noqa: ASYNC910 - as above
        finally:
            self._passages.parking.in_slices(map(Subscription.unsubscribe, parts), len(parts))


class _Composition:
    """One snapshot that is made of these parts."""

    def __init__(self, parts: list[Subscription[Any]], put: Put) -> None:
        self._parts = parts
        self._put = put
        self._unfinished = len(parts)
        self._is_over = False  # each part has had its end-of-snapshot
        self._ended: SubscriptionForceClosed | None = None
        self._is_void = False  # a part begins anew
        # What waits for more of a part; to be left when no more is wanted.
        self._waits: dict[anyio.CancelScope, None] = {}

    async def run(self) -> Made | None:
        """See `Composer.compose`; raises how a part ended."""
        async with anyio.create_task_group() as tasks:
            for count, part in enumerate(self._parts, 1):
                tasks.start_soon(self._pump, part, tasks.cancel_scope)
                if not count % PORTION:
                    await anyio.lowlevel.checkpoint()
        if self._ended is not None:
            raise self._ended
        if self._is_void:
            return None
        furthest = max(self._parts, key=attrgetter("index"))
        index = furthest.index
        mark = furthest._cursor_at(index).mark  # which nobody may remember later
        await self._reach(index)
        for part in self._parts:
            if not await self._finish(part, index):
                return None
        finished = [part for part in self._parts if _is_finished(part, index)]
        return Made(index, mark, [part.request.interests[0] for part in finished])

    async def _reach(self, index: int) -> None:
        """Waits until the index is published."""
        await self._parts[0].wait_published(index)

    async def _finish(self, part: Subscription[Any], index: int) -> bool:  # noqa: ASYNC910 - there may be nothing
        """Puts what comes up to the index; False if the part begins anew, or the publisher stops."""
        timeline = part._passages.timeline
        while part._phase is not Phase.LIVE and not timeline.is_stopped:
            # It has to be filled, or its snapshot was ahead, and another commit may have come in its place.
            if part._snapshot is not None:  # it begins anew, and nobody reads on
                return False  # noqa: ASYNC910 - as above
            if (gate := part._gate()) is not None:
                await part._wait_at(gate, None)
            else:
                part._take()  # nothing comes, as it is not live: it only goes on
        # When the publisher has stopped, what it waits for may not come.
        while not timeline.is_stopped and (some := list(islice(_up_to(part, index), BURST))):
            await self._put(some, found(some, [part._feed.replaced]))
        return not timeline.is_stopped  # noqa: ASYNC910 - as above

    async def _pump(  # noqa: ASYNC910 - a task, not awaited
        self, part: Subscription[Any], everything: anyio.CancelScope
    ) -> None:
        while not self._is_over:
            try:
                replaced = [part._source.replaced, part._feed.replaced]
                received = await self._receive(part)
                state = [event for event in received if not event.is_framing]
                await self._put(state, found(state, replaced))
            except SubscriptionForceClosed as error:
                self._ended = self._ended or error
                everything.cancel()
                return  # noqa: ASYNC910 - a task, not awaited
            if any(event.is_new_snapshot_to_follow for event in received):
                self._is_void = True
                everything.cancel()
                return  # noqa: ASYNC910 - a task, not awaited
            self._unfinished -= any(event.is_end_of_snapshot for event in received)
            if not self._unfinished and not self._is_over:
                self._is_over = True  # one that was woken already goes on with what it takes, and then ends
                waits = list(self._waits)
                part._passages.parking.in_slices(map(methodcaller("cancel"), waits), len(waits))

    async def _receive(self, part: Subscription[Any]) -> Sequence[Event[Any]]:
        """What is ready of it; nothing if no more is wanted."""
        with anyio.CancelScope() as scope:
            self._waits[scope] = None
            try:
                return await part.receive_batch(BURST)
            finally:
                del self._waits[scope]
        return ()


def _is_finished(part: Subscription[Any], index: int) -> bool:
    """Whether the subject of a live part is finished at this index; a later finish is for whoever reads on."""
    sequel = part._feed.sequel
    return isinstance(sequel, Finished) and sequel.at <= index and part._is_at_end()


def _up_to(part: Subscription[Any], index: int) -> Iterator[Event[Any]]:
    """What comes up to this index, which is published, one by one, to a live part.

    Raises how it ended.
    """
    while True:
        feed = part._feed
        if part._end is None and feed.dropped <= part._index:
            # Behind late events `_take` would go on to what is newer than `index`.
            part._pass_late()
            if part._is_to_go_on():
                part._go_further()
                continue
            if part._position >= feed.after(index):
                return
        event = part._take()
        assert event is not None
        yield event


def _no_leave(_: Course[Any]) -> None:
    """A part is no subscription of anybody."""
