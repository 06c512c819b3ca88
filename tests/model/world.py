"""A publisher beside the model of what it must do: every call is made to both, and every answer is judged.

It knows no event loop: who calls decides what runs when.
"""

# ruff: noqa: PT018, SLF001 - the model may know private names of the core

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from catalogue import Health
from model.books import OWN, Plan, Planned, Reader, Run
from model.checker import Phase, Trace
from model.timeline import TOPICS, Line, Store

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    Topic,
    close_subscription_event,
)
from trio_stream._passages import MOST_KEPT, Snapshot
from trio_stream._replays import Page

DROP = (CloseReason.TOKEN, CloseReason.REFRESH, CloseReason.SNAPSHOT_FAILED)


class World:
    """`pause` is one checkpoint, `now` the clock of the cache."""

    def __init__(
        self,
        pause: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        *,
        history: int,
        history_events: int = 65_536,
        ttl: float,
        index: int = 0,
    ) -> None:
        self.pause, self.now, self.ttl = pause, now, ttl
        self.publisher = EventPublisher(
            history=history, history_events=history_events, snapshot_cache_ttl=ttl, index=index, epoch="e0"
        )
        self.store = Store(history, history_events, index, "e0")
        self.epochs = 0
        self.readers: list[Reader] = []
        self.runs: dict[Snapshot, Run] = {}
        # {(topic, subject): the run that was asked for last}
        self.latest: dict[tuple[Topic[Any], Subject], Run] = {}
        self.plans: deque[Plan] = deque()
        self.is_stopped = False
        self.started = 0
        self.events = 0
        self._watch_starts()
        for topic in TOPICS:
            self.publisher.register_handler(topic, self.snapshot)

    def _watch_starts(self) -> None:
        passages = self.publisher._passages
        start = passages._start

        def watched(snapshot: Snapshot | Page) -> None:
            assert isinstance(snapshot, Snapshot)  # nothing is replayed here
            (interest,) = snapshot.interests
            request = SubscribeRequest[Health](interests=(interest,))
            key = request.topic, request.subject
            older = self.latest.get(key)
            if older is not None and self.is_shared(older):
                assert older.index is not None, "D14: a second run while the first is at work"
                has_room = self.store.lines[request.topic].has_room_behind(older.index)
                assert not has_room, "D14: a second run although the first is cached"
            self.runs[snapshot] = self.latest[key] = Run(*key, snapshot)
            self.started += 1
            start(snapshot)

        passages._start = watched

    @property
    def has_work(self) -> bool:
        """Whether what has ended is still being taken apart."""
        return bool(self.publisher._parking._work)

    # What the model expects of a run:

    def is_gone(self, run: Run) -> bool:
        """Whether the history has passed it."""
        return run.index is not None and run.index < self.store.lines[run.topic].dropped

    def is_shared(self, run: Run) -> bool:
        """Whether a new subscriber certainly gets this one."""
        if (
            self.is_stopped
            or run.is_abandoned
            or run.error is not None
            or self.is_gone(run)
            or run.snapshot.is_gone
        ):
            return False
        if run.index is None:
            return bool(run.readers)
        return self.now() < run.done_at + self.ttl

    def is_let_go(self, run: Run) -> bool:
        """Whether nobody gets it any more who does not read it already."""
        return run.snapshot.is_gone or self.publisher._passages.is_void(run.snapshot)

    def may_have_lost(self, run: Run) -> bool:
        dropped = self.store.lines[run.topic].dropped
        return min(i for i in (run.newest, run.index, dropped) if i is not None) < dropped

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        """The snapshot function of every topic."""
        run = self.runs[snapshot._snapshot]  # type: ignore[attr-defined]
        assert not run.is_running and run.newest is None
        assert (request.topic, request.subject) == (run.topic, run.subject)
        assert not (request.index or request.token or request.epoch)
        plan = self.plans.popleft() if self.plans else Plan()
        line = self.store.lines[run.topic]
        run.newest, run.dropped = line.newest, line.dropped
        run.is_running = True
        try:
            return await self._fill(run, plan, request, snapshot)
        except Planned as error:
            run.error = error
            raise
        finally:
            run.is_running = False

    async def _fill(
        self, run: Run, plan: Plan, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]
    ) -> int:
        if plan.is_late:
            await self.pause()
        line = self.store.lines[run.topic]
        index = self._read(plan, line)
        for number, group in enumerate(line.rows(request, index)):
            for _ in range(plan.pauses):
                await self.pause()
            if number == plan.fails_after:
                raise Planned
            await snapshot.append(group)
            run.appended.append(group[0])
        for _ in range(plan.pauses):
            await self.pause()
        if plan.fails_after is not None:
            raise Planned
        if index < run.dropped:
            run.error = ValueError()
        run.index, run.done_at = index, self.now()
        if self.has_work and not self.is_let_go(run):
            # All who waited may have ended, but it was whole before they were taken apart.
            run.is_abandoned = False
        line = self.store.lines[run.topic]
        if not run.is_abandoned and index >= max(run.dropped, line.dropped):
            line.farthest = max(line.farthest, index)
        return index

    def _read(self, plan: Plan, line: Line) -> int:
        """The index at which the snapshot function reads its store."""
        match plan.reads:
            case "published":
                return self.store.published
            case "ahead":
                return self.store.index
            case "behind":
                return max(line.start, min(line.newest, self.store.published) - 2)

    # What is done to both:

    def publish(self, *, revoked: Sequence[str] = ()) -> None:
        """The next commit of the store, with a close event in front of it, perhaps."""
        events: list[Event[Any]] = [close_subscription_event(revoked)] if revoked else []
        self._expect_end(CloseReason.TOKEN, lambda r: r.subscription.request.token in revoked)
        self.store.revoke(revoked, self._farthest(), in_next=True)
        if self.store.pending:
            events += self.store.take_pending()
        self.publisher.publish(events)

    def revoke(self, tokens: Sequence[str]) -> None:
        closed = self._expect_end(CloseReason.TOKEN, lambda r: r.subscription.request.token in tokens)
        assert self.publisher.close_subscriptions(tokens) == closed
        self.store.revoke(tokens, self._farthest())

    def _farthest(self) -> int:
        return max(line.farthest for line in self.store.lines.values())

    def refresh(self, topic: Topic[Health], state: list[tuple[Subject, str]]) -> None:
        self._expect_end(CloseReason.REFRESH, lambda r: r.subscription.request.topic == topic)
        self.publisher.refresh(topic)
        self.store.replace(topic, state)
        self._forget_runs(lambda run: run.topic == topic)

    def restore(self, index: int, state: list[tuple[Subject, str]]) -> None:
        self.epochs += 1
        self._expect_end(CloseReason.REFRESH, lambda _: True)
        self.publisher.refresh(index=index, epoch=f"e{self.epochs}")
        self.store.restore(index, f"e{self.epochs}", state)
        self._forget_runs(lambda _: True)

    def skip(self, count: int) -> None:
        self._expect_end(CloseReason.REFRESH, lambda _: True)
        index = self.store.skip(min(count, len(self.store.pending)))
        self.publisher.refresh(index=index, epoch=self.store.epoch)
        self._forget_runs(lambda _: True)

    def stopping(self) -> None:
        """The publisher is about to stop; everybody still reads what was published."""
        self.sync()
        self.is_stopped = True

    def subscribe(
        self,
        request: SubscribeRequest[Health],
        *,
        can_see: frozenset[str] | None = None,
        resets: bool = False,
        held: dict[Any, Any] | None = None,
    ) -> Reader:
        begins, started = self.store.begins(request), self.started
        shared = self.latest.get((request.topic, request.subject))
        expected = shared if shared is not None and self.is_shared(shared) else None
        subscription = self.publisher.subscribe(
            request, authorizer=can_see, on_lag="reset" if resets else "close"
        )
        line = self.store.lines[request.topic]
        model = line.model(request, authorizer=can_see, resets=resets)
        trace = Trace(model, begins, start=line.start, held=held)
        run = None
        if begins == "resume":
            assert started == self.started, "D7: a snapshot for a resume"
        else:
            run = self._run_of(subscription)
            if expected is not None:
                assert (run, self.started) == (expected, started), "D14: not shared"
        reader = Reader(subscription, trace, run, can_see, resets)
        self.readers.append(reader)
        if run is not None:
            self._join(reader, run)
        return reader

    def unsubscribe(self, reader: Reader) -> None:
        self.sync()
        has_ended = reader.subscription.statistics().state is SubscriptionState.FORCE_CLOSED
        reader.subscription.unsubscribe()
        if reader.is_open and has_ended:
            assert self.is_stopped and self._has_had_all(reader), "D5: ended before what was published"
            self._end(reader, CloseReason.STOPPED)
        elif reader.is_open:
            self._end(reader, OWN)

    def resume(self, reader: Reader) -> Reader:
        """Subscribes again with what the subscription says itself; the client keeps its state if it may."""
        request = reader.subscription.resume_request()
        assert request == self._expected_resume(reader)
        held = dict(reader.trace.state) if request.index and reader.trace.count else None
        return self.subscribe(request, can_see=reader.can_see, resets=reader.resets, held=held)

    # What a receiving call gave:

    def took(self, reader: Reader, events: Sequence[Event[Health]]) -> None:
        assert events
        for event in events:
            assert reader.is_open, f"D9: {event} after {reader.end}"
            self.events += 1
            if event.is_new_snapshot_to_follow:
                self._took_marker(reader)
            reader.trace.take(event)
            reader.rows += not event.is_framing
            if reader.trace.phase is Phase.LIVE:
                self._leave(reader)
        self.check_reader(reader)

    def _took_marker(self, reader: Reader) -> None:
        self.sync()
        if not reader.is_reset and (reader.trace.phase is not Phase.BEGIN or reader.trace.begins != "stale"):
            self._lost(reader)
        if (
            reader.resets and reader.run is not None
        ):  # if not, it has had all of the snapshot in the same call
            assert reader.run.index is not None, "D21: the marker before the snapshot is whole"
        reader.is_reset = False
        reader.rows = 0

    def sync(self) -> None:
        """A reader that has lost something may have begun to wait for a new snapshot, of which nobody has told."""
        for reader in self.readers:
            snapshot = reader.subscription._snapshot
            if reader.is_open and snapshot is not None and self.runs[snapshot] is not reader.run:
                self._lost(reader)

    def _lost(self, reader: Reader) -> None:
        assert reader.resets, "D6: a new snapshot although it did not ask for that"
        assert self._is_lost(reader, reader.trace.index), "D6: a new snapshot although nothing was lost"
        self._leave(reader)
        reader.is_reset = True
        snapshot = reader.subscription._snapshot
        if snapshot is not None:
            self._join(reader, self.runs[snapshot])

    def raised(self, reader: Reader, error: Exception) -> None:
        match error:
            case SubscriptionLagged() if reader.is_open:
                assert not reader.resets, "D11: closed although it asked for a new snapshot"
                lost = self._is_lost(reader, reader.subscription.index)
                assert lost, "D6: lagged although nothing was lost"
                # It may have been found in a call that was cancelled all the same, and more be lost since.
                assert error.missed >= 1
                self._end(reader, CloseReason.LAGGED)
            case SnapshotFailed() if reader.is_open:
                run = reader.run
                if (
                    run is None or run.error is None
                ):  # in one call it has lost something and begun to wait for another
                    assert reader.resets and self._is_lost(reader, reader.trace.index)
                    run = self.latest[reader.subscription.request.topic, reader.subscription.request.subject]
                assert type(error.__cause__) is type(run.error), f"D14: a failure of another: {error!r}"
                self._end(reader, CloseReason.SNAPSHOT_FAILED)
            case SubscriptionForceClosed(reason=CloseReason.STOPPED) if reader.is_open and self.is_stopped:
                assert self._has_had_all(reader), "D5: stopped before what was published"
                self._end(reader, CloseReason.STOPPED)
        if isinstance(error, SubscriptionForceClosed):
            assert error.reason is reader.end, f"D16: {error!r}, not {reader.end}"
            assert (error.index, error.epoch) == (reader.subscription.index, reader.subscription.epoch)
        else:
            assert reader.end == OWN, f"D16: {error!r}, not {reader.end}"
        same = type(error), error.args
        assert reader.raised in (None, same), f"D5: {same} after {reader.raised}"
        reader.raised = same
        self.check_reader(reader)

    def blocked(self, reader: Reader) -> None:
        """The call would wait."""
        assert reader.is_open, "D16: waits after its end"
        assert not self.is_stopped, "D5: waits after the stop"
        self.sync()
        trace = reader.trace
        if trace.phase is Phase.LIVE and not reader.is_reset:
            missing = trace.missing(self.store.published)
            assert missing is None or missing > self.store.published, f"D3: commit {missing} is not there"
            assert reader.subscription.horizon >= self.store.published
            return
        run = reader.run
        assert run is not None
        assert run.index is None and run.error is None, "D5: waits although the snapshot is complete"
        if reader.can_see is None and not (reader.is_reset or (reader.resets and trace.begins == "stale")):
            assert reader.rows == len(run.appended), "D3: rows of the snapshot are not there"

    # The invariants:

    def check_reader(self, reader: Reader) -> None:
        self.sync()
        subscription, trace = reader.subscription, reader.trace
        horizon = subscription.horizon
        assert horizon >= subscription.index
        if trace.phase is Phase.LIVE:
            assert trace.missing(min(horizon, self.store.published)) is None, "D7: the horizon is too high"
            assert subscription.index >= trace.index, "D1: the index reached goes back"
            assert trace.missing(subscription.index) is None, "D6: the index reached is after what is missing"
        else:
            assert subscription.index == 0
        assert subscription.resume_request() == self._expected_resume(reader)
        assert subscription.statistics().delivered == trace.count
        if reader.is_open:
            assert subscription.epoch == self.publisher.epoch

    def check(self) -> None:
        """What must hold between any two calls."""
        statistics = self.publisher.statistics()
        store = self.store
        self.sync()
        opened = [reader for reader in self.readers if reader.is_open]
        assert (statistics.index, statistics.epoch) == (store.published, store.epoch)
        tokens = {reader.subscription.request.token for reader in opened}
        if self.is_stopped:
            assert statistics.subscriptions <= len(opened) and statistics.tokens <= len(tokens), "D13"
        else:
            assert statistics.subscriptions == len(opened), "D13: subscriptions"
            assert statistics.tokens == len(tokens), "D13: tokens"
        for topic, line in store.lines.items():
            found = statistics.topics[topic.name]
            if self.is_stopped:
                assert (found.commits, found.feeds, found.snapshots) == (0, 0, 0), "D13: after the stop"
                continue
            assert (found.commits, found.floor) == (len(line.log), line.floor), "D7: the history"
            read = {r.subscription.request.subject for r in opened if r.subscription.request.topic == topic}
            assert self.has_work or found.feeds == len(line.subjects() | read), "D13: feeds"
            for feed in self.publisher._feeds.histories[topic].feeds.values():
                assert len(feed.items) <= 2 * max(line.limit, 64), "D11: a feed grows"
        for run in self.runs.values():
            if self.is_gone(run) and not self.has_work and not any(reader.resets for reader in run.readers):
                assert not run.snapshot.items, "D11: a snapshot that is passed is kept"
            if run.is_abandoned and not self.has_work:
                assert run.snapshot.is_gone, "D13, D14: what nobody waits for stays"
        if not self.has_work:
            for topic, subject in {(run.topic, run.subject) for run in self.runs.values()}:
                kept = [r for r in self.runs.values() if (r.topic, r.subject) == (topic, subject)]
                assert sum(self.is_gone(run) and bool(run.snapshot.items) for run in kept) <= MOST_KEPT, "D11"

    def check_settled(self) -> None:
        """What must hold when everybody waits."""
        for run in self.runs.values():
            if run.is_running:
                assert run.readers and not run.is_abandoned, "D13: a run that nobody waits for"
        shared = {run.snapshot.interests for run in self.latest.values() if self.is_shared(run)}
        assert set(self.publisher._passages.shared) == shared, "D13, D14: the cache"

    # How the model keeps its books:

    def _run_of(self, subscription: Subscription[Health]) -> Run:
        assert subscription._snapshot is not None
        run = self.runs[subscription._snapshot]
        assert run.error is None, "D14: a failed snapshot was shared"
        assert not (self.is_gone(run) or self.publisher._passages.is_void(run.snapshot)), (
            "D14: a snapshot was shared that is gone"
        )
        assert self.has_work or not run.is_abandoned, "D14: a snapshot was shared that nobody waits for"
        run.is_abandoned = False
        return run

    def _join(self, reader: Reader, run: Run) -> None:
        reader.run = run
        run.readers.add(reader)

    def _leave(self, reader: Reader) -> None:
        run, reader.run = reader.run, None
        if run is not None:
            run.readers.discard(reader)
            if not run.readers and run.index is None:
                run.is_abandoned = True

    def _end(self, reader: Reader, end: CloseReason | str) -> None:
        reader.end = end
        self._leave(reader)

    def _expect_end(self, reason: CloseReason, concerns: Callable[[Reader], bool]) -> int:
        self.sync()
        ending = [reader for reader in self.readers if reader.is_open and concerns(reader)]
        for reader in ending:
            self._end(reader, reason)
        return len(ending)

    def _forget_runs(self, concerns: Callable[[Run], bool]) -> None:
        for run in self.runs.values():
            run.is_abandoned |= concerns(run)

    def _has_had_all(self, reader: Reader) -> bool:
        """Whether a reader that ends with the publisher had to: there was no more, or it was not to be had."""
        if reader.trace.phase is Phase.LIVE and not reader.is_reset:
            missing = reader.trace.missing(self.store.published)
            return missing is None or bool(self._is_lost(reader, reader.trace.index))
        assert reader.run is not None
        return reader.run.index is None or self.may_have_lost(reader.run)

    def _is_lost(self, reader: Reader, index: int) -> int:
        """How many deliveries were dropped before the reader had them; within a snapshot, whether they were."""
        if reader.run is not None:
            return int(self.may_have_lost(reader.run))
        line, model = self.store.lines[reader.subscription.request.topic], reader.trace.model
        return sum(
            index < commit[0].index <= line.dropped
            for commit in line.commits
            if any(map(model.touches, commit))
        )

    def _expected_resume(self, reader: Reader) -> SubscribeRequest[Health]:
        subscription = reader.subscription
        asked = subscription.request
        drops = reader.end in DROP or reader.trace.phase is not Phase.LIVE
        index = 0 if drops else subscription.horizon
        return SubscribeRequest(
            asked.topic,
            asked.key,
            namespace=asked.namespace,
            partition=asked.partition,
            token=asked.token,
            index=index,
            epoch=subscription.epoch if index else None,
        )
