"""Publishing from other threads: done when the call returns, in each caller's order, and never for ever."""

import asyncio
import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, ready
from interruptions import on_asyncio, on_trio
from scenes import quiet
from stretches import stretches
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    EndOfSubject,
    Event,
    EventPublisher,
    InvalidCommitError,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    Topic,
    UnknownTopicError,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

LIVE = SubscribeRequest(HEALTH, index=1)
PATIENCE = 10  # seconds that a thread may take to end; none should take any


class Caller(threading.Thread):
    """A bare thread that calls something once; `result` is what came of it."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._arguments = arguments
        self.result: Future[Any] = Future()

    def run(self) -> None:
        try:
            self.result.set_result(self._call(*self._arguments))
        except BaseException as error:  # noqa: BLE001
            self.result.set_exception(error)

    async def outcome(self) -> Any:
        """Returns or raises what the call did; the event loop goes on meanwhile."""
        await anyio.to_thread.run_sync(self.join, PATIENCE)
        assert not self.is_alive()
        return self.result.result()


@contextmanager
def hasty_switches() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def started(call: Any, *arguments: Any) -> Caller:
    caller = Caller(call, *arguments)
    caller.start()
    return caller


async def test_a_commit_of_another_thread_is_published_when_the_call_returns() -> None:
    """D3: from a worker thread of anyio and from a bare one."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        subscription = publisher.subscribe(LIVE)

        def publish(index: int) -> int:
            publisher.publish_from_thread([event(index, "web"), event(index, "db")])
            return publisher.index

        assert await anyio.to_thread.run_sync(publish, 2) == 2
        assert await started(publish, 3).outcome() == 3
        assert kinds(ready(subscription)) == ["2:web=ok+db=ok", "3:web=ok+db=ok"]


