"""A subscription: a cursor that one task waits at, as a trio channel and an anyio stream."""

import enum
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Self, assert_never

import anyio
import anyio.abc
import trio
from trio.lowlevel import enable_ki_protection
from typing_extensions import TypeVar, override

from ._arguments import check_index, check_integer
from ._buffer import Feed
from ._conflation import MOST_FOLDED
from ._course import End, Phase
from ._errors import BusyResourceError, CloseReason, EndOfSubject, SubscriptionForceClosed, WouldBlock
from ._events import Event
from ._interest import Interest, described
from ._passages import Snapshot
from ._reader import MOST_CHECKED, SCAN, Reader
from ._request import Cursor, SubscribeRequest
from ._scout import Scout
from ._wait import Slot

P = TypeVar("P", default=Any)

BURST: Final = 64  # events that `async for` takes between two checkpoints


class SubscriptionState(enum.Enum):
    """What a subscription is doing."""

    SNAPSHOT = "snapshot"
    """It has not returned end-of-snapshot yet."""
    RESUMING = "resuming"
    """It is not known yet whether it can go on from the cursor of its request."""
    LIVE = "live"
    """It returns changes as they occur."""
    CLOSED = "closed"
    """You have closed it."""
    FINISHED = "finished"
    """Its subject is finished, and it has returned everything."""
    FORCE_CLOSED = "force-closed"
    """The publisher has closed it."""


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """What one subscription has done so far, in deliveries."""

    lag: int
    """How many the reader has not taken; a snapshot counts as far as it is made."""
    peak_lag: int
    """The greatest lag ever found: by the reader, which in `async for` looks at least every 64 events, or here."""
    delivered: int
    """How many events were returned, framing among them."""
    state: SubscriptionState
    """What the subscription is doing."""
    hidden: int = 0
    """How many events of commits and snapshots were not returned, because of the authorizer or the filter."""
    withdrawn: int = 0
    """How many withdrawals were returned, in the place of events that may not be seen."""
    conflated: int = 0
    """How many of the events returned stand for several commits, because the reader was behind."""


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """One of a publisher's subscriptions, seen from outside; never its token."""

    label: str
    """What its owner calls it."""
    interests: tuple[Interest, ...]
    """What it asks for."""
    state: SubscriptionState
    """What it is doing."""
    lag: int
    """How many deliveries the reader has not taken."""
    index: int
    """The index it has reached; 0 inside a snapshot."""
    delivered: int
    """How many events were returned, framing among them."""
    waiting: bool
    """Whether its reader waits for an event."""


if TYPE_CHECKING:

    class _Receiver(trio.abc.ReceiveChannel[P], anyio.abc.ObjectReceiveStream[P]):
        """The channel of both libraries."""

else:

    class _Receiver(trio.abc.ReceiveChannel[P]):
        # A base class of anyio's streams has no `__slots__`: every subscription would have a dict, which takes
        # any mistyped attribute. So anyio's is a virtual base, and its two inherited members are taken over.
        __slots__ = ()
        extra_attributes = anyio.TypedAttributeProvider.extra_attributes
        extra = anyio.TypedAttributeProvider.extra

    anyio.abc.ObjectReceiveStream.register(_Receiver)


