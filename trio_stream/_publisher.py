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
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

import anyio
import anyio.abc
from trio.lowlevel import enable_ki_protection
from typing_extensions import TypeVar, override

from ._arguments import check_events, check_handler, check_index, check_integer, check_seconds
from ._commit import (
    Ending,
    Groups,
    Pairs,
    check_one_index,
    checked,
    is_ordinary,
    plain_subject_of,
    split,
    subjects_to,
    without_previous,
)
from ._compose import Composer
from ._conflation import Conflation, Rows
from ._course import Course, End, Policy
from ._errors import ClosedResourceError, CloseReason, InvalidCommitError, UnknownTopicError
from ._events import CloseSubscriptions, Event, Subject, Topic, check_topic, token_set
from ._feeds import Feeds
from ._handlers import SnapshotFunc, SnapshotHandlers, SnapshotMaker, Source
from ._inbox import Inbox
from ._interest import ALL
from ._passages import Passages
from ._request import Cursor, SubscribeRequest
from ._rights import Replacement, Rights
from ._statistics import PublisherStatistics, TopicStatistics
from ._subscription import Subscription, SubscriptionInfo
from ._timeline import Timeline
from ._tokens import Tokens, check_digest
from ._wait import Lot, Parking

P = TypeVar("P", default=Any)
T = TypeVar("T")

HISTORY_EVENTS: Final = 65_536

NO_HANDLERS: Final[SnapshotHandlers] = MappingProxyType({})


