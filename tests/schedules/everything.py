"""Random lives with everything at once, and a judge of each event that a reader gets.

Filters, authorizers and withdrawals; `close`, `reset` and `conflate`; subjects that finish, replays, marks, revoked
cursors, refreshed topics and restored stores; readers of keys, prefixes and unions that are cancelled anywhere.
What is done follows from the seed, in which order from the event loop.
"""

# ruff: noqa: SLF001 - the model may know private names of the core

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import anyio
import anyio.lowlevel
from catalogue import HEALTH, JOBS, Health
from conflated import by_subject
from schedules.orders import idle

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
TOKENS = ("", "t", "u")
WAYS = ("close", "reset", "conflate")
NAMES = ("a", "ab", "b")
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


RIGHTS = (Rights(), Rights(), Rights("r"), Rights(wants="w"), Rights("r", "w"))


class Change(NamedTuple):
    """A row gets another value, or goes."""

    key: Key
    old: str | None
    new: str | None


@dataclass
class Commit:
    index: int
    changes: list[Change]
    finish: list[Key]
    revoked: list[str]


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
    must_be_stale: bool
    may_be_stale: bool
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
    """One life."""

    def __init__(self, seed: int, *, readers: int = 4, rounds: int = 30) -> None:
        self.seed = seed
        rng = self.rng("world")
        self.rounds = rounds
        self.count = readers
        self.store = Store(has_marks=rng.random() < 0.4)
        self.has_log = rng.random() < 0.7
        self.finishes = rng.random() < 0.5
        self.is_troubled = rng.random() < 0.3
        self.history = rng.randint(1, 6)
        self.history_events = rng.choice([3, 8, 65_536])
        self.ttl = rng.choice([0.0, 0.01, 10.0])
        self.names = list(NAMES)
        self.readers: list[Reader] = []
        self.saved: list[tuple[SubscribeRequest[Health], Rights, Rows]] = []
        self.running = 0
        self.events = 0
        self.is_over = False
        self.functions = self.rng("functions")
        self.seen: dict[str, int] = {}

    def rng(self, name: object) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    def note(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    async def run(self) -> "Everything":
        source = Source(
            self.snapshot,
            replay=self.replay if self.has_log else None,
            wide=True,
            row=by_subject,
            finishes=self.finishes,
        )
        self.publisher = publisher = EventPublisher(
            dict.fromkeys(TOPICS, source),
            history=self.history,
            history_events=self.history_events,
            snapshot_cache_ttl=self.ttl,
            epoch=self.store.epoch,
        )
        async with anyio.create_task_group() as outer:
            await outer.start(lambda *, task_status: publisher.run(task_status=task_status))
            async with anyio.create_task_group() as reading:
                for number in range(self.count):
                    reading.start_soon(self.read, self.rng(number))
                async with anyio.create_task_group() as writing:
                    writing.start_soon(self.write, self.rng("writer"))
                    writing.start_soon(self.upset, self.rng("upset"))
                self.is_over = True
                await idle()
                await self.settle()
                reading.cancel_scope.cancel()
            for reader in self.readers:
                self.leave(reader)
            await idle()
            if 0 < self.ttl < 1:
                await anyio.sleep(2 * self.ttl)
                await idle()
            self.is_empty()
            outer.cancel_scope.cancel()
        return self

    # The end:

    async def settle(self) -> None:
        """Everybody has had everything."""
        patience = 5
        while patience:
            before = self.events
            for reader in self.readers:
                self.drain(reader)
            await idle()
            patience = patience - 1 if self.events == before else 5
            assert self.events < 100_000, "D21: it never ends"
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

    def is_empty(self) -> None:
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
            kept = {id(each) for feed in history.feeds.values() for each in feed.items for each in each.events}
            assert set(history.replaced) <= kept, "what was replaced is left"
            assert all(feed.latest is None for feed in history.feeds.values())
        if self.ttl < 1:
            assert not passages.shared
            assert not feeds._wide
            for history in feeds.histories.values():
                assert not history.routes.count
                assert not any(feed.readers or feed.waiting for feed in history.feeds.values())

    # The functions of the store:

    async def pause(self, rng: random.Random) -> None:
        for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
            await anyio.lowlevel.checkpoint()

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
        self.note("pages")
        await self.pause(rng)
        if cursor.epoch != store.epoch or cursor.mark not in ("", store.mark(cursor.index)):
            raise StaleCursorError
        log = [commit for commit in store.log if commit.index > cursor.index]
        reached, finished, mine = cursor, dict(store.finished), store.epoch
        for commit in log[: rng.choice([1, 2, 3, 100])]:
            await self.pause(rng)
            if self.is_troubled and rng.random() < 0.05:
                if rng.random() < 0.5:
                    raise Trouble
                return cursor
            reached = Cursor(
                commit.index, mine, f"{mine}-{commit.index}" if store.has_marks else ""
            )
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

    def commit(self, rng: random.Random) -> None:
        store = self.store
        store.index += rng.choice([1, 1, 1, 3])
        changes: list[Change] = []
        keys = [
            (topic, Subject(name))
            for topic in TOPICS
            for name in self.names
            if (topic, Subject(name)) not in store.finished
        ]
        for number in range(rng.choice([0, 1, 1, 1, 2, 5])):
            if not keys:
                break
            key = rng.choice(keys)
            new = None if rng.random() < 0.2 and key in store.rows else f"{rng.choice(['', 'r', 'w', 'rw', 'rw'])}{store.index}.{number}"
            changes.append(Change(key, store.rows.get(key), new))
            if new is None:
                store.rows.pop(key, None)
            else:
                store.rows[key] = new
        finish = [rng.choice(keys)] if keys and rng.random() < 0.08 else []
        for key in finish:
            store.finished[key] = store.index
            self.names.append(f"{rng.choice(NAMES)}{store.index}")
        revoked = [rng.choice(TOKENS)] if rng.random() < 0.03 else []
        store.log.append(Commit(store.index, changes, finish, revoked))
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

    async def write(self, rng: random.Random) -> None:
        for _ in range(self.rounds):
            for _ in range(rng.choice([1, 1, 2, 6])):
                self.commit(rng)
                if rng.random() < 0.1:
                    await self.pause(rng)
                while self.store.pending and rng.random() < 0.9:
                    self.publish()
            await self.pause(rng)
        while self.store.pending:
            self.publish()

    async def upset(self, rng: random.Random) -> None:
        store = self.store
        for _ in range(self.rounds):
            await self.pause(rng)
            await self.pause(rng)
            match rng.randrange(40):
                case 0 | 1:
                    self.refresh(rng.choice(TOPICS))
                case 2:
                    self.restore(rng)
                case 3:
                    self.lose()
                case 4 | 5 | 6:
                    token = rng.choice(TOKENS)
                    store.revoked[token] = store.published
                    self.end_all(lambda reader: reader.request.token == token, "token")
                    self.publisher.close_subscriptions([token])
                case _:
                    pass

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

    def restore(self, rng: random.Random) -> None:
        store = self.store
        number = int(store.epoch[1:]) + 1
        index = rng.choice([0, max(0, store.published - 3)])
        rows = {key: f"rw{index}.restored{number}" for key in store.rows}
        self.store.__dict__.update(
            Store(
                epoch=f"e{number}",
                has_marks=store.has_marks,
                index=index,
                published=index,
                rows=rows,
                states={index: dict(rows), -1: {}},
            ).__dict__
        )
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
        everything = reader.rights == Rights()
        for key, old, new in commit.changes:
            if not reader.covers(key):
                continue
            if everything or (new is not None and reader.rights.show(new)):
                expected.append((key, new))
            elif reader.rights.show(old):
                expected.append((key, None))
        return expected

    async def read(self, rng: random.Random) -> None:
        reader: Reader | None = None
        while not self.is_over:
            reader = self.begin(rng)
            for _ in range(rng.choice([0, 2, 5, 20, 50])):
                if rng.random() < 0.3:
                    await self.pause(rng)
                if reader.end is not None and rng.random() < 0.7:
                    break
                await self.receive(reader, rng)
                if rng.random() < 0.2 and reader.is_whole and reader.end is None:
                    self.save(reader)
            if rng.random() < 0.8:
                self.leave(reader)
            await self.pause(rng)
            await anyio.lowlevel.checkpoint()

    def save(self, reader: Reader) -> None:
        """A cursor, and what is held there."""
        request = reader.subscription.resume_request()
        if reader.end is None and request.index and reader.is_judged:
            self.check_quiet(reader, request.index)
            assert reader.rows == self.truth(reader, request.index), "D1, D7"
            self.saved.append((request, reader.rights, dict(reader.rows)))
            del self.saved[:-5]

    def request(self, rng: random.Random) -> SubscribeRequest[Health]:
        def one() -> SubscribeRequest[Health]:
            topic = rng.choice([HEALTH, HEALTH, JOBS])
            match rng.randrange(6):
                case 0:
                    return SubscribeRequest(topic)
                case 1:
                    return SubscribeRequest(topic, rng.choice(["a", "b"]), prefix=True)
                case _:
                    return SubscribeRequest(topic, rng.choice(self.names))

        request = one()
        for _ in range(rng.choice([0, 0, 1, 2])):
            request |= one()
        return SubscribeRequest(interests=request.interests, token=rng.choice(TOKENS))

    def begin(self, rng: random.Random) -> Reader:
        rows: Rows = {}
        if self.saved and rng.random() < 0.6:
            request, rights, rows = rng.choice(self.saved)
        else:
            request, rights = self.request(rng), rng.choice(RIGHTS)
        way = rng.choice(WAYS)
        store = self.store
        index, topics = request.index, {each.topic for each in request.interests}
        must = index > 0 and (
            request.epoch != store.epoch
            or index <= store.revoked.get(request.token, -1)
            or any(index < store.refreshed.get(topic, 0) for topic in topics)
        )
        may = must or not self.has_log or self.is_troubled or way == "conflate"
        # The history has passed a reader that did not ask before: its mark is forgotten.
        may |= store.has_marks and not request.mark
        subscription = self.publisher.subscribe(request, on_lag=cast("Any", way), **rights.options)
        reader = Reader(
            subscription, way, rights, dict(rows), index, index > 0, not index, must, may
        )
        reader.is_whole = index > 0
        self.readers.append(reader)
        self.note("resumed" if index else "fresh")
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

    async def receive(self, reader: Reader, rng: random.Random) -> None:
        """One call, in one of all ways, perhaps cancelled."""
        subscription = reader.subscription
        most = rng.choice([None, 1, 3])

        async def batch() -> Sequence[Event[Health]]:
            return await subscription.receive_batch(most)

        async def iterate() -> Sequence[Event[Health]]:
            return [await anext(subscription)]

        async def one() -> Sequence[Event[Health]]:
            return [await subscription.receive()]

        async def current() -> Sequence[Event[Health]]:
            return await subscription.receive_until_current()

        async def wait() -> Sequence[Event[Health]]:
            await subscription.wait_ready()
            return ()

        way = rng.choice([batch, batch, iterate, one, current, wait])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.give_up, tasks.cancel_scope, rng.choice([0, 1, 2, 5, 9, 30, 100, 100]))
            try:
                events = await way()
            except (ClosedResourceError, SubscriptionForceClosed, EndOfSubject) as error:
                self.raised(reader, error)
            except StopAsyncIteration:
                self.raised(reader, EndOfSubject(subscription.index, subscription.epoch))
            else:
                self.took(reader, events)
            tasks.cancel_scope.cancel()

    async def give_up(self, scope: anyio.CancelScope, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

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
            assert event.index >= 0
        elif not reader.is_whole:
            self.fold(reader, event)
        else:
            self.take_live(reader, event)

    def take_marker(self, reader: Reader) -> None:
        self.note("marker")
        if not reader.is_judged:
            assert reader.may_be_stale or reader.must_be_stale or self.may_stale_now(reader), "D7, D21: not stale"
        else:
            assert reader.way != "close", "D6"
            if reader.is_whole and reader.way == "reset" and not self.is_troubled:
                assert not self.has_log or self.may_stale_now(reader), "D21: it has a log"
        reader.is_judged = True
        reader.is_whole = False
        reader.rows.clear()
        reader.index = 0

    def may_stale_now(self, reader: Reader) -> bool:
        return False

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
            self.note("conflated")
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
            for key, old, new in commit.changes:
                if (key, None) in got and new is not None:
                    self.note("withdrawn")
            assert event.mark == self.store.mark(event.index)
        reader.index = event.index
        assert reader.rows == self.truth(reader, event.index), "D1"

    def raised(self, reader: Reader, error: Exception) -> None:
        match error:
            case EndOfSubject():
                self.note("finished")
                assert reader.end in (None, "finished"), f"it has ended: {reader.end}"
                if reader.end is None:
                    keys = reader.keys
                    assert keys is not None
                    assert keys <= self.store.finished.keys(), "not finished"
                    assert reader.is_whole
                    self.accept(reader)
                    last = max(self.store.finished[key] for key in keys)
                    self.check_quiet(reader, self.store.index)
                    assert reader.rows == self.truth(reader, self.store.index)
                    assert error.index >= reader.index
                    del last
                reader.end = "finished"
            case SubscriptionLagged():
                self.note("lagged")
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
                assert error.reason in (CloseReason.TOKEN, CloseReason.REFRESH)
                assert reader.end == error.reason.value, f"{reader.end} is not {error.reason}"
            case _:
                assert isinstance(error, ClosedResourceError)
                assert reader.end is not None
