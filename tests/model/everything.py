"""A store of which everything is used at once, its publisher, and a judge of each event that a reader gets.

Filters, authorizers and withdrawals; `close`, `reset` and `conflate`; subjects that finish, replays, marks, revoked
cursors, refreshed topics and restored stores; readers of keys, prefixes and unions.
It knows no event loop: who calls decides what runs when.
"""

# ruff: noqa: SLF001 - the model may know private names of the core

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from catalogue import HEALTH, JOBS, Health
from conflated import by_subject

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    StaleCursorError,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    Topic,
    WouldBlock,
    close_subscription_event,
)

TOPICS = (HEALTH, JOBS)
Key = tuple[Topic[Health], Subject]
Rows = dict[Key, str]


class Trouble(Exception):
    """Of a snapshot or replay function."""


@dataclass(frozen=True)
class Rights:
    """A value is some letters and a number; a reader may read it for one letter, and wants it for another."""

    reads: str = ""
    wants: str = ""

    def __contains__(self, asked: object) -> bool:
        """Of the authorizer: a key, or `key=value`."""
        return self.reads in str(asked).partition("=")[2] and "=" in str(asked)

    def where(self, payload: Health) -> bool:
        assert payload.value is not None, "a delete is asked about by what it replaces"
        assert self.reads in payload.value, "authorizer first"
        return self.wants in payload.value

    def show(self, value: str | None) -> bool:
        return value is not None and self.reads in value and self.wants in value

    @property
    def options(self) -> dict[str, Any]:
        return {
            "authorizer": self if self.reads else None,
            "where": self.where if self.wants else None,
        }


EVERYTHING = Rights()


class Change(NamedTuple):
    """A row gets another value, or goes."""

    key: Key
    old: str | None
    new: str | None


@dataclass
class Commit:
    index: int
    changes: list[Change]
    finish: Sequence[Key]
    revoked: Sequence[str]


@dataclass
class Store:
    """What was committed on the present timeline, of which the first few are published."""

    epoch: str = "e0"
    has_marks: bool = False
    index: int = 0
    published: int = 0  # the index
    rows: Rows = field(default_factory=dict)
    log: list[Commit] = field(default_factory=list)
    states: dict[int, Rows] = field(default_factory=lambda: {0: {}})
    finished: dict[Key, int] = field(default_factory=dict)
    # Cursors that are no good: {topic: below this}, {token: up to this}
    refreshed: dict[Topic[Health], int] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)

    def mark(self, index: int) -> str:
        return f"{self.epoch}-{index}" if self.has_marks and index else ""

    def cursor(self, index: int) -> Cursor:
        return Cursor(index, self.epoch, self.mark(index))

    def state_at(self, index: int) -> Rows:
        return self.states[max(known for known in self.states if known <= index)]

    @property
    def pending(self) -> list[Commit]:
        return [commit for commit in self.log if commit.index > self.published]

    def events(self, commit: Commit) -> list[Event[Health]]:
        def payload(key: Key, value: str | None) -> Health:
            return Health(key[1].key, value, key[1].namespace)

        return [
            Event(
                key[0],
                commit.index,
                payload(key, new),
                previous=None if old is None else payload(key, old),
                mark=self.mark(commit.index),
            )
            for key, old, new in commit.changes
        ]


Saved = tuple[SubscribeRequest[Health], Rights, Rows]
"""Where a reader of these rights may go on that holds these rows."""


@dataclass(eq=False)
class Reader:
    """A subscription, and what its client holds."""

    subscription: Subscription[Health]
    way: str
    rights: Rights
    rows: Rows
    index: int
    is_whole: bool  # whether the rows are those of the index
    is_judged: bool  # whether its cursor was accepted, or refused
    must_be_stale: bool = False
    may_be_stale: bool = False
    end: str | None = None
    was_seen_to_finish: set[Key] = field(default_factory=set)

    @property
    def request(self) -> SubscribeRequest[Health]:
        return self.subscription.request

    def covers(self, key: Key) -> bool:
        return self.request.covers(*key)

    @property
    def keys(self) -> set[Key] | None:
        """If it reads only these."""
        if any(each.prefix or not each.key for each in self.request.interests):
            return None
        return {(each.topic, Subject(each.key, str(each.namespace))) for each in self.request.interests}

    @property
    def folds(self) -> bool:
        return self.way == "conflate"


