"""What is true for requests of any interests, and a judge of every event that their readers get. Knows no event loop.

It says for itself what an interest asks for, and does not look at what the library makes of it.
"""

# ruff: noqa: PT018, SLF001 - the model may know private names of the core

from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

from catalogue import Health
from model.books import OWN, Plan, Planned
from model.checker import Phase
from model.timeline import TOPICS, Store

from trio_stream import (
    ALL,
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    Interest,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    Topic,
    _course as core,
    close_subscription_event,
)
from trio_stream._feeds import WideFeed

State: TypeAlias = dict[tuple[str, Subject], str]
DROP = (CloseReason.TOKEN, CloseReason.REFRESH, CloseReason.SNAPSHOT_FAILED)


class Wish(NamedTuple):
    """One interest as the test asks for it; a namespace of None is all of them."""

    topic: Topic[Health]
    key: str = ""
    is_prefix: bool = False
    namespace: str | None = "default"

    def asks_for(self, event: Event[Health]) -> bool:
        assert isinstance(event.payload, Health)
        key, namespace = event.payload.key, event.payload.namespace
        is_key = key.startswith(self.key) if self.is_prefix else self.key in ("", key)
        return event.topic == self.topic and is_key and self.namespace in (None, namespace)

    def request(self, token: str = "") -> SubscribeRequest[Health]:
        namespace = ALL if self.namespace is None else self.namespace
        return SubscribeRequest(self.topic, self.key, prefix=self.is_prefix, namespace=namespace, token=token)


def wish_of(interest: Interest) -> Wish:
    """What a snapshot function was asked for."""
    namespace = None if interest.namespace is ALL else str(interest.namespace)
    return Wish(interest.topic, interest.key, interest.prefix, namespace)


@dataclass(eq=False)
class Run:
    """One run of the snapshot function."""

    topic: Topic[Health]
    newest: int  # commit of the topic when it began
    dropped: int  # the newest that was gone by then
    index: int | None = None  # what it has returned
    error: BaseException | None = None
    is_running: bool = True
    is_false: bool = False  # of another copy of the store


@dataclass(eq=False)
class Watcher:
    """A subscription, what its client holds, and how it ended."""

    subscription: Subscription[Health]
    wishes: tuple[Wish, ...]
    can_see: frozenset[str] | None
    resets: bool
    begins: Literal["fresh", "resume", "judged", "stale"]
    start: int  # there is no state of its topics before
    asked: int  # what was published then
    held: State | None = field(default_factory=State)  # None: that of its index, whatever it is
    phase: Phase = Phase.BEGIN
    index: int = 0
    count: int = 0
    is_false: bool = False  # it holds the state of another copy of the store
    was_whole: bool = False  # its snapshot, when the publisher stopped
    end: CloseReason | str | None = None
    raised: tuple[Any, ...] | None = None

    @property
    def is_open(self) -> bool:
        return self.end is None

    def wants(self, event: Event[Health]) -> bool:
        return any(wish.asks_for(event) for wish in self.wishes)

    def sees(self, event: Event[Health]) -> bool:
        assert isinstance(event.payload, Health)
        return self.wants(event) and (self.can_see is None or event.payload.key in self.can_see)

    def is_of(self, epoch: str) -> bool:
        return self.subscription.epoch == epoch

    def hold(self, event: Event[Health]) -> None:
        assert self.held is not None
        fold(self.held, event)


def fold(state: State, event: Event[Health]) -> None:
    payload = event.payload
    assert isinstance(payload, Health)
    if payload.value is None:
        state.pop((event.topic.name, payload.subject), None)
    else:
        state[event.topic.name, payload.subject] = payload.value


