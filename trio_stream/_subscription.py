"""A subscription: one reader's cursor over the shared buffers, and all the ways in which it can end.

The cursor stands in a snapshot first and then in the live feed of its subject, or in the feed from the start:

    (marker) -> snapshot ... end-of-snapshot -> live ...
                     ^------- on_lag="reset" -----'

It moves only in a synchronous stretch that begins after the wait and ends with the event returned: a call that is
cancelled, wherever it waits, has consumed nothing.
How the subscription ended lies beside the buffers and is looked at first in that stretch, so that a force-close
overtakes whatever is queued.

While the cursor is live, `_index` is at once the index reached and the bound below which nothing may be delivered.
That drops late events which the snapshot had already seen, and those before the index of a resume from the future.
"""

import enum
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, NamedTuple

import anyio.abc
import trio
from trio.lowlevel import enable_ki_protection
from typing_extensions import TypeVar, override

from ._buffer import Feed
from ._errors import (
    BusyResourceError,
    ClosedResourceError,
    CloseReason,
    SnapshotFailed,
    SubscriptionForceClosed,
    SubscriptionLagged,
    WouldBlock,
)
from ._events import END_OF_SNAPSHOT, NEW_SNAPSHOT_TO_FOLLOW, Event, Subject, SubscribeRequest, readable
from ._snapshot import Snapshot, Snapshots
from ._wait import Slot

P = TypeVar("P", default=Any)

BURST: Final = 64  # events that `async for` takes between two checkpoints
SCAN: Final = 256  # hidden events that are passed over between two checkpoints

_RESET: Final = frozenset({CloseReason.TOKEN, CloseReason.REFRESH, CloseReason.SNAPSHOT_FAILED})
_MOST_CHECKED: Final = 4096  # deliveries of one batch where each is checked for its reader
_NO_FEED: Final = Feed(Subject())  # where a subscription stands that has ended


class SubscriptionState(enum.Enum):
    """What a subscription is doing."""

    SNAPSHOT = "snapshot"
    LIVE = "live"
    CLOSED = "closed"
    """You have closed it."""
    FORCE_CLOSED = "force-closed"
    """The publisher has closed it."""


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """What one subscription has done so far; all are counts of deliveries."""

    lag: int
    """How many deliveries are ready that the reader has not taken; a snapshot counts as far as it is made."""
    peak_lag: int
    """The greatest lag that the reader ever found."""
    delivered: int
    """How many events were returned, framing among them."""
    state: SubscriptionState


class _End(NamedTuple):
    reason: CloseReason | None  # None: closed by its owner
    missed: int
    cause: BaseException | None


class Registry:
    """Every open subscription of a publisher, by its token."""

    def __init__(self) -> None:
        # {token: {subscription: None}}, without empty entries
        self._by_token: dict[str, dict[Subscription[Any], None]] = {}

    @property
    def tokens(self) -> int:
        """How many different tokens are in use."""
        return len(self._by_token)

    def add(self, subscription: "Subscription[Any]") -> None:
        self._by_token.setdefault(subscription.request.token, {})[subscription] = None

    def remove(self, subscription: "Subscription[Any]") -> None:
        token = subscription.request.token
        of_token = self._by_token[token]
        del of_token[subscription]
        if not of_token:
            del self._by_token[token]

    def with_token(self, token: str) -> "list[Subscription[Any]]":
        return list(self._by_token.get(token, ()))

    def all(self) -> "list[Subscription[Any]]":
        return [subscription for of_token in self._by_token.values() for subscription in of_token]