class Everything:
    """A store with snapshot and replay functions, its publisher, and readers that are judged.

    `checkpoint` is that of the event loop; `rng` decides how the functions go.
    """

    def __init__(
        self,
        checkpoint: Callable[[], Awaitable[None]],
        rng: random.Random,
        *,
        has_marks: bool = False,
        has_log: bool = True,
        finishes: bool = True,
        is_troubled: bool = False,
        **options: Any,
    ) -> None:
        self.checkpoint = checkpoint
        self.functions = rng
        self.store = Store(has_marks=has_marks)
        self.has_log = has_log
        self.finishes = finishes
        self.is_troubled = is_troubled
        # Of which functions choose one: checkpoints, and commits of a page.
        self.pauses: Sequence[int] = (0, 0, 1, 1, 2, 5)
        self.sizes: Sequence[int] = (1, 2, 3, 100)
        self.readers: list[Reader] = []
        self.saved: list[Saved] = []
        self.running = 0
        self.events = 0
        self.seen: Counter[str] = Counter()
        self.is_stopped = False
        source = Source(
            self.snapshot,
            replay=self.replay if has_log else None,
            wide=True,
            row=by_subject,
            finishes=finishes,
        )
        self.publisher = EventPublisher(dict.fromkeys(TOPICS, source), epoch=self.store.epoch, **options)

    # The end:

    def all_are_current(self) -> None:
        for reader in self.readers:
            if reader.end is None:
                self.is_current(reader)

    def is_current(self, reader: Reader) -> None:
        subscription, store = reader.subscription, self.store
        if subscription.state is SubscriptionState.RESUMING:
            assert reader.request.index > store.published, "D7: it is not judged"
            return
        assert subscription.state is SubscriptionState.LIVE, f"it stays {subscription.state}"
        horizon = subscription.horizon
        assert horizon >= store.published, "D3: it has not had everything"
        if not reader.is_judged and reader.request.index:
            assert not reader.must_be_stale, "D7, D20: its cursor is no good"
        if reader.request.index and not reader.is_judged:
            reader.is_whole = True
        assert reader.is_whole
        self.check_quiet(reader, horizon)
        assert reader.rows == self.truth(reader, horizon), "D1"
        if reader.keys is not None and reader.keys <= store.finished.keys():
            is_known = reader.was_seen_to_finish == reader.keys
            assert not is_known, "its subject is finished"

    def check_quiet(self, reader: Reader, upto: int) -> None:
        """Nothing was to come up to there; one that conflates may have had it, and lost it again, meanwhile."""
        if reader.folds:
            return
        for commit in self.store.log:
            if reader.index < commit.index <= upto:
                assert not self.expected(reader, commit), f"D3: commit {commit.index} is missing"

    def is_empty(self, *, has_cache: bool) -> None:
        """D13."""
        publisher = self.publisher
        statistics = publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        assert self.running == 0, "D13: a function is left"
        passages, feeds = publisher._passages, publisher._feeds
        assert not passages._kept
        assert not passages.replays._pages
        assert not publisher._ending
        for history in feeds.histories.values():
            assert history.folds == 0
            kept = {
                id(each) for feed in history.feeds.values() for each in feed.items for each in each.events
            }
            assert set(history.replaced) <= kept, "what was replaced is left"
            assert all(feed.latest is None for feed in history.feeds.values())
        if not has_cache:
            assert not passages.shared
            assert not feeds._wide
            for history in feeds.histories.values():
                assert not history.routes.count
                assert not any(feed.readers or feed.waiting for feed in history.feeds.values())

    # The functions of the store:

    async def pause(self, rng: random.Random) -> None:
        for _ in range(rng.choice(self.pauses)):
            await self.checkpoint()

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        rng, store = self.functions, self.store
        self.running += 1
        try:
            await self.pause(rng)
            epoch = store.epoch
            at = rng.choice([store.index, store.published])
            cursor = store.cursor(at)
            rows = dict(store.state_at(at))
            finished = dict(store.finished)
            for (topic, subject), value in rows.items():
                if request.covers(topic, subject):
                    await self.pause(rng)
                    await snapshot.append(
                        [Event(topic, max(1, at), Health(subject.key, value, subject.namespace))]
                    )
            await self.pause(rng)
            if self.is_troubled and rng.random() < 0.1:
                raise Trouble
            (interest,) = request.interests
            key = (interest.topic, Subject(interest.key))
            if self.finishes and interest.key and not interest.prefix and finished.get(key, at + 1) <= at:
                snapshot.finish()
            assert cursor.epoch == epoch
            return cursor
        finally:
            self.running -= 1

    async def replay(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        assert not request.token
        assert not request.index
        self.running += 1
        try:
            return await self.page(request, cursor, appender)
        finally:
            self.running -= 1

    async def page(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        rng, store = self.functions, self.store
        self.seen["pages"] += 1
        await self.pause(rng)
        if cursor.epoch != store.epoch or cursor.mark not in ("", store.mark(cursor.index)):
            raise StaleCursorError
        log = [commit for commit in store.log if commit.index > cursor.index]
        reached, finished, mine = cursor, dict(store.finished), store.epoch
        for commit in log[: rng.choice(self.sizes)]:
            await self.pause(rng)
            if self.is_troubled and rng.random() < 0.05:
                if rng.random() < 0.5:
                    raise Trouble
                return cursor
            reached = Cursor(commit.index, mine, f"{mine}-{commit.index}" if store.has_marks else "")
            events = [
                each
                for each, change in zip(store.events(commit), commit.changes, strict=True)
                if request.covers(*change.key)
            ]
            if events and not await appender.append(events):
                break
        await self.pause(rng)
        (interest, *more) = request.interests
        key = (interest.topic, Subject(interest.key))
        if (
            self.finishes
            and not more
            and interest.key
            and not interest.prefix
            and finished.get(key, reached.index + 1) <= reached.index
        ):
            appender.finish()
        return reached

    # The writers:

    def commit(
        self,
        changes: Iterable[tuple[Key, str | None]],
        *,
        finish: Sequence[Key] = (),
        revoked: Sequence[str] = (),
        step: int = 1,
    ) -> None:
        """Without publishing it."""
        store = self.store
        store.index += step
        noted: list[Change] = []
        for key, new in changes:
            noted.append(Change(key, store.rows.get(key), new))
            if new is None:
                store.rows.pop(key, None)
            else:
                store.rows[key] = new
        store.finished |= dict.fromkeys(finish, store.index)
        store.log.append(Commit(store.index, noted, finish, revoked))
        store.states[store.index] = dict(store.rows)

    def publish(self) -> None:
        store = self.store
        if not store.pending:
            return
        commit = store.pending[0]
        events: list[Event[Any]] = [*store.events(commit)]
        if commit.revoked:
            events.append(close_subscription_event(commit.revoked))
        store.published = commit.index
        for token in commit.revoked:
            store.revoked[token] = commit.index
            self.end_all(lambda reader: reader.request.token in commit.revoked, "token")
        self.publisher.publish(
            events, index=commit.index, mark=store.mark(commit.index), finish=commit.finish
        )
        for reader in self.readers:
            if reader.end is None:
                reader.was_seen_to_finish |= {key for key in commit.finish if reader.covers(key)}

    def end_all(self, which: Callable[[Reader], bool], end: str) -> None:
        for reader in self.readers:
            if reader.end is None and which(reader):
                reader.end = end

    def refresh(self, topic: Topic[Health]) -> None:
        store = self.store
        while store.pending:
            self.publish()
        for key in [key for key in store.rows if key[0] == topic]:
            store.rows[key] = f"rw{store.index}.refreshed"
        for key in [key for key in store.finished if key[0] == topic]:
            del store.finished[key]
        for reader in self.readers:
            reader.was_seen_to_finish -= {key for key in reader.was_seen_to_finish if key[0] == topic}
        store.states[store.index] = dict(store.rows)
        store.refreshed[topic] = store.index + 1
        self.end_all(lambda reader: any(each.topic == topic for each in reader.request.interests), "refresh")
        self.publisher.refresh(topic)

    def restore(self, index: int) -> None:
        """Another store begins there, on a timeline of its own."""
        old = self.store
        number = int(old.epoch[1:]) + 1
        rows = dict.fromkeys(old.rows, f"rw{index}.restored{number}")
        self.store = store = Store(f"e{number}", old.has_marks, index, index, rows)
        store.states = {-1: {}, index: dict(rows)}
        self.end_all(lambda _: True, "refresh")
        self.publisher.refresh(epoch=store.epoch, index=index, mark=store.mark(index))

    def lose(self) -> None:
        """Commits were lost on their way: all that is pending."""
        store = self.store
        store.published = store.index
        self.end_all(lambda _: True, "refresh")
        if not self.has_log:
            for topic in TOPICS:
                store.refreshed[topic] = max(store.index, store.refreshed.get(topic, 0))
        self.publisher.refresh(epoch=store.epoch, index=store.index, mark=store.mark(store.index))

    def stop(self) -> None:
        self.is_stopped = True
        self.publisher._stop()

    def revoke(self, token: str) -> None:
        self.store.revoked[token] = self.store.published
        self.end_all(lambda reader: reader.request.token == token, "token")
        self.publisher.close_subscriptions([token])

    # The readers:

    def truth(self, reader: Reader, index: int) -> Rows:
        return {
            key: value
            for key, value in self.store.state_at(index).items()
            if reader.covers(key) and reader.rights.show(value)
        }

    def expected(self, reader: Reader, commit: Commit) -> list[tuple[Key, str | None]]:
        """What the reader is to get of a commit."""
        expected: list[tuple[Key, str | None]] = []
        everything = reader.rights == EVERYTHING
        for key, old, new in commit.changes:
            if not reader.covers(key):
                continue
            if everything or (new is not None and reader.rights.show(new)):
                expected.append((key, new))
            elif reader.rights.show(old):
                expected.append((key, None))
        return expected

    def save(self, reader: Reader) -> None:
        """A cursor, and what is held there."""
        request = reader.subscription.resume_request()
        if reader.end is None and request.index and reader.is_judged:
            self.check_quiet(reader, request.index)
            assert reader.rows == self.truth(reader, request.index), "D1, D7"
            self.saved.append((request, reader.rights, dict(reader.rows)))
            del self.saved[:-5]

    def subscribe(
        self,
        request: SubscribeRequest[Health],
        *,
        way: str = "close",
        rights: Rights = EVERYTHING,
        rows: Rows | None = None,
    ) -> Reader:
        """`rows`: what the client holds that goes on where the request says."""
        store, index = self.store, request.index
        topics = {each.topic for each in request.interests}
        subscription = self.publisher.subscribe(request, on_lag=cast("Any", way), **rights.options)
        reader = Reader(subscription, way, rights, dict(rows or {}), index, index > 0, not index)
        reader.must_be_stale = index > 0 and (
            request.epoch != store.epoch
            or index <= store.revoked.get(request.token, -1)
            or any(index < store.refreshed.get(topic, 0) for topic in topics)
        )
        # If the history has passed a reader that did not ask before, its mark is forgotten.
        is_without_mark = store.has_marks and not request.mark
        reader.may_be_stale = not self.has_log or self.is_troubled or way == "conflate" or is_without_mark
        self.readers.append(reader)
        self.seen["resumed" if index else "fresh"] += 1
        return reader

    def leave(self, reader: Reader) -> None:
        reader.subscription.unsubscribe()
        if reader.end is None:
            reader.end = "left"

    def drain(self, reader: Reader) -> None:
        try:
            while True:
                self.took(reader, [reader.subscription.receive_nowait()])
        except WouldBlock:
            pass
        except (ClosedResourceError, SubscriptionForceClosed, EndOfSubject) as error:
            self.raised(reader, error)

    # The judge:

    def took(self, reader: Reader, events: Sequence[Event[Health]]) -> None:
        for event in events:
            assert reader.end is None, f"D9: it has ended: {reader.end}"
            self.events += 1
            self.take(reader, event)

    def take(self, reader: Reader, event: Event[Health]) -> None:
        assert all(each.previous is None for each in event.events), "D19"
        if event.is_new_snapshot_to_follow:
            self.take_marker(reader)
        elif event.is_end_of_snapshot:
            assert not reader.is_whole, "D5"
            reader.is_whole = True
            reader.index = event.index
            assert reader.rows == self.truth(reader, event.index), "D1: at end-of-snapshot"
        elif not reader.is_whole:
            self.fold(reader, event)
        else:
            self.take_live(reader, event)

    def take_marker(self, reader: Reader) -> None:
        self.seen["marker"] += 1
        if not reader.is_judged:
            assert reader.may_be_stale or reader.must_be_stale, "D7, D21: not stale"
        else:
            assert reader.way != "close", "D6"
            if reader.is_whole and reader.way == "reset" and not self.is_troubled:
                assert not self.has_log, "D21: it has a log"
        reader.is_judged = True
        reader.is_whole = False
        reader.rows.clear()
        reader.index = 0

    def accept(self, reader: Reader) -> None:
        if not reader.is_judged:
            assert not reader.must_be_stale, "D7, D20: its cursor is no good"
            reader.is_judged = True

    def fold(self, reader: Reader, event: Event[Health]) -> list[tuple[Key, str | None]]:
        got: list[tuple[Key, str | None]] = []
        for single in event.events:
            payload = single.payload
            assert isinstance(payload, Health)
            key = (single.topic, payload.subject)
            assert reader.covers(key)
            assert payload.value is None or reader.rights.show(payload.value), "it may not be seen"
            got.append((key, payload.value))
            if payload.value is None:
                reader.rows.pop(key, None)
            else:
                reader.rows[key] = payload.value
        return got

    def take_live(self, reader: Reader, event: Event[Health]) -> None:
        self.accept(reader)
        assert event.index > reader.index, "D2"
        if event.is_conflated:
            self.seen["conflated"] += 1
            assert reader.folds
            assert isinstance(event.payload, PayloadEvents)
            indexes = [each.index for each in event.events]
            assert indexes == sorted(indexes)
            got = self.fold(reader, event)
            assert len({key for key, _ in got}) == len(got)
        else:
            by_index = {commit.index: commit for commit in self.store.log}
            self.check_quiet(reader, event.index - 1)
            commit = by_index[event.index]
            got = self.fold(reader, event)
            assert got == self.expected(reader, commit), "D3, D4, D19"
            for key, _, new in commit.changes:
                if (key, None) in got and new is not None:
                    self.seen["withdrawn"] += 1
            assert event.mark == self.store.mark(event.index)
        reader.index = event.index
        assert reader.rows == self.truth(reader, event.index), "D1"

    def is_closed(self, reader: Reader, reason: CloseReason) -> None:
        if reason is CloseReason.STOPPED:
            assert self.is_stopped
            if reader.end is None and reader.is_whole and reader.is_judged:
                horizon = reader.subscription.horizon
                self.check_quiet(reader, horizon)
                assert reader.rows == self.truth(reader, horizon), "D1, D5"
            reader.end = reader.end or reason.value
        assert reader.end == reason.value, f"{reader.end} is not {reason}"

    def raised(self, reader: Reader, error: Exception) -> None:
        match error:
            case EndOfSubject():
                self.seen["finished"] += 1
                assert reader.end in (None, "finished"), f"it has ended: {reader.end}"
                if reader.end is None:
                    keys = reader.keys
                    assert keys is not None
                    assert keys <= self.store.finished.keys(), "not finished"
                    assert reader.is_whole
                    self.accept(reader)
                    self.check_quiet(reader, self.store.index)
                    assert reader.rows == self.truth(reader, self.store.index)
                    assert error.index >= reader.index
                reader.end = "finished"
            case SubscriptionLagged():
                self.seen["lagged"] += 1
                assert reader.end in (None, "lagged")
                assert reader.way == "close", "D21"
                if reader.end is None and reader.is_whole and not self.is_troubled:
                    assert not self.has_log, "D21: it has a log"
                reader.end = "lagged"
            case SnapshotFailed():
                assert reader.end in (None, "failed")
                assert self.is_troubled
                reader.end = "failed"
            case SubscriptionForceClosed():
                self.is_closed(reader, error.reason)
            case _:
                assert isinstance(error, ClosedResourceError)
                assert reader.end is not None