class EventPublisher:
    """Takes the commits of a state store and keeps any number of subscribers current.

    `handlers`: a snapshot function or a `Source` for each topic; `register_handler` adds more.
    `snapshot_cache_ttl`: seconds that a complete snapshot is kept for others who ask for the same.
    `history`, `history_events`: commits, and events of them, kept for each topic, for those who resume or are slow; the
    newest commit is kept in any case.
    Without `history_events` that is 65,536, or `history` if that is more.
    `index`, `mark`: those of the last commit before this publisher; it takes greater indexes.
    `epoch`: names the timeline of the indexes; None makes a random name, so that the index of another publisher is
    never misread.
    `token_digest`: a function that gives the digest of a token, for a state store that names what it revokes by that.
    Then close events and `close_subscriptions` take digests, and requests still have tokens.
    It is not async and fast, and always gives the same digest for the same token, until `refresh` begins another epoch.

    A publisher belongs to the event loop that runs it: `await nursery.start(publisher.run)`, or `open_publisher`.
    `publish` and `subscribe` work before that; snapshots and replays wait for it.
    Call it in the thread of that event loop, from a task or from any callback.
    Any thread may read `index`, `next_index`, `epoch`, `feed_age`, `statistics` and `subscriptions`, and call
    `publish_from_thread`.
    After it has stopped, every call raises `ClosedResourceError`, except `index`, `next_index`, `epoch`, `cursor`,
    `feed_age`, `statistics` and `subscriptions`, and, while somebody still reads, `close_subscriptions` and close
    events.
    """

    def __init__(
        self,
        handlers: SnapshotHandlers = NO_HANDLERS,
        *,
        snapshot_cache_ttl: float = 10.0,
        history: int = 4096,
        history_events: int | None = None,
        index: int = 0,
        epoch: str | None = None,
        mark: str = "",
        token_digest: Callable[[str], str] | None = None,
    ) -> None:
        if not isinstance(handlers, Mapping):
            raise TypeError(f"handlers is a mapping of topics to functions, not {type(handlers).__name__}")
        check_seconds("snapshot_cache_ttl", snapshot_cache_ttl)
        check_integer("history", history)
        if history < 1:
            raise ValueError(f"history is at least one commit, not {history}")
        if history_events is None:
            history_events = max(HISTORY_EVENTS, history)
        check_integer("history_events", history_events)
        if history_events < 1:
            raise ValueError(f"history_events is at least one event, not {history_events}")
        check_index(index)
        _check_mark(mark)
        if token_digest is not None and not callable(token_digest):
            raise TypeError(f"token_digest is a function of a token, not {type(token_digest).__name__}")
        self._timeline = Timeline(index, _new_epoch(epoch), mark, history, digest=token_digest)
        self._subscriptions = Tokens[Subscription[Any]](token_digest)
        # Those that have ended and are not let go of yet.
        self._ending: dict[Subscription[Any], None] = {}
        self._parking = Parking()
        self._feeds = Feeds(self._timeline, self._parking, history=history, history_events=history_events)
        self._maker = SnapshotMaker(self._parking, snapshot_cache_ttl)
        self._passages = Passages(self._feeds, self._timeline, self._parking, self._maker.start)
        self._maker.connect(self._passages, Composer(self._passages).compose)
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

    @property
    def cursor(self) -> Cursor:
        """How far it has come, as one value."""
        return Cursor(self._timeline.index, self._timeline.epoch, self._timeline.mark)

    @property
    def feed_age(self) -> float | None:
        """Seconds since it last knew that it had everything that the store had which feeds it; None if no store does.

        It is found out when it is read: a feed that has lost its store grows older all the time.
        """
        return None

    def register_handler(self, topic: Topic[P], handler: SnapshotFunc[P] | Source) -> None:
        """Adds a topic; `ValueError` if it has a handler already."""
        self._check("register_handler")
        check_topic(topic)
        source = handler if isinstance(handler, Source) else Source(handler)
        check_handler(topic.name, source.snapshot)
        if not isinstance(source.wide, bool):
            raise TypeError(f"wide is True or False, not {source.wide!r}")
        if not isinstance(source.finishes, bool):
            raise TypeError(f"finishes is True or False, not {source.finishes!r}")
        if source.replay is not None:
            check_handler(topic.name, source.replay)
        if source.row is not None and not callable(source.row):
            raise TypeError(f"row is a function of a payload, not {type(source.row).__name__}")
        if topic in self._maker.sources:
            raise ValueError(f"topic {str(topic)!r} has a handler already")
        self._feeds.add(topic, row=source.row, replay=source.replay, finishes=source.finishes)
        self._maker.sources[topic] = source

    @enable_ki_protection
    def publish(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> None:
        """Publishes one commit: all its events, over one or more topics and subjects, with one index.

        Call it after the store has committed, in the order of the indexes and in the event loop's thread.
        Never waits.
        Close events take no index and are handled first.
        `index` is that of the events.
        Give it for a commit that may have no events here: then those who wait for its index know that it has passed.
        Without events and index nothing happens.
        `mark` is what the store wrote with this commit; it may be given by the events instead.
        An event can say what its payload replaces, `Event.previous`, so that readers with rights or a filter are told
        what is gone for them.
        `finish` names subjects of one key that end with this commit, each with its topic.
        A subscription of just that key returns what there is, and then ends with `EndOfSubject`.
        A later event of a finished subject is refused, as long as the history keeps this commit or somebody reads the
        key.
        To finish a subject twice is allowed.
        `reopen` names finished subjects that can have events again, from this commit on; it comes before the events of
        the commit, and before `finish`.
        Who read one of them by its key alone, or all of a union that was finished, comes to its end all the same;
        whoever comes later, or resumes, goes on.
        A subject that is not known to be finished may be named.
        After the publisher has stopped, it takes close events only, as long as somebody still reads.

        It raises, and then has changed nothing:

        - `InvalidCommitError` unless this is one commit, with a greater index than the last, of subjects that are not
          finished, and each `previous` is a payload of the same subject that has `withdrawn`;
        - `UnknownTopicError`;
        - `ValueError` for a blank key that is to be finished or reopened;
        - `RuntimeError` in another thread;
        - `ClosedResourceError` after the publisher has stopped.
        """
        self._check("publish", unless_reading=True)
        check_events("publish", events)
        if (
            index is None
            and not mark
            and finish is reopen
            and finish == ()
            and (type(events) is list or type(events) is tuple)
            and len(events) == 1
        ):
            (event,) = events
            if self._publish_single(event):
                return
        if self._timeline.is_stopped:
            events = _only_closing(events, is_more=finish != () or reopen != ())
        commit, closing = checked(events)
        replacements: list[Replacement] = []
        # A list takes a third of the time.
        if mark or any([event.mark != "" or event.previous is not None for event in commit]):  # noqa: C419
            mark, commit = _marked(commit, mark)
            commit, replacements = without_previous(commit)
        pairs, parts = split(commit)
        ending = subjects_to("finish", finish)
        reopening = subjects_to("reopen", reopen)
        parts |= {topic: {} for topic in ending if topic not in parts}
        for topic in (*parts, *reopening):
            self._check_topic(topic)
        rows = self._feeds.rows(commit, parts)  # which asks functions that may publish
        self._feeds.check_open(parts, reopening)
        next_index = self._next_index(commit, index, ends=bool(ending or reopening))
        if closing:
            self._revoke(closing, self.index if next_index is None else next_index)
        if next_index is not None:
            self._timeline.advance(next_index, mark)
            if reopening:
                self._passages.reopen(reopening, next_index)
            self._feeds.replace(replacements)
            self._append(next_index, pairs, parts, ending, rows)

    def publish_from_thread(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> None:
        """`publish` for any thread: returns when it is done, raises what it raises, keeps each caller's order.

        The publisher must be running; before that it is a `RuntimeError`.
        """
        check_events("publish_from_thread", events)
        commit = tuple(events)
        publish = partial(
            self.publish, commit, index=index, mark=mark, finish=_listed(finish), reopen=_listed(reopen)
        )
        if self._parking.thread == threading.get_ident():
            publish()
        else:
            self._inbox.put(publish)

    @enable_ki_protection
    def subscribe(
        self,
        request: SubscribeRequest[P],
        *,
        authorizer: Any = None,
        where: Callable[[P], bool] | None = None,
        on_lag: Literal["close", "reset", "conflate"] = "close",
        label: str = "",
    ) -> Subscription[P]:
        """A new subscription, which must be ended: use it as `async with`, or call `unsubscribe`.

        `authorizer`: given to `has_read_permission` of each payload; None shows everything.
        `where`: a filter, which is true for the payloads to be returned. It is only asked about those that may be read.
        It is not async, and always gives the same answer for the same payload.
        Where an event says what it replaces (`Event.previous`), a reader that could see that and may not see the new
        payload gets `previous.withdrawn()` in its place.
        Neither of them is part of the request: give them again to resume.

        `on_lag`: what a reader gets when the history has passed it.
        With "close" that is `SubscriptionLagged`.
        With "reset" it is new-snapshot-to-follow, as soon as the snapshot behind it is whole; the reader can read that
        to its end, however slow it is. A resume that comes too late is treated the same.
        With both, a topic whose `Source` has a `replay` is read from there instead, commit by commit.
        With "conflate", a reader that has more than one delivery ready gets one event in the place of all of them.
        It `is_conflated`, and has the newest event of each row; the `Source` of each topic says what a row is.
        A reader that cannot be helped like this, for example inside a snapshot, is treated as with "reset".

        `label`: a name for this subscription, shown by `subscriptions`.

        It raises:

        - `UnknownTopicError`;
        - `ValueError` for `ALL` of a topic whose `Source` is not wide, and for "conflate" where one has no `row`;
        - `RuntimeError` in another thread;
        - `ClosedResourceError` after the publisher has stopped;
        - what `token_digest` raises.
        """
        self._check("subscribe")
        if not isinstance(request, SubscribeRequest):
            raise TypeError(f"a request is a SubscribeRequest, not {type(request).__name__}")
        if where is not None and not callable(where):
            raise TypeError(f"where is a function of a payload, not {type(where).__name__}")
        if on_lag not in ("close", "reset", "conflate"):
            raise ValueError(f"on_lag is 'close', 'reset' or 'conflate', not {on_lag!r}")
        if label != "" and not isinstance(label, str):
            raise TypeError(f"label is a string, not {type(label).__name__}")
        histories = self._feeds.histories
        for topic, _, _, namespace, partition in request.interests:
            if topic not in histories:
                self._check_topic(topic)
            if (namespace is ALL or partition is ALL) and not self._maker.sources[topic].wide:
                raise ValueError(f"the source of topic {str(topic)!r} is not wide: it does not know ALL")
        if self._subscriptions.digest is not None:
            check_digest(self._subscriptions.digest, request.token)
        rights = None if authorizer is None and where is None else Rights(authorizer, where)
        # By position, which takes a tenth less time.
        subscription: Subscription[P] = Subscription(
            request,
            self._passages,
            self._forget,
            rights,
            Policy.CLOSE if on_lag == "close" else Policy.RESET,
            self._conflation(request) if on_lag == "conflate" else None,
        )
        subscription.label = label
        self._subscriptions.add(request.token, subscription)
        began = subscription._began if request.index else "fresh"
        if began is not None:
            self._passages.counts.opened[began] += 1
        return subscription

    def _conflation(self, request: SubscribeRequest[Any]) -> Conflation:
        for interest in request.interests:
            if interest.topic not in self._feeds.row_functions:
                raise ValueError(f"the source of topic {str(interest.topic)!r} does not say what a row is")
        return Conflation(self._feeds.row_functions)

    def subscriptions(self) -> Iterator[SubscriptionInfo]:
        """What each open subscription is doing, one by one: an iterator that looks at each when its turn comes.

        Any thread may ask.
        """
        return (each._info() for each in self._subscriptions.all() if each._end is None)

    @enable_ki_protection
    def close_subscriptions(self, token_secret_ids: Iterable[str]) -> int:
        """Force-closes every subscription made with one of these tokens; returns how many they were.

        When it has returned, none of them returns another event.
        A cursor that was reached with one of them before is stale from now on.
        That is one at or below the present index, or below that of a snapshot or replay that was ahead of it.
        The newest 65,536 tokens are remembered for this.
        When one is forgotten, every cursor at or below the index of its revocation is stale, with any token.
        After the publisher has stopped, it closes those that still return what was published before.
        """
        self._check("close_subscriptions", unless_reading=True)
        return self._revoke(token_set(token_secret_ids), self.index)

    @enable_ki_protection
    def remember_revocations(self, revoked: Mapping[str, int], *, floor: int = 0) -> None:
        """Says which tokens were revoked before this publisher, and at which indexes, oldest first.

        A cursor at or below the index of the revocation of its token is stale, as after `close_subscriptions`.
        With a `token_digest` these are digests.
        Give what the state store has kept before anybody subscribes, at once or in portions, and again after a
        `refresh` with another epoch, which forgets all of them.
        No subscription is closed.

        `floor`: a cursor at or below this index is stale with any token, because older revocations are not known any
        more; one below the present floor changes nothing.
        The newest 65,536 tokens are remembered, as with `close_subscriptions`.

        `TypeError` or `ValueError` unless all indexes are from 0, in order, and none is lower than that of a revocation
        that the publisher knows; then nothing has changed.
        """
        self._check("remember_revocations")
        self._timeline.revocations.remember(revoked, floor)

    @enable_ki_protection
    def refresh(
        self,
        topic: Topic[Any] | None = None,
        *,
        index: int | None = None,
        epoch: str | None = None,
        mark: str = "",
    ) -> None:
        """Says that the state has changed other than by commits: subscribers must start again.

        With a topic, its history and snapshots are dropped and its subscriptions force-closed; the epoch stays.

        Without a topic, all topics are treated like this, and there are two cases.
        The store was restored or replaced: a new epoch begins, at `index`, which may be lower than before; the default
        is a random epoch and index 0.
        Or commits were lost: give the present epoch, and it goes on after `index`, which may not be lower.
        `mark` is that of the commit with this index.
        """
        self._check("refresh")
        if topic is None:
            check_index(start := 0 if index is None else index)
            goes_on = epoch == self._timeline.epoch
            if goes_on and start < self._timeline.index:
                raise ValueError(
                    f"epoch {epoch!r} is at {self._timeline.index}: a new start at {start} needs another name"
                )
            _check_mark(mark)
            if goes_on and start == self.index and mark and self._timeline.mark not in ("", mark):
                raise ValueError(
                    f"commit {start} of epoch {epoch!r} has mark {self._timeline.mark!r}, not {mark!r}: "
                    "another commit needs another epoch"
                )
            self._timeline.restart(start, _new_epoch(epoch), mark)
            self._force_close(self._subscriptions.take_all(), CloseReason.REFRESH)
            floors: dict[Topic[Any], tuple[int, int]] = {}
            for each, history in self._feeds.histories.items():
                # Where the epoch goes on, a cursor that was too old, or ahead of what is published, still is.
                floor, farthest = (history.floor, history.farthest) if goes_on else (0, 0)
                floors[each] = max(start, floor), start if goes_on else 0
                history.refreshed = history.refreshed if goes_on else 0
                history.farthest = max(start, farthest)
            self._passages.clear(floors)
        else:
            if index is not None or epoch is not None or mark:
                raise ValueError("one topic cannot have an index, an epoch or a mark of its own")
            check_topic(topic)
            self._check_topic(topic)
            history = self._feeds.histories[topic]
            closed = self._subscriptions.take_of(topic)
            self._force_close(closed, CloseReason.REFRESH)
            # Who was here before, and saw the newest commit or a snapshot ahead of it, must not resume either.
            history.refreshed = floor = max(self._timeline.index, history.farthest) + 1
            self._passages.clear({topic: (floor, history.newest)})

    def statistics(self) -> PublisherStatistics:
        """Figures for introspection; taking them changes nothing. The time it takes grows with the subscriptions.

        Any thread may take them. Only in the event loop's thread do all figures belong to one moment.
        """
        open_ = self._subscriptions.all()
        counts = self._passages.counts
        there = [*open_, *list(self._ending)]
        conflations = [each._conflation for each in there if each._conflation is not None]
        rights = [each._rights for each in there if each._rights is not None]
        snapshots = list(self._passages.shared.values())
        shared = Counter([history for each in snapshots for history in each.histories])
        return PublisherStatistics(
            index=self._timeline.index,
            epoch=self._timeline.epoch,
            subscriptions=self._subscriptions.count,
            waiting=sum([each._is_receiving is True and each._parked is not None for each in open_]),
            tokens=len(self._subscriptions),
            topics={
                topic.name: TopicStatistics(
                    commits=len(history),
                    floor=history.floor,
                    feeds=history.used + history.routes.count,
                    snapshots=shared[history],
                )
                for topic, history in list(self._feeds.histories.items())
            },
            commits=self._timeline.commits,
            events=self._timeline.commits + self._feeds.more,
            deliveries=counts.deliveries + sum([each._position - each._passed for each in there]),
            conflated=counts.conflated + sum([each.conflated for each in conflations]),
            hidden=counts.hidden + sum([each.hidden for each in rights]),
            withdrawn=counts.withdrawn + sum([each.withdrawn for each in rights]),
            opened={**counts.opened},
            snapshots={**counts.snapshots},
            ends={_named(end): count for end, count in counts.ends.items()},
            feed_age=self.feed_age,
        )

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs the publisher until it is cancelled: `await nursery.start(publisher.run)`.

        Snapshot and replay functions run inside it and end with it.
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

    def _check_topic(self, topic: Topic[Any]) -> None:
        if topic not in self._feeds.histories:
            raise UnknownTopicError(f"no handler is registered for topic {str(topic)!r}")

    def _next_index(self, commit: list[Event[Any]], index: int | None, *, ends: bool) -> int | None:
        """The index of the commit; None if it is none. `ends`: it finishes or reopens a subject."""
        given = index
        if commit:
            index = check_one_index(commit)
            if given not in (None, index):
                raise InvalidCommitError(f"events of index {index} in commit {given}")
        elif index is None:
            if ends:
                raise InvalidCommitError(
                    "a commit without events that finishes or reopens a subject needs an index"
                )
            return None
        if given is not None:
            check_index(given)
        if index <= self._timeline.index:
            raise InvalidCommitError(
                f"commit {index} is not after {self._timeline.index}, the last one published"
            )
        return index

    def _publish_single(self, event: Event[Any]) -> bool:
        """Publishes it, if it is an ordinary one; otherwise False, and nothing has changed."""
        timeline = self._timeline
        if (
            not is_ordinary(event)
            or timeline.is_stopped
            or (history := self._feeds.histories.get(event.topic)) is None
            or history.folds
        ):
            return False
        subject = plain_subject_of(event.payload)
        # The payload, asked for its subject, may have published or subscribed.
        if event.index <= timeline.index or history.folds:
            return False
        lots = self._feeds.append_single(history, event, subject)  # raises for a key that cannot be hashed
        timeline.advance(event.index, event.mark)
        if history.ageing:
            self._passages.expire(history)
        if timeline.is_awaited:
            lots = (*timeline.reached(), *lots)
        if lots:
            self._parking.wake(lots)
        return True

    def _append(
        self, index: int, pairs: Pairs, parts: Mapping[Topic[Any], Groups], ending: Ending, rows: Rows
    ) -> None:
        lots: list[Lot] = [*self._timeline.reached()]
        lots += self._feeds.append(index, pairs, parts, ending, rows)
        for topic in parts:
            self._passages.expire(self._feeds.histories[topic])
        self._parking.wake(lots)

    def _revoke(self, tokens: Collection[str], index: int) -> int:
        # A snapshot or a replay may have been ahead of it, and given a cursor that is older than this all the same.
        farthest = max([history.farthest for history in self._feeds.histories.values()], default=0)
        self._timeline.revocations.add(tokens, max(index, farthest))
        closed = self._subscriptions.take(tokens)
        self._force_close(closed, CloseReason.TOKEN)
        return len(closed)

    def _forget(self, reader: Course[Any]) -> None:
        assert isinstance(reader, Subscription)
        self._subscriptions.remove(reader.request.token, reader)
        self._count(reader)

    def _force_close(self, subscriptions: list[Subscription[Any]], reason: CloseReason) -> None:
        """Ends these subscriptions, which the caller has taken out of the open ones."""
        end = End(reason)
        self._ending.update(dict.fromkeys(subscriptions))
        for subscription in subscriptions:
            subscription._end = end
            subscription._burst = subscription._stop = 0
        self._parking.in_slices(map(self._let_go, subscriptions), len(subscriptions))

    def _let_go(self, subscription: Subscription[Any]) -> None:
        del self._ending[subscription]
        self._count(subscription)
        subscription._detach()
        self._parking.wake_one(subscription)

    def _count(self, ended: Subscription[Any]) -> None:
        counts, rights, end = self._passages.counts, ended._rights, ended._end
        assert end is not None
        counts.deliveries += ended._position - ended._passed
        if rights is not None:
            counts.hidden += rights.hidden
            counts.withdrawn += rights.withdrawn
        if ended._conflation is not None:
            counts.conflated += ended._conflation.conflated
        counts.ends[end.reason or end.is_finished] += 1

    def _stop(self) -> None:
        self._timeline.is_stopped = True
        self._parking.close()
        self._inbox.close()
        self._maker.close()
        self._passages.close()
        waiting, open_ = self._timeline.everybody(), self._subscriptions.all()
        self._parking.in_slices(map(self._parking.wake_one, waiting), len(waiting))
        self._parking.in_slices(map(self._tell_of_stop, open_), len(open_))

    def _tell_of_stop(self, subscription: Subscription[Any]) -> None:
        subscription._stop_if_done()
        if subscription._end is None:  # it has something to read, and only its reader keeps it alive
            self._subscriptions.loosen(subscription.request.token, subscription)
        subscription._tell_watchers()
        self._parking.wake_one(subscription)


def _named(end: CloseReason | bool) -> str:
    if isinstance(end, CloseReason):
        return str(end.value)
    return "finished" if end else "closed"


def _listed(pairs: Iterable[T]) -> Iterable[T]:
    """As they are now; a string is refused when it is published."""
    given: object = pairs
    return pairs if isinstance(given, str) else tuple(pairs)


def _only_closing(events: Iterable[Event[Any]], *, is_more: bool) -> tuple[Event[Any], ...]:
    closing = tuple(events)
    if is_more or not closing or not all(isinstance(each.payload, CloseSubscriptions) for each in closing):
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


def _check_mark(mark: object) -> None:
    if not isinstance(mark, str):
        raise TypeError(f"a mark is a string, not {type(mark).__name__}")


def _marked(commit: list[Event[Any]], mark: str) -> tuple[str, list[Event[Any]]]:
    """The mark of the commit, and its events with that."""
    _check_mark(mark)
    for event in commit:
        _check_mark(event.mark)
        if event.mark and mark not in ("", event.mark):
            raise InvalidCommitError(f"events of different marks in one commit: {mark!r} and {event.mark!r}")
        mark = mark or event.mark
    return mark, [
        each
        if each.mark or not mark
        else Event(each.topic, each.index, each.payload, previous=each.previous, mark=mark)
        for each in commit
    ]
