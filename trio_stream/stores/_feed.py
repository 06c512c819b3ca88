"""A publisher that is fed by a store.

It begins at the newest commit, at once, and with nothing in memory.
Older commits are read from the log of the store when somebody needs them, see `_replay`.

The feed goes on whatever an engine does, also if the changes stop without a word; see `_pulse`.
No round of it is without a wait: after a round that published something the next one may begin at the next turn of
the event loop, after any other only in a while that grows.

`Store.head` and `HistoryLostError` may not agree, where an engine asks in several places.
`head` decides which timeline it is; the higher one of the two floors counts.

It *begins again*, at the newest commit, and ends all subscriptions, when it cannot go on:

| what happened                               | seen by                                                          |
|---------------------------------------------|------------------------------------------------------------------|
| the store was replaced                      | another epoch                                                    |
| an older copy of it was, and nobody noticed | the same epoch, and another mark at the index that was published |
| a compaction has overtaken the feed         | the floor                                                        |

What was known of the timeline is forgotten then, also where its name stays: which cursors are good is for the log to
say.

A commit that cannot be read concerns some topics, or all.
Their subscriptions are closed, and nobody resumes there from before that commit: the state has what it did.
"""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel

from trio_stream import (
    Cursor,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Topic,
    close_subscription_event,
    running,
)
from trio_stream._warn import Warner

from ._errors import BehindError, HistoryLostError, StoreError, UnreadableCommitError
from ._handle import Admission, StorePublisher
from ._pages import changes_behind
from ._patience import patiently
from ._publication import NOTHING, Publication, Publications
from ._pulse import Pulse
from ._raised import error_of
from ._replay import Replay
from ._status import DescribedStore
from ._store import Store
from ._turns import Turns
from ._values import Commit, EpochIndex, Head, Record, Revocations, check_part, topic
from ._wide import WideStore

# Seconds until the next attempt after an error of the store: evenly random below a bound that doubles each
# time, so that the processes of a store that comes back do not all come at once ("full jitter": Marc Brooker,
# "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
_FIRST_BOUND: Final = 0.1
_LAST_BOUND: Final = 5.0

_PORTION: Final = 1024  # revocations that are taken over in one stretch of the loop

_warner: Final = Warner("trio_stream.stores")