class Subscription(
    Slot,
    trio.abc.ReceiveChannel[Event[P]],
    anyio.abc.ObjectReceiveStream[Event[P]],
    Generic[P],
):
    """The current state and then every change to it, for one reader.

    Made by `EventPublisher.subscribe`.
    Use it as `async with`, and receive in one task at a time; end it by leaving the block, or by `unsubscribe`, `close`
    or `aclose` from any task, which also wakes a receiver.

    Receiving raises, and after the first time repeats:

    - `ClosedResourceError` when you have closed it.
    - `SubscriptionForceClosed`, or its kinds `SubscriptionLagged` and `SnapshotFailed`, when the publisher has.

    and `BusyResourceError` when another task is receiving.
    An error of a payload's `has_read_permission` passes through; the cursor stays before that event.
    """

    __slots__ = (
        "_authorizer",
        "_burst",
        "_delivered",
        "_end",
        "_feed",
        "_index",
        "_is_marker_due",
        "_is_receiving",
        "_peak_lag",
        "_position",
        "_registry",
        "_resets",
        "_snapshot",
        "_source",
        "_topic",
        "epoch",
        "request",
    )

    request: SubscribeRequest[P]
    """What was asked for."""
    epoch: str
    """The timeline that `index` belongs to."""

    def __init__(
        self,
        request: SubscribeRequest[P],
        topic: Snapshots,
        registry: Registry,
        epoch: str,
        *,
        resume: bool,
        authorizer: Any,
        on_lag: Literal["close", "reset"],
    ) -> None:
        super().__init__()
        self.request = request
        self.epoch = epoch
        self._topic = topic
        self._registry = registry
        self._authorizer = authorizer
        self._resets = on_lag == "reset"
        # Live: the feed that all deliveries of the subject go to. This subscription counts as its reader until it ends.
        self._feed = topic.history.enter(request.subject)
        # What it stands in, at which position: the snapshot if it is not None, else the feed.
        self._source: Feed = self._feed
        self._position = 0
        self._snapshot: Snapshot | None = None
        # 0 until end-of-snapshot.
        self._index = 0
        self._is_marker_due = False
        self._end: _End | None = None
        self._is_receiving = False
        self._burst = BURST
        self._delivered = 0
        self._peak_lag = 0
        if resume:
            self._index = request.index
            self._position = self._feed.after(request.index)
        else:
            self._enter_snapshot(fresh=False)
            self._is_marker_due = request.index > 0
        registry.add(self)

    @property
    def index(self) -> int:
        """The index reached: that of end-of-snapshot or of the last event, hidden ones included; 0 before."""
        return self._index

    @enable_ki_protection
    @override
    async def receive(self) -> Event[P]:
        """Waits for the next event and returns it. Always a checkpoint."""
        self._claim()
        try:
            await self._pause()
            while (event := self._take()) is None:
                await self._pause()
        finally:
            self._is_receiving = False
        self._burst = 1
        return event

    @enable_ki_protection
    def receive_nowait(self) -> Event[P]:
        """The next event, if one is ready; otherwise `WouldBlock`."""
        if self._is_receiving:
            raise BusyResourceError("receiving from")
        while self._is_ready():
            if (event := self._take()) is not None:
                return event
        raise WouldBlock("nothing is ready for this subscription")

    @enable_ki_protection
    async def receive_batch(self, max_events: int | None = None) -> Sequence[Event[P]]:
        """Waits for at least one event and returns all that are ready, at most `max_events`. Always a checkpoint.

        With an authorizer one call returns at most 4096, because each is checked.
        """
        if max_events is not None and max_events < 1:
            raise ValueError(f"max_events is at least 1, not {max_events}")
        self._claim()
        try:
            await self._pause()
            while not (events := self._take_batch(max_events)):
                await self._pause()
        finally:
            self._is_receiving = False
        self._burst = BURST
        return events

    @override
    def __aiter__(self) -> "Subscription[P]":
        return self

    @enable_ki_protection
    @override
    async def __anext__(self) -> Event[P]:
        if self._burst < BURST and self._end is None and not self._is_receiving:
            event = self._take()
            if event is not None:
                self._burst += 1
                return event
        return await self.receive()

    @enable_ki_protection
    def unsubscribe(self) -> None:
        """Ends the subscription; a waiting receiver gets `ClosedResourceError`. Idempotent, from any task."""
        if self._end is None:
            self._topic.parking.check_thread("unsubscribe")
            self._finish(None)
            self._topic.parking.wake_slots((self,))

    def close(self) -> None:
        """The same as `unsubscribe`."""
        self.unsubscribe()

    @override
    async def aclose(self) -> None:
        """The same as `unsubscribe`, and a checkpoint."""
        self.unsubscribe()
        await self._topic.parking.backend.checkpoint()

    @override
    async def __aenter__(self) -> "Subscription[P]":
        return self

    @override
    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def resume_request(self) -> SubscribeRequest[P]:
        """The request that goes on where this subscription stands.

        It starts from the beginning if the subscription is still inside a snapshot or was force-closed for `TOKEN`,
        `REFRESH` or `SNAPSHOT_FAILED`: then drop what was received.
        """
        index = 0 if self._end is not None and self._end.reason in _RESET else self._index
        return replace(self.request, index=index, epoch=self.epoch if index else None)

    def statistics(self) -> SubscriptionStatistics:
        """Figures for introspection; taking them changes nothing."""
        lag = self._source.end - self._position
        if self._snapshot is not None and self._snapshot.is_complete and not self._snapshot.is_gone:
            lag += self._feed.end - self._feed.after(self._snapshot.index)
        return SubscriptionStatistics(lag, max(lag, self._peak_lag), self._delivered, self._state())

    def _state(self) -> SubscriptionState:
        if self._end is not None:
            return SubscriptionState.FORCE_CLOSED if self._end.reason else SubscriptionState.CLOSED
        return SubscriptionState.LIVE if self._snapshot is None else SubscriptionState.SNAPSHOT

    def _claim(self) -> None:
        if self._is_receiving:
            raise BusyResourceError("receiving from")
        self._is_receiving = True

    def _is_ready(self) -> bool:
        return self._position < self._source.end or self._is_marker_due or self._end is not None

    async def _pause(self) -> None:
        """Exactly one checkpoint: until there is something to look at, or just that if there is."""
        backend = self._topic.parking.backend
        if self._is_ready():
            await backend.checkpoint()
            return
        lot = self._source
        lot.waiting[self] = None
        try:
            await backend.park(self)
        finally:
            lot.waiting.pop(self, None)

    def _take(self) -> Event[P] | None:
        """Moves the cursor to behind the next event that the reader may see, and returns it.

        None if nothing is ready, or if many events in a row were hidden and the loop wants its turn.
        """
        if self._end is not None:
            raise self._error()
        if self._is_marker_due:
            return self._take_marker()
        if self._snapshot is not None:
            return self._take_of_snapshot(self._snapshot)
        feed = self._feed
        position = self._position
        if (lag := feed.end - position) > self._peak_lag:
            self._peak_lag = lag
        for _ in range(min(lag, SCAN)):
            if position < feed.start:
                return self._fall_off(feed.start - position)
            event = feed.items[position - feed.base]
            shown = None
            if event.index > self._index:
                shown = event if self._authorizer is None else self._readable(event)
                self._index = event.index
            self._position = position = position + 1
            if shown is not None:
                self._delivered += 1
                return shown
        return None

    def _take_of_snapshot(self, snapshot: Snapshot) -> Event[P] | None:
        position = self._position
        if (lag := snapshot.end - position) > self._peak_lag:
            self._peak_lag = lag
        for _ in range(min(lag, SCAN)):
            if position < snapshot.start:
                return self._fall_off(snapshot.start - position)
            event = snapshot.items[position]
            shown = event if self._authorizer is None else self._readable(event)
            self._position = position = position + 1
            self._topic.reach(snapshot, position)
            if event.payload is END_OF_SNAPSHOT:
                self._go_live(snapshot)
            if shown is not None:
                self._delivered += 1
                return shown
        return None

    def _take_marker(self) -> Event[P]:
        self._is_marker_due = False
        self._delivered += 1
        return Event(self.request.topic, 0, NEW_SNAPSHOT_TO_FOLLOW)

    def _take_batch(self, max_events: int | None) -> list[Event[P]]:
        limit = self._peek_limit(max_events)
        events: list[Event[P]] = []
        while len(events) < limit and self._is_ready():
            if self._authorizer is None and self._end is None and not self._is_marker_due:
                events += self._slice(limit - len(events))
                continue
            try:
                event = self._take()
            except Exception:
                # A subscription has no end here unless it is the first thing; what else may be raised comes from a
                # payload that was asked who may read it. It is raised by the next call: the cursor stands before it.
                if not events:
                    raise
                break
            if event is None:
                break
            events.append(event)
        return events

    def _slice(self, limit: int) -> list[Event[P]]:
        """The next events of what the cursor stands in, at most `limit`; it is certain that there are some."""
        source = self._source
        self._peak_lag = max(self._peak_lag, source.end - self._position)
        if self._position < source.start:
            return [self._fall_off(source.start - self._position)]
        if source is self._feed and source.items[self._position - source.base].index <= self._index:
            self._position = source.after(self._index)
        first = self._position - source.base
        events = source.items[first : first + limit]
        self._position += len(events)
        self._delivered += len(events)
        if self._snapshot is not None:
            self._topic.reach(self._snapshot, self._position)
            if events[-1].payload is END_OF_SNAPSHOT:
                self._go_live(self._snapshot)
        elif events:
            self._index = events[-1].index
        return events

    def _peek_limit(self, max_events: int | None) -> int:
        limit = sys.maxsize if max_events is None else max_events
        return limit if self._authorizer is None else min(limit, _MOST_CHECKED)

    def _readable(self, event: Event[P]) -> Event[P] | None:
        shown = readable(event, self._authorizer)
        if self._end is not None:  # the payload, or the authorizer, may have closed this very subscription
            raise self._error()
        return shown

    def _enter_snapshot(self, *, fresh: bool) -> None:
        self._source = self._snapshot = self._topic.join(self.request.subject, fresh=fresh)
        self._position = 0
        self._index = 0

    def _go_live(self, snapshot: Snapshot) -> None:
        self._index = snapshot.index
        self._source = self._feed
        self._position = self._feed.after(snapshot.index)
        self._snapshot = None
        self._topic.leave(snapshot)

    def _fall_off(self, missed: int) -> Event[P]:
        """What the cursor stood before is gone: the end, or a new snapshot."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.failure is not None:
            self._finish(CloseReason.SNAPSHOT_FAILED, cause=snapshot.failure)
            raise self._error()
        if not self._resets:
            self._finish(CloseReason.LAGGED, missed=missed)
            raise self._error()
        if snapshot is not None:
            self._topic.leave(snapshot)
        self._enter_snapshot(fresh=True)
        return self._take_marker()

    def _force_close(self, reason: CloseReason) -> None:
        """For the publisher, which also wakes the reader."""
        self._finish(reason)

    def _finish(self, reason: CloseReason | None, *, missed: int = 0, cause: BaseException | None = None) -> None:
        self._end = _End(reason, missed, cause)
        self._registry.remove(self)
        self._topic.history.leave(self._feed)
        if self._snapshot is not None:
            self._topic.leave(self._snapshot)
        self._snapshot = None
        self._source = self._feed = _NO_FEED
        self._position = 0

    def _error(self) -> Exception:
        """A new exception for how it ended: one that was raised before would drag its traceback along."""
        assert self._end is not None
        match self._end:
            case _End(None):
                return ClosedResourceError("this subscription was closed by its owner")
            case _End(CloseReason.LAGGED, missed):
                return SubscriptionLagged(self._index, self.epoch, missed)
            case _End(CloseReason.SNAPSHOT_FAILED, _, cause):
                failed = SnapshotFailed(self._index, self.epoch)
                failed.__cause__ = cause
                return failed
            case _End(reason):
                return SubscriptionForceClosed(reason, self._index, self.epoch)