async def test_a_waiting_reader_is_woken_by_another_thread() -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        got: list[Event[Health]] = []

        async def read() -> None:
            got.append(await publisher.subscribe(LIVE).receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            await started(publisher.publish_from_thread, [event(2, "web")]).outcome()
        assert kinds(got) == ["2:web=ok"]


async def test_the_thread_of_the_event_loop_may_call_it_too() -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        subscription = publisher.subscribe(LIVE)
        publisher.publish_from_thread([event(2, "web")])
        assert kinds(ready(subscription)) == ["2:web=ok"]
        with pytest.raises(InvalidCommitError):
            publisher.publish_from_thread([event(2, "web")])


async def test_the_commits_of_each_thread_keep_their_order() -> None:
    """Four threads; one whose index has been overtaken takes a greater one."""
    threads, commits = 4, 50
    async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
        publisher.publish([event(1, "first")])
        subscription = publisher.subscribe(LIVE)
        indexes = itertools.count(2)

        def write(name: str) -> None:
            for number in range(commits):
                while True:
                    try:
                        publisher.publish_from_thread([event(next(indexes), name, str(number))])
                        break
                    except InvalidCommitError:
                        pass

        with hasty_switches():
            callers = [started(write, str(name)) for name in range(threads)]
            for caller in callers:
                await caller.outcome()
        received = [single for one in ready(subscription) for single in one.events]
        assert len(received) == threads * commits
        for name in range(threads):
            payloads = [single.payload for single in received]
            written = [p.value for p in payloads if isinstance(p, Health) and p.key == str(name)]
            assert written == [str(number) for number in range(commits)]


@pytest.mark.parametrize(
    ("commit", "kind"),
    [
        ([event(1, "web")], InvalidCommitError),
        ([event(2, "web"), event(3, "web")], InvalidCommitError),
        ([event(2, "web", topic=Topic("unknown"))], UnknownTopicError),
        ([None], InvalidCommitError),
    ],
)
async def test_it_raises_what_publish_raises_and_changes_nothing(commit: Any, kind: type[Exception]) -> None:
    """D18."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        before = publisher.statistics()
        with pytest.raises(kind):
            await started(publisher.publish_from_thread, commit).outcome()
        with pytest.raises(kind):
            await anyio.to_thread.run_sync(publisher.publish_from_thread, commit)
        assert publisher.statistics() == before
        await started(publisher.publish_from_thread, [event(2, "web")]).outcome()
        assert publisher.index == 2


class Stop(BaseException):
    """No error, as `KeyboardInterrupt` is none."""


class Fatal:
    @property
    def subject(self) -> str:
        raise Stop


@on_asyncio
async def test_a_thread_does_not_wait_for_ever_if_what_it_publishes_stops_the_event_loop() -> None:
    """D16: on trio that would be the end of everything."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
        caller = started(publisher.publish_from_thread, [Event(HEALTH, 1, Fatal())])
        with pytest.raises(Stop):
            await caller.outcome()
        assert publisher.index == 0


async def test_an_iterable_that_fails_fails_in_the_thread_that_gave_it() -> None:
    """D18: it is read there."""
    where: list[int] = []

    def events() -> Iterator[Event[Health]]:
        where.append(threading.get_ident())
        yield event(2, "web")
        raise OSError("half way")

    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        caller = started(publisher.publish_from_thread, events())
        with pytest.raises(OSError, match="half way"):
            await caller.outcome()
        assert (where, publisher.index) == ([caller.ident], 1)


async def test_a_thread_may_publish_nothing_and_close_events() -> None:
    """D9."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        publisher.subscribe(SubscribeRequest(HEALTH, token="t"))
        await started(publisher.publish_from_thread, []).outcome()
        assert publisher.statistics().subscriptions == 1
        await started(publisher.publish_from_thread, [close_subscription_event(["t"])]).outcome()
        assert (publisher.statistics().subscriptions, publisher.index) == (0, 1)


@pytest.mark.parametrize("loop_is_known", [False, True])
async def test_before_the_publisher_runs_another_thread_is_refused(loop_is_known: bool) -> None:
    """D18: nobody would take the commit."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    if loop_is_known:
        async with publisher.subscribe(LIVE):
            pass
    with pytest.raises(RuntimeError, match="run"):
        await started(publisher.publish_from_thread, [event(2, "web")]).outcome()
    assert publisher.index == 1


async def test_after_the_publisher_has_stopped_every_thread_is_told() -> None:
    """D18: many at once, and as often as they call."""
    async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
        pass

    def insist() -> int:
        refusals = 0
        for index in range(1, 300):
            try:
                publisher.publish_from_thread([event(index, "web")])
            except ClosedResourceError:
                refusals += 1
        return refusals

    with hasty_switches():
        callers = [started(insist) for _ in range(8)]
        assert [await caller.outcome() for caller in callers] == [299] * 8
    assert publisher.index == 0


def test_after_the_event_loop_has_ended_every_thread_is_told() -> None:
    """D18."""
    for backend in ("trio", "asyncio"):

        async def main() -> EventPublisher:
            async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
                return publisher

        publisher = anyio.run(main, backend=backend)
        with pytest.raises(ClosedResourceError):
            publisher.publish_from_thread([event(1, "web")])
        with pytest.raises(ClosedResourceError):
            publisher.publish([event(1, "web")])
        caller = started(publisher.publish_from_thread, [event(1, "web")])
        with pytest.raises(ClosedResourceError):
            caller.result.result(PATIENCE)


async def test_threads_that_wait_while_the_publisher_stops_are_released() -> None:
    """D16, D18: each has been published or refused, and knows which."""
    for _ in range(10):
        async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
            about_to_wait = threading.Barrier(5)

            def events(index: int, barrier: threading.Barrier = about_to_wait) -> Iterator[Event[Health]]:
                yield event(index, "web")
                barrier.wait(PATIENCE)

            callers = [started(publisher.publish_from_thread, events(index)) for index in (1, 2, 3, 4)]
            about_to_wait.wait(PATIENCE)  # holds the event loop up: they wait for it, or are just about to
        published = 0
        for caller in callers:
            try:
                await caller.outcome()
                published += 1
            except (ClosedResourceError, InvalidCommitError):
                pass
        assert (published > 0) == (publisher.index > 0)
        assert published <= publisher.index


async def test_threads_that_never_cease_to_publish_do_not_hold_up_a_stop() -> None:
    """D10, D16."""
    indexes = itertools.count(1)
    publishers: list[EventPublisher] = []

    def write() -> None:
        while True:
            with suppress(InvalidCommitError):
                publishers[0].publish_from_thread([event(next(indexes), "web")])

    async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
        publishers.append(publisher)
        callers = [started(write) for _ in range(3)]
        while publisher.index < 50:
            await anyio.lowlevel.checkpoint()
    for caller in callers:
        with pytest.raises(ClosedResourceError):
            await caller.outcome()


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_what_many_threads_publish_at_once_is_taken_in_portions() -> None:
    """U31, D15: the loop has its turn in between, and each thread is answered."""
    threads = 200

    class Counted(Health):
        @property
        @override
        def subject(self) -> Subject:
            seen.count()
            return Subject("web")

    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1, history=threads) as publisher:
        await quiet()
        arrived = threading.Semaphore(0)

        def commit(number: int) -> Iterator[Event[Health]]:
            yield Event(HEALTH, 2 + number, Counted("web"))
            arrived.release()  # read to its end: it is put in next

        def publish(number: int) -> None:
            with suppress(InvalidCommitError):  # a greater index came first
                publisher.publish_from_thread(commit(number))

        with stretches(calls=False) as seen:
            callers = [started(publish, number) for number in range(threads)]
            for _ in range(threads):  # the event loop does nothing else meanwhile
                assert arrived.acquire(timeout=PATIENCE)
            for caller in callers:
                await caller.outcome()
        assert 0 < seen.most_counted <= 64
        assert publisher.index == threads + 1