class _Feed:
    """Publishes the commits of a store."""

    def __init__(
        self,
        store: Store,
        publisher: EventPublisher,
        topics: Mapping[str, Topic[Record]],
        admission: Admission,
        pulse: Pulse,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._topics = topics
        self._pulse = pulse
        self._publications = Publications(topics)
        self._admission = admission
        self._turns = Turns()
        # The index at which it has begun, for the last time.
        self._begun = publisher.index
        # The commits of the store have marks, as far as is known.
        self._has_marks = publisher.cursor.mark != ""
        # Set at the next commit that is published, if somebody waits for that.
        self._next: anyio.Event | None = None
        self._is_started = False
        # The present round has begun again.
        self._has_restarted = False
        # It has published a commit without having begun again, or passed one over.
        self._is_moving = False
        # What the last round has told of the store's floor.
        self._lost: HistoryLostError | None = None
        source = Source(
            self._snapshot,
            replay=Replay(store, publisher, topics, self._place),
            wide=isinstance(store, WideStore) and store.is_wide,
            row=attrgetter("namespace", "key"),
            finishes=True,
        )
        for each in topics.values():
            EventPublisher.register_handler(publisher, each, source)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until it is cancelled; started when it follows the store.

        An error of the store before that is raised; later ones are waited out.
        """
        bound = _FIRST_BOUND
        while True:
            since = anyio.current_time()
            self._has_restarted = self._is_moving = False
            error = await self._round(task_status)
            if self._is_moving or anyio.current_time() - since > _LAST_BOUND:
                bound = _FIRST_BOUND
            if isinstance(error, _Ended | HistoryLostError | UnreadableCommitError) and self._is_moving:
                if isinstance(error, HistoryLostError):
                    _warner.warn("subscribers must start again: %s", error)
                await anyio.lowlevel.checkpoint()
                continue
            # Lost history is no error of the beginning, unless it stays lost.
            if not self._is_started and (bound == _LAST_BOUND or not isinstance(error, HistoryLostError)):
                raise error
            delay = random.uniform(0, bound)  # noqa: S311 - no secret
            bound = min(bound * 2, _LAST_BOUND)
            _warner.warn("trying again in %.2f s: %s", delay, error)
            await self._pulse.sleep(delay)

    async def _round(self, task_status: anyio.abc.TaskStatus[None]) -> StoreError:
        """Publishes what is committed until that ends; returns how it did."""
        error: StoreError
        try:
            await self._follow(task_status)
        except (StoreError, BaseExceptionGroup) as raised:
            error = error_of(raised)
        else:
            error = _Ended(f"the changes of the store have ended after commit {self._publisher.index}")
        self._lost = error if isinstance(error, HistoryLostError) else None
        if isinstance(error, UnreadableCommitError) and error.index > self._publisher.index:
            try:
                await self._pass_over(error)
            except (StoreError, BaseExceptionGroup) as raised:
                error = error_of(raised)
        return error  # noqa: ASYNC910 - the caller waits

    async def _follow(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        head = await self._pulse.head()
        if self._cannot_go_on(head):
            await self._begin_again(head)
        async with changes_behind(
            self._store, frozenset(self._topics), self._place(self._publisher.cursor)
        ) as commits:
            now = await self._store.head()
            if now.epoch != self._publisher.epoch:  # and these commits may be of either timeline
                raise HistoryLostError(self._publisher.index, now.floor, now.epoch)
            if not self._is_started:
                self._is_started = True
                task_status.started()
            with self._pulse.watching():
                async for commit in commits:
                    await self._publish(commit)

    def _place(self, cursor: Cursor) -> int | Cursor:
        """How the store is asked for what comes behind a cursor: by the index alone, if its commits have no marks."""
        return cursor if self._has_marks else cursor.index

    def _cannot_go_on(self, head: Head) -> bool:
        """Whether what was published does not lead on to this; see the table on top."""
        index, mark = self._publisher.index, self._publisher.cursor.mark
        if head.epoch != self._publisher.epoch or self._floor(head) > index:
            return True
        if head.index == index:
            return bool(mark and head.mark) and mark != head.mark
        # There is nothing else that it can have lost.
        return mark != "" and self._lost is not None and self._lost.epoch == head.epoch

    def _floor(self, head: Head) -> int:
        lost = self._lost
        return head.floor if lost is None or lost.epoch != head.epoch else max(lost.floor, head.floor)

    async def _begin_again(self, head: Head) -> None:
        """Ends all subscriptions, and goes on behind the newest commit."""
        revocations = await _revocations_of(self._store)
        now = await self._store.head()
        if now.epoch != head.epoch:  # and the revocations may be of either timeline
            raise HistoryLostError(self._publisher.index, now.floor, now.epoch)
        if (floor := self._floor(head)) > head.index:
            head = replace(head, index=floor, floor=floor, mark="")
        self._has_restarted = True
        self._begun = head.index
        self._has_marks = self._has_marks or head.mark != ""
        # By way of another epoch: what is known of the commits up to here may be of another copy of the store.
        EventPublisher.refresh(self._publisher)
        EventPublisher.refresh(self._publisher, index=head.index, epoch=head.epoch, mark=head.mark)
        await self.begin(head, revocations, now.index)

    async def begin(  # noqa: ASYNC910 - the caller has waited
        self, head: Head, revocations: Revocations | None, seen: int
    ) -> None:
        """Takes over what the store knows of cursors, where the publisher begins.

        `seen`: a commit that is as new as any that a snapshot was of.
        """
        self._admission.unmarked = head.unmarked
        if revocations is not None and self._admission.salt is not None:
            self._admission.salt = revocations.salt
            await self._take_over(self._admission, revocations, seen)

    async def _take_over(  # noqa: ASYNC910 - as above
        self, admission: Admission, revocations: Revocations, seen: int
    ) -> None:
        """What was revoked before this publisher, or this timeline. No cursor is good before all of it is known."""
        admission.is_loading = True
        EventPublisher.remember_revocations(self._publisher, {}, floor=revocations.floor)
        newest = iter(revocations.newest.items())
        while not admission.has_own and (portion := dict(islice(newest, _PORTION))):
            EventPublisher.remember_revocations(self._publisher, portion)
            await anyio.lowlevel.checkpoint()
        if admission.has_own:  # of which nobody knows where they stand among these
            EventPublisher.remember_revocations(self._publisher, {}, floor=max(self._begun, seen))
        admission.is_loading = False

    async def _publish(self, commit: Commit) -> None:
        index, mark = commit.index, commit.mark
        self._pulse.is_busy = True
        if index <= self._publisher.index:
            raise StoreError(f"the store's commit {index} came after {self._publisher.index}")
        publication = await self._publications.make(index, mark, commit.operations, self._turns)
        await self._turns.take(max(1, len(publication.events)))
        revoked = await self._close_most(index, () if self._admission.salt is None else commit.revoked)
        self._announce(index, mark, publication, revoked)
        self._is_moving = not self._has_restarted
        self._pulse.is_busy = False

    async def _close_most(self, index: int, revoked: Collection[str]) -> Collection[str]:
        """Closes the subscriptions of very many tokens ahead of the commit that revokes them, in portions.

        Returns those that are to be closed by the commit itself: few, or of those who have come since.
        In between nothing is published, and their cursors are stale up to this commit.
        """
        if len(revoked) <= _PORTION:
            return revoked  # noqa: ASYNC910 - the caller waits
        admission, rest = self._admission, iter(revoked)
        with suppress(ValueError):  # or one is known that is newer: then these count as revoked there
            EventPublisher.remember_revocations(self._publisher, {next(iter(revoked)): index})
        try:
            while portion := set(islice(rest, _PORTION)):
                EventPublisher.publish(self._publisher, [close_subscription_event(portion)])
                admission.closed |= portion
                await anyio.lowlevel.checkpoint()
            return admission.late  # noqa: ASYNC910 - there is at least one portion
        finally:
            admission.closed, admission.late = set(), set()

    async def _pass_over(self, error: UnreadableCommitError) -> None:  # noqa: ASYNC910 - the caller waits
        """Publishes nothing of the topics concerned; who reads them must start again, from the state."""
        concerned = self._topics.keys() if error.topics is None else self._topics.keys() & error.topics
        others = [each for each in error.operations if each.topic not in concerned]
        mark = error.mark or await self._mark_at(error.index)
        publication = await self._publications.make(error.index, mark, others, self._turns)
        revoked = await self._revoked_since()
        if revoked is None:
            concerned, publication, revoked = self._topics.keys(), NOTHING, ()
        revoked = await self._close_most(error.index, revoked)
        if concerned:
            _warner.warn("subscribers must start again: %s", error)
        self._leave_out(concerned, error.index, mark, publication, revoked)
        self._is_moving = True

    async def _mark_at(self, index: int) -> str:
        """That of a commit that does not say it, if it is the newest: a snapshot of it has one, too."""
        head = await self._store.head()
        return head.mark if (head.index, head.epoch) == (index, self._publisher.epoch) else ""

    async def _revoked_since(self) -> Collection[str] | None:
        """What was revoked since the newest commit, perhaps by one that cannot be read; None if nobody knows all of it.

        Of a token the store knows only when it was revoked last, so that this may have been later.
        """
        revocations = None if self._admission.salt is None else await _revocations_of(self._store)
        if revocations is None:
            return ()  # noqa: ASYNC910 - the caller waits
        begin = self._publisher.index
        if revocations.floor > begin:
            return None  # noqa: ASYNC910 - as above
        return [digest for digest, at in revocations.newest.items() if at > begin]  # noqa: ASYNC910 - as above

    def _leave_out(
        self,
        concerned: Collection[str],
        index: int,
        mark: str,
        publication: Publication,
        revoked: Collection[str],
    ) -> None:
        """Publishes a commit, and has the readers of these topics, of which it is not whole, start again."""
        # Between what is before it and its own index: then that is the lowest one to resume from.
        before = max(self._publisher.index, index - 1)
        if concerned and len(concerned) == len(self._topics):
            # All are closed at once, so that no topic has to look for its own among those of the others.
            EventPublisher.refresh(self._publisher, index=before, epoch=self._publisher.epoch)
        elif concerned and self._publisher.index < before:
            EventPublisher.publish(self._publisher, (), index=before)
        for name in concerned:
            EventPublisher.refresh(self._publisher, self._topics[name])
        self._announce(index, mark, publication, revoked)

    def _announce(self, index: int, mark: str, publication: Publication, revoked: Collection[str]) -> None:
        """Publishes a commit; if it is impossible, the readers of its topics must start again instead."""
        try:
            self._hand_over(index, mark, publication, revoked)
        except InvalidCommitError:  # an engine that puts what is finished
            _warner.warn(
                "subscribers must start again: the store's commit %d does not follow from its log", index
            )
            concerned = {event.topic.name for event in publication.events}
            self._leave_out(concerned, index, mark, NOTHING, revoked)
            return
        self._has_marks = self._has_marks or mark != ""
        if self._next is not None:
            self._next.set()
            self._next = None

    def _hand_over(self, index: int, mark: str, publication: Publication, revoked: Collection[str]) -> None:
        events, finished, opened = publication
        if len(events) == 1 and not (revoked or finished or opened):  # the common case, in half of the time
            EventPublisher.publish(self._publisher, events)
            return
        closing = (close_subscription_event(revoked),) if revoked else ()
        EventPublisher.publish(
            self._publisher, [*closing, *events], index=index, mark=mark, finish=finished, reopen=opened
        )

    async def _snapshot(
        self, request: SubscribeRequest[Record], snapshot: SnapshotAppender[Record]
    ) -> int | Cursor:
        """The store's, unless that has a timeline already of which the publisher does not know.

        It may be a little behind what is published, as that of a replica is: the history has the rest.
        Of a replica that says that it is behind, or was seen to be, it is waited for.
        It may be ahead, but its end comes behind every revocation on the way there.
        """
        epoch, begun, published = self._publisher.epoch, self._begun, self._publisher.index

        async def ask() -> int | Cursor:
            if self._pulse.is_behind_at_times:
                head = await self._pulse.head()
                if head.epoch == epoch and head.index < published:
                    raise BehindError(f"the store is at commit {head.index}, and {published} was seen before")
            return await self._store.snapshot(request, snapshot)

        returned = await patiently(ask, _check_that_it_is_behind)
        try:
            index = returned.cursor if isinstance(returned, EpochIndex) else returned
            its_epoch = index.epoch if isinstance(index, Cursor) else (await self._store.head()).epoch
        except BaseExceptionGroup as group:
            raise error_of(group) from None
        if its_epoch != epoch:
            raise StoreError(f"the store was replaced (epoch {epoch!r} by {its_epoch!r}): ask again")
        reached = index.index if isinstance(index, Cursor) else index
        if reached < published:
            self._pulse.is_behind_at_times = True
        if reached < begun:
            raise BehindError(f"the store's snapshot of {reached} is behind commit {begun}: ask again")
        await self._pass_revocations(reached)
        return index

    async def _pass_revocations(self, index: int) -> None:
        """Waits until this is published, if a token was revoked that the publisher does not know of.

        Until then its subscriptions have the rights of before (D20).
        Their cursors must not be from behind it: other publishers, and the next one here, would let them resume.
        """
        if index <= self._publisher.index or self._admission.salt is None:
            return  # noqa: ASYNC910 - the caller has waited
        try:
            revocations = await _revocations_of(self._store)
        except BaseExceptionGroup as group:
            raise error_of(group) from None
        if revocations is None or max(revocations.newest.values(), default=0) <= self._publisher.index:
            return
        while self._publisher.index < index:
            if self._next is None:
                self._next = anyio.Event()
            await self._next.wait()


class _Ended(StoreError):
    """The changes of the store have come to an end, which they should not."""


def _check_that_it_is_behind(error: StoreError) -> None:
    """Raises any other error; an engine raises this one before it appends anything."""
    if not isinstance(error, BehindError):
        raise error


async def _revocations_of(store: Store) -> Revocations | None:
    """None of a store that does not know of tokens, as one of the first edition does not; `StoreError` if damaged."""
    ask: Callable[[], Awaitable[object]] | None = getattr(store, "revocations", None)
    known = None if ask is None else await ask()
    if not isinstance(known, Revocations):
        return None  # noqa: ASYNC910 - there may be nothing to wait for, here and below
    if not _is_in_order([*known.newest.values()]):
        place = (await store.status()).place if isinstance(store, DescribedStore) else type(store).__name__
        raise StoreError(f"{place}: damaged: the revocations are out of order")
    return known  # noqa: ASYNC910 - as above


def _is_in_order(indexes: Sequence[Any]) -> bool:
    are_indexes = all(issubclass(kind, int) for kind in set(map(type, indexes)))
    return are_indexes and indexes == sorted(indexes)


@asynccontextmanager
async def open_store_publisher(
    store: Store, topics: Iterable[str], *, snapshot_cache_ttl: float = 0.0, history: int = 1024
) -> AsyncIterator[EventPublisher]:
    """A running publisher of everything that is committed to these topics of the store, by whomever.

    It has the store's epoch and begins at the store's newest commit, at once, however long the store's log is.
    Clients resume by their cursor after a restart of this process, and at any other process of the same store:
    commits that are not in memory are read from the store's log, as far back as that reaches, by pages.
    So are those that a slow reader has missed: with `on_lag="close"` and "reset" it gets every commit, at its own pace.
    A client gets a new snapshot if the log no longer has what it needs, or if its cursor is not on the log, because
    an older copy of the store has taken the place of that which it has read.
    `history` is how many of the newest commits are kept in memory, so that those who are up to date need not ask the
    store; the newest is kept in any case.

    A commit is published after it is durable; of those about other topics only the index and the mark are.
    Events say what they replace, so that readers with rights or a filter that look at the value are told what they may
    no longer see.
    A commit that revokes tokens closes their subscriptions before anything else of it is published, in every process,
    and cursors that were reached with them before are stale, also after a restart.
    A snapshot that is ahead of what is published, as far as behind such a commit, ends when that is published.
    `close_subscriptions` closes those of this process only, and is remembered as long as this publisher runs.
    A final value ends the subscriptions of just its key.

    Prefixes can be asked for with any store, but are made from all keys where the store does not know them; `ALL` is a
    `ValueError` there.
    A subscription can have `on_lag="conflate"`: one row is a namespace and a key.

    The feed publishes: `publish`, `publish_from_thread`, `register_handler`, `refresh`, `remember_revocations` and
    `run` are refused with a `RuntimeError`, and change nothing. Commit to the store.

    Subscribers share a snapshot while it is made, but it is not kept: another process may have committed since,
    and who comes here may have seen that there.
    `snapshot_cache_ttl` keeps it for so many seconds all the same, where the load matters more.

    When commits that the feed needs were compacted, or the store was restored or replaced, subscribers are closed
    with `CloseReason.REFRESH` and start again.
    So are those of the topics of a commit that cannot be read, which is passed over; the others go on.
    When the store fails, that is tried again within 0.1 s, then twice as much, up to 5 s, and as soon as it is found to
    answer again; subscribers wait, and new snapshots fail.
    The logger `trio_stream.stores` warns of it with the text of the `StoreError`, about ten times a minute at most.
    Every two seconds or so the store is asked for its newest commit.
    `EventPublisher.feed_age` says how long ago the publisher last knew that it had that; the logger warns when this is
    more than 10 s, and again when it is not any more.
    When it fails at the beginning, the `StoreError` is raised.

    An exception of the block leaves it as it is, not in an exception group, unless the feed has failed, too.
    """
    if isinstance(topics, str):
        raise TypeError(f"topics are several names, not the one string {topics!r}")
    if isinstance(history, bool) or not isinstance(history, int):
        raise TypeError(f"history is a number of commits, not {history!r}")
    if history < 0:
        raise ValueError(f"history is a number of commits from 0, not {history}")
    published: dict[str, Topic[Record]] = {}
    for name in topics:
        check_part("topic", name)
        published[name] = topic(name)
    since = time.monotonic()
    head = await store.head()
    revocations = await _revocations_of(store)  # behind the head: what is revoked later, the feed will tell
    admission = Admission(None if revocations is None else revocations.salt)
    pulse = Pulse(store, since)
    publisher = StorePublisher(
        admission,
        pulse,
        snapshot_cache_ttl=snapshot_cache_ttl,
        history=max(1, history),
        index=head.index,
        epoch=head.epoch,
        mark=head.mark,
    )
    pulse.begin(publisher)
    async with running(partial(EventPublisher.run, publisher)):
        feed = _Feed(store, publisher, published, admission, pulse)
        await feed.begin(head, revocations, head.index)
        async with running(feed.run), running(pulse.run):
            yield publisher
