"""Keeps a view: connects, follows, and connects again."""

import random
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Generic, NoReturn

import anyio
import anyio.abc
import anyio.lowlevel
import trio
from typing_extensions import TypeVar

from trio_stream import (
    ClosedResourceError,
    EndOfSubject,
    Event,
    Framing,
    PayloadEvents,
    PublisherDisabledError,
    SubscribeRequest,
    SubscriptionForceClosed,
    UnknownTopicError,
    running,
)
from trio_stream._warn import Warner, named

from ._connection import Connect, Connection, Judging
from ._fold import Fold
from ._shown import Shown
from ._waiters import Signal

K = TypeVar("K", bound=Hashable, default=Any)
V = TypeVar("V", default=Any)

CHUNK: Final = 512  # events folded between two checkpoints, about; a commit is never divided
STOPS: Final = 64  # states on the way that somebody waits for, between two checkpoints

BROKEN: Final = (
    SubscriptionForceClosed,
    OSError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    trio.BrokenResourceError,
    trio.EndOfChannel,
)
"""What ends a connection, and not the view."""


_warner: Final = Warner("trio_stream.view")


class _Unmendable(Exception):
    """Carries, as its cause, what no other connection would mend: an error of the reducer, whatever its type."""


@contextmanager
def _unmendable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Unmendable from error


TERMINAL: Final = (
    UnknownTopicError,
    PublisherDisabledError,
    ClosedResourceError,
    PermissionError,
    # What Python itself raises where a program is wrong:
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    ReferenceError,
    RuntimeError,
    StopAsyncIteration,
    StopIteration,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    Warning,
    _Unmendable,
)
"""What ends the view, also while connecting, where any other exception is taken for temporary."""

# Seconds until the next attempt: none after a healthy connection and after the first failure, then evenly random
# below a bound that doubles each time, so that the clients of what comes back do not all come at once ("full
# jitter": Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
_FIRST_BOUND: Final = 0.2
_LAST_BOUND: Final = 60.0