async def test_another_thread_may_take_statistics_while_thousands_read_what_a_stopped_publisher_left() -> (
    None
):
    """U18, D5."""
    is_over = threading.Event()

    def watch(publisher: EventPublisher) -> None:
        while not is_over.is_set():
            publisher.statistics()

    with hasty_switches():
        async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
            many = [publisher.subscribe(LIVE) for _ in range(4_000)]
            publisher.publish([event(2, "web")])
            watcher = started(watch, publisher)
        for each in many:
            assert each.receive_nowait().index == 2
            with pytest.raises(SubscriptionForceClosed):
                each.receive_nowait()
        is_over.set()
        await watcher.outcome()
    assert publisher.statistics().subscriptions == 0


async def test_the_thread_of_the_event_loop_may_give_a_commit_without_events_too() -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        publisher.publish_from_thread([], index=7)
        assert publisher.index == 7


@on_trio
async def test_what_ends_the_program_ends_it_also_when_a_thread_has_published_it() -> None:
    """The thread gets it too, and does not wait for ever."""

    class Ending:
        @property
        def subject(self) -> str:
            raise SystemExit(3)

    with pytest.raises(BaseExceptionGroup) as ended:
        async with open_publisher({HEALTH: Catalogue().snapshot}) as publisher:
            caller = started(publisher.publish_from_thread, [Event(HEALTH, 1, Ending())])
            await anyio.sleep_forever()
    assert ended.group_contains(SystemExit)
    with pytest.raises(SystemExit):
        await caller.outcome()


async def test_what_another_thread_looks_at_while_a_reader_moves_leaves_no_trace() -> None:
    """Between two feeds a position means nothing; the peak lag would keep that for ever."""
    looked: list[int] = []

    def look() -> None:
        looked.append(subscription.statistics().lag)

    def profile(frame: FrameType, what: str, _: object) -> None:
        if what == "call" and frame.f_code.co_name == "_leap":
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    store = Catalogue()
    store.commit(("web", "1"))
    async with open_publisher({HEALTH: store.snapshot}, index=1) as publisher:
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "w", prefix=True))
        await quiet()
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            got = kinds(ready(subscription))
        finally:
            sys.setprofile(before)
        assert got == ["1:web=1", "eos@1"]
        assert looked
        assert min(looked) >= 0
        assert subscription.statistics().peak_lag == 2


async def test_what_is_to_be_finished_is_listed_in_the_thread_that_gives_it() -> None:
    """As the events are."""
    listed: list[int] = []

    def subjects() -> Iterator[tuple[Topic[Health], str]]:
        listed.append(threading.get_ident())
        yield HEALTH, "web"

    def publish() -> int:
        publisher.publish_from_thread((), index=2, finish=subjects())
        return threading.get_ident()

    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        thread = await anyio.to_thread.run_sync(publish)
        assert listed == [thread]
        with pytest.raises(EndOfSubject):
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1)).receive_nowait()
