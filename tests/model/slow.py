"""Random courses of slow readers over a store with a log, on the manual loop, and a judge of every event they get.

Readers of `close`, `reset` and `conflate`, with and without rights, of one thing and of several.
The store commits ahead of its publisher, and snapshot and replay functions stand still wherever they wait.
A course is made by its seed alone: `python tests/model/slow.py SEED LENGTH` replays one.
"""

# ruff: noqa: SLF001 - the model stands in for a back end

import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health
from conflated import by_subject
from evidence import count
from model.manual import Cancelled, ManualLoop, Task
from unions import Rows, fold, rows_at

import trio_stream._compose
import trio_stream._handlers
import trio_stream._passages
import trio_stream._wait
from trio_stream import (
    ALL,
    ClosedResourceError,
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    StaleCursorError,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    Topic,
    WouldBlock,
)

EPOCH = "e"
TOPICS = (HEALTH, JOBS)
KEYS = ("a", "ab", "b")
NAMES = ("default", "eu")
WINDOW = 3  # deliveries that a snapshot function may be ahead, here
FEW = {"AT_ONCE": 1, "SLICE": 2, "STEPS": 2}  # so that the publisher's own task has something to wake
WAYS = ("close", "reset", "conflate")
REQUESTS: list[SubscribeRequest[Health]] = [
    SubscribeRequest(HEALTH),
    SubscribeRequest(HEALTH, "a"),
    SubscribeRequest(HEALTH, "a", prefix=True),
    SubscribeRequest(HEALTH, namespace=ALL),
    SubscribeRequest(HEALTH) | SubscribeRequest(JOBS),
    SubscribeRequest(HEALTH, "a") | SubscribeRequest(JOBS, "b") | SubscribeRequest(HEALTH, "b"),
]


class Rights(NamedTuple):
    """What a reader may see, and wants to."""

    can_see: frozenset[str] | None = None
    is_low: bool = False

    def shows(self, payload: Health) -> bool:
        if self.can_see is not None and not payload.has_read_permission(self.can_see):
            return False
        return not self.is_low or self.where(payload)

    def where(self, payload: Health) -> bool:
        return payload.value is not None and int(payload.value) < 5

    def options(self) -> dict[str, Any]:
        return {"authorizer": self.can_see, "where": self.where if self.is_low else None}


EVERYTHING = Rights()
RIGHTS = [
    EVERYTHING,
    Rights(frozenset({"a", "b=1", "b=2", "ab=3"})),
    Rights(is_low=True),
    Rights(frozenset(KEYS), True),
]


class Silent:
    """What is logged looks at the clock of an event loop."""

    def warn(self, *_: object) -> None:
        pass


class Trouble(Exception):
    pass


@dataclass(eq=False)
class Store(Catalogue):
    """Commits say what they replace, and the log has all of them, or all above its floor."""

    has_marks: bool = False
    log: list[list[Event[Health]]] = field(default_factory=list)
    floor: int = 0
    published: int = 0  # how many of the log

    def mark(self, index: int) -> str:
        return f"m{index}" if self.has_marks and index else ""

    def cursor(self, index: int) -> Cursor:
        return Cursor(index, EPOCH, self.mark(index))

    def change(self, changes: Sequence[tuple[Topic[Health], Subject, str | None]]) -> None:
        index = self.index + 1
        rows = {topic: dict(state) for topic, state in self.states[self.index].items()}
        events: list[Event[Health]] = []
        for topic, subject, value in changes:
            state = rows.setdefault(topic, {})
            before = state.get(subject)
            # Of what was not there some publishers say that it was gone.
            is_known = before is not None or index % 2
            previous = Health(subject.key, before, subject.namespace) if is_known else None
            payload = Health(subject.key, value, subject.namespace)
            events.append(Event(topic, index, payload, previous=previous, mark=self.mark(index)))
            if value is None:
                state.pop(subject, None)
            else:
                state[subject] = value
        self.log.append(events)
        self.commit_events(events)


@dataclass(eq=False)
class Reader:
    """A subscription, and what its client holds."""

    subscription: Subscription[Health]
    way: str
    rights: Rights
    rows: Rows
    index: int  # how far these are right
    is_whole: bool  # whether they are
    was_whole: bool  # whether they ever were, or the cursor was accepted
    end: str | None = None
    markers: int = 0

    @property
    def request(self) -> SubscribeRequest[Health]:
        return self.subscription.request

    @property
    def folds(self) -> bool:
        """Whether a row that it could see may come and go in one delivery."""
        return self.way == "conflate" and self.rights != EVERYTHING

    @property
    def is_open(self) -> bool:
        return self.end is None