class Subscription(Reader[P], _Receiver[Event[P]]):
    """The current state and then every change to it, for one reader.

    Made by `EventPublisher.subscribe`.
    Receive in one task at a time, in the event loop of the publisher.
    Any thread may read `index`, `epoch` and `statistics`.
    End it by leaving `async with`, or from any task by `unsubscribe`, `close` or `aclose`; a waiting receiver wakes.

    Receiving raises, and repeats ever after:

    - `ClosedResourceError` when you have closed it;
    - `SubscriptionForceClosed`, or its kinds `SubscriptionLagged` and `SnapshotFailed`, when the publisher has;
    - `EndOfSubject` when its subject is finished and everything was received; `async for` stops in its place.

    It raises `BusyResourceError` when another task is receiving.
    An error of a payload that is asked, of the filter or of the `row` of a source passes through, and the event is not
    consumed.
    """

    __slots__ = ("__weakref__", "label")

    label: str
    """What its owner calls it."""

    @override
    def __repr__(self) -> str:
        return (
            f"<Subscription {described(self.request.interests)} "
            f"state={self._doing().value} index={self._index} lag={self._lag()}>"
        )

    @property
    def index(self) -> int:
        """The index reached: of end-of-snapshot or of the last event, hidden or not; 0 before."""
        return self._index

    @property
    def horizon(self) -> int:
        """The index up to which the reader has had everything.

        While nothing is ready that is the publisher's newest, although its commit may not have touched the subject;
        otherwise it is `index`.
        To find out, it passes over hidden events that come next, up to 4,096 in one call.
        It never passes an event about which a payload or the filter raises.
        After `CloseReason.STOPPED` it stays at the newest index published, if everything was received; after any other
        end it is `index`.
        """
        self._passages.parking.check_thread("horizon")
        if self._end is None and self._phase is Phase.LIVE:
            self._pass_hidden()  # which asks payloads, and they may close this
        if self._end is not None:
            return max(self._index, self._end.horizon)
        if self._phase is Phase.LIVE and self._position == self._feed.end:
            return self._all_had
        return self._index

    @property
    def cursor(self) -> Cursor:
        """How far the reader has come, at its `horizon`; `SubscribeRequest.after` goes on from there.

        Its index is 0 inside a snapshot.
        While it is not known whether the cursor of the request is right, it is that cursor.
        After the end it is at `index`, and at the horizon after `CloseReason.STOPPED`.
        """
        horizon = self.horizon  # to find out may end it
        if self._is_resuming():
            return Cursor(self.request.index, self.epoch, self.request.mark)
        return self._cursor_at(horizon)

    @property
    def state(self) -> SubscriptionState:
        """What the subscription is doing."""
        return self._doing()

    @enable_ki_protection
    @override
    async def receive(self) -> Event[P]:
        """Waits for the next event and returns it. Always a checkpoint."""
        self._burst = self._stop = 0
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise self._error() from None

    @enable_ki_protection
    async def receive_batch(self, max_events: int | None = None) -> Sequence[Event[P]]:
        """Waits for an event and returns all that are ready, at most `max_events` or 65,536. Always a checkpoint.

        With an authorizer, a filter or `on_lag="conflate"`, one call looks at no more than about 4,096 events.
        """
        if max_events is not None:
            check_integer("max_events", max_events)
            if max_events < 1:
                raise ValueError(f"max_events is at least 1, not {max_events}")
        while True:
            self._begin_to_receive()
            try:
                await self._pause()
            finally:
                self._is_receiving = False
            if events := self._take_batch(max_events):
                return events

    @enable_ki_protection
    async def receive_until_current(self) -> Sequence[Event[P]]:
        """Everything up to the newest index published now, and at least up to end-of-snapshot: reads a state once.

        It waits until the snapshot is whole and returns it with the changes after it, in order.
        So the state is current also when the snapshot comes from the cache.
        It returns nothing if the reader has everything.
        A commit that is published meanwhile may be left for the next call.
        A call that is cancelled has received nothing.
        Always a checkpoint.
        """
        self._begin_to_receive()
        self._burst = self._stop = 0
        index = self._passages.timeline.index
        events: list[Event[P]] | None = None
        try:
            await self._passages.parking.backend.checkpoint()
            if self._end is None:
                events = await self._read_ahead(index)
        finally:
            self._is_receiving = False
        if events is None:
            raise self._error()
        return events

    @enable_ki_protection
    def receive_nowait(self) -> Event[P]:
        """The next event if one is ready, otherwise `WouldBlock`.

        It looks at no more than 4,096 hidden events, and may raise `WouldBlock` although an event is ready behind them.
        """
        self._passages.parking.check_thread("receive_nowait")
        if self._is_receiving:
            raise BusyResourceError("receiving from")
        checked = 0
        while checked < MOST_CHECKED and self._is_ready():
            checked += SCAN if self._conflation is None or self._phase is not Phase.LIVE else MOST_FOLDED
            if (event := self._take()) is not None:
                return event
        raise WouldBlock("nothing is ready for this subscription")

    async def wait_published(self, index: int) -> None:
        """Waits until the publisher has published a commit with this index or a greater one, of whatever topic.

        Receives nothing, and may be used by other tasks while one receives.
        Together with `horizon` a reader learns from it that its state is that of `index`, although no event came.
        A checkpoint; raises how the subscription ended, and `CloseReason.STOPPED` if the publisher has stopped before.
        """
        check_index(index)
        timeline = self._passages.timeline
        await self._passages.parking.backend.checkpoint()
        while self._end is None and timeline.index < index:
            if timeline.is_stopped:
                raise SubscriptionForceClosed(CloseReason.STOPPED, self._index, self.epoch)
            await self._watch(index)
        if self._end is not None:
            raise self._error()

    async def wait_ready(self) -> None:
        """Waits until the snapshot was received to its end, or the cursor of the request is known to be right.

        Receives nothing, and may be used by other tasks while one receives.
        A checkpoint; raises how the subscription ended, and `CloseReason.STOPPED` if the publisher has stopped before.
        """
        await self._passages.parking.backend.checkpoint()
        while not self._is_settled() and self._end is None:
            if self._passages.timeline.is_stopped:
                raise SubscriptionForceClosed(CloseReason.STOPPED, self._index, self.epoch)
            await self._watch(None)
        if self._end is not None:
            raise self._error()

    @override
    def __aiter__(self) -> Self:
        return self

    @enable_ki_protection
    @override
    async def __anext__(self) -> Event[P]:
        """The next event; a checkpoint if it has to wait, if the subscription has ended, and every 64 events."""
        try:
            while True:
                position = self._position
                if position < self._stop:
                    feed = self._unchecked
                    if feed.start <= position:  # the common case; what follows covers it too
                        event = feed.items[position - feed.base]
                        self._position = position + 1
                        self._index = event.index
                        self._taken = event.mark
                        return event  # noqa: ASYNC910 - every BURST events there is a checkpoint
                if position < self._burst and self._is_ready() and (shown := self._take()) is not None:
                    return shown  # noqa: ASYNC910 - the same
                # As in _begin_to_receive(), whose call would take a thirtieth of a wake.
                if self._is_receiving:
                    raise BusyResourceError("receiving from")
                self._is_receiving = True
                try:
                    await self._pause()
                finally:
                    self._is_receiving = False
                if self._end is not None:
                    raise self._error()
                position = self._position
                self._burst = burst = position + BURST
                end = self._unchecked.end
                self._stop = min(burst, end)
                if end - position > self._peak_lag:
                    self._peak_lag = end - position
        except (EndOfSubject, StopAsyncIteration) as error:
            raise self._end_of_loop(error) from error.__cause__

    def _end_of_loop(self, error: Exception) -> Exception:
        """`StopAsyncIteration` if the subject is finished; if not, a payload or the filter has raised the error."""
        if self._end is not None and self._end.is_finished:
            return StopAsyncIteration()
        if isinstance(error, StopAsyncIteration):  # as a coroutine does with `StopIteration`
            raise RuntimeError("a payload, its authorizer or a filter raised StopAsyncIteration") from error  # noqa: TRY004
        return error

    @enable_ki_protection
    def unsubscribe(self) -> None:
        """Ends the subscription; a waiting receiver gets `ClosedResourceError`. Idempotent."""
        if self._end is None:
            self._passages.parking.check_thread("unsubscribe")
            self._finish(End(None))
            self._passages.parking.wake_each((self,))

    def close(self) -> None:
        """The same as `unsubscribe`."""
        self.unsubscribe()

    @override
    async def aclose(self) -> None:
        """The same as `unsubscribe`, and a checkpoint."""
        backend = self._passages.parking.backend
        backend.check()
        self.unsubscribe()
        await backend.checkpoint()

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def resume_request(self) -> SubscribeRequest[P]:
        """The request that goes on where this subscription stands: at its `horizon`.

        Ask before you end the subscription: afterwards it stands at `index`.
        Of a subject that a commit has finished it resumes at its end, and ends at once, unless that was reopened.
        It is a fresh start if the subscription is still inside a snapshot, or was force-closed for `TOKEN`,
        `REFRESH` or `SNAPSHOT_FAILED`: then drop what was received.
        It is that too if only a snapshot or replay function has said that the subject is finished.
        """
        cursor = self.cursor  # to find out may end it
        end = self._end
        is_anew = end is not None and (
            _is_to_be_dropped(end.reason) or (end.is_finished and not end.is_published)
        )
        return self.request.after(None if is_anew else cursor)

    def statistics(self) -> SubscriptionStatistics:
        """Figures for introspection, from any thread; taking them changes nothing for the reader.

        In another thread than that of the event loop, `lag` and `peak_lag` may be wrong while the reader moves on from
        a snapshot or a replay.
        """
        lag = max(0, self._lag())
        peak_lag = max(self._peak_lag, lag)
        # In another thread the reader may be between two feeds.
        if self._passages.parking.thread in (None, get_ident()):
            self._peak_lag = peak_lag
        hidden, withdrawn = (0, 0) if self._rights is None else (self._rights.hidden, self._rights.withdrawn)
        conflated = 0 if self._conflation is None else self._conflation.conflated
        state = self._doing()
        return SubscriptionStatistics(lag, peak_lag, self._delivered, state, hidden, withdrawn, conflated)

    def _info(self) -> SubscriptionInfo:
        is_waiting = self._is_receiving is True and self._parked is not None
        interests, state, lag = self.request.interests, self._doing(), max(0, self._lag())
        return SubscriptionInfo(self.label, interests, state, lag, self._index, self._delivered, is_waiting)

    def _doing(self) -> SubscriptionState:
        if self._end is not None:
            if self._end.is_finished:
                return SubscriptionState.FINISHED
            return SubscriptionState.CLOSED if self._end.reason is None else SubscriptionState.FORCE_CLOSED
        if self._is_resuming():
            return SubscriptionState.RESUMING
        return SubscriptionState.LIVE if self._snapshot is None else SubscriptionState.SNAPSHOT

    def _is_resuming(self) -> bool:
        return not self._index and (self._phase is Phase.JUDGED or self._phase is Phase.REPLAYING)

    def _is_settled(self) -> bool:
        """Whether end-of-snapshot was received, or the resume accepted; judges that if it is time to."""
        if self._passages.timeline.is_stopped:
            self._stop_if_done()
        elif self._is_resuming() and self._phase is Phase.REPLAYING:
            self._look_at_page()
        elif self._is_resuming() and self._source.end:
            self._look()
        return self._snapshot is None and not self._is_resuming()

    async def _watch(self, index: int | None) -> None:
        """Waits until the index is published, this has ended or come live, or a cursor can be judged."""
        timeline, parking = self._passages.timeline, self._passages.parking
        slot = Slot()
        if self._watchers is None:
            self._watchers = {}
        parked = parking.backend.park(slot)
        self._watchers[slot] = None
        page = self._source if index is None and self._phase is Phase.REPLAYING else None
        if index is None and page is None and self._awaited is not None:
            index = self._awaited.at
        gate = page if index is None else timeline.enter(index)
        if gate is not None:
            gate.waiting[slot] = None
        try:
            await parked
        finally:
            if gate is not None:
                gate.waiting.pop(slot, None)
                if index is not None:
                    timeline.leave(index, gate)
            self._watchers.pop(slot, None)

    async def _read_ahead(self, index: int) -> list[Event[P]] | None:
        """Sends a scout up to this index and follows it when it is there; None if this has ended."""
        events: list[Event[P]] = []
        has_looked = False
        scout = Scout(self)
        try:
            while self._end is None:
                scout._pass_late()
                if scout.has_all(index):
                    break
                if (gate := scout._gate()) is not None:
                    await self._wait_at(gate, scout._snapshot)
                    continue
                if has_looked:  # perhaps at hidden events only
                    await self._passages.parking.backend.checkpoint()
                has_looked = True
                events += self._take_with(scout)
            if self._end is None:
                scout.bring(self)
                if not events and (self._passages.timeline.is_stopped or self._is_done()):
                    self._stop_if_done()
        except SubscriptionForceClosed:
            if self._end is None:
                if scout._end is None:  # raised by a payload, and not about this
                    raise
                scout.settle(self)
                self._finish(scout._end)
        finally:
            scout.retire()
        return events if self._end is None else None  # noqa: ASYNC910 - the caller has a checkpoint

    def _take_with(self, scout: Scout[P]) -> list[Event[P]]:
        self._is_receiving = "asking"  # a payload that is asked who may read it may look at this horizon
        try:
            return scout._take_batch(None)
        finally:
            self._is_receiving = True

    async def _wait_at(self, gate: Feed, snapshot: Snapshot | None) -> None:
        """Waits until the gate opens, which may be that of this snapshot, or this has ended."""
        parked = self._passages.parking.backend.park(self)
        gate.waiting[self] = None
        if snapshot is not None:
            self._passages.hurry(snapshot)
        try:
            await parked
        finally:
            if snapshot is not None:
                snapshot.urgent -= 1
            gate.waiting.pop(self, None)

    def _begin_to_receive(self) -> None:
        if self._is_receiving:
            raise BusyResourceError("receiving from")
        self._is_receiving = True

    def _pause(self) -> Awaitable[None]:
        """One checkpoint, awaited at once: until there is something to look at, or just that if there is."""
        self._burst = self._stop = 0
        parking = self._passages.parking
        backend = parking._backend or parking.backend  # a property takes its time
        source = self._source
        if (
            self._position < source.end
            or self._end is not None
            or (source.sequel is not None and self._is_over())
        ):
            return backend.checkpoint()
        parked = backend.park(self)
        source.waiting[self] = None
        return parked


def _is_to_be_dropped(reason: CloseReason | None) -> bool:
    """Whether what was received is no longer right, or may no longer be seen."""
    match reason:
        case CloseReason.TOKEN | CloseReason.REFRESH | CloseReason.SNAPSHOT_FAILED:
            return True
        case CloseReason.LAGGED | CloseReason.STOPPED | None:
            return False
        case _:
            assert_never(reason)