class Keeper(Generic[K, V]):
    """The task of a view."""

    def __init__(
        self, connect: Connect, request: SubscribeRequest[Any], shown: Shown[K, V], fold: Fold[K, V]
    ) -> None:
        self._connect = connect
        # For the next connection.
        self._request = request
        self._shown = shown
        self._fold = fold
        # Whether events were received that are not folded yet: then the connection's horizon is ahead of the state.
        # For ever, if folding them has failed.
        self._is_folding = False
        # Fires when they are.
        self._folded = Signal()
        # Whether the present connection has given something that is shown.
        self._is_healthy = False
        self.connections: int = 0

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:  # noqa: ASYNC910 - run as a task
        """Until it is cancelled, what it follows is finished, or an error that cannot be mended has ended the view."""
        if self.connections:
            raise RuntimeError("this view has been run already")
        task_status.started()
        reason: BaseException | None = None
        try:
            await self._keep()
        except _Unmendable as error:
            reason = error.__cause__
        except Exception as error:  # noqa: BLE001 - it reaches everybody who has a block or waits
            reason = error
        finally:
            if reason is not None and not self._shown.has_blocks:
                _warner.warn("the view of %s has ended: %s", self._topics, named(reason))
            self._shown.set_closed(reason)
            try:
                with anyio.CancelScope(shield=True):
                    await self._shown.wakeups.wake()
            finally:
                self._shown.wakeups.wake_all()

    @property
    def _topics(self) -> str:
        names = dict.fromkeys(interest.topic.name for interest in self._request.interests)
        return ", ".join(map(repr, names))

    async def _keep(self) -> None:
        failures = 0  # in a row
        while True:
            began = anyio.current_time()
            reason = await self._follow()
            if self._shown.is_finished:
                return
            # One that had nothing to tell for that long was healthy too.
            was_healthy = self._is_healthy or anyio.current_time() - began >= _LAST_BOUND
            failures = 0 if was_healthy else failures + 1
            self._shown.set_lost(reason)
            delay = _delay(failures)
            _warner.warn("the view of %s connects again in %.2f s: %s", self._topics, delay, named(reason))
            await anyio.sleep(delay)

    async def _follow(self) -> BaseException:
        """Connects and folds everything until the connection ends; returns why it has ended, or did not begin.

        If it has ended because everything is finished, that is shown.
        """
        self.connections += 1
        self._is_healthy = False
        is_connected = False
        try:
            async with self._connect(self._request) as connection:
                is_connected = True
                await self._fold_all(connection)
        except Exception as error:
            if _is_terminal(error) or (is_connected and not _is_broken(error)):
                raise
            return error  # noqa: ASYNC910 - the caller waits next
        reason = self._shown.status.reason  # the connection keeps to itself how leaving it has ended
        assert reason is not None
        return reason

    async def _fold_all(self, connection: Connection) -> None:
        self._begin(connection)
        await self._shown.wakeups.wake()
        async with running(partial(self._watch, connection)):
            try:
                await self._receive_all(connection)
            except Exception as error:
                end = _end_of_subject(error)
                if end is not None and self._fold.finish():
                    self._shown.set_finished(end)
                    await self._shown.wakeups.wake()
                else:
                    self._lose(connection, error)
                raise

    async def _receive_all(self, connection: Connection) -> NoReturn:
        # What was missed may be in large commits. After a snapshot it is better to have all that is there in one go:
        # the view is not current without what a cached snapshot lacks.
        most = 1 if self._request.index else CHUNK
        while True:
            events = await connection.receive_batch(most)
            self._is_folding = True
            if not self._fold.is_in_snapshot:
                most = min(2 * most, _deliveries(events))
            await self._fold_batch(events, connection.horizon)
            self._is_healthy = self._fold.is_current
            await self._shown.wakeups.wake()
            while self._shown.remains:
                self._shown.remains.pop()
                await anyio.lowlevel.checkpoint()

    def _lose(self, connection: Connection, error: Exception) -> None:
        """The connection is over; to leave it may take long, so this is said first."""
        self._shown.set_lost(error.__cause__ if isinstance(error, _Unmendable) else error)
        if _is_broken(error):
            self._request = connection.resume_request()
            if not self._request.index:
                self._shown.set_void()

    async def _fold_batch(self, events: Sequence[Event[Any]], horizon: int) -> None:  # noqa: ASYNC910 - the caller has just received
        if self._fold.is_in_snapshot:
            events = await self._fold_snapshot(events)
        with _unmendable():
            for stop, _ in enumerate(self._fold.fold(events, horizon), 1):
                if stop % STOPS == 0:
                    await self._shown.wakeups.wake()
                    await anyio.lowlevel.checkpoint()
        self._is_folding = False
        self._folded.fire()

    async def _fold_snapshot(self, events: Sequence[Event[Any]]) -> Sequence[Event[Any]]:
        """Folds what is of the snapshot only, in chunks, and returns the rest."""
        end = next((at for at, event in enumerate(events) if isinstance(event.payload, Framing)), len(events))
        step = _deliveries(events)
        for begin in range(0, end, step):
            with _unmendable():
                for _ in self._fold.fold(events[begin : min(begin + step, end)], 0):
                    pass
            await anyio.lowlevel.checkpoint()
        return events[end:]  # noqa: ASYNC910 - the caller has just received

    def _begin(self, connection: Connection) -> None:
        self._is_folding = False
        self._shown.enter_epoch(connection.epoch)
        if not self._request.index:
            with _unmendable():
                self._fold.begin_snapshot()
        elif connection.horizon:
            self._fold.reach(connection.horizon)

    async def _watch(
        self, connection: Connection, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Notices that an index is published which brings no event, as long as that matters."""
        task_status.started()
        if not await self._is_accepted(connection):
            return
        arrived = self._shown.waiters.arrived
        while True:
            index = self._awaited()
            if index is None:
                await arrived.wait()
                continue
            try:
                with arrived.interrupts() as scope:
                    await connection.wait_published(index)
                if not scope.cancelled_caught:
                    await self._reach(connection, index)
            except Exception:  # noqa: BLE001 - it has ended, or a payload has raised: the reader learns that too
                return  # noqa: ASYNC910 - a task that ends

    async def _is_accepted(self, connection: Connection) -> bool:  # noqa: ASYNC910 - mostly that is known
        """Waits until it is known how a resume was answered; whether the connection lives."""
        if self._request.index and not connection.horizon and isinstance(connection, Judging):
            try:
                await connection.wait_ready()
            except Exception:  # noqa: BLE001 - it has ended: the reader learns that too
                return False  # noqa: ASYNC910 - as above
            if not self._is_folding:
                self._fold.reach(connection.horizon)
                await self._shown.wakeups.wake()
        return True  # noqa: ASYNC910 - as above

    def _awaited(self) -> int | None:
        """The lowest index that matters although it may bring no event."""
        if self._fold.is_in_snapshot:
            return None
        if self._fold.is_behind:
            return self._shown.state.index
        return self._shown.waiters.lowest_from(self._fold.horizon + 1)

    async def _reach(self, connection: Connection, index: int) -> None:  # noqa: ASYNC910 - the caller has just waited
        """Tells the fold that an index is published; waits if events up to it are on their way to the reader."""
        looked = -1
        while self._fold.horizon < index and not self._fold.is_in_snapshot:
            if looked >= 0:  # hidden events may be passed over a part at a time
                await anyio.lowlevel.checkpoint()
            horizon = looked if self._is_folding else connection.horizon
            if horizon == looked:
                await self._folded.wait()
            else:
                looked = horizon
                self._fold.reach(horizon)
                await self._shown.wakeups.wake()


def _is_terminal(error: Exception) -> bool:
    """Whether it is such an error, or a group with one: a connection may have tasks of its own."""
    return isinstance(error, TERMINAL) or (
        isinstance(error, ExceptionGroup) and error.subgroup(TERMINAL) is not None
    )


def _end_of_subject(error: BaseException) -> EndOfSubject | None:
    """The error if it is that, or what is in a group of nothing else."""
    if isinstance(error, ExceptionGroup) and error.split(EndOfSubject)[1] is None:
        return _end_of_subject(error.exceptions[0])
    return error if isinstance(error, EndOfSubject) else None


def _is_broken(error: Exception) -> bool:
    """Whether it is such an error, or a group of nothing else."""
    return isinstance(error, BROKEN) or (isinstance(error, ExceptionGroup) and error.split(BROKEN)[1] is None)


def _deliveries(events: Sequence[Event[Any]]) -> int:
    """How many deliveries, if they are like these, make up a chunk."""
    more = sum(len(event.payload) - 1 for event in events if type(event.payload) is PayloadEvents)
    return max(1, CHUNK * len(events) // (len(events) + more))


def _delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    if failures <= 1:
        return 0
    return random.uniform(0, min(_FIRST_BOUND * 2 ** min(failures - 2, 16), _LAST_BOUND))  # noqa: S311 - no secret
