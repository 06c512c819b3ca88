"""The publisher: takes commits, hands out subscriptions, and runs the snapshot functions.

Every public method except `run` is synchronous and atomic: it has no checkpoint, so nobody sees half of it and no
lock is needed.
It checks everything first, then changes state.

An end that concerns very many subscriptions is written into all of them at once, so that none of them returns another
event.
The rest, letting go of their buffers and waking their tasks, is done by `Parking.in_slices`.
A publisher that stops only says so in its timeline: the subscriptions read what was published, and end there.
"""

import secrets
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

import anyio
import anyio.abc
from trio.lowlevel import enable_ki_protection
from typing_extensions import TypeVar, override

from ._arguments import check_events, check_handler, check_index, check_integer, check_seconds
from ._buffer import History
from ._commit import Groups, check_event, check_one_index, split
from ._cursor import Cursor, End
from ._errors import ClosedResourceError, CloseReason, InvalidCommitError, UnknownTopicError
from ._events import CloseSubscriptions, Event, SubscribeRequest, Topic, check_topic, token_set
from ._inbox import Inbox
from ._snapshot import SnapshotFunc, SnapshotHandlers, SnapshotMaker
from ._statistics import PublisherStatistics, TopicStatistics
from ._subscription import Subscription
from ._tokens import Tokens
from ._topic import Timeline, TopicState
from ._wait import Lot, Parking

P = TypeVar("P", default=Any)

NO_HANDLERS: Final[SnapshotHandlers] = MappingProxyType({})