class Course:
    """A publisher on the manual loop, what is done to it, and what must be true."""

    def __init__(self, seed: int, loop: ManualLoop) -> None:
        self.random = rng = random.Random(seed)
        self.loop = loop
        self.store = Store(has_marks=rng.random() < 0.4)
        self.has_log = rng.random() < 0.7
        self.is_troubled = rng.random() < 0.4
        self.readers: list[Reader] = []
        self.receives: dict[Task, Reader] = {}
        self.running = 0  # functions
        self.is_stopped = False
        self.checked = 0
        for _ in range(rng.randrange(6)):
            self.commit()
        self.store.published = len(self.store.log)
        source = Source(
            self.snapshot,
            replay=self.replay if self.has_log else None,
            wide=True,
            row=by_subject,
        )
        self.publisher = EventPublisher(
            dict.fromkeys(TOPICS, source),
            history=rng.choice([1, 2, 3, 6]),
            history_events=rng.choice([3, 8, 65_536]),
            snapshot_cache_ttl=rng.choice([0.0, 1.0]),
            index=self.store.index,
            epoch=EPOCH,
            mark=self.store.mark(self.store.index),
        )
        self.publisher._parking._backend = loop
        self.publisher._is_running = True
        self.publisher._maker.open(cast("Any", loop))
        loop.start_soon(self.publisher._parking.run)

    # The functions of the store:

    async def _pause(self) -> None:
        for _ in range(self.random.choice([0, 0, 0, 1, 2])):
            await self.loop.checkpoint()

    async def snapshot(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        self.running += 1
        try:
            await self._pause()
            index = self.store.index
            rows = rows_at(self.store, index, request)
            for (topic, subject), value in rows.items():
                await self._pause()
                payload = Health(subject.key, value, subject.namespace)
                await snapshot.append([Event(topic, self.store.modified[topic, subject], payload)])
            await self._pause()
            if self.is_troubled and self.random.random() < 0.1:
                raise Trouble
            return self.store.cursor(index)
        finally:
            self.running -= 1

    async def replay(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        assert not request.token
        assert not request.index
        self.running += 1
        try:
            return await self._page(request, cursor, appender)
        finally:
            self.running -= 1

    async def _page(
        self, request: SubscribeRequest[Health], cursor: Cursor, appender: SnapshotAppender[Health]
    ) -> Cursor:
        rng = self.random
        await self._pause()
        if cursor.index < self.store.floor or cursor.mark not in ("", self.store.mark(cursor.index)):
            raise StaleCursorError
        size = rng.choice([1, 2, 3, 100])
        begin = bisect_right(self.store.log, cursor.index, key=_index_of)
        reached = cursor.index
        for commit in self.store.log[begin : begin + size]:
            await self._pause()
            if self.is_troubled and rng.random() < 0.1:
                if rng.random() < 0.5:
                    raise Trouble
                return self.store.cursor(max(0, cursor.index - rng.randrange(2)))
            reached = commit[0].index
            covered = [each for each in commit if _covers(request, each)]
            if covered and not await appender.append(covered):
                break
        await self._pause()
        return self.store.cursor(reached)

    # What is done:

    def commit(self) -> None:
        rng = self.random
        self.store.change(
            [
                (
                    rng.choice([HEALTH, HEALTH, JOBS]),
                    Subject(rng.choice(KEYS), rng.choice(NAMES)),
                    self._value(),
                )
                for _ in range(rng.choice([1, 1, 1, 2, 4]))
            ]
        )

    def _value(self) -> str | None:
        return None if self.random.random() < 0.2 else str(self.random.randrange(9))

    def publish(self, most: int) -> None:
        while most and self.store.published < len(self.store.log) and not self.is_stopped:
            most -= 1
            commit = self.store.log[self.store.published]
            self.store.published += 1
            self.publisher.publish(commit)

    def subscribe(self) -> None:
        rng = self.random
        request = rng.choice(REQUESTS)
        if rng.random() < 0.3:
            request = SubscribeRequest(interests=request.interests, token="t")
        rows: Rows = {}
        index = 0
        rights = rng.choice(RIGHTS)
        if rng.random() < 0.5:
            index = rng.randrange(0, self.store.index + 1)
            request = request.after(self.store.cursor(index))
            rows = self.truth(request, rights, index)
        self._add(request, rng.choice(WAYS), rights, rows)

    def _add(self, request: SubscribeRequest[Health], way: str, rights: Rights, rows: Rows) -> None:
        if self.is_stopped:
            return
        subscription = self.publisher.subscribe(request, on_lag=cast("Any", way), **rights.options())
        is_resumed = request.index > 0
        self.readers.append(Reader(subscription, way, rights, dict(rows), request.index, is_resumed, False))

    def resume(self) -> None:
        """A client that has ended, or ends, comes back with what it holds."""
        old = self._some_reader()
        if old is None or old in self.receives.values():
            return
        request = old.subscription.resume_request()
        if request.index:
            assert old.is_whole
            assert old.rows == self.truth(request, old.rights, request.index)
        self.leave(old)
        self._add(request, self.random.choice(WAYS), old.rights, old.rows if request.index else {})

    def leave(self, reader: Reader) -> None:
        reader.subscription.close()
        if reader.is_open:
            reader.end = "left"

    def revoke(self) -> None:
        try:
            self.publisher.close_subscriptions(["t"])
        except ClosedResourceError:
            assert self.is_stopped
            return
        for reader in self.readers:
            if reader.is_open and reader.request.token == "t":
                reader.end = "token"

    def stop(self) -> None:
        self.is_stopped = True
        self.publisher._stop()
        self.loop.cancel(task for task in self.loop.tasks if task not in self.receives)
        self.loop.start_soon(self.publisher._parking.finish)

    def forget(self) -> None:
        """The log is compacted, if that is a course in which something goes wrong."""
        if self.is_troubled:
            self.store.floor = max(self.store.floor, self.store.index - self.random.randrange(10))

    def _some_reader(self) -> Reader | None:
        return self.random.choice(self.readers[-6:]) if self.readers else None

    def receive(self) -> None:
        reader = self._some_reader()
        if reader is not None and reader not in self.receives.values():
            self._take(reader, self.random.choice([1, 1, 1, 2, 100]))

    def _take(self, reader: Reader, most: int = 1_000) -> int:
        """Without waiting; how many there were."""
        for number in range(most):
            try:
                event = reader.subscription.receive_nowait()
            except WouldBlock:
                return number
            except (ClosedResourceError, SubscriptionForceClosed) as error:
                self._raised(reader, error)
                return number
            self._took(reader, [event])
        return most

    def begin_to_receive(self) -> None:
        reader = self._some_reader()
        if reader is None or reader in self.receives.values():
            return
        subscription = reader.subscription
        calls: list[Callable[[], Any]] = [
            subscription.receive,
            subscription.receive_batch,
            partial(subscription.receive_batch, 2),
            subscription.receive_until_current,
            subscription.wait_ready,
        ]
        call = self.random.choice(calls)
        task = self.loop.spawn(call(), "wait" if call == subscription.wait_ready else "receive")
        self.receives[task] = reader
        self._step(task)

    def cancel(self) -> None:
        if self.receives:
            self.random.choice(list(self.receives)).is_cancelled = True

    def step(self) -> None:
        for _ in range(self.random.choice([1, 1, 3, 8])):
            if ready := self.loop.ready():
                self._step(self.random.choice(ready))

    def settle(self) -> None:
        for _ in range(10_000):
            if not (ready := self.loop.ready()):
                return
            for task in ready:
                if task.can_go_on:
                    self._step(task)
        raise AssertionError("the tasks do not come to rest")

    def _step(self, task: Task) -> None:
        self.loop.step(task)
        if not task.is_done:
            return
        reader = self.receives.pop(task, None)
        if isinstance(task.error, Cancelled):
            return
        if task.error is not None and (reader is None or not isinstance(task.error, Exception)):
            raise task.error
        if reader is None:
            return
        if task.error is not None:
            assert isinstance(task.error, (ClosedResourceError, SubscriptionForceClosed)), task.error
            if task.name != "wait" or not self.is_stopped:  # which does not come any more, but events may
                self._raised(reader, task.error)
        elif isinstance(task.result, Event):
            self._took(reader, [task.result])
        elif task.result is not None:
            self._took(reader, task.result)

    # What must be true:

    def truth(self, request: SubscribeRequest[Health], rights: Rights, index: int) -> Rows:
        """S(index)."""
        return {
            (topic, subject): value
            for (topic, subject), value in rows_at(self.store, index, request).items()
            if rights.shows(Health(subject.key, value, subject.namespace))
        }

    def due(self, reader: Reader, commit: Sequence[Event[Health]]) -> list[Health]:
        """What a reader that gets every commit gets of this one (D19)."""
        due: list[Health] = []
        for each in commit:
            if not _covers(reader.request, each):
                continue
            (new,), old = each.payloads, each.previous
            had = old is not None and old.value is not None and reader.rights.shows(old)
            if reader.rights == EVERYTHING:
                due.append(new)
            elif new.value is None and old is not None:
                due += [new] if had else []
            elif reader.rights.shows(new):
                due.append(new)
            elif had:
                due.append(new.withdrawn())
        return due

    def next(self, reader: Reader) -> tuple[int, list[Health]] | None:
        """The next commit that is published and has something for the reader."""
        log = self.store.log[: self.store.published]
        for commit in log[bisect_right(log, reader.index, key=_index_of) :]:
            if due := self.due(reader, commit):
                return commit[0].index, due
        return None

    def _took(self, reader: Reader, events: Sequence[Event[Health]]) -> None:
        assert reader.is_open or reader.end == "stopping", f"{reader.end}, and then {events}"
        for event in events:
            self.checked += 1
            assert event.previous is None
            if event.is_new_snapshot_to_follow:
                self._marker(reader)
            elif event.is_end_of_snapshot:
                assert not reader.is_whole
                reader.is_whole = reader.was_whole = True
                reader.index = event.index
                self._compare(reader)
            elif not reader.is_whole:
                assert not event.is_conflated
                fold(reader.rows, [event])
            else:
                self._live(reader, event)

    def _marker(self, reader: Reader) -> None:
        """R1, D21: who was live, and whose log is whole, never gets one, unless it conflates."""
        is_fine = self.has_log and not self.is_troubled and not self.store.floor
        if is_fine and reader.way != "conflate" and not self._is_revoked(reader):
            assert not reader.was_whole, "D21: a marker, although the log has it all"
            # Who was far behind when it left did not know its mark any more.
            has_cursor = reader.request.index > 0 and bool(reader.request.mark) == self.store.has_marks
            assert not has_cursor, "D7: a marker, although the log has it all"
        reader.rows.clear()
        reader.is_whole = False
        reader.was_whole = True
        reader.index = 0
        reader.markers += 1

    def _is_revoked(self, reader: Reader) -> bool:
        return reader.request.token == "t" and reader.request.index > 0

    def _live(self, reader: Reader, event: Event[Health]) -> None:
        assert event.index > reader.index, "D2"
        if event.is_conflated:
            assert reader.way == "conflate"
            rows = [(each.topic, p.subject) for each in event.events for p in each.payloads]
            assert len(rows) == len(set(rows)), "D21: a row twice"
            indexes = [each.index for each in event.events]
            assert indexes == sorted(indexes), "D21: not by index"
            assert reader.index < indexes[0], "D2"
            assert indexes[-1] <= event.index
            if reader.rights == EVERYTHING:
                assert event.index == self._newest_for(reader), "D21: not at the newest index"
        else:
            log = self.store.log  # it may be ahead of what is published
            commits = log[bisect_right(log, reader.index, key=_index_of) :]
            if reader.folds:  # what came and went before this, while it did not look, is nothing
                commits = [commit for commit in commits if commit[0].index == event.index]
            due = next((commit[0].index, due) for commit in commits if (due := self.due(reader, commit)))
            assert (event.index, list(event.payloads)) == due, "D3, D4"
        fold(reader.rows, [event])
        reader.index = event.index
        reader.was_whole = True
        self._compare(reader)

    def _newest_for(self, reader: Reader) -> int:
        log = self.store.log[: self.store.published]
        return next(commit[0].index for commit in reversed(log) if self.due(reader, commit))

    def _compare(self, reader: Reader) -> None:
        truth = self.truth(reader.request, reader.rights, reader.index)
        assert reader.rows == truth, f"D1 at {reader.index}: it holds {reader.rows}, the store {truth}"

    def _raised(self, reader: Reader, error: Exception) -> None:
        if isinstance(error, ClosedResourceError):
            assert reader.end == "left"
            return
        assert isinstance(error, SubscriptionForceClosed)
        match error.reason:
            case CloseReason.TOKEN:
                assert reader.end == "token"
            case CloseReason.LAGGED:
                assert isinstance(error, SubscriptionLagged)
                assert reader.way == "close", "D21"
                is_fine = self.has_log and not self.is_troubled and not self.store.floor
                # Inside a snapshot it may: a composed one is given up, and of others two are kept.
                assert not (is_fine and reader.is_whole), "D21: lagged, although the log has it all"
                reader.end = "lagged"
            case CloseReason.SNAPSHOT_FAILED:
                assert self.is_troubled
                reader.end = "failed"
            case CloseReason.STOPPED:
                assert self.is_stopped, "E1"
                reader.end = "stopped"
            case _:
                raise error

    def check_settled(self) -> None:
        """D6, D21: when nothing can go on any more, everybody has everything, or knows how it ended."""
        if self.is_stopped:
            return
        self.publish(len(self.store.log))  # what is ahead of the publisher is waited for
        for _ in range(200):
            self.settle()
            free = [each for each in self.readers if each not in self.receives.values() and each.is_open]
            if not sum([self._take(reader) for reader in free]) and not self.loop.ready():
                break
        else:
            raise AssertionError("D21: the readers do not come to rest")
        for reader in free:
            if reader.is_open:
                assert reader.is_whole, "D21: no state"
                assert reader.folds or self.next(reader) is None, (
                    "D3: nothing comes, although there is something"
                )
                assert reader.rows == self.truth(reader.request, reader.rights, self.store.index), "D1"
                assert reader.subscription.horizon >= self.publisher.index, "D7"

    def end(self) -> None:
        """D13."""
        self.check_settled()
        self.settle()
        for reader in self.readers:
            if reader not in self.receives.values():
                self._take(reader)
            self.leave(reader)
        self.settle()
        self.loop.now += 10
        self.settle()
        assert not self.receives
        assert not self.running, "D13: a function is left"
        statistics = self.publisher.statistics()
        assert (statistics.subscriptions, statistics.waiting, statistics.tokens) == (0, 0, 0)
        assert {each.snapshots for each in statistics.topics.values()} == {0}
        histories = self.publisher._feeds.histories.values()
        assert not any(history.folds for history in histories), "D13, C1: a map is left"


WEIGHTS: dict[Callable[[Course], object], float] = {
    Course.commit: 8,
    lambda course: course.publish(course.random.choice([1, 2, 5, 100])): 12,
    Course.subscribe: 6,
    Course.resume: 3,
    Course.receive: 10,
    Course.begin_to_receive: 8,
    Course.cancel: 2,
    Course.step: 24,
    Course.settle: 2,
    Course.check_settled: 1,
    Course.revoke: 0.2,
    Course.forget: 0.5,
}


def _covers(request: SubscribeRequest[Health], event: Event[Health]) -> bool:
    (payload,) = event.payloads
    return request.covers(event.topic, payload.subject)


def _index_of(commit: Sequence[Event[Health]]) -> int:
    return commit[0].index


@contextmanager
def manual_loop() -> Iterator[ManualLoop]:
    """In the place of anyio in what runs functions, with small windows and slices."""
    loop = ManualLoop()
    with pytest.MonkeyPatch.context() as patch:
        for module in (trio_stream._handlers, trio_stream._compose):
            patch.setattr(module, "anyio", loop)
        patch.setattr(trio_stream._handlers, "_warner", Silent())
        for module in (trio_stream._handlers, trio_stream._passages):
            patch.setattr(module, "WINDOW", WINDOW)
        for name, value in FEW.items():
            patch.setattr(trio_stream._wait, name, value)
        try:
            yield loop
        finally:
            loop.close()


def one_course(seed: int, length: int) -> int:
    """How many events were judged."""
    try:
        with manual_loop() as loop:
            course = Course(seed, loop)
            rules, weights = list(WEIGHTS), list(WEIGHTS.values())
            stops_at = course.random.choice([length, length - 6])
            for number in range(length):
                if number == stops_at:
                    course.stop()
                (rule,) = course.random.choices(rules, weights)
                rule(course)
            course.end()
            count("model", "courses of slow readers")
            return course.checked
    except BaseException as error:
        error.add_note(f"replay: python tests/model/slow.py {seed} {length}")
        raise


if __name__ == "__main__":
    one_course(int(sys.argv[1]), int(sys.argv[2]))