class InterestsWorld:
    """A publisher beside what must be true of it; has what `PublisherMachine` uses of a world."""

    def __init__(
        self,
        pause: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        *,
        history: int,
        history_events: int,
        ttl: float,
        index: int,
        has_marks: bool,
        wide: Iterable[Topic[Health]],
    ) -> None:
        self.pause, self.now, self.ttl = pause, now, ttl
        self.store = Store(history, history_events, index, "e0", has_marks=has_marks)
        self.wide = frozenset(wide)
        self.publisher = EventPublisher(
            history=history,
            history_events=history_events,
            snapshot_cache_ttl=ttl,
            index=index,
            epoch="e0",
            mark=self.store.mark_of(index),
        )
        self.epochs = 0
        # All commits of this epoch, published or not, whole and in order.
        self.commits: list[list[Event[Health]]] = []
        # {index: mark} of what was published in this epoch, and what of it the timeline keeps.
        self.marks: dict[int, str] = {}
        self.known: deque[int] = deque(maxlen=history)
        self._publish_mark(index)
        self.readers: list[Watcher] = []
        self.runs: dict[int, Run] = {}
        self.plans: deque[Plan] = deque()
        self.is_stopped = False
        self.events = 0
        for topic in TOPICS:
            self.publisher.register_handler(topic, Source(self.snapshot, wide=topic in self.wide))

    # What is true:

    def state(self, reader: Watcher, index: int) -> State:
        """S(index)."""
        state: State = {}
        for line in self.store.lines.values():
            commits = [commit for commit in line.commits if commit[0].index <= index]
            for event in chain(line.initial, *commits):
                if reader.sees(event):
                    fold(state, event)
        return state

    identity: Callable[[Event[Health]], object] = staticmethod(id)
    """By which an event that was published is known again: it is the same object."""

    def is_for(self, reader: Watcher, event: Event[Health]) -> bool:
        """Whether it may be in a snapshot for this reader."""
        return reader.sees(event)

    def part(self, reader: Watcher, commit: Sequence[Event[Health]]) -> list[Event[Health]]:
        """What the reader gets of a commit."""
        return [event for event in commit if reader.sees(event)]

    def next(self, reader: Watcher, until: int | None = None) -> list[Event[Health]] | None:
        """What the next commit has for a reader; None if there is none, or none up to an index."""
        for commit in self.commits[bisect_right(self.commits, reader.index, key=_index_of) :]:
            if until is not None and commit[0].index > until:
                break
            if self.part(reader, commit):
                return commit
        return None

    def is_lost(self, reader: Watcher, index: int | None = None) -> bool:
        """Whether the history has dropped what the reader has not had yet, or what is after this index."""
        if reader.phase is not Phase.LIVE:
            return self._may_lose_snapshot(reader)
        index = reader.index if index is None else index
        feed = reader.subscription._feed
        if isinstance(feed, WideFeed) and feed.filled is None and index < feed.born:
            return index < max(self.store.lines[wish.topic].dropped for wish in reader.wishes)
        return any(
            index < event.index <= self.store.lines[event.topic].dropped and reader.wants(event)
            for commit in self.commits[bisect_right(self.commits, index, key=_index_of) :]
            for event in commit
        ) or (reader.subscription._snapshot is not None and self._may_lose_snapshot(reader))

    def _may_lose_snapshot(self, reader: Watcher) -> bool:
        topics = {wish.topic for wish in reader.wishes}
        dropped = max(self.store.lines[topic].dropped for topic in topics)
        runs = [run for run in self.runs.values() if run.topic in topics]
        is_union = len(reader.subscription.request.interests) > 1
        if is_union:  # it may have been begun when it was first asked for, and have waited for its readers
            interests = reader.subscription.request.interests
            asked = [each.asked for each in self.readers if each.subscription.request.interests == interests]
            if min(asked) < dropped or any(run.is_false and run.index is not None for run in runs):
                return True
        return any(min(run.newest, dropped if run.index is None else run.index) < dropped for run in runs)

    def _may_be_false(self, reader: Watcher) -> bool:
        """Whether its snapshot may be of another copy of the store."""
        topics = {wish.topic for wish in reader.wishes}
        return any(run.is_false and run.topic in topics for run in self.runs.values())

    def is_right(self, request: SubscribeRequest[Health]) -> bool:
        """Whether a commit with this index and mark was published in this epoch."""
        return request.index <= self.store.published and self.marks.get(request.index) == request.mark

    def begins(self, request: SubscribeRequest[Health]) -> Literal["fresh", "resume", "judged", "stale"]:
        """D7, D20."""
        index, mark = request.index, request.mark
        if not index:
            return "fresh"
        if self.store.is_revoked(request):
            return "stale"
        if request.epoch not in (None, self.store.epoch) or index < self.floor(request):
            return "stale"
        if index > self.store.published:
            if request.epoch is None or (self.known and not mark):
                return "stale"
            return "judged" if mark else "resume"
        is_trusted = not mark and (request.epoch is None or not self.known)
        if not (is_trusted or (index in self.known and self.marks[index] == mark)):
            return "stale"
        return "resume"

    def floor(self, request: SubscribeRequest[Health]) -> int:
        topics = self.publisher.statistics().topics
        return max(topics[interest.topic.name].floor for interest in request.interests)

    # The snapshot function of every topic:

    async def snapshot(
        self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]
    ) -> int | Cursor:
        (interest,) = request.interests
        assert request == SubscribeRequest(interests=(interest,))
        if interest.topic not in self.wide:
            assert not interest.prefix and interest.namespace is not ALL, "it does not know this"
        line = self.store.lines[interest.topic]
        run = self.runs[len(self.runs)] = Run(interest.topic, line.newest, line.dropped)
        plan = self.plans.popleft() if self.plans else Plan()
        try:
            return await self._fill(run, plan, wish_of(interest), snapshot)
        except Planned as error:
            run.error = error
            raise
        finally:
            run.is_running = False

    async def _fill(
        self, run: Run, plan: Plan, wish: Wish, snapshot: SnapshotAppender[Health]
    ) -> int | Cursor:
        if plan.is_late:
            await self.pause()
        line = self.store.lines[run.topic]
        index = {
            "published": self.store.published,
            "ahead": self.store.index,
            "behind": max(line.start, min(line.newest, self.store.published) - 2),
        }[plan.reads]
        if self.marks and index < self.store.published:  # the index of a commit, as indexes may have gaps
            index = max([line.start, *[known for known in self.marks if known <= index]])
        mark = self.store.mark_of(index)
        if mark and plan.says == "false mark" and index > self.store.published:
            mark, run.is_false = "false", True
        for number, group in enumerate(self._rows(run.topic, None if plan.is_generous else wish, index)):
            for _ in range(plan.pauses):
                await self.pause()
            if number == plan.fails_after:
                raise Planned
            await snapshot.append([_false(event) for event in group] if run.is_false else group)
        for _ in range(plan.pauses):
            await self.pause()
        # A false one whose index is forgotten by now cannot be found out: nobody knows that commit.
        is_unknown = run.is_false and index <= self.store.published and index not in self.known
        if plan.fails_after is not None or is_unknown:
            raise Planned
        run.index = index
        return index if not mark or plan.says == "index" else Cursor(index, self.store.epoch, mark)

    def _rows(self, topic: Topic[Health], wish: Wish | None, index: int) -> list[list[Event[Health]]]:
        """The events that the state is from, those of one commit together."""
        line = self.store.lines[topic]
        rows: dict[Subject, Event[Health]] = {}
        for event in chain(line.initial, *[each for each in line.commits if each[0].index <= index]):
            assert isinstance(event.payload, Health)
            rows.pop(event.payload.subject, None)
            if event.payload.value is not None and (wish is None or wish.asks_for(event)):
                rows[event.payload.subject] = event
        groups: dict[int, list[Event[Health]]] = {}
        for event in rows.values():
            groups.setdefault(event.index, []).append(event)
        return [groups[i] for i in sorted(groups)]

    # What is done to both:

    def commit(self, step: int, changes: Any) -> None:
        self.store.commit(step, changes)
        self.commits.append(list(self.store.pending[-1]))

    def publish(self, *, revoked: Sequence[str] = ()) -> None:
        """The next commit of the store, with a close event in front of it, perhaps."""
        events: list[Event[Any]] = [close_subscription_event(revoked)] if revoked else []
        self._expect_end(CloseReason.TOKEN, lambda r: r.subscription.request.token in revoked)
        self.store.revoke(revoked, self._farthest(), in_next=True)
        if self.store.pending:
            events += self.as_published(self.store.take_pending())
            self._publish_mark(self.store.published)
        self.publisher.publish(events)

    def as_published(self, commit: list[Event[Health]]) -> list[Event[Health]]:
        """As the application gives it to the publisher."""
        return commit

    def publish_nothing(self, step: int) -> None:
        """A commit that is about nothing here."""
        assert not self.store.pending
        self.store.index += step
        self.store.published = self.store.index
        self._publish_mark(self.store.published)
        self.publisher.publish((), index=self.store.published, mark=self.store.mark_of(self.store.published))

    def _publish_mark(self, index: int) -> None:
        if mark := self.store.mark_of(index):
            self.marks[index] = mark
            self.known.append(index)

    def revoke(self, tokens: Sequence[str]) -> None:
        closed = self._expect_end(CloseReason.TOKEN, lambda r: r.subscription.request.token in tokens)
        assert self.publisher.close_subscriptions(tokens) == closed
        self.store.revoke(tokens, self._farthest())

    def _farthest(self) -> int:
        return max(history.farthest for history in self.publisher._feeds.histories.values())

    def refresh(self, topic: Topic[Health], state: list[tuple[Subject, str]]) -> None:
        """It ends whoever asks for anything of the topic."""
        self._expect_end(CloseReason.REFRESH, lambda r: any(wish.topic == topic for wish in r.wishes))
        self.publisher.refresh(topic)
        self.store.replace(topic, state)

    def restore(self, index: int, state: list[tuple[Subject, str]]) -> None:
        self.epochs += 1
        self._expect_end(CloseReason.REFRESH, lambda _: True)
        self.store.restore(index, f"e{self.epochs}", state)
        self.publisher.refresh(index=index, epoch=self.store.epoch, mark=self.store.mark_of(index))
        self.commits.clear()
        self.marks.clear()
        self.known.clear()
        self._publish_mark(index)

    def skip(self, count: int) -> None:
        self._expect_end(CloseReason.REFRESH, lambda _: True)
        before = self.store.published
        index = self.store.skip(min(count, len(self.store.pending)))
        self.publisher.refresh(index=index, epoch=self.store.epoch, mark=self.store.mark_of(index))
        if index > before:
            self._publish_mark(index)

    def stopping(self) -> None:
        for reader in self.readers:
            self.sync(reader)
            snapshot = reader.subscription._snapshot
            is_whole = snapshot is not None and snapshot.is_complete and not snapshot.is_gone
            if is_whole and not self.is_lost(reader) and not self._may_be_false(reader):
                reader.was_whole = True
        self.is_stopped = True

    def _open(
        self, request: SubscribeRequest[Health], can_see: frozenset[str] | None, *, resets: bool
    ) -> Subscription[Health]:
        return self.publisher.subscribe(request, authorizer=can_see, on_lag="reset" if resets else "close")

    def ask(
        self,
        wishes: Sequence[Wish],
        request: SubscribeRequest[Health],
        *,
        can_see: frozenset[str] | None = None,
        resets: bool = False,
        held: State | None = None,
    ) -> Watcher:
        """Subscribes; `held` is what a client that comes back has."""
        begins = self.begins(request)
        subscription = self._open(request, can_see, resets=resets)
        start = max(self.store.lines[wish.topic].start for wish in wishes)
        reader = Watcher(subscription, tuple(wishes), can_see, resets, begins, start, self.store.published)
        self.readers.append(reader)
        if begins == "resume":
            self._go_live(reader, held)
            assert reader.subscription._snapshot is None, "D7: a snapshot for a resume"
        elif begins == "judged":
            reader.held = held
        return reader

    def _go_live(self, reader: Watcher, held: State | None) -> None:
        reader.phase, reader.index = Phase.LIVE, reader.subscription.request.index
        reader.held = held
        truth = self.state(reader, reader.index)
        assert held is None or held == truth, f"D1, D7: the client holds {held}, the store {truth}"

    def unsubscribe(self, reader: Watcher) -> None:
        self.sync(reader)
        has_ended = reader.subscription.statistics().state is SubscriptionState.FORCE_CLOSED
        if reader.is_open and has_ended:  # with the publisher, which it has not been told yet
            end = reader.subscription._end
            assert end is not None
            if end.reason is CloseReason.SNAPSHOT_FAILED:
                self._check_cause(reader, end.cause)
            else:
                self._expect_stopped(reader)
                assert end.reason is CloseReason.STOPPED, f"D16: {end} although nobody has ended it"
            reader.end = end.reason
        reader.subscription.unsubscribe()
        if reader.is_open:
            reader.end = OWN

    def resume(self, reader: Watcher) -> Watcher:
        """Subscribes again with what the subscription says itself; the client keeps its state if it may."""
        self.sync(reader)
        request = reader.subscription.resume_request()
        self._check_resume(reader, request)
        held = dict(reader.held) if request.index and reader.held is not None else None
        return self.ask(reader.wishes, request, can_see=reader.can_see, resets=reader.resets, held=held)

    # What a receiving call gave:

    def sync(self, reader: Watcher, *, is_new: bool = False) -> None:
        """A cursor that had to wait may have turned out to be right; `is_new`: there came a marker, or an error of one.

        One that is right, but below the floor when its reader looks, may be taken for stale.
        """
        request = reader.subscription.request
        is_waiting = reader.subscription._phase is core.Phase.JUDGED
        if reader.is_open and reader.phase is Phase.BEGIN and reader.begins == "judged" and not is_waiting:
            assert request.index <= self.store.published, "D7: judged before its index is published"
            is_new = is_new or reader.subscription._snapshot is not None
            if self.is_right(request) and not (is_new and request.index < self.floor(request)):
                self._go_live(reader, reader.held)
            else:
                reader.begins = "stale"

    def took(self, reader: Watcher, events: Sequence[Event[Health]]) -> None:
        self.sync(reader, is_new=bool(events) and events[0].is_new_snapshot_to_follow)
        for event in events:
            assert reader.is_open, f"D9: {event} after {reader.end}"
            self.events += 1
            self._take(reader, event)
            reader.count += 1
        self.check_reader(reader)

    def _take(self, reader: Watcher, event: Event[Health]) -> None:
        is_begin = reader.phase is Phase.BEGIN
        if event.is_new_snapshot_to_follow:
            self._check_marker(reader)
            assert event.index == 0 and event.topic == reader.subscription.request.interests[0].topic
            reader.phase, reader.index, reader.held, reader.is_false = Phase.SNAPSHOT, 0, {}, False
            reader.begins = "stale"
        elif event.is_end_of_snapshot:
            assert reader.phase is Phase.SNAPSHOT or (is_begin and reader.begins == "fresh"), "D5"
            self._take_end(reader, event)
        elif reader.phase is Phase.SNAPSHOT or (is_begin and reader.begins == "fresh"):
            reader.phase = Phase.SNAPSHOT
            for single in event.events:
                assert self.is_for(reader, single), f"D3: not for this reader: {single}"
                reader.hold(single)
        else:
            assert not is_begin, f"D5: {event} in answer to a request that is {reader.begins}"
            self._take_change(reader, event)

    def _check_marker(self, reader: Watcher) -> None:
        published = self.store.published
        if reader.phase is not Phase.BEGIN or reader.begins != "stale":
            is_false = reader.is_false and reader.index <= published
            if reader.phase is not Phase.LIVE:  # a snapshot that is found out before its end has none
                is_false = self._may_be_false(reader)
            assert is_false or (reader.resets and self.is_lost(reader)), "D6: nothing was lost"

    def _take_end(self, reader: Watcher, event: Event[Health]) -> None:
        index = reader.index = event.index
        reader.phase = Phase.LIVE
        assert index >= reader.start, "D1: a snapshot from before the state was replaced"
        is_union = len(reader.subscription.request.interests) > 1
        assert not is_union or index <= self.store.published, "D22: ahead of what is published"
        true_mark = self.store.mark_of(index)
        reader.is_false = event.mark == "false"
        assert reader.is_false or event.mark in ("", true_mark), f"D24: mark {event.mark}, not {true_mark}"
        if reader.is_false:
            assert not is_union, "D24: composed of another copy of the store"
        else:
            truth = self.state(reader, index)
            assert reader.held == truth, f"D1, D22: at {index} it holds {reader.held}, the store {truth}"

    def _take_change(self, reader: Watcher, event: Event[Health]) -> None:
        assert not reader.is_false, "D24: goes on from another copy of the store"
        assert event.index > reader.index, f"D2: {event.index} after {reader.index}"
        commit = self.next(reader)
        assert commit is not None, f"D3: {event} is nothing that it should get"
        touching = [each for each in commit if reader.wants(each)]
        part = self.part(reader, commit)
        assert event.index == part[0].index, f"D3: after {reader.index} came {event}, and not {part}"
        is_same = [*map(self.identity, event.events)] == [*map(self.identity, part)]
        assert is_same, f"D3, D4, D22: {event.events}, and not {part}"
        assert isinstance(event.payload, PayloadEvents) == (len(touching) > 1), "D4"
        assert event.topic == touching[0].topic and event.mark == self.store.mark_of(event.index)
        if reader.held is None:
            reader.held = self.state(reader, reader.index)
        for each in part:
            reader.hold(each)
        reader.index = event.index
        assert reader.held == self.state(reader, event.index), "D1"

    def raised(self, reader: Watcher, error: Exception) -> None:
        # Whoever has fallen off inside a snapshot, where the index is 0, had begun anew.
        is_new = isinstance(error, SnapshotFailed) or (
            isinstance(error, SubscriptionLagged) and not error.index
        )
        self.sync(reader, is_new=is_new)
        if reader.is_open and isinstance(error, SubscriptionForceClosed):
            match error:
                case SubscriptionLagged():
                    assert not reader.resets, "D11: closed although it asked for a new snapshot"
                    is_lost = self.is_lost(reader, max(reader.index, reader.subscription.index))
                    assert is_lost, "D6: lagged although nothing was lost"
                    assert error.missed > 0
                case SnapshotFailed():
                    self._check_failure(reader, error)
                case SubscriptionForceClosed(reason=CloseReason.STOPPED):
                    self._expect_stopped(reader)
                case _:
                    raise AssertionError(f"D16: {error!r} although nobody has ended it")
            reader.end = error.reason
        if isinstance(error, SubscriptionForceClosed):
            assert error.reason is reader.end, f"D16: {error!r}, not {reader.end}"
            assert (error.index, error.epoch) == (reader.subscription.index, reader.subscription.epoch)
        else:
            assert reader.end == OWN, f"D16: {error!r}, not {reader.end}"
        same = type(error), error.args
        assert reader.raised in (None, same), f"D5: {same} after {reader.raised}"
        reader.raised = same
        self.check_reader(reader)

    def _check_failure(self, reader: Watcher, error: SnapshotFailed) -> None:
        self._check_cause(reader, error.__cause__)

    def _check_cause(self, reader: Watcher, cause: BaseException | None) -> None:
        """Why a snapshot of what it reads has failed."""
        topics = {wish.topic for wish in reader.wishes}
        runs = [run for run in self.runs.values() if run.topic in topics]
        if isinstance(cause, Planned):
            assert any(run.error is cause for run in runs), "D14: a failure of another"
        else:
            assert isinstance(cause, ValueError), f"D16: {cause!r}"
            assert any(run.is_false or (run.index or 0) < run.dropped for run in runs), "D16"

    def _expect_stopped(self, reader: Watcher) -> None:
        assert self.is_stopped, "D16: it has not stopped"
        if reader.phase is Phase.LIVE and reader.subscription._snapshot is None:
            is_missing = self.next(reader, self.store.published) is not None
            assert not is_missing or self.is_lost(reader) or reader.is_false, "D5: stopped before its end"
        elif reader.phase is Phase.BEGIN and reader.begins == "judged":
            request = reader.subscription.request
            # It may be below the floor since it was published, with others after it.
            is_below = request.index < self.floor(request)
            assert is_below or not self.is_right(request), "D5: stopped although its cursor is right"
        else:
            assert not reader.was_whole, "D5: stopped although its snapshot was whole"

    def blocked(self, reader: Watcher) -> None:
        """The call would wait."""
        assert reader.is_open, "D16: waits after its end"
        is_filling = reader.subscription._phase is core.Phase.FILLING
        assert not self.is_stopped or is_filling, "D5: waits after the stop"
        self.sync(reader)
        subscription, published = reader.subscription, self.store.published
        if reader.phase is not Phase.LIVE:
            return
        if subscription._snapshot is not None:
            assert self.is_lost(reader) or (reader.is_false and reader.index <= published)
        elif reader.is_false:
            assert reader.index > published, "D24: waits although its commit is another"
        elif subscription._phase is not core.Phase.FILLING:
            assert self.next(reader, published) is None, f"D3: {self.next(reader, published)} is not there"
            assert subscription.horizon >= published

    # The invariants:

    def check_reader(self, reader: Watcher) -> None:
        subscription, published = reader.subscription, self.store.published
        horizon = subscription.horizon
        assert horizon >= subscription.index
        if reader.phase is Phase.LIVE and not reader.is_false and reader.is_of(self.store.epoch):
            assert self.next(reader, min(horizon, published)) is None, "D7: the horizon is too high"
            assert subscription.index >= reader.index, "D1: the index reached goes back"
            assert self.next(reader, subscription.index) is None, (
                "D6: the index reached is after what is missing"
            )
        self._check_resume(reader, subscription.resume_request())
        assert subscription.statistics().delivered == reader.count
        if reader.is_open:
            assert subscription.epoch == self.publisher.epoch

    def _check_resume(self, reader: Watcher, request: SubscribeRequest[Health]) -> None:
        subscription = reader.subscription
        if reader.end in DROP or reader.phase is Phase.SNAPSHOT:
            assert request == subscription.request.after(None)
        elif reader.phase is Phase.LIVE:
            assert (request.index, request.epoch) == (
                (subscription.horizon, subscription.epoch) if subscription.horizon else (0, None)
            )
            if request.index in self.known and reader.is_of(self.store.epoch) and not reader.is_false:
                assert request.mark == self.marks[request.index], "D7, D24"
            elif not reader.is_false and reader.is_of(self.store.epoch):
                assert request.mark in ("", self.store.mark_of(request.index), subscription.request.mark)
        assert request.interests == subscription.request.interests

    def check(self) -> None:
        """What must hold between any two calls."""
        statistics = self.publisher.statistics()
        opened = [reader for reader in self.readers if reader.is_open]
        assert (statistics.index, statistics.epoch) == (self.store.published, self.store.epoch)
        tokens = {reader.subscription.request.token for reader in opened}
        if self.is_stopped:
            assert statistics.subscriptions <= len(opened) and statistics.tokens <= len(tokens), "D13"
            assert not self.publisher._passages.shared, "E1: something has started after the stop"
            return
        assert (statistics.subscriptions, statistics.tokens) == (len(opened), len(tokens)), "D13"
        for topic, line in self.store.lines.items():
            found = statistics.topics[topic.name]
            assert (found.commits, line.dropped) == (
                len(line.log),
                self.publisher._feeds.histories[topic].dropped,
            )
        self._check_feeds()
        for reader in opened:
            self._check_place(reader)

    def _check_feeds(self) -> None:
        """F1, F3, F4 and F5: what is in a feed is what its interests ask for, and all of that."""
        feeds = self.publisher._feeds
        for interests, feed in feeds._wide.items():
            if not feed.is_current:  # its readers have ended, and leave it some time later
                continue
            wishes = [wish_of(interest) for interest in interests]
            dropped = feed.dropped
            if feed.filled is None:  # nobody has asked yet what can be filled in
                gone = max(self.store.lines[interest.topic].dropped for interest in interests)
                dropped = max(dropped, min(feed.born, gone))
            expected = []
            for commit in self.commits[bisect_right(self.commits, dropped, key=_index_of) :]:
                part = [event for event in commit if any(wish.asks_for(event) for wish in wishes)]
                if part and dropped < part[0].index <= self.store.published:
                    is_kept = all(event.index > self.store.lines[event.topic].dropped for event in part)
                    assert is_kept, "F1, F5: it is not told that something is gone"
                    if part[0].index > feed.born:
                        expected.append(part)
            found = [item.events for item in feed.items[feed.start - feed.base :]]
            assert [[*map(id, events)] for events in found] == [[*map(id, part)] for part in expected], (
                f"F1, F3, F4: {found}, and not {expected}"
            )

    def _check_place(self, reader: Watcher) -> None:
        """F2: who is live stands before everything that it has not had; S1, S3: no snapshot has a gap behind it."""
        subscription = reader.subscription
        feed, snapshot = subscription._feed, subscription._snapshot
        if subscription._phase is core.Phase.LIVE and subscription._end is None:
            if feed.dropped <= subscription._index:
                assert subscription._position <= feed.after(subscription._index), "F2"
                assert subscription._index >= feed.born or subscription._position >= feed.start, "F2"
            else:
                assert subscription._position < feed.start, "F2: what is gone is passed in silence"
        if snapshot is not None and snapshot.is_complete and not snapshot.is_gone:
            if len(snapshot.interests) > 1:
                assert snapshot.index <= self.store.published, "S1"
            dropped = max(self.store.lines[interest.topic].dropped for interest in snapshot.interests)
            has_work = bool(self.publisher._parking._work)
            assert has_work or snapshot.keepers or snapshot.index >= dropped, (
                "S3: a snapshot with a gap behind it"
            )

    def check_settled(self) -> None:
        """What must hold when everybody waits: nobody waits for what does not come."""
        maker = self.publisher._maker
        for snapshot in [*maker._making, *maker._asked]:
            assert snapshot.readers, "D13: a run that nobody waits for"
        if self.is_stopped:
            return
        ahead = {run.topic for run in self.runs.values() if (run.index or 0) > self.store.published}
        for reader in self.readers:
            subscription = reader.subscription
            if not reader.is_open or subscription._is_ready() or subscription._phase is core.Phase.LIVE:
                continue
            if subscription._phase is core.Phase.JUDGED:
                assert subscription._awaited is not None
                assert subscription._awaited.at > self.store.published, "D3: it is not told"
            else:
                is_union = len(subscription.request.interests) > 1
                is_ahead = any(wish.topic in ahead for wish in reader.wishes)
                assert is_union and is_ahead, f"D21: it waits for ever: {subscription._phase}"

    def check_empty(self) -> None:
        """D13: when all have left and the cache is over."""
        feeds = self.publisher._feeds
        assert not feeds._wide, "D13: a wide feed is left"
        assert not self.publisher._timeline._awaited, "D13: a gate is left"
        assert not (self.publisher._maker._making or self.publisher._maker._asked), "D13: a run is left"
        for history in feeds.histories.values():
            assert not history.routes.shapes, "D13: a wide feed is left"
            assert not any(feed.readers for feed in history.feeds.values()), "D13: a reader is left"

    def _expect_end(self, reason: CloseReason, concerns: Callable[[Watcher], bool]) -> int:
        ending = [reader for reader in self.readers if reader.is_open and concerns(reader)]
        for reader in ending:
            reader.end = reason
        return len(ending)


def _false(event: Event[Health]) -> Event[Health]:
    assert isinstance(event.payload, Health)
    payload = Health(event.payload.key, "false", event.payload.namespace)
    return Event(event.topic, event.index, payload, mark=event.mark)


def _index_of(commit: Sequence[Event[Health]]) -> int:
    return commit[0].index