class EventPublisher:
    """Takes the commits of a state store and keeps any number of subscribers current.

    `handlers`: a snapshot function for each topic; `register_handler` adds more.
    `snapshot_cache_ttl`: seconds that a complete snapshot is kept for others who ask for the same.
    `history`: commits kept for each topic, for those who resume or are slow.
    `index`: that of the last commit before this publisher; it takes greater ones.
    `epoch`: names the timeline of the indexes; None makes a random name, so that the index of another publisher is
    never misread.

    A publisher belongs to the event loop that runs it: `await nursery.start(publisher.run)`, or `open_publisher`.
    `publish` and `subscribe` work before that; snapshots wait for it.
    Call it in the thread of that event loop, from a task or from any callback.
    Any thread may read `index`, `next_index`, `epoch` and `statistics`, and call `publish_from_thread`.
    After it has stopped, every call raises `ClosedResourceError`, except `index`, `next_index`, `epoch` and
    `statistics`, and, while somebody still reads, `close_subscriptions` and close events.
    """

    def __init__(
        self,
        handlers: SnapshotHandlers = NO_HANDLERS,
        *,
        snapshot_cache_ttl: float = 10.0,
        history: int = 4096,
        index: int = 0,
        epoch: str | None = None,
    ) -> None:
        if not isinstance(handlers, Mapping):
            raise TypeError(f"handlers is a mapping of topics to functions, not {type(handlers).__name__}")
        check_seconds("snapshot_cache_ttl", snapshot_cache_ttl)
        check_integer("history", history)
        if history < 1:
            raise ValueError(f"history is at least one commit, not {history}")
        check_index(index)
        self._limit = history
        self._timeline = Timeline(index, _new_epoch(epoch))
        self._topics: dict[Topic[Any], TopicState] = {}
        self._subscriptions = Tokens[Subscription[Any]]()
        self._parking = Parking()
        self._maker = SnapshotMaker(self._parking, snapshot_cache_ttl)
        self._inbox = Inbox(self._parking)
        self._is_running = False
        for topic, handler in handlers.items():
            self.register_handler(topic, handler)

    @override
    def __repr__(self) -> str:
        state = "stopped" if self._timeline.is_stopped else "running" if self._is_running else "not started"
        return (
            f"<EventPublisher index={self.index} epoch={self.epoch!r} "
            f"subscriptions={self._subscriptions.count} {state}>"
        )

    @property
    def index(self) -> int:
        """The index of the newest commit published."""
        return self._timeline.index

    @property
    def next_index(self) -> int:
        """The lowest index that the next commit may have: for an application whose state has no index of its own."""
        return self._timeline.index + 1

    @property
    def epoch(self) -> str:
        """The name of the present timeline."""
        return self._timeline.epoch

    def register_handler(self, topic: Topic[P], handler: SnapshotFunc[P]) -> None:
        """Adds a topic; `ValueError` if it has a handler already."""
        self._check("register_handler")
        check_topic(topic)
        check_handler(topic.name, handler)
        if topic in self._topics:
            raise ValueError(f"topic {str(topic)!r} has a handler already")
        history = History(self._limit, self._timeline.index)
        self._topics[topic] = TopicState(topic, history, self._timeline, self._parking, self._maker.start)
        self._maker.handlers[topic] = handler

    @enable_ki_protection
    def publish(self, events: Iterable[Event[Any]], *, index: int | None = None) -> None:
        """Publishes one commit: all its events, over one or more topics and subjects, with one index.

        Call it after the store has committed, in the order of the indexes and in the event loop's thread.
        Never waits.
        Close events take no index and are handled first.
        `index` is that of the events.
        Give it for a commit that may have no events here: then those who wait for its index know that it has passed.
        Without events and index nothing happens.
        After the publisher has stopped, it takes close events only, as long as somebody still reads.

        Raises, and changes nothing: `InvalidCommitError` unless this is one commit with a greater index than the
        last, `UnknownTopicError`, `RuntimeError` in another thread, `ClosedResourceError` after the publisher has
        stopped.
        """
        self._check("publish", unless_reading=True)
        check_events("publish", events)
        if self._timeline.is_stopped:
            events = _only_closing(events)
        closing: set[str] = set()
        commit: list[Event[Any]] = []
        for event in events:
            check_event(event)
            if isinstance(event.payload, CloseSubscriptions):
                closing |= event.payload.token_secret_ids
            else:
                commit.append(event)
        parts = [(self._state(topic), groups) for topic, groups in split(commit).items()]
        next_index = self._next_index(commit, index)
        if closing:
            self.close_subscriptions(closing)
        if next_index is not None:
            self._timeline.index = next_index
            self._append(next_index, parts)

    def publish_from_thread(self, events: Iterable[Event[Any]], *, index: int | None = None) -> None:
        """`publish` for any thread: returns when it is done, raises what it raises, keeps each caller's order.

        The publisher must be running; before that it is a `RuntimeError`.
        """
        check_events("publish_from_thread", events)
        commit = tuple(events)
        if self._parking.thread == threading.get_ident():
            self.publish(commit, index=index)
        else:
            self._inbox.put(partial(self.publish, commit, index=index))

    @enable_ki_protection
    def subscribe(
        self,
        request: SubscribeRequest[P],
        *,
        authorizer: Any = None,
        on_lag: Literal["close", "reset"] = "close",
    ) -> Subscription[P]:
        """A new subscription, which must be ended: use it as `async with`, or call `unsubscribe`.

        `authorizer`: given to `has_read_permission` of each payload; None shows everything.
        `on_lag`: what a reader gets when the history has passed it.
        With "close" that is `SubscriptionLagged`.
        With "reset" it is new-snapshot-to-follow, as soon as the snapshot behind it is whole; the reader can read that
        to its end, however slow it is. A resume that comes too late is treated the same.

        Raises `UnknownTopicError`, `RuntimeError` in another thread, `ClosedResourceError` after the publisher has
        stopped.
        """
        self._check("subscribe")
        if not isinstance(request, SubscribeRequest):
            raise TypeError(f"a request is a SubscribeRequest, not {type(request).__name__}")
        if on_lag not in ("close", "reset"):
            raise ValueError(f"on_lag is 'close' or 'reset', not {on_lag!r}")
        state = self._state(request.topic)
        subscription: Subscription[P] = Subscription(
            request,
            state,
            self._forget,
            resume=self._can_resume(request, state.history),
            authorizer=authorizer,
            resets=on_lag == "reset",
        )
        self._subscriptions.add(request.token, subscription)
        return subscription

    @enable_ki_protection
    def close_subscriptions(self, token_secret_ids: Iterable[str]) -> int:
        """Force-closes every subscription made with one of these tokens; returns how many they were.

        When it has returned, none of them returns another event.
        After the publisher has stopped, it closes those that still return what was published before.
        """
        self._check("close_subscriptions", unless_reading=True)
        closed = self._subscriptions.take(token_set(token_secret_ids))
        self._force_close(closed, CloseReason.TOKEN)
        return len(closed)

    @enable_ki_protection
    def refresh(
        self, topic: Topic[Any] | None = None, *, index: int | None = None, epoch: str | None = None
    ) -> None:
        """Says that the state has changed other than by commits: subscribers must start again.

        With a topic, its history and snapshots are dropped and its subscriptions force-closed; the epoch stays.

        Without a topic, all topics are treated like this, and there are two cases.
        The store was restored or replaced: a new epoch begins, at `index`, which may be lower than before; the default
        is a random epoch and index 0.
        Or commits were lost: give the present epoch, and it goes on after `index`, which may not be lower.
        """
        self._check("refresh")
        if topic is None:
            check_index(start := 0 if index is None else index)
            goes_on = epoch == self._timeline.epoch
            if goes_on and start < self._timeline.index:
                raise ValueError(
                    f"epoch {epoch!r} is at {self._timeline.index}: a new start at {start} needs another name"
                )
            self._timeline.epoch = _new_epoch(epoch)
            self._timeline.index = start
            self._force_close(self._subscriptions.take_all(), CloseReason.REFRESH)
            for state in self._topics.values():
                # Where the epoch goes on, a cursor that was too old, or ahead of what is published, still is.
                floor, farthest = (state.history.floor, state.farthest) if goes_on else (0, 0)
                state.clear(floor=max(start, floor), dropped=start if goes_on else 0)
                state.farthest = max(start, farthest)
        else:
            if index is not None or epoch is not None:
                raise ValueError("one topic cannot have an index or an epoch of its own")
            check_topic(topic)
            state = self._state(topic)
            closed = self._subscriptions.take_of(state)
            self._force_close(closed, CloseReason.REFRESH)
            # Who was here before, and saw the newest commit or a snapshot ahead of it, must not resume either.
            floor = max(self._timeline.index, state.farthest) + 1
            state.clear(floor=floor, dropped=state.history.newest)

    def statistics(self) -> PublisherStatistics:
        """Figures for introspection; taking them changes nothing. The time it takes grows with the subscriptions.

        Any thread may take them. Only in the event loop's thread do all figures belong to one moment.
        """
        open_ = self._subscriptions.all()
        return PublisherStatistics(
            index=self._timeline.index,
            epoch=self._timeline.epoch,
            subscriptions=self._subscriptions.count,
            waiting=sum([each._is_receiving is True and each._parked is not None for each in open_]),
            tokens=len(self._subscriptions),
            topics={
                topic.name: TopicStatistics(
                    commits=len(state.history),
                    floor=state.history.floor,
                    feeds=len(state.history.feeds),
                    snapshots=len(state.snapshots),
                )
                for topic, state in list(self._topics.items())
            },
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs the publisher until it is cancelled: `await nursery.start(publisher.run)`.

        Snapshot functions run inside it and end with it.
        The subscriptions still return what was published before, and then end with `CloseReason.STOPPED`; one whose
        snapshot is not whole ends at once.
        """
        self._check("run")
        if self._is_running:
            raise RuntimeError("this publisher runs already")
        self._parking.backend.check()
        self._is_running = True
        async with anyio.create_task_group() as tasks:
            try:
                self._inbox.open(self._parking.backend.call_from_thread())
                tasks.start_soon(self._inbox.run)
                self._maker.open(tasks)
                task_status.started()
                await self._parking.run()
            finally:
                self._stop()
                with anyio.CancelScope(shield=True):
                    await self._parking.finish()

    def _check(self, call: str, *, unless_reading: bool = False) -> None:
        """`unless_reading`: it is allowed as long as somebody reads what was published before the publisher stopped."""
        self._parking.check_thread(call)
        if self._timeline.is_stopped and not (unless_reading and self._subscriptions.count):
            raise ClosedResourceError("this publisher has stopped")

    def _state(self, topic: Topic[Any]) -> TopicState:
        state = self._topics.get(topic)
        if state is None:
            raise UnknownTopicError(f"no handler is registered for topic {str(topic)!r}")
        return state

    def _next_index(self, commit: list[Event[Any]], index: int | None) -> int | None:
        """The index of the commit; None if it is none."""
        given = index
        if commit:
            index = check_one_index(commit)
            if given not in (None, index):
                raise InvalidCommitError(f"events of index {index} in commit {given}")
        elif index is None:
            return None
        if given is not None:
            check_index(given)
        if index <= self._timeline.index:
            raise InvalidCommitError(
                f"commit {index} is not after {self._timeline.index}, the last one published"
            )
        return index

    def _append(self, index: int, parts: list[tuple[TopicState, Groups]]) -> None:
        lots: list[Lot] = self._timeline.reached()
        for state, groups in parts:
            lots += state.history.append(index, groups)
            state.expire()
        self._parking.wake(lots)

    def _can_resume(self, request: SubscribeRequest[Any], history: History) -> bool:
        if request.index == 0 or request.epoch not in (None, self._timeline.epoch):
            return False
        is_ahead = request.index > self._timeline.index
        return request.index >= history.floor and not (is_ahead and request.epoch is None)

    def _forget(self, cursor: Cursor[Any]) -> None:
        assert isinstance(cursor, Subscription)
        self._subscriptions.remove(cursor.request.token, cursor)

    def _force_close(self, subscriptions: list[Subscription[Any]], reason: CloseReason) -> None:
        """Ends these subscriptions, which the caller has taken out of the open ones."""
        end = End(reason)
        for subscription in subscriptions:
            subscription._end = end
            subscription._burst = subscription._stop = 0
        self._parking.in_slices(map(self._let_go, subscriptions), len(subscriptions))

    def _let_go(self, subscription: Subscription[Any]) -> None:
        subscription._detach()
        self._parking.wake_one(subscription)

    def _stop(self) -> None:
        self._timeline.is_stopped = True
        self._parking.close()
        self._inbox.close()
        self._maker.close()
        for state in self._topics.values():
            state.close()
        waiting, open_ = self._timeline.everybody(), self._subscriptions.all()
        self._parking.in_slices(map(self._parking.wake_one, waiting), len(waiting))
        self._parking.in_slices(map(self._tell_of_stop, open_), len(open_))

    def _tell_of_stop(self, subscription: Subscription[Any]) -> None:
        subscription._stop_if_done()
        if subscription._end is None:  # it has something to read, and only its reader keeps it alive
            self._subscriptions.loosen(subscription.request.token, subscription)
        self._parking.wake_one(subscription)


def _only_closing(events: Iterable[Event[Any]]) -> tuple[Event[Any], ...]:
    closing = tuple(events)
    if not closing or not all(isinstance(each.payload, CloseSubscriptions) for each in closing):
        raise ClosedResourceError("this publisher has stopped")
    return closing


def _new_epoch(epoch: str | None) -> str:
    if epoch is None:
        return secrets.token_hex(8)
    if not isinstance(epoch, str):
        raise TypeError(f"an epoch is a string, not {epoch!r}")
    if not epoch:
        raise ValueError("an epoch must not be empty")
    return epoch
